"""Packing: a discriminator judges several images together.  Lin, Khetan, Fanti and Oh 2018 (PacGAN,
arXiv:1712.04086), section 2."""

from __future__ import annotations

import torch
from torch import Tensor

from i2i.errors import require


def pack_images(images: Tensor, m: int) -> Tensor:
    """Concatenate every m consecutive images along channels.  (N, C, H, W) -> (N/m, m C, H, W)"""
    require(len(images) % m == 0, "pack", m,
            f"a divisor of the number of images per process and step ({len(images)})")
    return images.reshape(len(images) // m, m * images.shape[1], *images.shape[2:])


def unpack_images(packs: Tensor, m: int) -> Tensor:
    """Inverse of `pack_images`.  (N, m C, H, W) -> (m N, C, H, W)"""
    return packs.reshape(m * len(packs), packs.shape[1] // m, *packs.shape[2:])


def pack_neighbors(images: Tensor, m: int) -> Tensor:
    """Pack each image with the m - 1 that follow it, cyclically.  (N, C, H, W) -> (N, m C, H, W)"""
    return torch.cat([images.roll(-i, 0) for i in range(m)], 1)
