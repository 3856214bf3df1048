"""ResNet generator of CycleGAN."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets import norms
from i2i.nets.blocks import ReflectPad, init_weights, upsample
from i2i.nets.recompute import run_stages
from i2i.registry import register


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions around a skip (He et al. 2016; Johnson et al. 2016), reflection padded."""

    def __init__(self, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        bias = norms.needs_bias(norm)
        self.layers = nn.Sequential(
            ReflectPad(1), nn.Conv2d(channels, channels, 3, bias=bias), norms.make(norm, channels), nn.ReLU(),
            nn.Dropout(dropout) if dropout else nn.Identity(),
            ReflectPad(1), nn.Conv2d(channels, channels, 3, bias=bias), norms.make(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        return x + self.layers(x)


@register("generator", "resnet")
class ResNet(nn.Module):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3.  Zhu et al. 2017 (arXiv:1703.10593), section
    7.2.

    `blocks` 0: nine from 256 pixels up, six below.
    """

    multiple = 4
    recompute = False
    smallest = 16       # Below, reflection has nothing left to reflect at the innermost layers.

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: int = 64,
                 blocks: int = 0,
                 norm: str = "instance", dropout: float = 0.0,
                 up: Literal["transposed", "resize"] = "transposed") -> None:
        super().__init__()
        blocks = blocks or (9 if min(size) >= 256 else 6)
        require(width >= 1, "generator.width", width, "1 or more")
        require(blocks >= 1, "generator.blocks", blocks, "0 (by size) or more")
        require(0 <= dropout < 1, "generator.dropout", dropout, "0 or more and less than 1")
        require(min(size) >= self.smallest and not any(side % 4 for side in size), "data.size",
                f"{size[0]}x{size[1]}",
                "multiples of 4 from 16 up, for generator=resnet")
        bias = norms.needs_bias(norm)
        layers: list[nn.Module] = [ReflectPad(3), nn.Conv2d(in_channels, width, 7, bias=bias),
                                   norms.make(norm, width), nn.ReLU()]
        for c in (width, 2 * width):
            layers += [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), norms.make(norm, 2 * c), nn.ReLU()]
        layers += [ResidualBlock(4 * width, norm, dropout) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            layers += [upsample(up, c, c // 2, kernel=3, bias=bias), norms.make(norm, c // 2), nn.ReLU()]
        layers += [ReflectPad(3), nn.Conv2d(width, out_channels, 7)]
        self.layers = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW in [-1, 1] -> NC'HW in [-1, 1]; H and W divisible by `multiple`"""
        return torch.tanh(run_stages(self, self.layers, (nn.ReLU, ResidualBlock), x))
