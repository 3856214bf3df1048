"""Progressive GAN: networks that grow during training.  Karras et al. 2018 (arXiv:1710.10196)."""

import struct
from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import channels_per_level
from i2i.nets.class_conditioning import ClassProjection, require_labels
from i2i.nets.equalized import GAIN, EqualizedConv2d, EqualizedLinear, PixelNorm, leaky_relu
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.minibatch_discrimination import MinibatchStdDev
from i2i.nets.noise_generator import NoiseGenerator
from i2i.nets.options import Fade, Group, Grown, MaxChannels, Width, ZDim
from i2i.nets.resampling import downsample
from i2i.nets.trunk_discriminator import TrunkDiscriminator
from i2i.registry import register


class Growth(nn.Module):
    """The part of a network that is in use.  Karras et al. 2018, section 2.

    Its only state is the buffer `level`: k + alpha if k doublings are in use and the next is faded in by
    alpha.  A new network, and one on the meta device, has full size, which is `levels` doublings.
    """

    level: Tensor

    def __init__(self, player: str, levels: int, grown: float, fade: float) -> None:
        super().__init__()
        require(0 <= grown <= 1, f"{player}.grown", grown,
                "from 0 (full size at once) to 1 (at the end of the run)")
        require(0 <= fade <= 1, f"{player}.fade", fade, "from 0 (sudden) to 1 (all the time)")
        self.levels, self.grown, self.fade = levels, grown, fade
        self.register_buffer("level", torch.tensor(float(levels)))
        self.constant = False
        self._host_level: float | None = None       # As set by `set_progress`, so that no step reads it back.
        self.register_load_state_dict_post_hook(lambda module, keys: setattr(module, "_host_level", None))

    @torch.no_grad()
    def set_progress(self, progress: float) -> None:
        """Set the level for a share of the run: each has an equal part of it, up to `grown`."""
        t = self.levels * progress / self.grown if self.grown else float(self.levels)
        k = min(int(t), self.levels)
        alpha = max(0.0, 1 - (k + 1 - t) / self.fade) if self.fade else 0.0
        level = k + alpha if k < self.levels else float(k)
        self.level.fill_(level)
        self._host_level, = struct.unpack("f", struct.pack("f", level))     # As the buffer rounds it.

    def prepare_export(self) -> None:
        """Let the level be a constant of the graph."""
        self.constant, self._host_level = True, self.level.item()

    def stage(self) -> tuple[int, Tensor | None]:
        """Doublings in full use, and alpha of the next or None."""
        if self.level.is_meta:
            level = float(self.levels)
        else:       # In eval mode the buffer may have been copied from another network.
            known = (self.training or self.constant) and self._host_level is not None
            level = self._host_level if known else self.level.item()    # type: ignore[assignment]
        k = int(level)
        return k, self.level - k if level > k else None


class Growing(nn.Module):
    """Mixin of networks that grow."""

    growth: Growth

    def set_progress(self, progress: float) -> None:
        """Grow to the size for this share of the run."""
        self.growth.set_progress(progress)


class GrowingGenerator(Growing):
    """Mixin of generators that grow: `blocks` that double the resolution, `to_rgb` for each resolution."""

    blocks: nn.ModuleList
    to_rgb: nn.ModuleList
    gradient_checkpointing = False

    def render(self, x: Tensor, *ws: Tensor) -> Tensor:
        """Full-size images from the lowest map: (N, C, h, w) -> (N, C', H, W)

        `ws`: styles of all layers, two per block, for blocks that take styles.
        """
        def block(i: int, x: Tensor) -> Tensor:
            return checkpoint_stage(self, self.blocks[i - 1], x, *ws[2 * i:2 * i + 2])

        k, alpha = self.growth.stage()
        for i in range(1, k + 1):
            x = block(i, x)
        image = self.to_rgb[k](x)
        if alpha is not None:
            k += 1
            old = F.interpolate(image, scale_factor=2)
            image = old + (self.to_rgb[k](block(k, x)) - old) * alpha         # Figure 2.
        missing = self.growth.levels - k
        return F.interpolate(image, scale_factor=2**missing) if missing else image


class UpBlock(nn.Module):
    """Upsampling and two convolutions, each with leaky ReLU and pixel norm.  Karras et al. 2018, table 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, gain=GAIN)
        self.conv2 = EqualizedConv2d(out_channels, out_channels, 3, gain=GAIN)
        self.norm = PixelNorm()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2H, 2W)"""
        x = self.norm(leaky_relu(self.conv1(F.interpolate(x, scale_factor=2)), 1))
        return self.norm(leaky_relu(self.conv2(x), 1))


@register("noise_generator", "progressive")
class Generator(GrowingGenerator, NoiseGenerator):
    """Progressive GAN generator: grows from 4x4, pixel norm, linear output.  Karras et al. 2018.

    Images always have full size; smaller ones are enlarged by nearest neighbor.  A label's embedding is
    concatenated to z.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 512,
                 width: Width = 32, max_channels: MaxChannels = 512, grown: Grown = 0.6,
                 fade: Fade = 0.5) -> None:
        super().__init__(z_dim, num_classes)
        self.base, levels = base_resolution(size, "progressive")
        self.growth = Growth("generator", levels, grown, fade)
        channels = channels_per_level("generator", width, levels + 1, max_channels=max_channels)[::-1]
        first = channels[0]
        self.norm = PixelNorm()
        self.dense = EqualizedLinear(self.in_features, first * self.base[0] * self.base[1], gain=GAIN)
        self.conv = EqualizedConv2d(first, first, 3, gain=GAIN)
        self.blocks = nn.ModuleList(UpBlock(a, b) for a, b in pairwise(channels))
        self.to_rgb = nn.ModuleList(EqualizedConv2d(n, out_channels, 1) for n in channels)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W)"""
        z, _ = self.inputs(z, c)
        x = self.norm(leaky_relu(self.dense(self.norm(z)).unflatten(1, (-1, *self.base)), 1))
        return self.render(self.norm(leaky_relu(self.conv(x), 1)))


class DownBlock(nn.Module):
    """Two convolutions and average pooling (Karras et al. 2018) or `bilinear` filter (Karras et al. 2019)."""

    def __init__(self, in_channels: int, out_channels: int, down: str) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_channels, in_channels, 3, gain=GAIN)
        self.conv2 = EqualizedConv2d(in_channels, out_channels, 3, gain=GAIN)
        self.bilinear = down == "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H/2, W/2)"""
        x = leaky_relu(self.conv1(x), 1)
        if self.bilinear:
            return leaky_relu(self.conv2(downsample(x)), 1)
        return F.avg_pool2d(leaky_relu(self.conv2(x), 1), 2)


@register("discriminator", "progressive")
class Discriminator(Growing, TrunkDiscriminator):
    """Progressive GAN discriminator, also of StyleGAN: the generator mirrored.  Karras et al. 2018.

    Images are averaged down to the size in use.  Real images are not faded, unlike in the paper: their new
    details count by alpha.  With classes, the inner product with the label's vector is added (Miyato and
    Koyama 2018).  `grown` and `fade` must equal the generator's.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 32,
                 max_channels: MaxChannels = 512, group: Group = 4,
                 down: Annotated[Literal["average", "bilinear"], Doc(
                     "Downsampling: average pooling, or the filter of StyleGAN")] = "average",
                 grown: Grown = 0.6, fade: Fade = 0.5) -> None:
        super().__init__()
        base, levels = base_resolution(size, "progressive")
        self.growth = Growth("discriminator", levels, grown, fade)
        channels = channels_per_level("discriminator", width, levels + 1, max_channels=max_channels)[::-1]
        last = channels[0]
        self.num_classes, self.feature_shape = num_classes, (last, *base)
        self.from_rgb = nn.ModuleList(EqualizedConv2d(in_channels, n, 1, gain=GAIN) for n in channels)
        self.blocks = nn.ModuleList(DownBlock(b, a, down) for a, b in pairwise(channels))
        self.std = MinibatchStdDev(group) if group else nn.Identity()
        self.conv = EqualizedConv2d(last + bool(group), last, 3, gain=GAIN)
        self.dense = EqualizedLinear(last * base[0] * base[1], last, gain=GAIN)
        self.out = EqualizedLinear(last, 1)
        self.projection = ClassProjection(num_classes, last) if num_classes else None
        if self.projection:     # So that the product starts with the variance of `out`.
            nn.init.normal_(self.projection.vectors.weight, 0, last**-0.5)

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """The input of `head`: (N, C, H, W) -> (N, *feature_shape)"""
        k, alpha = self.growth.stage()
        top = k if alpha is None else k + 1
        if top < self.growth.levels:
            x = F.avg_pool2d(x, 2 ** (self.growth.levels - top))
        h = leaky_relu(self.from_rgb[top](x), 1)
        if alpha is not None:
            old = leaky_relu(self.from_rgb[k](F.avg_pool2d(x, 2)), 1)
            h = old + (self.blocks[k](h) - old) * alpha
        for i in reversed(range(k)):
            h = self.blocks[i](h)
        return h

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, *feature_shape), (N) -> (N, 1) logits"""
        h = leaky_relu(self.dense(leaky_relu(self.conv(self.std(h)), 1).flatten(1)), 1)
        logits = self.out(h)
        if not self.projection:
            return logits
        return logits + self.projection(h[:, :, None, None], require_labels(c)).flatten(1)
