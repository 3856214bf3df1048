"""Generator and discriminator of StyleGAN2.  Karras et al. 2020b (arXiv:1912.04958)."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import channels_per_level
from i2i.nets.equalized import GAIN, EqualizedConv2d, EqualizedLinear, leaky_relu
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.minibatch_discrimination import MinibatchStdDev
from i2i.nets.options import Group, MappingLayers, MaxChannels, Mixing, WDim, Width, ZDim
from i2i.nets.precision import fp32_island, to_float32
from i2i.nets.resampling import blur, downsample, upsample
from i2i.nets.style_generator import MappingNetwork, NoiseInjection, StyleGenerator
from i2i.registry import register


class ModulatedConv2d(nn.Module):
    """Convolution whose input channels are scaled by a style, a learned affine map of w.  Section 2.2.

    Activations are scaled before one convolution of the whole batch: the same sums as a kernel per image in a
    grouped convolution, and faster (python bench/stylegan2.py).  `up` doubles the size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, w_dim: int, *,
                 up: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.affine = EqualizedLinear(w_dim, in_channels, bias=1.0)
        self.up = up

    def convolve(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, C, H, W), (N, C) -> (N, C', H', W')"""
        x = x * style.to(x.dtype)[:, :, None, None]
        if self.up:
            return blur(F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), 1)
        return F.conv2d(x, self.weight, padding=self.weight.shape[2] // 2)


class SynthesisLayer(ModulatedConv2d):
    """Modulated convolution, demodulation, noise, bias, leaky ReLU.  Figure 2 (d)."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: tuple[int, int], *,
                 up: bool = False) -> None:
        super().__init__(in_channels, out_channels, 3, w_dim, up=up)
        self.noise = NoiseInjection(size)
        self.gain = GAIN * (4 if up else 1)     # With `up`, three of the four pixels under the filter are 0.

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W), (N, w_dim) -> (N, C', H', W')"""
        w = to_float32(w)
        with fp32_island(w):
            style = self.affine(w)
            # Equation 3.
            scale = self.gain * (style.square() @ self.weight.square().sum((2, 3)).t() + 1e-8).rsqrt()
        x = self.convolve(x, style)
        # The gain of the leaky ReLU is applied to the smaller tensors.
        bias, scale = GAIN * self.bias.to(x.dtype)[:, None, None], scale.to(x.dtype)[:, :, None, None]
        return leaky_relu(torch.addcmul(bias, x, scale) + GAIN * self.noise(x), gain=1)


class ToRGB(ModulatedConv2d):
    """Modulated 1x1 convolution to an image, without demodulation, with equalized learning rates."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__(in_channels, out_channels, 1, w_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W), (N, w_dim) -> (N, C', H, W), at least float32"""
        w = to_float32(w)
        with fp32_island(w):
            style = self.affine(w) / math.sqrt(self.weight.shape[1])
        return to_float32(self.convolve(x, style)) + self.bias[:, None, None]


def _stage(up: SynthesisLayer, layer: SynthesisLayer, rgb: ToRGB, x: Tensor, image: Tensor,
           *w: Tensor) -> tuple[Tensor, Tensor]:
    """Double the resolution of the map (N, C, H, W) and of the image; `w`: (N, w_dim) per layer."""
    x = layer(up(x, w[0]), w[1])
    return x, upsample(image) + rgb(x, w[2])


@register("noise_generator", "stylegan2")
class Generator(StyleGenerator):
    """StyleGAN2 generator: modulated convolutions, sum of images of all resolutions.  Karras et al. 2020b.

    Linear output, about [-1, 1] after training.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 512,
                 w_dim: WDim = 512, width: Width = 32, max_channels: MaxChannels = 512,
                 mapping_layers: MappingLayers = 8, mixing: Mixing = 0.9) -> None:
        base, levels = base_resolution(size, "stylegan2")
        channels = channels_per_level("generator", width, levels + 1, max_channels=max_channels)[::-1]
        super().__init__(2 * levels + 2, num_classes, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_layers,
                         mixing=mixing)
        self.constant = nn.Parameter(torch.randn(channels[0], *base))
        self.first = SynthesisLayer(channels[0], channels[0], w_dim, base)
        self.up, self.layers = nn.ModuleList(), nn.ModuleList()
        for i, (a, b) in enumerate(pairwise(channels), 1):
            resolution = base[0] << i, base[1] << i
            self.up.append(SynthesisLayer(a, b, w_dim, resolution, up=True))
            self.layers.append(SynthesisLayer(b, b, w_dim, resolution))
        self.rgb = nn.ModuleList(ToRGB(n, out_channels, w_dim) for n in channels)

    def synthesize(self, ws: Tensor) -> Tensor:
        """(N, num_ws, w_dim) -> (N, C, H, W).  `rgb` has the style of the next layer."""
        w = ws.unbind(1)
        x = self.first(self.constant.expand(ws.shape[0], -1, -1, -1), w[0])
        image = self.rgb[0](x, w[1])
        for i, (up, layer, rgb) in enumerate(zip(self.up, self.layers, self.rgb[1:], strict=True)):
            x, image = checkpoint_stage(self, _stage, up, layer, rgb, x, image, *w[2 * i + 1:2 * i + 4])
        return image


class DownBlock(nn.Module):
    """Two convolutions and a skip to half the size, sum divided by sqrt 2.  Section 4.1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, stride=2, padding=0)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, gain=1 / GAIN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H/2, W/2)"""
        y = self.conv1(blur(leaky_relu(self.conv0(x)), 2))
        return leaky_relu(y, gain=1) + self.skip(downsample(x))      # The layer's gain times 1 / sqrt 2 is 1.


@register("discriminator", "stylegan2")
class Discriminator(nn.Module):
    """StyleGAN2 discriminator: residual, with minibatch standard deviation.  Karras et al. 2020b.

    Labels by projection on their embedding, mapped by `mapping_layers` (Karras et al. 2020a).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 32,
                 max_channels: MaxChannels = 512, group: Group = 4,
                 mapping_layers: MappingLayers = 8) -> None:
        super().__init__()
        require(1 <= mapping_layers <= 100, "discriminator.mapping_layers", mapping_layers, "1 to 100")
        base, levels = base_resolution(size, "stylegan2")
        channels = channels_per_level("discriminator", width, levels + 1, max_channels=max_channels)
        last = channels[-1]
        self.num_classes = num_classes
        self.rgb = EqualizedConv2d(in_channels, channels[0], 1)
        self.blocks = nn.ModuleList(DownBlock(a, b) for a, b in pairwise(channels))
        self.std = MinibatchStdDev(group) if group else nn.Identity()
        self.conv = EqualizedConv2d(last + bool(group), last, 3)
        self.dense = EqualizedLinear(last * base[0] * base[1], last)
        self.out = EqualizedLinear(last, last if num_classes else 1)
        self.mapping = MappingNetwork(0, last, num_classes, layers=mapping_layers) if num_classes else None

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """Outputs of all blocks, without labels: (N, C, H, W) -> [(N, C', H', W')], outermost first"""
        x = leaky_relu(self.rgb(x))
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) labels -> (N, 1) logits, in float32 from the lowest resolution on"""
        x = to_float32(self.features(x)[-1])
        with fp32_island(x):
            x = leaky_relu(self.conv(self.std(x)))
            x = self.out(leaky_relu(self.dense(x.flatten(1))))
            if self.mapping is None:
                return x
            return (x * self.mapping(None, c)).sum(1, keepdim=True) / math.sqrt(x.shape[1])
