"""Images that a discriminator judges as one.  Lin, Khetan, Fanti and Oh 2018 (PacGAN, arXiv:1712.04086),
section 2."""

from __future__ import annotations

import torch
from torch import Tensor

from i2i.errors import require


def packed(images: Tensor, m: int) -> Tensor:
    """Each m images in a row joined on their channels.  NCHW -> (N/m)(mC)HW"""
    if m == 1:
        return images
    require(len(images) % m == 0, "pack", m,
            f"a divisor of the number of images that a process has in a step ({len(images)})")
    return images.reshape(len(images) // m, m * images.shape[1], *images.shape[2:])


def unpacked(packs: Tensor, m: int) -> Tensor:
    """The opposite.  N(mC)HW -> (mN)CHW"""
    return packs if m == 1 else packs.reshape(m * len(packs), packs.shape[1] // m, *packs.shape[2:])


def with_neighbors(images: Tensor, m: int) -> Tensor:
    """Each image with the m - 1 after it, those after the last being the first, so that there is one pack for
    each.  NCHW -> N(mC)HW"""
    return torch.cat([images.roll(-i, 0) for i in range(m)], 1)
