"""Downsampling and upsampling with low-pass filters: [1, 3, 3, 1] (Karras et al. 2019, section 3) and
[1, 2, 1] (Zhang 2019)."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
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


class BilinearUpsample(nn.Module):
    """`nn.Upsample(scale_factor=2, mode="bilinear")`, whose gradient is not deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, 2H, 2W)"""
        with fp32_island(x):
            x = torch.cat([x[..., :1], x, x[..., -1:]], -1)
            x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)
            return _Filter.apply(x, 2, 3, True) * 4


class BlurPool(nn.Module):
    """Blur with [1, 2, 1], image borders reflected, and keep every second pixel.  Zhang 2019.

    As sums of slices: on a CPU up to four times as fast as a depthwise convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)); H and W 2 or more"""
        x = _blur_pool(x[..., ::2], x[..., 1::2], -1)
        return _blur_pool(x[..., ::2, :], x[..., 1::2, :], -2)


def _blur_pool(even: Tensor, odd: Tensor, dim: int) -> Tensor:
    n = even.shape[dim]
    neighbors = torch.cat([odd.narrow(dim, 0, 1), odd, odd.narrow(dim, -1, 1)], dim)
    return even / 2 + (neighbors.narrow(dim, 0, n) + neighbors.narrow(dim, 1, n)) / 4
