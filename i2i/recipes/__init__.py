"""Recipes: one paper, one file; the order of updates and nothing else.  Importing the room registers recipes and all they build from."""

from i2i import losses, nets
from i2i.recipes import cyclegan, pix2pix

__all__ = ["cyclegan", "losses", "nets", "pix2pix"]
