"""PatchGAN and PixelGAN discriminators."""

import math
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import init_weights
from i2i.nets.class_conditioning import ClassProjection, require_labels
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Down, Norm, Width
from i2i.nets.resampling import BlurPool
from i2i.registry import register

Layers = Annotated[int, Doc("Convolutions between the first and the last; 0: 3, or fewer under 24 pixels")]


class _PatchDiscriminator(nn.Module):
    """A stack of convolutions to a map of logits; with classes, each a projection discriminator."""

    window = 1      # Width of the last convolution.

    def __init__(self, layers: list[nn.Module], channels: int, num_classes: int, padding: int = 0) -> None:
        super().__init__()
        self.num_classes, self.padding = num_classes, padding
        self.layers = nn.Sequential(*layers)
        self.projection = ClassProjection(num_classes, channels) if num_classes else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """Activations of all layers but the last, without labels: (N, C, H, W) -> [(N, C', H', W')]"""
        out = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                out.append(x)
        return out

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) labels -> (N, 1, H', W') logits"""
        if not self.projection:
            return self.layers(x)
        h = self.layers[:-1](x)
        projected = self.projection(h, require_labels(c))
        if self.window > 1:
            projected = F.avg_pool2d(projected, self.window, 1, self.padding, divisor_override=1)
        return self.layers[-1](h) + projected


def default_layers(size: tuple[int, int]) -> int:
    """Number of convolutions between the first and the last that suits images of a size: three, or fewer
    under 24 pixels."""
    return max(1, min(3, int(math.log2(min(size) / 3))))


@register("discriminator", "patch")
class PatchDiscriminator(_PatchDiscriminator):
    """PatchGAN: one logit per patch, 70x70 pixels with three layers.  Isola et al. 2017, section 6.1.2.

    With classes, the label's vector is projected on the features of each patch (Miyato and Koyama 2018).
    The convolutions' `padding` is 1; that of pix2pixHD is 2.
    """

    window = 4

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, padding: int = 1, *,
                 width: Width = 64, layers: Layers = 0, norm: Norm = "batch",
                 down: Down = "strided") -> None:
        layers = layers or default_layers(size)
        require(width >= 1, "discriminator.width", width, "1 or more")
        # The two last convolutions, 4 wide with stride 1, each remove a pixel and must leave one.
        smallest = 3 * 2**min(layers, 30)
        require(1 <= layers <= 30 and min(size) >= smallest, "discriminator.layers", layers,
                f"0 (by size), 1 or more, and images of at least {smallest} pixels (3 * 2^layers; these are "
                f"{size[0]}x{size[1]})")
        stride, blur = (2, []) if down == "strided" else (1, [BlurPool()])
        stack: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, stride, padding), nn.LeakyReLU(0.2), *blur]
        channels = width
        for i in range(1, layers + 1):
            out, inner = width * min(2**i, 8), i < layers
            stack += [nn.Conv2d(channels, out, 4, stride if inner else 1, padding, bias=needs_bias(norm)),
                      make_norm(norm, out), nn.LeakyReLU(0.2), *(blur if inner else [])]
            channels = out
        super().__init__([*stack, nn.Conv2d(channels, 1, 4, 1, padding)], channels, num_classes, padding)


@register("discriminator", "pixel")
class PixelDiscriminator(_PatchDiscriminator):
    """PixelGAN: one logit per pixel.  Isola et al. 2017, section 6.1.2.  Labels as in `patch`."""

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 64,
                 norm: Norm = "batch") -> None:
        require(width >= 1, "discriminator.width", width, "1 or more")
        bias = needs_bias(norm)
        super().__init__([
            nn.Conv2d(in_channels, width, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias), make_norm(norm, 2 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias)], 2 * width, num_classes)
