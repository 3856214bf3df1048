"""Adaptive discriminator augmentation: as much of it as keeps D from learning the data by heart."""

from __future__ import annotations

import math
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from i2i.augment.base import Augment, Transform, apply_policy, check_policy, per_image
from i2i.augment.warp import gather_pixels, reflect_index, warped
from i2i.errors import require
from i2i.registry import register

# Karras et al. 2020a, appendix B, which calls these the constants of the pipeline.
# Of the image's size: the most for whole pixels, the standard deviation for fractions.
SHIFT = 0.125
SCALE = 0.2                     # Standard deviations of the logarithms, base 2: of both scalings,
CONTRAST, SATURATION = 0.5, 1.0
BRIGHTNESS = 0.2                # And of brightness itself, images being in [-1, 1].


def sometimes(chance: Tensor, values: Tensor, neutral: float) -> Tensor:
    """The value of an image where its coin falls for it, else the neutral one.  (), N -> N"""
    return torch.where(torch.rand(len(values), device=values.device) < chance, values, neutral)


def blit(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """Mirrored, turned by quarters, shifted by whole pixels: every pixel is one of the image.  Turns of
    images that are not square are halves."""
    mirror = sometimes(p, 1 - 2 * torch.randint(2, (n,), device=device).float(), 1)
    quarters = sometimes(p, torch.randint(4, (n,), device=device).float(), 0)
    coin = torch.rand(n, device=device) < p
    right, down = (torch.where(coin, torch.rand(n, device=device) * 2 - 1, 0) * SHIFT for _ in range(2))

    def change(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        turn = (quarters if height == width else 2 * torch.floor(quarters / 2))[:, None, None] * (math.pi / 2)
        cos, sin = torch.cos(turn).round(), torch.sin(turn).round()
        y = torch.arange(height, device=device)[:, None] - (height - 1) / 2 - torch.round(down * height)[:,
                                                                                                         None, None]
        x_ = torch.arange(width, device=device)[None] - (width - 1) / 2 - torch.round(right * width)[:, None,
                                                                                                     None]
        columns = mirror[:, None, None] * (cos * x_ + sin * y) + (width - 1) / 2
        rows = cos * y - sin * x_ + (height - 1) / 2
        return gather_pixels(x,
                             reflect_index(rows, height).long() * width
                             + reflect_index(columns, width).long())

    return change


def geom(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """Scaled alike in all directions, turned, stretched in one, turned again, shifted."""
    def normal() -> Tensor:
        return torch.randn(n, device=device)

    once = 1 - (1 - p).sqrt()       # Of each turn, so that one of the two at least has a chance of p.
    scale = torch.exp2(sometimes(p, SCALE * normal(), 0))
    first = sometimes(once, (torch.rand(n, device=device) * 2 - 1) * math.pi, 0)
    stretch = torch.exp2(sometimes(p, SCALE * normal(), 0))
    second = sometimes(once, (torch.rand(n, device=device) * 2 - 1) * math.pi, 0)
    coin = torch.rand(n, device=device) < p
    shift = torch.stack([torch.where(coin, SHIFT * normal(), 0) for _ in range(2)], 1)
    diagonal = torch.stack([1 / stretch, stretch], 1)[:, :, None]
    # From a place to where its pixel comes from.
    matrix = _turned(-first) * (1 / scale)[:, None, None] @ (diagonal * _turned(-second))
    moved = (scale != 1) | (first != 0) | (stretch != 1) | (second != 0) | (shift != 0).any(1)

    def change(x: Tensor) -> Tensor:
        size = torch.stack([torch.full((n,), float(side), device=device)
                            for side in (x.shape[3], x.shape[2])], 1)
        return torch.where(per_image(moved), warped(x, matrix, shift * size), x)

    return change


def _turned(angle: Tensor) -> Tensor:
    """Rotation matrices.  N -> N22"""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def color(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """Brightness, contrast, luma flip, hue, saturation: of images with one channel the first two, of others
    none.

    The paper multiplies matrices of homogeneous colors.  All of them keep the gray axis (1, 1, 1) and what is
    perpendicular to it apart, so their product is written out: a factor for the one, a factor and a turn for
    the other.
    """
    brightness = per_image(sometimes(p, BRIGHTNESS * torch.randn(n, device=device), 0))
    contrast = per_image(torch.exp2(sometimes(p, CONTRAST * torch.randn(n, device=device), 0)))
    flip = per_image(sometimes(p, 1 - 2 * torch.randint(2, (n,), device=device).float(), 1))
    hue = per_image(sometimes(p, (torch.rand(n, device=device) * 2 - 1) * math.pi, 0))
    saturation = per_image(torch.exp2(sometimes(p, SATURATION * torch.randn(n, device=device), 0)))
    lit = (brightness != 0) | (contrast != 1)
    tinted = lit | (flip != 1) | (hue != 0) | (saturation != 1)

    def change(x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return torch.where(lit, contrast * (x + brightness), x)
        if x.shape[1] != 3:
            return x
        gray = x.mean(1, keepdim=True)
        rest = x - gray
        # Its vector product with the unit vector of the gray axis.
        across = (rest.roll(1, 1) - rest.roll(-1, 1)) / 3**0.5
        out = contrast * (flip * (gray + brightness) + saturation * (hue.cos() * rest + hue.sin() * across))
        return torch.where(tinted, out, x)

    return change


MAKERS = {"blit": blit, "geom": geom, "color": color}


@register("augment", "ada")
class ADA(Augment):
    """Karras et al. 2020a, "Training Generative Adversarial Networks with Limited Data", arXiv:2006.06676.

    Each variation of an image has the chance p.  Every `interval` steps p rises if r_t = E[sign(D(real))],
    the sign of D overfitting, was above `target` since the last time, else it falls (section 3), at a rate
    that takes it from 0 to 1 in `speed` images; with speed=0 it stays.
    """

    p: Tensor
    signs: Tensor
    count: Tensor
    steps: Tensor
    synced_buffers: ClassVar[tuple[str, ...]] = ("signs", "count")

    def __init__(self, *, policy: tuple[str, ...] = ("blit", "geom", "color"), p: float = 0.0,
                 target: float = 0.6, interval: int = 4,
                 speed: int = 500_000) -> None:
        super().__init__()
        check_policy(policy, MAKERS)
        require(0 <= p <= 1, "augment.p", p, "0 to 1")
        require(0 < target < 1, "augment.target", target, "more than 0 and less than 1")
        require(interval >= 1, "augment.interval", interval, "1 or more")
        require(speed >= 1 or (speed == 0 and p > 0), "augment.speed", speed,
                "1 or more images, or 0 with augment.p above 0, which then stays")
        self.policy, self.target, self.interval, self.speed = policy, target, interval, speed
        self.adaptive = speed > 0
        self.register_buffer("p", torch.tensor(p))
        # Of D's logits of real images since p last changed, their sum
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))                              # over so many images.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """NCHW, … -> (NCHW, …)"""
        return apply_policy(images, self.policy,
                            {name: partial(make, p=self.p) for name, make in MAKERS.items()})

    @torch.no_grad()
    def observe(self, real_logits: Tensor, images: int | None = None) -> None:
        """First p follows from the steps before, whose sums are the same in all processes by now; then these
        logits are added."""
        if not self.adaptive:
            return
        step = self.interval * (images or len(real_logits)) / self.speed
        due = (self.steps % self.interval == 0) & (self.count > 0)
        change = torch.sign(self.signs / self.count.clamp(min=1) - self.target) * step
        self.p.copy_(torch.where(due, (self.p + change).clamp(0, 1), self.p))
        self.signs.copy_(torch.where(due, 0, self.signs)
                         + real_logits.float().sign().mean() * len(real_logits))
        self.count.copy_(torch.where(due, 0, self.count) + len(real_logits))
        self.steps += 1

    def logs(self) -> dict[str, Tensor]:
        """p"""
        return {"augment_p": self.p}
