"""Losses: functions of tensors, with citations.  They know no networks.  Importing the room registers its pieces."""

from i2i.losses import adversarial, path_length, penalties

__all__ = ["adversarial", "path_length", "penalties"]
