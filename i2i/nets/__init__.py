"""Networks: NCHW in, NCHW images or logits out.  They know no losses and no data.  Importing the room registers its pieces."""

from i2i.nets import norms, patch, pool, resnet, unet

__all__ = ["norms", "patch", "pool", "resnet", "unet"]
