"""Generator of StyleGAN.  Its discriminator is the progressive one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.equalized import GAIN, EqualConv, EqualLinear, cast_like, doubled, leaky_relu, to_float32
from i2i.nets.progressive import Growth, channels, faded
from i2i.nets.recompute import checkpointed
from i2i.nets.sizes import halvings
from i2i.nets.style import Noise, Styled
from i2i.registry import register


class AdaIN(nn.Module):
    """Each channel of each image normalized, then scaled and shifted by the style.  Huang and Belongie 2017;
    Karras et al. 2019, equation 1."""

    def __init__(self, num_channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = EqualLinear(w_dim, 2 * num_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """NCHW, N x w_dim -> NCHW.  In single precision inside: a map without variance stays finite."""
        h, w = to_float32(x), to_float32(w)
        with cast_like(h):
            scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
            h = h - h.mean((2, 3), keepdim=True)
            h = h * (h.square().mean((2, 3), keepdim=True) + 1e-8).rsqrt()
            # The scale starts around 1.  Karras et al. 2019, section C.
            return (h * (1 + scale) + shift).to(x.dtype)


class Layer(nn.Module):
    """A 3x3 convolution, with `up` on twice the map, noise, leaky ReLU, AdaIN.  Karras et al. 2019, figure 1
    (b)."""

    def __init__(self, into: int, out: int, w_dim: int, size: tuple[int, int], *, up: bool = False) -> None:
        super().__init__()
        self.conv, self.up = EqualConv(into, out, 3, gain=GAIN), up
        self.noise, self.adain = Noise(size, out), AdaIN(out, w_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """NCHW, N x w_dim -> NC'hw"""
        x = self.conv(doubled(x) if self.up else x)
        return self.adain(leaky_relu(x + self.noise(x), 1), w)


class Start(nn.Module):
    """The constant that every image begins as, with its noise, leaky ReLU and AdaIN; a bias would say the
    same twice.

    It starts random (Karras et al. 2020b), not as ones (2019, section C), whose gradient through AdaIN is
    10,000 times those of other layers.
    """

    def __init__(self, num_channels: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(num_channels, *size))
        self.noise, self.adain = Noise(size, num_channels), AdaIN(num_channels, w_dim)

    def forward(self, w: Tensor) -> Tensor:
        """N x w_dim -> NChw"""
        x = self.constant.expand(len(w), -1, -1, -1)
        return self.adain(leaky_relu(x + self.noise(x), 1), w)


class Level(nn.Module):
    """Twice the map, in two layers.  The doubling is bilinear: nearest neighbor and a binomial filter (Karras
    et al. 2019, section 2)."""

    def __init__(self, into: int, out: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.first, self.second = Layer(into, out, w_dim, size, up=True), Layer(out, out, w_dim, size)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """NCHW, N x w_dim twice -> NC'(2H)(2W)"""
        return self.second(self.first(x, w1), w2)


@register("noise_generator", "stylegan")
class Generator(Styled):
    """Karras, Laine and Aila 2019 (arXiv:1812.04948): mapping network, constant input, AdaIN, noise in every
    layer, grown from 4x4.

    `width` channels at full size, doubling inwards to at most `max_channels`; the image is linear.  A share
    `mixing` of the images of training has two styles.  `grown` and `fade` as in `progressive`, whose
    discriminator belongs to it (`discriminator.down=bilinear` is the paper's).
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 512,
                 w_dim: int = 512, width: int = 32,
                 max_channels: int = 512, mapping_layers: int = 8, mixing: float = 0.9, grown: float = 0.6,
                 fade: float = 0.5) -> None:
        smallest, count = halvings(size, "stylegan")
        super().__init__(2 * count + 2, num_classes, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_layers,
                         mixing=mixing)
        require(1 <= width <= max_channels, "generator.width", width,
                f"from 1 to generator.max_channels ({max_channels})")
        self.growth = Growth("generator", count, grown, fade)
        inner = channels(width, max_channels, count)
        self.start, self.layer = Start(inner[0], w_dim, smallest), Layer(inner[0], inner[0], w_dim, smallest)
        self.levels = nn.ModuleList(Level(a, b, w_dim, (smallest[0] << i, smallest[1] << i)) for i,
                                    (a, b) in enumerate(pairwise(inner), 1))
        self.to_rgb = nn.ModuleList(EqualConv(c, out_channels, 1) for c in inner)

    def grow(self, progress: float) -> None:
        """As large as it is to be at this share of the run."""
        self.growth.grow(progress)

    def used(self) -> int:
        """Two layers for each level in use."""
        k, alpha = self.growth.stage()
        return 2 * (k + 1 if alpha is None else k + 2)

    def synthesize(self, ws: Tensor) -> Tensor:
        """N x num_ws x w_dim -> NCHW; the layers of levels not in use leave their styles unread."""
        w = ws.unbind(1)
        x = self.layer(self.start(w[0]), w[1])
        k, alpha = self.growth.stage()
        for i, level in enumerate(self.levels[:k], 1):
            x = checkpointed(self, level, x, w[2 * i], w[2 * i + 1])
        image = self.to_rgb[k](x)
        if alpha is not None:
            k += 1
            new = self.to_rgb[k](checkpointed(self, self.levels[k - 1], x, w[2 * k], w[2 * k + 1]))
            image = faded(F.interpolate(image, scale_factor=2), new, alpha)
        return F.interpolate(image,
                             scale_factor=2 ** (self.growth.count - k)) if k < self.growth.count else image
