"""Recipes: one paper, one file.  Importing the package registers the recipes and all their components."""

from i2i import augment, losses, nets
from i2i.recipes import (
    autoregressive,
    bbdm,
    cut,
    cyclegan,
    diffusion,
    flow,
    gan,
    infogan,
    pix2pix,
    presets,
    rectified_flow,
    vae,
)

__all__ = ["augment", "autoregressive", "bbdm", "cut", "cyclegan", "diffusion", "flow", "gan", "infogan",
           "losses", "nets", "pix2pix", "presets", "rectified_flow", "vae"]
