"""Evaluating sets of images, pairs and models."""
