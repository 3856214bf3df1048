"""ResNet generator of CycleGAN."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, InputSkip, init_weights, upsample_layer
from i2i.nets.gradient_checkpointing import checkpoint_sequential
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Down, Dropout, InputSkipChannels, Norm, Up, Width
from i2i.nets.padding import ReflectionPad2d
from i2i.nets.resampling import BlurPool
from i2i.registry import register


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip connection and reflection padding (Johnson et al. 2016)."""

    def __init__(self, channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        bias = needs_bias(norm)
        self.layers = nn.Sequential(
            ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), make_norm(norm, channels),
            nn.ReLU(), nn.Dropout(dropout) if dropout else nn.Identity(),
            ReflectionPad2d(1), nn.Conv2d(channels, channels, 3, bias=bias), make_norm(norm, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


@register("generator", "resnet")
class ResNet(nn.Module):
    """ResNet: c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3.  Zhu et al. 2017, section 7.2."""

    multiple = 4
    smallest = 16       # Smaller maps cannot be reflected at the innermost layers.
    gradient_checkpointing = False

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, width: Width = 64,
                 blocks: Annotated[int, Doc("Residual blocks; 0: nine from 256 pixels on, else six")] = 0,
                 norm: Norm = "instance", dropout: Dropout = 0.0, down: Down = "strided",
                 up: Up = "transposed", input_skip: InputSkipChannels = 0) -> None:
        super().__init__()
        blocks = blocks or (9 if min(size) >= 256 else 6)
        require(width >= 1, "generator.width", width, "1 or more")
        require(1 <= blocks <= MAX_LAYERS, "generator.blocks", blocks, f"0 (by size) to {MAX_LAYERS}")
        require(input_skip >= 0, "generator.input_skip", input_skip, "0 or more")
        require(0 <= dropout < 1, "generator.dropout", dropout, "0 or more and less than 1")
        require(min(size) >= self.smallest and not any(side % 4 for side in size), "data.size",
                f"{size[0]}x{size[1]}", "multiples of 4 from 16 up, for generator=resnet")
        bias = needs_bias(norm)
        layers: list[nn.Module] = [ReflectionPad2d(3), nn.Conv2d(in_channels, width, 7, bias=bias),
                                   make_norm(norm, width), nn.ReLU()]
        for c in (width, 2 * width):
            layers += [nn.Conv2d(c, 2 * c, 3, 2 if down == "strided" else 1, 1, bias=bias),
                       make_norm(norm, 2 * c), nn.ReLU(), *([BlurPool()] if down == "blurpool" else [])]
        layers += [ResidualBlock(4 * width, norm, dropout) for _ in range(blocks)]
        for c in (4 * width, 2 * width):
            layers += [upsample_layer(up, c, c // 2, kernel=3, bias=bias), make_norm(norm, c // 2), nn.ReLU()]
        layers += [ReflectionPad2d(3), nn.Conv2d(width, input_skip or out_channels, 7),
                   nn.ReLU() if input_skip else nn.Tanh()]
        self.in_channels, self.layers = in_channels, nn.Sequential(*layers)
        self.last = InputSkip(in_channels, input_skip, out_channels) if input_skip else None
        init_weights(self)

    def forward(self, x: Tensor, indices: Sequence[int] = ()) -> Tensor | tuple[Tensor, list[Tensor]]:
        """(N, C, H, W) -> (N, C', H, W), both in [-1, 1]; H and W divisible by `multiple`.

        With indices of layers, also their outputs as a list.
        """
        *features, image = self.intermediates(x, [*indices, -1])
        if self.last is not None:
            image = self.last(x, image)
        return (image, features) if indices else image

    def intermediates(self, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Outputs (N, c, h, w) of layers, which are computed up to the last of them; -1: the last one."""
        wanted, outputs, start = [range(len(self.layers))[i] for i in indices], {}, 0
        for index in sorted(set(wanted)):
            x = checkpoint_sequential(self, self.layers[start:index + 1], (nn.ReLU, ResidualBlock), x)
            outputs[index], start = x, index + 1
        return [outputs[index] for index in wanted]

    def intermediate_channels(self, indices: Sequence[int]) -> list[int]:
        """Channels of the outputs of layers."""
        channels = [self.in_channels]
        for layer in self.layers:
            last = layer[-1] if isinstance(layer, nn.Sequential) else layer
            channels.append(getattr(last, "out_channels", channels[-1]))
        return [channels[1:][i] for i in indices]
