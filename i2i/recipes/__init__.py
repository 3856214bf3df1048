"""Recipes: one paper, one file; the order of updates and nothing else.  Importing the room registers recipes
and all they build from."""

from i2i import augment, losses, nets
from i2i.recipes import cyclegan, gan, infogan, pix2pix, presets

__all__ = ["augment", "cyclegan", "gan", "infogan", "losses", "nets", "pix2pix", "presets"]
