"""Losses and penalties, with citations.  Importing the package registers its components."""

from i2i.losses import adversarial, mode_seeking, path_length, penalties, perceptual

__all__ = ["adversarial", "mode_seeking", "path_length", "penalties", "perceptual"]
