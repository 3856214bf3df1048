"""Networks: NCHW in, NCHW images or logits out.  They know no losses and no data.  Importing the room
registers its pieces."""

from i2i.nets import (
    dcgan,
    latent,
    mlp,
    norms,
    patch,
    pool,
    progressive,
    resnet,
    sagan,
    stylegan,
    stylegan2,
    unet,
    unrolling,
    weight_norm,
)

__all__ = ["dcgan", "latent", "mlp", "norms", "patch", "pool", "progressive", "resnet", "sagan", "stylegan",
           "stylegan2", "unet",
           "unrolling", "weight_norm"]
