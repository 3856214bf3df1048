"""Convolutions, upsampling and initialization shared by several networks."""

import math
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.norms import AFFINE
from i2i.nets.resampling import BilinearUpsample

# Up to this many output positions one matrix product replaces the CPU's convolution kernels: it is faster
# below 64 with any number of channels, and up to 256 with 512 of them (bench/convolution.py).
MAX_GEMM_POSITIONS = 128
MAX_LAYERS = 1000       # Of a kind in one network: beyond what fits into any memory at a useful width.


class GemmConv2d(nn.Conv2d):
    """Convolution as one matrix product where that is up to ten times as fast: few positions on a CPU."""

    gemm = True

    def prepare_export(self) -> None:
        """Let the graph not depend on the number of positions."""
        self.gemm = False

    def forward(self, x: Tensor) -> Tensor:
        positions = x.shape[0] * x.shape[2] * x.shape[3]
        few = self.gemm and positions <= MAX_GEMM_POSITIONS * self.stride[0] * self.stride[1]
        if x.device.type != "cpu" or not few:
            return super().forward(x)
        padding = cast(tuple[int, int], self.padding)
        h, w = ((side + 2 * padding[i] - self.kernel_size[i]) // self.stride[i] + 1
                for i, side in enumerate(x.shape[2:]))
        columns = F.unfold(x, self.kernel_size, padding=padding, stride=self.stride)
        out = (self.weight.flatten(1) @ columns).unflatten(2, (h, w))
        return out if self.bias is None else out + self.bias[:, None, None]


class InputSkip(GemmConv2d):
    """A last 3x3 convolution that sees the generator's input beside its features, to copy details."""

    def __init__(self, in_channels: int, channels: int, out_channels: int) -> None:
        super().__init__(in_channels + channels, out_channels, 3, 1, 1)

    def forward(self, image: Tensor, features: Tensor) -> Tensor:        # type: ignore[override]
        """(N, C, H, W), (N, c, H, W) -> (N, C', H, W) in [-1, 1]"""
        return torch.tanh(super().forward(torch.cat([image, features], 1)))


class GemmConvTranspose2d(nn.ConvTranspose2d):
    """The transposed counterpart of `GemmConv2d`."""

    gemm = True

    def prepare_export(self) -> None:
        """Let the graph not depend on the number of positions."""
        self.gemm = False

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        few = self.gemm and x.shape[0] * x.shape[2] * x.shape[3] <= MAX_GEMM_POSITIONS
        if x.device.type != "cpu" or not few:
            return super().forward(x, output_size)
        padding = cast(tuple[int, int], self.padding)
        size = tuple((side - 1) * s - 2 * p + k + o for side, s, p, k, o in zip(
            x.shape[2:], self.stride, padding, self.kernel_size, self.output_padding, strict=True))
        columns = self.weight.flatten(1).t() @ x.flatten(2)
        out = F.fold(columns, size, self.kernel_size, padding=padding, stride=self.stride)
        return out if self.bias is None else out + self.bias[:, None, None]


def upsample_layer(up: str, in_channels: int, out_channels: int, *, kernel: int, bias: bool) -> nn.Module:
    """A layer that doubles height and width.

    Args:
        up: `transposed`, a transposed convolution of size `kernel`, 3 or 4; or `resize`, nearest neighbor and
            a 3x3 convolution, which leaves no checkerboard pattern (Odena et al. 2016); or `bilinear` and a
            3x3 convolution, without aliases either (Zhang 2019).
    """
    if up == "transposed":
        return GemmConvTranspose2d(in_channels, out_channels, kernel, 2, 1, kernel % 2, bias=bias)
    return nn.Sequential(BilinearUpsample() if up == "bilinear" else nn.Upsample(scale_factor=2),
                         nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=bias))


def max_halvings(size: tuple[int, int]) -> int:
    """How often both sides can be halved without a remainder."""
    both = math.gcd(*size)
    return (both & -both).bit_length() - 1


def channels_per_level(player: str, width: int, levels: int, *, max_multiple: int = 8,
                       max_channels: int | None = None) -> list[int]:
    """Channels at each resolution, the highest first: `width`, doubled per level up to `max_channels`.

    The limit without `max_channels` is `max_multiple` times `width`.  `player`: for the error message.
    """
    require(max_channels is None or max_channels >= 1, f"{player}.max_channels", max_channels, "1 or more")
    require(1 <= width <= (max_channels or width), f"{player}.width", width,
            f"from 1 to {player}.max_channels ({max_channels})" if max_channels else "1 or more")
    return [min(width * 2**i, max_channels or max_multiple * width) for i in range(levels)]


@torch.no_grad()
def init_weights(network: nn.Module, weight_init: Callable[[Tensor], object] | None = None) -> nn.Module:
    """Initialize all convolutional and linear layers; their biases are 0.

    Args:
        network: changed in place.
        weight_init: initializes a weight in place.  Default: N(0, 0.02), and N(1, 0.02) for the gains of norm
            layers (Radford et al. 2016; Isola et al. 2017, section 6.2).
    """
    init = weight_init or partial(nn.init.normal_, std=0.02)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            init(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif weight_init is None and isinstance(module, AFFINE) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return network
