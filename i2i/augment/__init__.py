"""Differentiable augmentation of what the discriminator sees.  Importing it registers its components."""

from i2i.augment import ada, base, diffaugment, instance_noise, kornia

__all__ = ["ada", "base", "diffaugment", "instance_noise", "kornia"]
