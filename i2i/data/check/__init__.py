"""Checks of a data set before training: layout, counts, damaged files, duplicates and leaks."""
