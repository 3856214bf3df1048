"""Discriminators that judge patches."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets import norms
from i2i.nets.blocks import init_weights
from i2i.nets.conditional import Projection, needed
from i2i.registry import register


def activations(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """What each LeakyReLU makes of x.  NCHW -> [NChw, …]"""
    out = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            out.append(x)
    return out


@register("discriminator", "patch")
class Patch(nn.Module):
    """PatchGAN: one logit for each overlapping patch, 70x70 pixels with three layers.  Isola et al. 2017,
    section 6.1.2.

    With classes, the label's vector is projected on the features of each patch (Miyato and Koyama 2018, there
    of the whole image).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *,
                 width: int = 64, layers: int = 3, norm: str = "batch") -> None:
        super().__init__()
        require(width >= 1, "discriminator.width", width, "1 or more")
        # Two more 4-wide convolutions of stride 1 each take a pixel off and must leave one.
        smallest = 3 * 2**min(layers, 30)
        require(1 <= layers <= 30 and min(size) >= smallest, "discriminator.layers", layers,
                f"1 or more, and images of at least {smallest} pixels (3 * 2^layers; these are "
                f"{size[0]}x{size[1]})")
        bias = norms.needs_bias(norm)
        stack: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        c = width
        for i in range(1, layers + 1):
            out = width * min(2**i, 8)
            stack += [nn.Conv2d(c, out, 4, 2 if i < layers else 1, 1, bias=bias), norms.make(norm, out),
                      nn.LeakyReLU(0.2)]
            c = out
        self.num_classes = num_classes
        self.layers = nn.Sequential(*stack, nn.Conv2d(c, 1, 4, 1, 1))
        self.projection = Projection(num_classes, c) if num_classes else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The activations of all layers but the last, outermost first; the label plays no part in them.  NCHW
        -> [NChw, …]"""
        return activations(self.layers, x)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1hw logits"""
        if not self.projection:
            return self.layers(x)
        h = self.layers[:-1](x)
        # The sum over the window that the last layer sees.
        along = F.avg_pool2d(self.projection(h, needed(c)), 4, 1, 1, divisor_override=1)
        return self.layers[-1](h) + along


@register("discriminator", "pixel")
class Pixel(nn.Module):
    """PixelGAN: one logit for each pixel.  Isola et al. 2017, section 6.1.2, 1x1 discriminator.  Labels as in
    `patch`."""

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 64,
                 norm: str = "batch") -> None:
        super().__init__()
        require(width >= 1, "discriminator.width", width, "1 or more")
        bias = norms.needs_bias(norm)
        self.num_classes = num_classes
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=bias), norms.make(norm, 2 * width), nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=bias))
        self.projection = Projection(num_classes, 2 * width) if num_classes else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """As in `patch`.  NCHW -> [NCHW, …]"""
        return activations(self.layers, x)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1HW logits"""
        if not self.projection:
            return self.layers(x)
        h = self.layers[:-1](x)
        return self.layers[-1](h) + self.projection(h, needed(c))
