"""Generator of StyleGAN.  Its discriminator is `progressive`."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import channels_per_level
from i2i.nets.equalized import GAIN, EqualizedConv2d, EqualizedLinear, leaky_relu
from i2i.nets.options import Fade, Grown, MappingLayers, MaxChannels, Mixing, WDim, Width, ZDim
from i2i.nets.precision import fp32_island, to_float32
from i2i.nets.progressive import GrowingGenerator, Growth
from i2i.nets.resampling import upsample
from i2i.nets.style_generator import NoiseInjection, StyleGenerator
from i2i.registry import register


class AdaIN(nn.Module):
    """Adaptive instance normalization.  Huang and Belongie 2017; Karras et al. 2019, equation 1."""

    def __init__(self, num_channels: int, w_dim: int) -> None:
        super().__init__()
        self.style = EqualizedLinear(w_dim, 2 * num_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W), (N, w_dim) -> (N, C, H, W); float32 inside, so that a constant map stays finite"""
        h, w = to_float32(x), to_float32(w)
        with fp32_island(h):
            scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
            h = h - h.mean((2, 3), keepdim=True)
            h = h * (h.square().mean((2, 3), keepdim=True) + 1e-8).rsqrt()
            return (h * (1 + scale) + shift).to(x.dtype)        # Scales start around 1.  Section C.


class SynthesisLayer(nn.Module):
    """3x3 convolution, upsampled with `up`; noise, leaky ReLU, AdaIN.  Karras et al. 2019, figure 1."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: tuple[int, int], *,
                 up: bool = False) -> None:
        super().__init__()
        self.conv, self.up = EqualizedConv2d(in_channels, out_channels, 3, gain=GAIN), up
        self.noise, self.adain = NoiseInjection(size, out_channels), AdaIN(out_channels, w_dim)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, C, H, W), (N, w_dim) -> (N, C', H', W')"""
        x = self.conv(upsample(x) if self.up else x)
        return self.adain(leaky_relu(x + self.noise(x), 1), w)


class ConstantInput(nn.Module):
    """The learned constant input, with noise, leaky ReLU and AdaIN.

    It starts random (Karras et al. 2020b), not as ones (2019, section C), whose gradient through AdaIN is
    10,000 times those of other layers.  A bias would be redundant.
    """

    def __init__(self, num_channels: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.randn(num_channels, *size))
        self.noise, self.adain = NoiseInjection(size, num_channels), AdaIN(num_channels, w_dim)

    def forward(self, w: Tensor) -> Tensor:
        """(N, w_dim) -> (N, C, H, W)"""
        x = self.constant.expand(w.shape[0], -1, -1, -1)
        return self.adain(leaky_relu(x + self.noise(x), 1), w)


class SynthesisBlock(nn.Module):
    """Two layers, the first of which doubles the resolution.  Karras et al. 2019, section 2."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.first = SynthesisLayer(in_channels, out_channels, w_dim, size, up=True)
        self.second = SynthesisLayer(out_channels, out_channels, w_dim, size)

    def forward(self, x: Tensor, w1: Tensor, w2: Tensor) -> Tensor:
        """(N, C, H, W), (N, w_dim) per layer -> (N, C', 2H, 2W)"""
        return self.second(self.first(x, w1), w2)


@register("noise_generator", "stylegan")
class Generator(StyleGenerator, GrowingGenerator):
    """StyleGAN generator: constant input, AdaIN and noise, grown from 4x4.  Karras et al. 2019.

    Linear output.  It goes with the discriminator of `progressive`, in the paper with
    `discriminator.down=bilinear`.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 512,
                 w_dim: WDim = 512, width: Width = 32, max_channels: MaxChannels = 512,
                 mapping_layers: MappingLayers = 8, mixing: Mixing = 0.9, grown: Grown = 0.6,
                 fade: Fade = 0.5) -> None:
        base, levels = base_resolution(size, "stylegan")
        super().__init__(2 * levels + 2, num_classes, z_dim=z_dim, w_dim=w_dim, mapping_layers=mapping_layers,
                         mixing=mixing)
        self.growth = Growth("generator", levels, grown, fade)
        channels = channels_per_level("generator", width, levels + 1, max_channels=max_channels)[::-1]
        self.input = ConstantInput(channels[0], w_dim, base)
        self.layer = SynthesisLayer(channels[0], channels[0], w_dim, base)
        self.blocks = nn.ModuleList(SynthesisBlock(a, b, w_dim, (base[0] << i, base[1] << i))
                                    for i, (a, b) in enumerate(pairwise(channels), 1))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(n, out_channels, 1) for n in channels)

    def layers_in_use(self) -> int:
        k, alpha = self.growth.stage()
        return 2 * (k + 1 if alpha is None else k + 2)

    def synthesize(self, ws: Tensor) -> Tensor:
        """(N, num_ws, w_dim) -> (N, C, H, W); ignores the styles of levels not in use"""
        w = ws.unbind(1)
        return self.render(self.layer(self.input(w[0]), w[1]), *w)
