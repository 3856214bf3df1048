"""Reflection padding to the sizes a network accepts."""

from __future__ import annotations

import torch
from torch import Tensor

from i2i.nets.padding import reflect_index


def pad_to_multiple(x: Tensor, multiple: int, minimum: int = 1) -> tuple[Tensor, int, int]:
    """Pad height and width to a multiple, and to at least `minimum`, by reflection, half on each side.

    Unlike in `torch.nn.functional.pad`, it may be wider than the image, which is then reflected repeatedly.

    Returns:
        The padded (N, C, H', W'), and the rows and columns added at the top and at the left.
    """
    rows, top = _reflected_positions(x.shape[-2], multiple, minimum, x.device)
    columns, left = _reflected_positions(x.shape[-1], multiple, minimum, x.device)
    if len(rows) != x.shape[-2]:
        x = x[..., rows, :]
    if len(columns) != x.shape[-1]:
        x = x[..., columns]
    return x, top, left


def _reflected_positions(size: int, multiple: int, minimum: int, device: torch.device) -> tuple[Tensor, int]:
    extra = -(-max(size, minimum) // multiple) * multiple - size
    before = extra // 2
    positions = torch.arange(-before, size + extra - before, device=device)
    return reflect_index(positions, size), before
