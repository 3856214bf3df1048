"""Reflection at image borders, with gradients that are deterministic on every device."""

import torch
from torch import Tensor, nn


def reflect_index(index: Tensor, size: int) -> Tensor:
    """Map coordinates into [0, size - 1] by reflection at the outermost pixels, as often as needed."""
    period = index.new_full((), torch.sym_max(2 * (size - 1), 1))
    index = index.remainder(period)
    return torch.minimum(index, period - index)


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
