"""Generator and discriminator of FastGAN.  Liu et al. 2021 (arXiv:2101.04775)."""

from functools import partial
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import GemmConv2d, GemmConvTranspose2d, init_weights
from i2i.nets.class_conditioning import ClassProjection, ConditionalNorm, require_labels
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.noise_generator import NoiseGenerator
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Condition, Norm, Reference, Width, ZDim
from i2i.nets.style_generator import NoiseInjection
from i2i.registry import register

# Channels from 4x4 outwards, of the generator and of the decoders, as in the authors' code: as many at the
# fourth doubling as at the third.
MULTIPLES = (16, 8, 4, 2, 2, 1, 0.5, 0.25, 0.125)
G_SKIP, D_SKIP = 4, 3       # Levels between the features that a skip-layer excitation joins.  Figure 3.
MAX_EXCITATIONS = 4         # In G: up to 512 pixels, of 1024.
LOGIT_WINDOW = 4            # Width of D's last convolutions.


class SkipLayerExcitation(nn.Module):
    """Scale the channels of one layer by features of another one far from it.  Equation 1 and section 3.1.

    Args:
        size: the features are averaged down to this height and width.
    """

    def __init__(self, in_channels: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.layers = nn.Sequential(GemmConv2d(in_channels, channels, size, bias=False), nn.SiLU(),
                                    GemmConv2d(channels, channels, 1, bias=False), nn.Sigmoid())

    def forward(self, features: Tensor, x: Tensor) -> Tensor:
        """(N, C, h, w), (N, C', H, W) -> (N, C', H, W)"""
        kernel = features.shape[2] // self.size[0], features.shape[3] // self.size[1]
        return x * self.layers(F.avg_pool2d(features, kernel))


class GatedConv(nn.Module):
    """3x3 convolution, noise, norm and a gated linear unit."""

    def __init__(self, in_channels: int, channels: int, norm: ConditionalNorm, *, bias: bool,
                 noise: NoiseInjection | None) -> None:
        super().__init__()
        self.conv = GemmConv2d(in_channels, 2 * channels, 3, 1, 1, bias=bias)
        self.noise, self.norm = noise, norm

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) -> (N, C', H, W)"""
        x = self.conv(x)
        if self.noise is not None:
            x = x + self.noise(x)
        return F.glu(self.norm(x, c), 1)


class UpBlock(nn.Module):
    """Nearest-neighbor upsampling, then gated convolutions."""

    def __init__(self, layers: list[GatedConv]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) -> (N, C', 2H, 2W)"""
        x = F.interpolate(x, scale_factor=2)
        for layer in self.layers:
            x = layer(x, c)
        return x


@register("noise_generator", "fastgan")
class Generator(NoiseGenerator):
    """FastGAN generator: light upsampling blocks whose channels are scaled by those of small resolutions
    (skip-layer excitation).  Liu et al. 2021, section 3.1.

    It makes one picture; the authors' code also has one of half the size, which D takes in place of the
    reduced picture.
    """

    gradient_checkpointing = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 256,
                 width: Width = 16, norm: Norm = "batch", condition: Condition = "concat",
                 reference: Reference = 64, tanh: Annotated[bool, Doc(
                     "Tanh at the end, which the authors' code has from 1024 pixels on")] = True) -> None:
        base, levels = base_resolution(size, "fastgan")
        super().__init__(z_dim, num_classes, concat=condition == "concat", norm=norm, reference=reference)
        require(width >= 1, "generator.width", width, "1 or more")
        require(levels < len(MULTIPLES), "data.size", f"{size[0]}x{size[1]}",
                f"up to {4 << (len(MULTIPLES) - 1)} pixels for the shorter side with generator=fastgan")
        classes = num_classes if condition == "batchnorm" else 0
        bias = needs_bias(norm) and not classes
        channels = [round(width * multiple / MULTIPLES[levels]) for multiple in MULTIPLES[:levels + 1]]

        def make(n: int) -> ConditionalNorm:
            return ConditionalNorm(norm, n, classes, self.reference.count)

        self.first = GemmConvTranspose2d(self.in_features, 2 * channels[0], base,  # type: ignore[arg-type]
                                         bias=bias)
        self.first_norm = make(2 * channels[0])
        self.blocks = nn.ModuleList()
        for level, (a, b) in enumerate(pairwise(channels), 1):
            noisy = level % 2 == 1      # These have two convolutions, with noise.
            self.blocks.append(UpBlock([
                GatedConv(inner, b, make(2 * b), bias=bias, noise=NoiseInjection(
                    (base[0] << level, base[1] << level)) if noisy else None)
                for inner in ((a, b) if noisy else (a,))]))
        self.skip = min(G_SKIP, levels)
        self.excitations = nn.ModuleList(SkipLayerExcitation(a, b, base) for a, b in zip(
            channels[:MAX_EXCITATIONS], channels[self.skip:], strict=False))
        self.out = nn.Conv2d(channels[-1], out_channels, 3, 1, 1)
        self.tanh = tanh
        # Of the scale of the noise; to spectral norm, which the paper has, the scale makes no difference.
        init_weights(self, partial(nn.init.kaiming_normal_, nonlinearity="linear"))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W), in [-1, 1] with tanh"""
        x, c = self.inputs(z, c)
        x = F.glu(self.first_norm(self.first(x[:, :, None, None]), c), 1)
        features = [x]
        for level, block in enumerate(self.blocks, 1):
            x = checkpoint_stage(self, block, x, c)
            if self.skip <= level < self.skip + len(self.excitations):
                x = self.excitations[level - self.skip](features[level - self.skip], x)
            features.append(x)
        image = self.out(x[self.reference.count:])
        return torch.tanh(image) if self.tanh else image


class DownBlock(nn.Module):
    """The mean of two paths to half the size: two convolutions, and a mean of neighbors before a 1x1 one."""

    def __init__(self, in_channels: int, channels: int, norm: str) -> None:
        super().__init__()
        self.main = nn.Sequential(*_down(in_channels, channels, norm),
                                  *_convolution(channels, channels, 3, 1, 1, norm))
        self.direct = nn.Sequential(nn.AvgPool2d(2), *_convolution(in_channels, channels, 1, 1, 0, norm))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H / 2, W / 2)"""
        return (self.main(x) + self.direct(x)) / 2


def _convolution(a: int, b: int, kernel: int, stride: int, padding: int, norm: str) -> list[nn.Module]:
    return [GemmConv2d(a, b, kernel, stride, padding, bias=needs_bias(norm)), make_norm(norm, b),
            nn.LeakyReLU(0.2)]


def _down(a: int, b: int, norm: str) -> list[nn.Module]:
    return _convolution(a, b, 4, 2, 1, norm)


class Decoder(nn.Module):
    """Decode features to an image 2^levels as large.  Figure 4."""

    def __init__(self, in_channels: int, out_channels: int, levels: int, width: int, norm: str) -> None:
        super().__init__()
        channels = [in_channels, *(max(1, round(width * multiple / MULTIPLES[2]))
                                   for multiple in MULTIPLES[2:2 + levels])]
        bias = needs_bias(norm)
        self.blocks = nn.Sequential(*(
            UpBlock([GatedConv(a, b, ConditionalNorm(norm, 2 * b, 0), bias=bias, noise=None)])
            for a, b in pairwise(channels)))
        self.out = nn.Conv2d(channels[-1], out_channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H 2^levels, W 2^levels) in [-1, 1]"""
        return torch.tanh(self.out(self.blocks(x)))


@register("discriminator", "fastgan")
class Discriminator(nn.Module):
    """FastGAN discriminator: patches of the image and of the image at half its size, and decoders that
    reconstruct real images from its features.  Liu et al. 2021, section 3.2.

    The decoders see all the features of the image, all those of the reduced image, and a random quarter of
    the image's at twice the size of the last, here drawn for each image.  With classes, the label's vector is
    projected on the features of each patch (Miyato and Koyama 2018).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 16,
                 norm: Norm = "batch",
                 decoder_width: Annotated[int, Doc(
                     "Channels of the first layer of the decoders that reconstruct real images; 0: no "
                     "reconstruction")] = 32,
                 lambda_rec: Annotated[float, Doc(
                     "Weight in D's loss of each mean absolute difference to a real image")] = 1.0) -> None:
        super().__init__()
        _, levels = base_resolution(size, "fastgan")
        require(width >= 1, "discriminator.width", width, "1 or more")
        require(decoder_width >= 0, "discriminator.decoder_width", decoder_width, "0 or more")
        require(lambda_rec >= 0, "discriminator.lambda_rec", lambda_rec, "0 or more")
        require(levels >= 2, "data.size", f"{size[0]}x{size[1]}",
                "16 pixels or more with discriminator=fastgan")
        self.num_classes, self.lambda_rec, halvings = num_classes, lambda_rec, levels - 1
        channels = [width << level for level in range(halvings + 1)]
        self.first = nn.Sequential(nn.Conv2d(in_channels, width, 3, 1, 1, bias=False), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(DownBlock(a, b, norm) for a, b in pairwise(channels))
        self.skip = min(D_SKIP, halvings)
        self.excitations = nn.ModuleList(SkipLayerExcitation(a, b, (4, 4))
                                         for a, b in zip(channels, channels[self.skip:], strict=False))
        self.last = nn.Sequential(*_convolution(channels[-1], 2 * channels[-1], 1, 1, 0, norm))
        self.out = GemmConv2d(2 * channels[-1], 1, LOGIT_WINDOW, bias=False)
        small = channels[1:-1] or [channels[-1]]        # The latter at 16 pixels, where nothing is halved.
        first = (4, 2, 1) if halvings > 1 else (3, 1, 1)
        self.small = nn.Sequential(nn.Conv2d(in_channels, small[0], *first, bias=False), nn.LeakyReLU(0.2),
                                   *(layer for a, b in pairwise(small) for layer in _down(a, b, norm)))
        self.small_out = GemmConv2d(small[-1], 1, LOGIT_WINDOW, bias=False)
        self.projections = nn.ModuleList(ClassProjection(num_classes, n)
                                         for n in (2 * channels[-1], small[-1]) if num_classes)
        self.decoders = nn.ModuleList(Decoder(n, in_channels, halvings - 1, decoder_width, norm)
                                      for n in (channels[-1], small[-1], channels[-2]) if decoder_width)
        init_weights(self)

    def levels(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> features at each size, from the image's down"""
        features = [self.first(x)]
        for level, block in enumerate(self.blocks, 1):
            x = block(features[-1])
            if level >= self.skip:
                x = self.excitations[level - self.skip](features[level - self.skip], x)
            features.append(x)
        return features

    def logits(self, large: Tensor, small: Tensor, c: Tensor | None) -> list[Tensor]:
        """Logits (N, 1, h, w) of both branches from the last features of each."""
        outputs = []
        for i, (h, out) in enumerate(((self.last(large), self.out), (small, self.small_out))):
            logits = out(h)
            if self.num_classes:
                projected = self.projections[i](h, require_labels(c))
                logits = logits + F.avg_pool2d(projected, LOGIT_WINDOW, 1, divisor_override=1)
            outputs.append(logits)
        return outputs

    def features(self, x: Tensor, c: Tensor | None = None) -> list[list[Tensor]]:
        """Activations before the logits, of the image and of the reduced image: (N, C', H', W') each"""
        return [self.levels(x), [self.small(half_size(x))]]

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """(N, C, H, W), (N) labels -> logits of the image and of the reduced image, (N, 1, h, w) each"""
        return self.logits(self.levels(x)[-1], self.small(half_size(x)), c)

    def self_supervise(self, x: Tensor, c: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        """Logits of real images as in `forward`, and the loss of their reconstructions, equation 2: `()`"""
        features, half = self.levels(x), half_size(x)
        small = self.small(half)
        logits = self.logits(features[-1], small, c)
        if not self.decoders:
            return logits, x.new_zeros(())
        part = torch.randint(4, (len(x),), device=x.device)
        reconstructions = self.reconstruct(features, small, part)
        losses = [F.l1_loss(reconstruction, target) for reconstruction, target in zip(
            reconstructions, (half, half, quarters(x, part)), strict=True)]
        return logits, self.lambda_rec * torch.stack(losses).sum()

    def reconstruct(self, features: list[Tensor], small: Tensor, part: Tensor) -> list[Tensor]:
        """The image, from both branches, and a quarter of it: (N, C, H / 2, W / 2) each"""
        inputs = features[-1], small, quarters(features[-2], part)
        return [decoder(h) for decoder, h in zip(self.decoders, inputs, strict=True)]


def half_size(x: Tensor) -> Tensor:
    """The image at half its size, of means: (N, C, H, W) -> (N, C, H / 2, W / 2)"""
    return F.avg_pool2d(x, 2)


def quarters(x: Tensor, part: Tensor) -> Tensor:
    """A quarter of each image: top left, top right, bottom left or bottom right.

    (N, C, H, W), (N) of 0 to 3 -> (N, C, H / 2, W / 2)
    """
    h, w = x.shape[2] // 2, x.shape[3] // 2
    parts = x.reshape(len(x), -1, 2, h, 2, w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    return parts[torch.arange(len(x), device=x.device), part]
