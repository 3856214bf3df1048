"""Adaptive discriminator augmentation (ADA).  Karras et al. 2020a, arXiv:2006.06676."""

import math
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from typing_extensions import Doc

from i2i.augment.base import Augment, Transform, apply_policy, check_policy, per_image
from i2i.augment.warp import gather_pixels, warp_affine
from i2i.errors import require
from i2i.nets.padding import reflect_index
from i2i.registry import register

# Appendix B.
SHIFT = 0.125                   # Share of the size: maximum of `blit`, standard deviation of `geom`.
SCALE = 0.2                     # Standard deviations of logarithms to base 2: of both scalings,
CONTRAST, SATURATION = 0.5, 1.0
BRIGHTNESS = 0.2                # and of brightness itself, for images in [-1, 1].


def _with_probability(p: Tensor, values: Tensor, neutral: float) -> Tensor:
    """Each value with probability p, else the neutral one.  scalar, (N) -> (N)"""
    return torch.where(torch.rand(len(values), device=values.device) < p, values, neutral)


def _random_sign(n: int, device: torch.device) -> Tensor:
    return 1 - 2 * torch.randint(2, (n,), device=device).float()


def _random_angle(n: int, device: torch.device) -> Tensor:
    return (torch.rand(n, device=device) * 2 - 1) * math.pi


def blit(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """Pixel blitting: mirror, rotate by quarter turns (half turns if not square), shift by whole pixels."""
    mirror = _with_probability(p, _random_sign(n, device), 1)
    quarters = _with_probability(p, torch.randint(4, (n,), device=device).float(), 0)
    shifted = torch.rand(n, device=device) < p
    right, down = (torch.where(shifted, torch.rand(n, device=device) * 2 - 1, 0) * SHIFT for _ in range(2))

    def centered(size: int, shift: Tensor) -> Tensor:
        return torch.arange(size, device=device) - (size - 1) / 2 - torch.round(shift * size)[:, None]

    def transform(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        turn = (quarters if height == width else 2 * torch.floor(quarters / 2))[:, None, None] * (math.pi / 2)
        cos, sin = torch.cos(turn).round(), torch.sin(turn).round()
        y, x_ = centered(height, down)[:, :, None], centered(width, right)[:, None]
        columns = mirror[:, None, None] * (cos * x_ + sin * y) + (width - 1) / 2
        rows = cos * y - sin * x_ + (height - 1) / 2
        rows, columns = reflect_index(rows, height).long(), reflect_index(columns, width).long()
        return gather_pixels(x, rows * width + columns)

    return transform


def geom(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """General geometric transforms: isotropic scaling, rotation, anisotropic scaling, rotation, shift."""
    def normal() -> Tensor:
        return torch.randn(n, device=device)

    p_rotate = 1 - (1 - p).sqrt()       # So that at least one of the two rotations has probability p.
    scale = torch.exp2(_with_probability(p, SCALE * normal(), 0))
    first = _with_probability(p_rotate, _random_angle(n, device), 0)
    stretch = torch.exp2(_with_probability(p, SCALE * normal(), 0))
    second = _with_probability(p_rotate, _random_angle(n, device), 0)
    shifted = torch.rand(n, device=device) < p
    shift = torch.stack([torch.where(shifted, SHIFT * normal(), 0) for _ in range(2)], 1)
    diagonal = torch.stack([1 / stretch, stretch], 1)[:, :, None]
    # From a position to the one its pixel comes from.
    matrix = _rotation(-first) * (1 / scale)[:, None, None] @ (diagonal * _rotation(-second))
    changed = (scale != 1) | (first != 0) | (stretch != 1) | (second != 0) | (shift != 0).any(1)

    def transform(x: Tensor) -> Tensor:
        size = torch.stack([torch.full((n,), float(side), device=device)
                            for side in (x.shape[3], x.shape[2])], 1)
        return torch.where(per_image(changed), warp_affine(x, matrix, shift * size), x)

    return transform


def _rotation(angle: Tensor) -> Tensor:
    """(N) -> (N, 2, 2)"""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)


def color(n: int, device: torch.device, *, p: Tensor) -> Transform:
    """Color transforms: brightness, contrast, luma flip, hue, saturation.

    Images with one channel have the first two only; those with neither one nor three channels stay as they
    are.  The paper multiplies matrices of homogeneous colors.  All of them keep the gray axis (1, 1, 1) and
    its orthogonal plane apart, so their product is written out: a factor for the axis, a factor and a
    rotation for the plane.
    """
    brightness = per_image(_with_probability(p, BRIGHTNESS * torch.randn(n, device=device), 0))
    contrast = per_image(torch.exp2(_with_probability(p, CONTRAST * torch.randn(n, device=device), 0)))
    flip = per_image(_with_probability(p, _random_sign(n, device), 1))
    hue = per_image(_with_probability(p, _random_angle(n, device), 0))
    saturation = per_image(torch.exp2(_with_probability(p, SATURATION * torch.randn(n, device=device), 0)))
    gray_changed = (brightness != 0) | (contrast != 1)
    changed = gray_changed | (flip != 1) | (hue != 0) | (saturation != 1)

    def transform(x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            return torch.where(gray_changed, contrast * (x + brightness), x)
        if x.shape[1] != 3:
            return x
        gray = x.mean(1, keepdim=True)
        chroma = x - gray
        rotated = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / 3**0.5     # Cross product with the gray axis.
        out = contrast * (flip * (gray + brightness)
                          + saturation * (hue.cos() * chroma + hue.sin() * rotated))
        return torch.where(changed, out, x)

    return transform


TRANSFORMS = {"blit": blit, "geom": geom, "color": color}


@register("augment", "ada")
class ADA(Augment):
    """Each transform with probability p, adapted to D's overfitting.  Karras et al. 2020a.

    Every `interval` steps p rises if r_t = E[sign(D(real))] was above `target` since the last time, else it
    falls (section 3).
    """

    p: Tensor
    sign_sum: Tensor
    count: Tensor
    steps: Tensor
    synced_buffers: ClassVar[tuple[str, ...]] = ("sign_sum", "count")

    def __init__(
            self, *, policy: Annotated[tuple[str, ...], Doc(
                "Transforms: blit (mirror, turn, shift), geom (scale, rotate, shift), color")] = (
                    "blit", "geom", "color"),
            p: Annotated[float, Doc("Initial probability of each transform")] = 0.0,
            target: Annotated[float, Doc("Target of the mean sign of D's logits of real images")] = 0.6,
            interval: Annotated[int, Doc("Steps between changes of p")] = 4,
            speed: Annotated[int, Doc("Images in which p can rise from 0 to 1; 0: p is constant")] = 500_000
    ) -> None:
        super().__init__()
        check_policy(policy, TRANSFORMS)
        require(0 <= p <= 1, "augment.p", p, "0 to 1")
        require(0 < target < 1, "augment.target", target, "more than 0 and less than 1")
        require(interval >= 1, "augment.interval", interval, "1 or more")
        require(speed >= 1 or (speed == 0 and p > 0), "augment.speed", speed,
                "1 or more images, or 0 with augment.p above 0, which is then constant")
        self.policy, self.target, self.interval, self.speed = policy, target, interval, speed
        self.adaptive = speed > 0
        self.register_buffer("p", torch.tensor(p))
        # Signs of D's logits of real images since the last change of p: their sum and number.
        self.register_buffer("sign_sum", torch.zeros(()))
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return apply_policy(images, self.policy,
                            {name: partial(make, p=self.p) for name, make in TRANSFORMS.items()})

    @torch.no_grad()
    def observe(self, real_logits: Tensor, batch_size: int | None = None) -> None:
        if not self.adaptive:
            return
        # First p is updated from earlier steps, whose sums are equal in all processes by now.
        step = self.interval * (batch_size or len(real_logits)) / self.speed
        due = (self.steps % self.interval == 0) & (self.count > 0)
        change = torch.sign(self.sign_sum / self.count.clamp(min=1) - self.target) * step
        self.p.copy_(torch.where(due, (self.p + change).clamp(0, 1), self.p))
        signs = real_logits.float().sign().mean() * len(real_logits)
        self.sign_sum.copy_(torch.where(due, 0, self.sign_sum) + signs)
        self.count.copy_(torch.where(due, 0, self.count) + len(real_logits))
        self.steps += 1

    def logs(self) -> dict[str, Tensor]:
        return {"augment_p": self.p}
