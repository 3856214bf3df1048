"""Recipes: one paper, one file; the order of updates and nothing else.  Importing the room registers recipes and all they build from."""

from i2i import losses, nets
from i2i.recipes import pix2pix

__all__ = ["losses", "nets", "pix2pix"]
