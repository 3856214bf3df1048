"""Networks and their parts: (N, C, H, W) images in, images or logits out.  Importing it registers all."""

# norms and progressive come with those that use them.
from i2i.nets import (
    dcgan,
    denoiser,
    encoders,
    fastgan,
    mlp,
    multiscale,
    patchgan,
    pix2pixhd,
    pixelcnn,
    priors,
    projected,
    realnvp,
    resnet,
    sagan,
    several_discriminators,
    spade,
    stylegan,
    stylegan2,
    unet,
    weight_norm,
)

__all__ = ["dcgan", "denoiser", "encoders", "fastgan", "mlp", "multiscale", "patchgan", "pix2pixhd",
           "pixelcnn", "priors", "projected", "realnvp", "resnet", "sagan", "several_discriminators",
           "spade", "stylegan", "stylegan2", "unet", "weight_norm"]
