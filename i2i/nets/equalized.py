"""What the networks of Karras et al. are built from: equalized learning rates, the resampling filter,
statistics over a batch."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require

# The filter of every resampling.  Karras et al. 2019, section 3, following Zhang 2019.
TAPS = (1, 3, 3, 1)
GAIN = math.sqrt(2)     # Keeps the variance of what passes a (leaky) ReLU.  He et al. 2015, equation 10.
SLOPE = 0.2             # Of leaky ReLUs below 0.


def cast_like(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off: what is computed inside has the type of its inputs, not that of the step around it."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


def to_float32(x: Tensor) -> Tensor:
    """In single precision at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def leaky_relu(x: Tensor, gain: float = GAIN) -> Tensor:
    """Leaky ReLU times a gain, as StyleGAN2; gain 1 where the weights carry it (progressive growing,
    StyleGAN)."""
    x = F.leaky_relu(x, SLOPE)
    return x if gain == 1 else x * gain


# ---------------------------------------------------------------------------------------------- the
# resampling filter

@lru_cache
def _taps(dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        # Once: a copy to a GPU makes the program wait.
        line = torch.tensor(TAPS, dtype=dtype, device=device) / sum(TAPS)
        return torch.outer(line, line)


def _of(x: Tensor) -> Tensor:
    return _taps(x.dtype, x.device).expand(x.shape[1], 1, -1, -1)


class _Filter(torch.autograd.Function):
    """The filter over every channel.  Its backward is its adjoint and the other way round, so a second
    derivative costs what the first does; that of a depthwise convolution of torch takes up to twenty times as
    long on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, padding: int) -> Tensor:
        """NCHW -> NChw"""
        ctx.how = stride, padding
        return F.conv2d(x, _of(x), stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """NChw -> NCHW"""
        return _Adjoint.apply(grad, *ctx.how), None, None


class _Adjoint(torch.autograd.Function):
    """The transposed filter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: int, padding: int) -> Tensor:
        """NChw -> NCHW"""
        ctx.how = stride, padding
        return F.conv_transpose2d(x, _of(x), stride=stride, padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """NCHW -> NChw"""
        return _Filter.apply(grad, *ctx.how), None, None


def blur(x: Tensor, padding: int) -> Tensor:
    """Filtered, after padding with zeros on each side.  NCHW -> NC(H + 2 padding - 3)(W + 2 padding - 3)"""
    with cast_like(x):
        return _Filter.apply(x, 1, padding)


def halved(x: Tensor) -> Tensor:
    """Filtered, every second pixel kept; zeros outside.  NCHW -> NC(H/2)(W/2), H and W even"""
    with cast_like(x):
        return _Filter.apply(x, 2, 1)


def doubled(x: Tensor) -> Tensor:
    """Zeros between the pixels, filtered, times 4: bilinear, with zeros outside.  NCHW -> NC(2H)(2W)"""
    with cast_like(x):
        return _Adjoint.apply(x, 2, 1) * 4


# ---------------------------------------------------------------------------------------------- layers

class EqualLinear(nn.Module):
    """Linear, weights N(0, 1) scaled at run time by gain / sqrt(fan in): equal learning rates under Adam
    (Karras et al. 2018, section 4.1).

    Weights start as N(0, 1 / lr_multiplier^2) and act multiplied by it, as does the bias: they learn so many
    times as fast. `bias` is its first value, None for none.
    """

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0, bias: float | None = 0.0,
                 lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.coefficient, self.lr_multiplier = gain * lr_multiplier / math.sqrt(in_features), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """N(in) -> N(out)"""
        return F.linear(x, self.weight * self.coefficient, self._bias())

    def column(self, index: Tensor) -> Tensor:
        """The output for the one-hot vector of each index, without making it.  N int64 -> N(out)"""
        out = F.embedding(index, self.weight.t()) * self.coefficient
        bias = self._bias()
        return out if bias is None else out + bias

    def _bias(self) -> Tensor | None:
        return self.bias if self.bias is None or self.lr_multiplier == 1 else self.bias * self.lr_multiplier


class EqualConv(nn.Module):
    """Convolution, weights N(0, 1) scaled at run time by gain / sqrt(fan in).  Karras et al. 2018, section
    4.1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1,
                 padding: int | None = None, gain: float = 1.0,
                 bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.coefficient, self.stride = gain / math.sqrt(in_channels * kernel**2), stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'hw"""
        return F.conv2d(x, self.weight * self.coefficient, self.bias, self.stride, self.padding)


class PixelNorm(nn.Module):
    """Each pixel's vector of channels scaled to a mean square of 1.  Karras et al. 2018, section 4.2; of z,
    Karras et al. 2019."""

    def forward(self, x: Tensor) -> Tensor:
        """NC… -> NC…"""
        return x * (to_float32(x).square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)


class MinibatchStd(nn.Module):
    """One more channel: how much the images of a group differ, one number for each group.  Karras et al.
    2018, section 3.

    Groups have `group` images, or where that does not divide the batch fewer, or all of them where nothing
    does.  Image i is in the group of i modulo their number, as in the reference implementation.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        require(group >= 2, "discriminator.group", group, "2 or more images, or 0 for none")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> N(C + 1)HW"""
        n = len(x)
        size = next((size for size in range(min(self.group, n), 1, -1) if n % size == 0), n)
        groups = to_float32(x).unflatten(0, (size, n // size))
        # One number for each group.
        std = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
        return torch.cat([x, std.repeat(size)[:, None, None, None].to(x.dtype).expand(-1, 1, *x.shape[2:])],
                         1)
