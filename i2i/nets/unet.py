"""U-Net generator of pix2pix."""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import RequestError, require
from i2i.nets.blocks import (
    GemmConv2d,
    InputSkip,
    channels_per_level,
    init_weights,
    max_halvings,
    upsample_layer,
)
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Dropout, InputSkipChannels, Norm, Up, Width
from i2i.registry import register


def _encode(down: nn.Module, x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C', H/2, W/2)"""
    return down(F.leaky_relu(x, 0.2))


def _decode(up: nn.Module, *maps: Tensor) -> Tensor:
    """Skip and previous map, (N, C, H, W) each -> (N, C', 2H, 2W)"""
    return up(F.relu(torch.cat(maps, 1) if len(maps) > 1 else maps[0]))


@register("generator", "unet")
class UNet(nn.Module):
    """U-Net: encoder and decoder with skip connections.  Isola et al. 2017 (arXiv:1611.07004), section 6.1.1.

    No norm on the first and innermost layers; dropout in the innermost decoder layers, three of eight as in
    the paper and one fewer per layer fewer.
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: Width = 64,
                 depth: Annotated[int, Doc("Number of halvings; 0: as many as the size allows")] = 0,
                 norm: Norm = "batch", dropout: Dropout = 0.5, dropout_skip: Annotated[int, Doc(
                     "Layers by which dropout is moved outwards; 1 in pytorch-CycleGAN-and-pix2pix")] = 0,
                 up: Up = "transposed", input_skip: InputSkipChannels = 0) -> None:
        super().__init__()
        require(input_skip >= 0, "generator.input_skip", input_skip, "0 or more")
        depth = depth or max_halvings(size)
        require(0 <= dropout < 1, "generator.dropout", dropout, "0 or more and less than 1")
        if not 2 <= depth < min(size).bit_length() or any(side % 2**depth for side in size):
            raise RequestError(f"a unet of depth {depth} cannot halve {size[0]}x{size[1]} images that often; "
                               "accepted: sizes divisible by 2^depth with depth 2 or more (data.size, "
                               "generator.depth)")
        self.multiple = 2**depth
        channels = channels_per_level("generator", width, depth)
        bias = needs_bias(norm)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, out in enumerate(channels):
            inputs = channels[i - 1] if i else in_channels
            layers: list[nn.Module] = [GemmConv2d(inputs, out, 4, 2, 1, bias=bias)]
            if 0 < i < depth - 1:
                layers.append(make_norm(norm, out))
            self.down.append(nn.Sequential(*layers))
        # Decoder layers with dropout, counted from the innermost.
        with_dropout = range(dropout_skip, dropout_skip + max(1, depth - 5))
        for j, i in enumerate(reversed(range(depth))):
            inputs = channels[i] * (1 if i == depth - 1 else 2)
            out = channels[i - 1] if i else input_skip or out_channels
            layers = [upsample_layer(up, inputs, out, kernel=4, bias=bias or i == 0)]
            if i:
                layers.append(make_norm(norm, out))
                if j in with_dropout and dropout:
                    layers.append(nn.Dropout(dropout))
            self.up.append(nn.Sequential(*layers))
        self.last = InputSkip(in_channels, input_skip, out_channels) if input_skip else None
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W), both in [-1, 1]; H and W divisible by `multiple`"""
        image, skips = x, []
        for i, down in enumerate(self.down):
            x = checkpoint_stage(self, _encode, down, x) if i else down(x)
            skips.append(x)
        for i, up in enumerate(self.up):
            maps = (skips[-1 - i], x) if i else (x,)
            x = checkpoint_stage(self, _decode, up, *maps)
        return torch.tanh(x) if self.last is None else self.last(image, F.relu(x))
