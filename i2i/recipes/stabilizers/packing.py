"""Packing: a discriminator that sees several images as one sample.  Lin et al. 2018 (PacGAN), section 2."""

import torch
from torch import Tensor

from i2i.errors import require


def pack_images(images: Tensor, pack: int) -> Tensor:
    """Join consecutive images on their channels.  `(N, C, H, W)` -> `(N / pack, pack * C, H, W)`"""
    if pack == 1:
        return images
    require(len(images) % pack == 0, "pack", pack,
            f"a divisor of the number of images per process and step ({len(images)})")
    return images.reshape(len(images) // pack, pack * images.shape[1], *images.shape[2:])


def unpack_images(packs: Tensor, pack: int) -> Tensor:
    """Undo `pack_images`.  `(N, pack * C, H, W)` -> `(pack * N, C, H, W)`"""
    if pack == 1:
        return packs
    return packs.reshape(pack * len(packs), packs.shape[1] // pack, *packs.shape[2:])


def pack_neighbors(images: Tensor, pack: int) -> Tensor:
    """The image and the `pack - 1` after it, cyclically.  `(N, C, H, W)` -> `(N, pack * C, H, W)`"""
    return torch.cat([images.roll(-i, 0) for i in range(pack)], 1)
