"""Blur, downsampling and upsampling with the filter [1, 3, 3, 1].  Karras et al. 2019, section 3."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.nets.precision import fp32_island

TAPS = (1, 3, 3, 1)


@lru_cache
def _kernel(dtype: torch.dtype, device: torch.device) -> Tensor:
    # Cached, as a copy to a GPU makes the program wait.
    with torch.inference_mode(False):
        line = torch.tensor(TAPS, dtype=dtype, device=device) / sum(TAPS)
        return torch.outer(line, line)


class _Filter(torch.autograd.Function):
    """The filter on every channel, or its transpose, which is the backward of the other: a second derivative
    costs as much as the first.  On a CPU up to twenty times as fast as torch's depthwise backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, padding: int, transposed: bool = False) -> Tensor:
        ctx.settings = stride, padding, not transposed
        convolve = F.conv_transpose2d if transposed else F.conv2d
        kernel = _kernel(x.dtype, x.device).expand(x.shape[1], 1, -1, -1)
        return convolve(x, kernel, stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _Filter.apply(grad, *ctx.settings), None, None, None


def blur(x: Tensor, padding: int) -> Tensor:
    """Filter after zero padding.  (N, C, H, W) -> (N, C, H + 2 padding - 3, W + 2 padding - 3)"""
    with fp32_island(x):
        return _Filter.apply(x, 1, padding)


def downsample(x: Tensor) -> Tensor:
    """Filter with zero padding and keep every second pixel.  (N, C, H, W) -> (N, C, H/2, W/2)"""
    with fp32_island(x):
        return _Filter.apply(x, 2, 1)


def upsample(x: Tensor) -> Tensor:
    """Insert zeros, filter, times 4: bilinear upsampling.  (N, C, H, W) -> (N, C, 2H, 2W)"""
    with fp32_island(x):
        return _Filter.apply(x, 2, 1, True) * 4
