"""Losses and penalties, with citations.  Importing the package registers its components."""

from i2i.losses import adversarial, feature_matching, path_length, penalties

__all__ = ["adversarial", "feature_matching", "path_length", "penalties"]
