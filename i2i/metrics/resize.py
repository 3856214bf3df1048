"""How a picture is brought to the size of a feature network.  The choice moves the Fréchet distance, so every
result names it.

Parmar et al. 2022 (arXiv 2104.11222): resizing without a low-pass filter changes the distance by more than
methods differ. All take and give gray levels in 0 … 255, never rounded again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from i2i.images.formats import Array
from i2i.registry import register

Resize = Callable[[Array, int], Tensor]      # HWC uint8, side -> CHW float32


@register("resize", "clean")
def clean(image: Array, size: int) -> Tensor:
    """Pillow's bicubic with a low-pass filter, each channel as float32, clipped.  Parmar et al. 2022, section
    3.  HWC -> C size size"""
    channels = [np.asarray(Image.fromarray(image[..., i].astype(np.float32)).resize((size, size),
                                                                                    Image.Resampling.BICUBIC))
                for i in range(image.shape[2])]
    return torch.from_numpy(np.stack(channels).clip(0, 255))


@register("resize", "legacy-pytorch")
def legacy_pytorch(image: Array, size: int) -> Tensor:
    """torch's bilinear without a low-pass filter, half-pixel centers: as pytorch-fid resizes.  HWC -> C size
    size"""
    return F.interpolate(_chw(image)[None], (size, size), mode="bilinear", align_corners=False)[0]


@register("resize", "legacy-tf")
def legacy_tf(image: Array, size: int) -> Tensor:
    """TensorFlow 1's bilinear: no low-pass filter, output pixel i at i·in/out.  As the original FID code
    resizes.  HWC -> C size size"""
    x = _chw(image)
    for axis in (1, 2):
        at = torch.arange(size, dtype=torch.float32) * (x.shape[axis] / size)
        low = at.long().clamp(max=x.shape[axis] - 1)
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        share = (at - low).reshape((-1, 1) if axis == 1 else (-1,))
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def _chw(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()


def to_unit(levels: Tensor, mode: str) -> Tensor:
    """Gray levels 0 … 255 to about [-1, 1] as the code that each mode comes from does: 2x/255 - 1, or (x -
    128)/128."""
    return levels / 127.5 - 1 if mode == "legacy-pytorch" else (levels - 128) / 128
