"""Recipes: one paper, one file.  Importing the package registers the recipes and all their components."""

from i2i import augment, losses, nets
from i2i.recipes import cut, cyclegan, flow, gan, infogan, pix2pix, presets, vae

__all__ = ["augment", "cut", "cyclegan", "flow", "gan", "infogan", "losses", "nets", "pix2pix", "presets",
           "vae"]
