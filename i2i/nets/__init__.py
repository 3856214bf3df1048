"""Networks: NCHW in, NCHW images or logits out.  They know no losses and no data.  Importing the room registers its pieces."""

from i2i.nets import dcgan, latent, mlp, norms, parametrisations, patch, pool, progressive, resnet, sagan, stylegan, stylegan2, unet, unrolling

__all__ = ["dcgan", "latent", "mlp", "norms", "parametrisations", "patch", "pool", "progressive", "resnet", "sagan", "stylegan", "stylegan2", "unet",
           "unrolling"]
