"""Networks and their parts: (N, C, H, W) images in, images or logits out.  Importing the package registers
its components."""

from i2i.nets import (
    dcgan,
    mlp,
    norms,
    patchgan,
    priors,
    progressive,
    resnet,
    sagan,
    stylegan,
    stylegan2,
    unet,
    weight_norm,
)

__all__ = ["dcgan", "mlp", "norms", "patchgan", "priors", "progressive", "resnet", "sagan", "stylegan",
           "stylegan2", "unet", "weight_norm"]
