"""Losses: functions of tensors, with citations.  They know no networks.  Importing the room registers its
pieces."""

from i2i.losses import adversarial, feature_matching, path_length, penalties

__all__ = ["adversarial", "feature_matching", "path_length", "penalties"]
