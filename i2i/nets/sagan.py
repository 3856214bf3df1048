"""Residual generator and discriminator with self-attention: SAGAN, and without the attention SNGAN."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets import norms
from i2i.nets.conditional import Normalized, Projection, Vectors, needed
from i2i.nets.recompute import checkpointed
from i2i.nets.sizes import halvings
from i2i.nets.virtual import Reference
from i2i.registry import register

# 1024 channels where there are 64 next to the image.  Zhang et al. 2019; Miyato et al. 2018, table 5.
MAX_SIZE = 16
USUAL = 32          # Pixels of the map that attends to itself in Zhang et al. 2019, whose images have 128.
REDUCTION = 8       # Channels for each one that attention compares.  Zhang et al. 2019, section 3.


class SelfAttention(nn.Module):
    """Every place sees all others, added at a rate learned from 0.  Zhang et al. 2019, equations 1 to 3,
    where f, g, h and v are 1x1 convolutions.

    Written out, not by torch's fused attention, which cannot be differentiated twice as gradient penalties
    do.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.f, self.g, self.h = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.v = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))
        # Over i: how much place j takes from each place i.  Equation 1.
        beta = torch.softmax(f.transpose(1, 2) @ g, 1)
        o = self.v((h @ beta).unflatten(2, x.shape[2:]))            # Equation 2.
        return self.gamma * o + x                                   # Equation 3.


class Up(nn.Module):
    """Residual block that doubles the map: norm, ReLU, nearest, 3x3, norm, ReLU, 3x3.  Miyato et al. 2018,
    figure 8."""

    def __init__(self, into: int, out: int, norm: str, num_classes: int, reference: int = 0) -> None:
        super().__init__()
        self.norm1, self.norm2 = Normalized(norm, into, num_classes, reference), Normalized(norm, out,
                                                                                            num_classes,
                                                                                            reference)
        self.conv1, self.conv2 = nn.Conv2d(into, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """NCHW, N -> NC'(2H)(2W)"""
        h = self.conv1(F.interpolate(F.relu(self.norm1(x, c)), scale_factor=2))
        h = self.conv2(F.relu(self.norm2(h, c)))
        # 1x1 before nearest: the same as after it, at a quarter of the price.
        return h + F.interpolate(self.shortcut(x), scale_factor=2)


class Down(nn.Module):
    """Residual block that halves the map, or with `keep` leaves its size: ReLU, 3x3, ReLU, 3x3, average.
    Miyato et al. 2018, figure 8. The first block of a network gets an image, which no ReLU cuts."""

    def __init__(self, into: int, out: int, *, first: bool = False, keep: bool = False) -> None:
        super().__init__()
        self.first, self.keep = first, keep
        self.conv1, self.conv2 = nn.Conv2d(into, out, 3, 1, 1), nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Conv2d(into, out, 1) if into != out or not keep else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'(H/2)(W/2)"""
        h = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        if not self.keep:
            # The average before 1x1: the same as after it, cheaper.
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


def widths(width: int, count: int) -> list[int]:
    """Channels of `count` maps from the image inwards: 64, 128, 256, 512, 1024, 1024."""
    return [width * min(2**i, MAX_SIZE) for i in range(count)]


def attended(player: str, attention: int, size: tuple[int, int], count: int) -> int:
    """How many halvings below the image the map lies that attends to itself; 0 for none.  RequestError if
    both players have no such map."""
    sides = {min(size) >> i: i for i in range(1, count + 1)}
    if attention < 0:
        return next((i for side, i in sides.items() if side <= USUAL), 0)
    require(attention in (0, *sides), f"{player}.attention", attention,
            f"{', '.join(map(str, sides))} (sides of the maps of {size[0]}x{size[1]} images), 0 for none, or "
            f"-1 for the largest up to {USUAL}")
    return sides.get(attention, 0)


@torch.no_grad()
def init_weights(network: nn.Module) -> None:
    """Weights as Glorot and Bengio 2010, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@register("noise_generator", "sagan")
class Generator(nn.Module):
    """Zhang et al. 2019 (arXiv:1805.08318): residual blocks that double the map, one map that attends to
    itself.

    `attention` is the shorter side of that map (0: none, which is SNGAN's generator, Miyato et al. 2018; -1:
    the largest up to 32 pixels that both players have).  With classes, the label comes in by `condition`:
    gain and bias of every norm, or its embedding beside z. `reference`: how many images virtual batch norm
    compares with.
    """

    recompute = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 128,
                 width: int = 64,
                 attention: int = -1, norm: str = "batch",
                 condition: Literal["batchnorm", "concat"] = "batchnorm", reference: int = 64) -> None:
        super().__init__()
        require(width >= 1, "generator.width", width, "1 or more")
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        self.smallest, count = halvings(size, "sagan")
        self.z_dim, self.num_classes = z_dim, num_classes
        self.embedding = Vectors(num_classes, z_dim) if num_classes and condition == "concat" else None
        self.reference = Reference("generator", norm, reference, (z_dim,), num_classes)
        classes = num_classes if condition == "batchnorm" else 0
        inner = widths(width, count)[::-1]
        self.dense = nn.Linear(z_dim * (2 if self.embedding else 1),
                               inner[0] * self.smallest[0] * self.smallest[1])
        self.blocks = nn.ModuleList(Up(a, b, norm, classes, self.reference.count) for a,
                                    b in pairwise([inner[0], *inner]))
        below = attended("generator", attention, size, count)
        # The block before which the map attends to itself.
        self.before = count - below
        self.attention = SelfAttention([inner[0], *inner][self.before]) if below else None
        # Without labels, as in the official implementation.
        self.norm = norms.make(norm, width, self.reference.count)
        self.out = nn.Conv2d(width, out_channels, 3, 1, 1)
        init_weights(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> NCHW in [-1, 1]"""
        z, c = self.reference(z, c)
        x = self.dense(torch.cat([z, self.embedding(needed(c))], 1) if self.embedding else z).unflatten(1,
                                                                                                        (-1,
                                                                                                         *self.smallest))
        for i, block in enumerate(self.blocks):
            if self.attention and i == self.before:
                x = checkpointed(self, self.attention, x)
            x = checkpointed(self, block, x, c)
        return torch.tanh(self.out(F.relu(self.norm(x)[self.reference.count:])))


@register("discriminator", "sagan")
class Discriminator(nn.Module):
    """Zhang et al. 2019: residual blocks that halve the map, one map that attends to itself, the sum over
    places, one logit.

    `attention` as in the generator.  With classes, the inner product with the label's vector is added: Miyato
    and Koyama 2018.  No norm: the papers' is spectral (`d_weight_norm=spectral`).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 64,
                 attention: int = -1) -> None:
        super().__init__()
        require(width >= 1, "discriminator.width", width, "1 or more")
        smallest, count = halvings(size, "sagan")
        outer = widths(width, count)
        self.num_classes, self.feature_shape = num_classes, (outer[-1], *smallest)
        self.blocks = nn.ModuleList([Down(in_channels, width, first=True)])
        self.blocks.extend(Down(a, b) for a, b in pairwise(outer))
        self.blocks.append(Down(outer[-1], outer[-1], keep=True))
        # The number of blocks after which the map attends to itself.
        self.after = attended("discriminator", attention, size, count)
        self.attention = SelfAttention(outer[self.after - 1]) if self.after else None
        self.out = nn.Linear(outer[-1], 1)
        self.projection = Projection(num_classes, outer[-1]) if num_classes else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The maps after every block, outermost first, the last one with its ReLU; the label plays no part in
        them.  NCHW -> [NChw, …]"""
        out = []
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if self.attention and i == self.after:
                x = self.attention(x)
            out.append(x)
        return [*out[:-1], F.relu(out[-1])]

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """What `head` judges, of the shape `feature_shape`.  NCHW -> NChw"""
        return self.features(x, c)[-1]

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """NChw features, N -> N1 logits"""
        logits = self.out(h.sum((2, 3)))
        return logits + self.projection(h, needed(c)).sum((2, 3)) if self.projection else logits

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1 logits"""
        return self.head(self.trunk(x, c), c)
