"""Networks that grow while they learn: progressive GAN."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.conditional import Projection, Vectors, needed
from i2i.nets.equalized import GAIN, EqualConv, EqualLinear, MinibatchStd, PixelNorm, halved, leaky_relu
from i2i.nets.recompute import checkpointed
from i2i.nets.sizes import halvings
from i2i.registry import register


class Growth(nn.Module):
    """How much of a network is in use: its maps of full size come in the course of the run.  Karras et al.
    2018, section 2.

    The buffer `level` is all that it remembers: k + alpha where k doublings are in use and the next is faded
    in by alpha.  A network that was never told to grow has full size, and so has one without data (the
    plan's), where full size is what has to fit.
    """

    level: Tensor

    def __init__(self, player: str, count: int, grown: float, fade: float) -> None:
        super().__init__()
        require(0 <= grown <= 1, f"{player}.grown", grown,
                "from 0 (full size at once) to 1 (at the end of the run)")
        require(0 <= fade <= 1, f"{player}.fade", fade, "from 0 (sudden) to 1 (all the time)")
        self.count, self.grown, self.fade = count, grown, fade
        self.register_buffer("level", torch.tensor(float(count)))

    @torch.no_grad()
    def grow(self, progress: float) -> None:
        """Set the level for this share of the run: up to `grown` each doubling has an equal part, faded in
        during the last `fade` of it."""
        t = self.count * progress / self.grown if self.grown else float(self.count)
        k = min(int(t), self.count)
        alpha = max(0.0, 1 - (k + 1 - t) / self.fade) if self.fade else 0.0
        self.level.fill_(k + alpha if k < self.count else k)

    def stage(self) -> tuple[int, Tensor | None]:
        """Doublings in full use, and how far the next one is faded in if it is: (k, alpha).  On a GPU this
        waits for one number."""
        level = float(self.count) if self.level.is_meta else self.level.item()
        k = int(level)
        return k, self.level - k if level > k else None


def channels(width: int, max_channels: int, count: int) -> list[int]:
    """Channels of each level's maps, smallest map first: doubled inwards from `width` next to the full-size
    image to at most `max_channels`."""
    return [min(width * 2**i, max_channels) for i in range(count + 1)][::-1]


def faded(old: Tensor, new: Tensor, alpha: Tensor) -> Tensor:
    """From the old path to the new one.  Karras et al. 2018, figure 2."""
    return old + (new - old) * alpha


class Up(nn.Module):
    """Twice the map by nearest neighbor and two convolutions, each followed by leaky ReLU and pixel norm.
    Karras et al. 2018, table 2."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = EqualConv(into, out, 3, gain=GAIN), EqualConv(out, out, 3,
                                                                                          gain=GAIN), PixelNorm()

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'(2H)(2W)"""
        x = self.norm(leaky_relu(self.conv1(F.interpolate(x, scale_factor=2)), 1))
        return self.norm(leaky_relu(self.conv2(x), 1))


@register("noise_generator", "progressive")
class Generator(nn.Module):
    """Karras, Aila, Laine and Lehtinen 2018 (arXiv:1710.10196): grows from 4x4, equalized learning rates,
    pixel norm, z on a sphere, linear output.

    `width` channels at full size, doubling inwards to at most `max_channels`.  The images always have full
    size: smaller ones are enlarged by nearest neighbor.  `grown` is the share of the run after which nothing
    is added, `fade` the share of a level's time during which the next is faded in. A label's embedding stands
    beside z.
    """

    recompute = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 512,
                 width: int = 32, max_channels: int = 512,
                 grown: float = 0.6, fade: float = 0.5) -> None:
        super().__init__()
        self.smallest, count = halvings(size, "progressive")
        self.growth = Growth("generator", count, grown, fade)
        require(1 <= width <= max_channels, "generator.width", width,
                f"from 1 to generator.max_channels ({max_channels})")
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        self.z_dim, self.num_classes = z_dim, num_classes
        inner = channels(width, max_channels, count)
        self.norm = PixelNorm()
        self.embedding = Vectors(num_classes, z_dim) if num_classes else None
        self.dense = EqualLinear(z_dim * (2 if num_classes else 1),
                                 inner[0] * self.smallest[0] * self.smallest[1], gain=GAIN)
        self.conv = EqualConv(inner[0], inner[0], 3, gain=GAIN)
        self.blocks = nn.ModuleList(Up(a, b) for a, b in pairwise(inner))
        self.to_rgb = nn.ModuleList(EqualConv(c, out_channels, 1) for c in inner)

    def grow(self, progress: float) -> None:
        """As large as it is to be at this share of the run."""
        self.growth.grow(progress)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> NCHW"""
        x = torch.cat([z, self.embedding(needed(c))], 1) if self.embedding else z
        x = self.norm(leaky_relu(self.dense(self.norm(x)).unflatten(1, (-1, *self.smallest)), 1))
        x = self.norm(leaky_relu(self.conv(x), 1))
        k, alpha = self.growth.stage()
        for block in self.blocks[:k]:
            x = checkpointed(self, block, x)
        image = self.to_rgb[k](x)
        if alpha is not None:
            k += 1
            image = faded(F.interpolate(image, scale_factor=2),
                          self.to_rgb[k](checkpointed(self, self.blocks[k - 1], x)), alpha)
        return F.interpolate(image,
                             scale_factor=2 ** (self.growth.count - k)) if k < self.growth.count else image


class Down(nn.Module):
    """Two convolutions with leaky ReLU, and half the map: by the average of each 2x2 pixels (Karras et al.
    2018, table 2), or `bilinear`, after a binomial filter (Karras et al. 2019, section 2)."""

    def __init__(self, into: int, out: int, down: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = EqualConv(into, into, 3, gain=GAIN), EqualConv(into, out, 3, gain=GAIN)
        self.bilinear = down == "bilinear"

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NC'(H/2)(W/2)"""
        x = leaky_relu(self.conv1(x), 1)
        if self.bilinear:
            return leaky_relu(self.conv2(halved(x)), 1)
        return F.avg_pool2d(leaky_relu(self.conv2(x), 1), 2)


@register("discriminator", "progressive")
class Discriminator(nn.Module):
    """Karras et al. 2018: the generator mirrored, with the minibatch's standard deviation before the last
    layers; also that of StyleGAN.

    Images are averaged down to the size in use.  Unlike in the paper real images are not themselves faded:
    what is new in them counts by alpha here.  `group` images are compared with each other (0: none).  With
    classes, the inner product with the label's vector is added (Miyato and Koyama 2018).  `grown` and `fade`
    as in the generator, which has to have the same.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 32,
                 max_channels: int = 512,
                 group: int = 4, down: Literal["average", "bilinear"] = "average",
                 grown: float = 0.6, fade: float = 0.5) -> None:
        super().__init__()
        smallest, count = halvings(size, "progressive")
        self.growth = Growth("discriminator", count, grown, fade)
        require(1 <= width <= max_channels, "discriminator.width", width,
                f"from 1 to discriminator.max_channels ({max_channels})")
        inner = channels(width, max_channels, count)
        last = inner[0]
        self.num_classes, self.feature_shape = num_classes, (last, *smallest)
        self.from_rgb = nn.ModuleList(EqualConv(in_channels, c, 1, gain=GAIN) for c in inner)
        self.blocks = nn.ModuleList(Down(b, a, down) for a, b in pairwise(inner))
        self.std = MinibatchStd(group) if group else nn.Identity()
        self.conv = EqualConv(last + (1 if group else 0), last, 3, gain=GAIN)
        self.dense = EqualLinear(last * smallest[0] * smallest[1], last, gain=GAIN)
        self.out = EqualLinear(last, 1)
        self.projection = Projection(num_classes, last) if num_classes else None
        if self.projection:
            # So that the product starts with the variance of `out`.
            nn.init.normal_(self.projection.vectors.weight, 0, last**-0.5)

    def grow(self, progress: float) -> None:
        """As large as it is to be at this share of the run."""
        self.growth.grow(progress)

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """What `head` judges, of the shape `feature_shape`.  NCHW -> NChw"""
        k, alpha = self.growth.stage()
        top = k if alpha is None else k + 1
        if top < self.growth.count:
            x = F.avg_pool2d(x, 2 ** (self.growth.count - top))
        h = self._seen(top, x)
        if alpha is not None:
            h = faded(self._seen(k, F.avg_pool2d(x, 2)), self.blocks[k](h), alpha)
        for block in reversed(self.blocks[:k]):     # type: ignore[call-overload]
            h = block(h)
        return h

    def _seen(self, k: int, x: Tensor) -> Tensor:
        return leaky_relu(self.from_rgb[k](x), 1)

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """NChw features, N -> N1 logits"""
        h = leaky_relu(self.dense(leaky_relu(self.conv(self.std(h)), 1).flatten(1)), 1)
        logits = self.out(h)
        return logits + self.projection(h[:, :, None, None],
                                        needed(c)).flatten(1) if self.projection else logits

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1 logits"""
        return self.head(self.trunk(x, c), c)
