"""Layers of progressive GAN, StyleGAN and StyleGAN2: equalized learning rates, pixel norm."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.nets.precision import to_float32

GAIN = math.sqrt(2)     # Preserves the variance through a ReLU.  He et al. 2015, equation 10.
NEGATIVE_SLOPE = 0.2


def leaky_relu(x: Tensor, gain: float = GAIN) -> Tensor:
    """Leaky ReLU times a gain, as in StyleGAN2; 1 where the weights include it (StyleGAN)."""
    x = F.leaky_relu(x, NEGATIVE_SLOPE)
    return x if gain == 1 else x * gain


class EqualizedLinear(nn.Module):
    """Linear layer with N(0, 1) weights, times gain / sqrt(fan in) in use.  Karras et al. 2018, section 4.1.

    `bias`: its initial value, None for no bias.  `lr_multiplier`: relative learning rate; weights start at
    N(0, 1 / lr_multiplier^2) and are scaled by it, as is the bias.
    """

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0, bias: float | None = 0.0,
                 lr_multiplier: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((out_features,), bias / lr_multiplier))
        self.scale, self.lr_multiplier = gain * lr_multiplier / math.sqrt(in_features), lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)"""
        return F.linear(x, self.weight * self.scale, self._bias())

    def one_hot(self, index: Tensor) -> Tensor:
        """The output for one-hot inputs, given by index.  (N) -> (N, out_features)"""
        out = F.embedding(index, self.weight.t()) * self.scale
        bias = self._bias()
        return out if bias is None else out + bias

    def _bias(self) -> Tensor | None:
        return self.bias if self.bias is None or self.lr_multiplier == 1 else self.bias * self.lr_multiplier


class EqualizedConv2d(nn.Module):
    """Convolution of N(0, 1) weights times gain / sqrt(fan in) in use.  Karras et al. 2018, section 4.1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1,
                 padding: int | None = None, gain: float = 1.0, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.scale, self.stride = gain / math.sqrt(in_channels * kernel**2), stride
        self.padding = kernel // 2 if padding is None else padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class PixelNorm(nn.Module):
    """Scale each pixel's channels, or z, to a mean square of 1.  Karras et al. 2018, section 4.2."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)"""
        return x * (to_float32(x).square().mean(1, keepdim=True) + 1e-8).rsqrt().to(x.dtype)
