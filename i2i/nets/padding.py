"""Reflection at image borders, with gradients that are deterministic on every device."""

from typing import cast

import torch
from torch import Tensor, nn


def reflect_index(index: Tensor, size: int) -> Tensor:
    """Map coordinates into [0, size - 1] by reflection at the outermost pixels, as often as needed."""
    period = index.new_full((), torch.sym_max(2 * (size - 1), 1))
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def pad_to_multiple(x: Tensor, multiple: int, minimum: int = 1) -> tuple[Tensor, int, int]:
    """Pad height and width to a multiple, and to at least `minimum`, by reflection, half on each side.

    Unlike in `torch.nn.functional.pad`, it may be wider than the image, which is then reflected repeatedly.
    Returns the padded (N, C, H', W'), and the rows and columns added at the top and at the left.
    """
    added = []
    for dim in (-2, -1):
        size = x.shape[dim]
        extra = (torch.sym_max(size, minimum) + multiple - 1) // multiple * multiple - size
        added.append(cast(int, extra // 2))
        if isinstance(extra, torch.SymInt) or extra:        # A symbol where the model is exported.
            positions = torch.arange(-added[-1], size + extra - added[-1], device=x.device)
            index = reflect_index(positions, size)
            x = x[..., index, :] if dim == -2 else x[..., index]
    return x, added[0], added[1]


class ReflectionPad2d(nn.Module):
    """Reflection padding from flipped slices; `nn.ReflectionPad2d` is not deterministic on CUDA."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H + 2 width, W + 2 width)"""
        w = self.width
        x = torch.cat([x[..., 1:w + 1].flip(-1), x, x[..., -w - 1:-1].flip(-1)], -1)
        return torch.cat([x[..., 1:w + 1, :].flip(-2), x, x[..., -w - 1:-1, :].flip(-2)], -2)
