"""Residual generator and discriminator with self-attention: SAGAN, and SNGAN without the attention."""

from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import channels_per_level, init_weights
from i2i.nets.class_conditioning import ClassProjection, ConditionalNorm, require_labels
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.noise_generator import NoiseGenerator
from i2i.nets.norms import make_norm
from i2i.nets.options import Condition, Norm, Reference, Width, ZDim
from i2i.nets.trunk_discriminator import TrunkDiscriminator
from i2i.registry import register

MAX_MULTIPLE = 16       # 1024 channels for a width of 64.  Zhang et al. 2019; Miyato et al. 2018, table 5.
ATTENTION_SIZE = 32     # Pixels of the attention map in Zhang et al. 2019, whose images have 128.
REDUCTION = 8           # Channels per channel that attention compares.  Zhang et al. 2019, section 3.

Attention = Annotated[int, Doc(
    "Shorter side of the map with self-attention; 0: none, as in SNGAN (Miyato et al. 2018); -1: the largest "
    "up to 32 pixels that both players have")]


class SelfAttention(nn.Module):
    """Self-attention over positions, added at a learned rate that starts at 0.  Zhang et al. 2019.

    Not torch's fused attention, which cannot be differentiated twice, as gradient penalties do.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.f, self.g, self.h = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.v = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))
        beta = torch.softmax(f.transpose(1, 2) @ g, 1)              # Equation 1, over i.
        o = self.v((h @ beta).unflatten(2, x.shape[2:]))            # Equation 2.
        return self.gamma * o + x                                   # Equation 3.


class UpBlock(nn.Module):
    """Residual upsampling block: norm, ReLU, nearest, 3x3, norm, ReLU, 3x3.  Miyato et al. 2018, figure 8."""

    def __init__(self, in_channels: int, out_channels: int, norm: str, num_classes: int,
                 reference: int = 0) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(norm, in_channels, num_classes, reference)
        self.norm2 = ConditionalNorm(norm, out_channels, num_classes, reference)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """(N, C, H, W), (N) -> (N, C', 2H, 2W)"""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, c)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, c)))
        # 1x1 before nearest neighbor: the same as after it, at a quarter of the cost.
        return h + F.interpolate(self.shortcut(x), scale_factor=2)


class DownBlock(nn.Module):
    """Residual block: ReLU, 3x3, ReLU, 3x3, average pooling unless `keep_size`.  Miyato et al. 2018, fig. 8.

    The `first` block of a network has no ReLU on its input, which is an image.
    """

    def __init__(self, in_channels: int, out_channels: int, *, first: bool = False,
                 keep_size: bool = False) -> None:
        super().__init__()
        self.first, self.keep_size = first, keep_size
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        identity = in_channels == out_channels and keep_size
        self.shortcut = nn.Identity() if identity else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H/2, W/2)"""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.keep_size:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)       # Before 1x1: the same as after it, cheaper.
        return h + self.shortcut(x)


def _attention_level(player: str, attention: int, size: tuple[int, int], levels: int) -> int:
    """How often the image is halved to reach the attention map; 0 for no attention."""
    sides = {min(size) >> i: i for i in range(1, levels + 1)}
    if attention < 0:
        return next((i for side, i in sides.items() if side <= ATTENTION_SIZE), 0)
    require(attention in (0, *sides), f"{player}.attention", attention,
            f"{', '.join(map(str, sides))} (sides of the maps of {size[0]}x{size[1]} images), 0 for none, or "
            f"-1 for the largest up to {ATTENTION_SIZE}")
    return sides.get(attention, 0)


@register("noise_generator", "sagan")
class Generator(NoiseGenerator):
    """SAGAN generator: residual upsampling, self-attention.  Zhang et al. 2019 (arXiv:1805.08318)."""

    gradient_checkpointing = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 128,
                 width: Width = 64, attention: Attention = -1, norm: Norm = "batch",
                 condition: Condition = "batchnorm", reference: Reference = 64) -> None:
        super().__init__(z_dim, num_classes, concat=condition == "concat", norm=norm, reference=reference)
        self.base, levels = base_resolution(size, "sagan")
        classes = num_classes if condition == "batchnorm" else 0
        channels = channels_per_level("generator", width, levels, max_multiple=MAX_MULTIPLE)[::-1]
        channels = [channels[0], *channels]
        self.dense = nn.Linear(self.in_features, channels[0] * self.base[0] * self.base[1])
        self.blocks = nn.ModuleList(UpBlock(a, b, norm, classes, self.reference.count)
                                    for a, b in pairwise(channels))
        level = _attention_level("generator", attention, size, levels)
        self.attention_before = levels - level      # Index of the block that follows attention.
        self.attention = SelfAttention(channels[self.attention_before]) if level else None
        self.norm = make_norm(norm, width, self.reference.count)    # Unconditional, as in the official code.
        self.out = nn.Conv2d(width, out_channels, 3, 1, 1)
        init_weights(self, nn.init.xavier_uniform_)                 # Glorot and Bengio 2010.

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W) in [-1, 1]"""
        z, c = self.inputs(z, c)
        x = self.dense(z).unflatten(1, (-1, *self.base))
        for i, block in enumerate(self.blocks):
            if self.attention and i == self.attention_before:
                x = checkpoint_stage(self, self.attention, x)
            x = checkpoint_stage(self, block, x, c)
        return torch.tanh(self.out(F.relu(self.norm(x)[self.reference.count:])))


@register("discriminator", "sagan")
class Discriminator(TrunkDiscriminator):
    """SAGAN discriminator: residual blocks, self-attention, a sum over positions.  Zhang et al. 2019.

    With classes, the inner product with the label's vector is added (Miyato and Koyama 2018).  No norm: the
    papers use spectral norm (`d_weight_norm=spectral`).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 64,
                 attention: Attention = -1) -> None:
        super().__init__()
        base, levels = base_resolution(size, "sagan")
        channels = channels_per_level("discriminator", width, levels, max_multiple=MAX_MULTIPLE)
        last = channels[-1]
        self.num_classes, self.feature_shape = num_classes, (last, *base)
        self.blocks = nn.ModuleList([DownBlock(in_channels, width, first=True),
                                     *(DownBlock(a, b) for a, b in pairwise(channels)),
                                     DownBlock(last, last, keep_size=True)])
        # Number of the block that precedes attention.
        self.attention_after = _attention_level("discriminator", attention, size, levels)
        self.attention = SelfAttention(channels[self.attention_after - 1]) if self.attention_after else None
        self.out = nn.Linear(last, 1)
        self.projection = ClassProjection(num_classes, last) if num_classes else None
        init_weights(self, nn.init.xavier_uniform_)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """Outputs of all blocks, the last after ReLU: (N, C, H, W) -> [(N, C', H', W')], outermost first"""
        out = []
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if self.attention and i == self.attention_after:
                x = self.attention(x)
            out.append(x)
        return [*out[:-1], F.relu(out[-1])]

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, *feature_shape), (N) -> (N, 1) logits"""
        logits = self.out(h.sum((2, 3)))
        return logits + self.projection(h, require_labels(c)).sum((2, 3)) if self.projection else logits
