"""U-Net generator of pix2pix."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError, require
from i2i.nets import norms
from i2i.nets.blocks import Conv, init_weights, upsample
from i2i.nets.recompute import checkpointed
from i2i.registry import register


def default_depth(size: tuple[int, int]) -> int:
    """How often both sides can be halved: log2 of the size where it is a power of two (8 at 256)."""
    depth = 0
    while all(side % 2 ** (depth + 1) == 0 for side in size):
        depth += 1
    return depth


def encode(down: nn.Module, x: Tensor) -> Tensor:
    """One layer of the encoder but the first.  NCHW -> NC'(H/2)(W/2)"""
    return down(F.leaky_relu(x, 0.2))


def decode(up: nn.Module, *maps: Tensor) -> Tensor:
    """One layer of the decoder, of the skip and the map before it.  NChw … -> NC'(2h)(2w)"""
    return up(F.relu(torch.cat(maps, 1) if len(maps) > 1 else maps[0]))


@register("generator", "unet")
class UNet(nn.Module):
    """Encoder and decoder with skip connections.  Isola et al. 2017 (arXiv:1611.07004), section 6.1.1.

    `depth` halvings (0: as many as the size allows), C`width` doubling to at most eight times itself, no norm
    on the first and the innermost layer, dropout in the innermost decoder layers: three of eight as in the
    paper, one fewer for each layer fewer. `dropout_skip` moves those layers outwards: 1 is what
    pytorch-CycleGAN-and-pix2pix does.
    """

    recompute = False

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: int = 64,
                 depth: int = 0,
                 norm: str = "batch", dropout: float = 0.5, dropout_skip: int = 0,
                 up: Literal["transposed", "resize"] = "transposed") -> None:
        super().__init__()
        depth = depth or default_depth(size)
        require(width >= 1, "generator.width", width, "1 or more")
        require(0 <= dropout < 1, "generator.dropout", dropout, "0 or more and less than 1")
        if not 2 <= depth < min(size).bit_length() or any(side % 2**depth for side in size):
            raise RequestError(f"a unet of depth {depth} cannot halve {size[0]}x{size[1]} images that often; "
                               "accepted: sizes divisible by 2^depth with depth 2 or more (data.size, "
                               "generator.depth)")
        self.multiple = 2**depth
        widths = [width * min(2**i, 8) for i in range(depth)]
        bias = norms.needs_bias(norm)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, out in enumerate(widths):
            layers: list[nn.Module] = [Conv(widths[i - 1] if i else in_channels, out, 4, 2, 1, bias=bias)]
            if 0 < i < depth - 1:
                layers.append(norms.make(norm, out))
            self.down.append(nn.Sequential(*layers))
        # Counted from the innermost decoder layer.
        dropped = range(dropout_skip, dropout_skip + max(1, depth - 5))
        for j, i in enumerate(reversed(range(depth))):
            into = widths[i] * (1 if i == depth - 1 else 2)
            out = widths[i - 1] if i else out_channels
            layers = [upsample(up, into, out, kernel=4, bias=bias or i == 0)]
            if i:
                layers.append(norms.make(norm, out))
                if j in dropped and dropout:
                    layers.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*layers))
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW in [-1, 1] -> NC'HW in [-1, 1]; H and W divisible by `multiple`"""
        skips = []
        for i, down in enumerate(self.down):
            x = checkpointed(self, encode, down, x) if i else down(x)
            skips.append(x)
        for i, up in enumerate(self.up):
            x = checkpointed(self, decode, up, skips[-1 - i], x) if i else checkpointed(self, decode, up, x)
        return torch.tanh(x)
