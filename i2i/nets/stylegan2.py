"""Generator and discriminator of StyleGAN2."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.equalized import (
    GAIN,
    EqualConv,
    EqualLinear,
    MinibatchStd,
    blur,
    cast_like,
    doubled,
    halved,
    leaky_relu,
    to_float32,
)
from i2i.nets.recompute import checkpointed
from i2i.nets.sizes import halvings
from i2i.nets.style import Mapping, Noise, Styled
from i2i.registry import register


def widths(player: str, width: int, max_channels: int, count: int) -> list[int]:
    """Channels of `count` maps from the image inwards: `width`, doubled each time up to `max_channels`.
    RequestError names the player's option."""
    require(width >= 1, f"{player}.width", width, "1 or more")
    require(max_channels >= 1, f"{player}.max_channels", max_channels, "1 or more")
    return [min(width * 2**i, max_channels) for i in range(count)]


class Modulated(nn.Module):
    """A convolution whose input channels are scaled by a style, a learned affine map of w.  Karras et al.
    2020b, section 2.2, equation 1.

    The activations are scaled before one convolution of the whole batch: the same sums as a kernel for each
    image in a grouped convolution, which takes longer (python bench/stylegan2.py).  `up` doubles the size: a
    transposed convolution, then the filter.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, w_dim: int, *,
                 up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = EqualLinear(w_dim, in_channels, bias=1.0)
        self.up = up

    def convolve(self, x: Tensor, style: Tensor) -> Tensor:
        """NCHW, N x C -> NC'hw"""
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            return blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), 1)
        return F.conv2d(x, self.weight, padding=self.weight.shape[2] // 2)


class StyledLayer(Modulated):
    """Modulated convolution, demodulation, noise, bias, leaky ReLU.  Karras et al. 2020b, figure 2 (d)."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: tuple[int, int], *,
                 up: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, w_dim, up=up)
        self.noise = Noise(size)
        # Three of the four pixels that the filter of `up` sees were zeros.
        self.gain = GAIN * (4 if up else 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """NCHW, N x w_dim -> NC'hw"""
        w = to_float32(w)
        with cast_like(w):       # Few numbers, on which all others depend.
            style = self.affine(w)
            # Equation 3.
            scale = self.gain * (style.square() @ self.weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
        x = self.convolve(x, style)
        bias, scale = GAIN * self.bias.to(x.dtype)[:, None, None], scale.to(x.dtype)[:, :, None, None]
        # The gain is applied where numbers are few.
        return leaky_relu(torch.addcmul(bias, x, scale) + GAIN * self.noise(x), gain=1)


class ToRGB(Modulated):
    """Modulated 1-wide convolution to an image, without demodulation, with equalized rates."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__(in_channels, out_channels, 1, w_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """NCHW, N x w_dim -> NC'HW in single precision at least"""
        w = to_float32(w)
        with cast_like(w):
            style = self.affine(w) / math.sqrt(self.weight.shape[1])
        return to_float32(self.convolve(x, style)) + self.bias[:, None, None]


def enlarged(up: StyledLayer, layer: StyledLayer, rgb: ToRGB, x: Tensor, image: Tensor,
             *w: Tensor) -> tuple[Tensor, Tensor]:
    """Map and image at twice the size.  NChw, NChw, N x w_dim for each layer -> NC'(2h)(2w), NC(2h)(2w)"""
    x = layer(up(x, w[0]), w[1])
    return x, doubled(image) + rgb(x, w[2])


@register("noise_generator", "stylegan2")
class Generator(Styled):
    """Karras et al. 2020b (arXiv:1912.04958): mapping network, modulated convolutions, images of all sizes
    summed (skip generator, section 4.1).

    `width` channels next to the image, doubling inwards to at most `max_channels`.  The output has no tanh:
    about [-1, 1] once trained.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 512,
                 w_dim: int = 512, width: int = 32,
                 max_channels: int = 512, mapping_layers: int = 8, mixing: float = 0.9) -> None:
        smallest, count = halvings(size, "stylegan2")
        channels = widths("generator", width, max_channels, count + 1)[::-1]
        super().__init__(2 * count + 2, num_classes, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_layers,
                         mixing=mixing)
        self.constant = nn.Parameter(torch.randn(channels[0], *smallest))
        self.first = StyledLayer(channels[0], channels[0], w_dim, smallest)
        self.up, self.layers = nn.ModuleList(), nn.ModuleList()
        for i in range(1, count + 1):
            place = smallest[0] << i, smallest[1] << i
            self.up.append(StyledLayer(channels[i - 1], channels[i], w_dim, place, up=True))
            self.layers.append(StyledLayer(channels[i], channels[i], w_dim, place))
        self.rgb = nn.ModuleList(ToRGB(c, out_channels, w_dim) for c in channels)

    def synthesize(self, ws: Tensor) -> Tensor:
        """N x num_ws x w_dim -> NCHW.  The image of a map has the style of the next map's first layer, as in
        the reference implementation."""
        w = ws.unbind(1)
        x = self.first(self.constant.expand(len(ws), -1, -1, -1), w[0])
        image = self.rgb[0](x, w[1])
        for i, (up, layer, rgb) in enumerate(zip(self.up, self.layers, self.rgb[1:], strict=True)):
            x, image = checkpointed(self, enlarged, up, layer, rgb, x, image, *w[2 * i + 1:2 * i + 4])
        return image


class DownBlock(nn.Module):
    """Two convolutions around a skip, to half the size, sum divided by sqrt 2.  Karras et al. 2020b, section
    4.1 (residual discriminator)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualConv(in_channels, in_channels, 3)
        self.conv1 = EqualConv(in_channels, out_channels, 3, stride=2, padding=0)
        self.skip = EqualConv(in_channels, out_channels, 1, gain=1 / GAIN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'(H/2)(W/2)"""
        y = self.conv1(blur(leaky_relu(self.conv0(x)), 2))
        return leaky_relu(y, gain=1) + self.skip(halved(x))      # The layer's gain times 1 / sqrt 2 is 1.


@register("discriminator", "stylegan2")
class Discriminator(nn.Module):
    """Karras et al. 2020b: residual, with the minibatch standard deviation; labels by projection on their
    mapped embedding (Karras et al. 2020a).

    `width` channels next to the image, doubling inwards to at most `max_channels`; `group` images are
    compared with each other (0: none), `mapping_layers` map a label.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 32,
                 max_channels: int = 512, group: int = 4,
                 mapping_layers: int = 8) -> None:
        super().__init__()
        require(1 <= mapping_layers <= 100, "discriminator.mapping_layers", mapping_layers, "1 to 100")
        smallest, count = halvings(size, "stylegan2")
        channels = widths("discriminator", width, max_channels, count + 1)
        last = channels[-1]
        self.num_classes = num_classes
        self.rgb = EqualConv(in_channels, channels[0], 1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(channels))
        self.std = MinibatchStd(group) if group else nn.Identity()
        self.conv = EqualConv(last + (1 if group else 0), last, 3)
        self.dense = EqualLinear(last * smallest[0] * smallest[1], last)
        self.out = EqualLinear(last, last if num_classes else 1)
        self.mapping = Mapping(0, last, num_classes, layers=mapping_layers) if num_classes else None

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The activations of all blocks, outermost first, on which labels have no bearing.  NCHW -> [NChw,
        …]"""
        x = leaky_relu(self.rgb(x))
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1 logits, in single precision from the smallest map on"""
        x = to_float32(self.features(x)[-1])
        with cast_like(x):
            x = leaky_relu(self.conv(self.std(x)))
            x = self.out(leaky_relu(self.dense(x.flatten(1))))
            if self.mapping is None:
                return x
            return (x * self.mapping(None, c)).sum(1, keepdim=True) / math.sqrt(x.shape[1])
