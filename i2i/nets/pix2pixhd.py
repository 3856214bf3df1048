"""Coarse-to-fine generator of pix2pixHD."""

from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, init_weights, max_halvings, upsample_layer
from i2i.nets.gradient_checkpointing import checkpoint_sequential
from i2i.nets.multiscale import halve
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Dropout, Norm, Up, Width
from i2i.nets.padding import ReflectionPad2d
from i2i.nets.resnet import ResidualBlock
from i2i.registry import register

MAX_HALVINGS = 8        # Of the global generator, and in front of it.


@register("generator", "pix2pixhd")
class Pix2PixHD(nn.Module):
    """Global generator and local enhancers, each at twice the resolution of the one before.  Wang et al. 2018
    (pix2pixHD, arXiv:1711.11585), section 3.1.

    The sum of an enhancer's own features of the image and of the last features of the coarser network goes
    through its residual blocks.  All are trained together; the paper trains the global generator first.
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: Width = 32,
                 enhancers: Annotated[int, Doc(
                     "Local enhancers; 0: the global generator alone, as for images up to 512 pixels")] = 1,
                 depth: Annotated[int, Doc(
                     "Halvings in the global generator; 0: four, or fewer under 256 pixels")] = 0,
                 blocks: Annotated[int, Doc("Residual blocks of the global generator")] = 9,
                 enhancer_blocks: Annotated[int, Doc("Residual blocks of each enhancer")] = 3,
                 norm: Norm = "instance", dropout: Dropout = 0.0, up: Up = "transposed") -> None:
        super().__init__()
        require(width >= 1, "generator.width", width, "1 or more")
        require(0 <= enhancers <= MAX_HALVINGS, "generator.enhancers", enhancers, f"0 to {MAX_HALVINGS}")
        # Eight pixels or more at the innermost layers, unless the images are smaller.
        by_size = min((min(size) >> enhancers + 3).bit_length() - 1, max_halvings(size) - enhancers)
        depth = depth or max(1, min(4, by_size))
        require(1 <= depth <= MAX_HALVINGS, "generator.depth", depth, f"0 (by size) to {MAX_HALVINGS}")
        require(1 <= blocks <= MAX_LAYERS, "generator.blocks", blocks, f"1 to {MAX_LAYERS}")
        require(0 <= enhancer_blocks <= MAX_LAYERS, "generator.enhancer_blocks", enhancer_blocks,
                f"0 to {MAX_LAYERS}")
        require(0 <= dropout < 1, "generator.dropout", dropout, "0 or more and less than 1")
        self.multiple = 2**(depth + enhancers)
        self.smallest = 2 * self.multiple       # Smaller maps cannot be reflected at the innermost layers.
        require(min(size) >= self.smallest and not any(side % self.multiple for side in size), "data.size",
                f"{size[0]}x{size[1]}", f"multiples of {self.multiple} from {self.smallest} up, for "
                f"generator=pix2pixhd of depth {depth} with enhancers={enhancers}")
        bias = needs_bias(norm)

        def start(channels: int) -> list[nn.Module]:
            return [ReflectionPad2d(3), nn.Conv2d(in_channels, channels, 7, bias=bias),
                    make_norm(norm, channels), nn.ReLU()]

        def down(c: int) -> list[nn.Module]:
            return [nn.Conv2d(c, 2 * c, 3, 2, 1, bias=bias), make_norm(norm, 2 * c), nn.ReLU()]

        def residual(c: int, count: int) -> list[nn.Module]:
            return [ResidualBlock(c, norm, dropout) for _ in range(count)]

        def upsample(c: int) -> list[nn.Module]:
            return [upsample_layer(up, c, c // 2, kernel=3, bias=bias), make_norm(norm, c // 2), nn.ReLU()]

        coarse = width * 2**enhancers
        levels = [coarse * 2**i for i in range(depth)]
        self.global_generator = nn.Sequential(
            *start(coarse), *(layer for c in levels for layer in down(c)),
            *residual(coarse * 2**depth, blocks), *(layer for c in levels[::-1] for layer in upsample(2 * c)))
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()     # Of the enhancers, coarse first.
        for c in (width * 2**i for i in reversed(range(enhancers))):
            self.encoders.append(nn.Sequential(*start(c), *down(c)))
            self.decoders.append(nn.Sequential(*residual(2 * c, enhancer_blocks), *upsample(2 * c)))
        self.output = nn.Sequential(ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7))
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W), both in [-1, 1]; H and W divisible by `multiple`"""
        images = [x]
        for _ in self.encoders:
            images.append(halve(images[-1]))
        h = self._stages(self.global_generator, images.pop())
        for encode, decode in zip(self.encoders, self.decoders, strict=True):
            h = self._stages(decode, self._stages(encode, images.pop()) + h)
        return torch.tanh(self.output(h))

    def _stages(self, layers: nn.Module, x: Tensor) -> Tensor:
        assert isinstance(layers, nn.Sequential)
        return checkpoint_sequential(self, layers, (nn.ReLU, ResidualBlock), x)
