"""Evaluation of image sets, pairs and models, with a protocol stamp that makes results comparable."""
