"""Resize an image to the input of a feature network.

The choice of the resize moves the Fréchet distance by more than methods differ (Parmar et al. 2022, arXiv
2104.11222), so every result names it.  All modes return levels in [0, 255] that are not rounded.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from i2i.images.format import Array
from i2i.registry import register

Resize = Callable[[Array, int], Tensor]      # (H, W, C) uint8, side -> (C, side, side) float32


@register("resize", "clean")
def clean(image: Array, size: int) -> Tensor:
    """Pillow's bicubic with a low-pass filter, in float32, clipped.  Parmar et al. 2022, section 3."""
    channels = [Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
                for channel in image.transpose(2, 0, 1).astype(np.float32)]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]).clip(0, 255))


@register("resize", "legacy-pytorch")
def legacy_pytorch(image: Array, size: int) -> Tensor:
    """PyTorch's bilinear without a low-pass filter, half-pixel centers, as in pytorch-fid."""
    return F.interpolate(_to_chw(image)[None], (size, size), mode="bilinear", align_corners=False)[0]


@register("resize", "legacy-tf")
def legacy_tf(image: Array, size: int) -> Tensor:
    """TensorFlow 1's bilinear without a low-pass filter, pixel i at i·in/out, as in the original FID code."""
    x = _to_chw(image)
    for axis in (1, 2):
        position = torch.arange(size, dtype=torch.float32) * (x.shape[axis] / size)
        low = position.long().clamp(max=x.shape[axis] - 1)
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        weight = (position - low).reshape((-1, 1) if axis == 1 else (-1,))
        x = x.index_select(axis, low) * (1 - weight) + x.index_select(axis, high) * weight
    return x


def _to_chw(image: Array) -> Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float()


def normalize(levels: Tensor, mode: str) -> Tensor:
    """Levels [0, 255] to about [-1, 1] as the code behind each mode does: 2x/255 - 1, or (x - 128)/128."""
    return levels / 127.5 - 1 if mode == "legacy-pytorch" else (levels - 128) / 128
