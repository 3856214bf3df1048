"""Reflection padding to the sizes a network accepts."""

from __future__ import annotations

import torch
from torch import Tensor

from i2i.nets.padding import reflect_index


def pad_to_multiple(x: Tensor, multiple: int, minimum: int = 1) -> tuple[Tensor, int, int]:
    """Pad height and width to a multiple, and to at least `minimum`, by reflection, half on each side.

    Unlike in `torch.nn.functional.pad`, it may be wider than the image, which is then reflected repeatedly.
    Returns the padded (N, C, H', W'), and the rows and columns added at the top and at the left.
    """
    added = []
    for dim in (-2, -1):
        size = x.shape[dim]
        extra = -(-max(size, minimum) // multiple) * multiple - size
        added.append(extra // 2)
        if extra:
            positions = torch.arange(-added[-1], size + extra - added[-1], device=x.device)
            index = reflect_index(positions, size)
            x = x[..., index, :] if dim == -2 else x[..., index]
    return x, added[0], added[1]
