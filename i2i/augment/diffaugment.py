"""DiffAugment: every image that D sees is varied, always."""

from __future__ import annotations

import torch
from torch import Tensor

from i2i.augment.base import Augment, Transform, apply_policy, check_policy, per_image
from i2i.augment.warp import gather_pixels
from i2i.registry import register

SHIFT = 0.125       # Of the image's size, at most.  Section 4 and the authors' code, as all numbers here.
HOLE = 0.5          # Of the image's size.


def color(n: int, device: torch.device) -> Transform:
    """Brightness + U(-0.5, 0.5), saturation * U(0, 2), contrast * U(0.5, 1.5): of images with one channel the
    first and last, of others none."""
    brightness, saturation, contrast = (per_image(torch.rand(n, device=device)) for _ in range(3))

    def change(x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            return x
        x = x + (brightness - 0.5)
        gray = x.mean(1, keepdim=True)
        x = (x - gray) * (2 * saturation) + gray
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (contrast + 0.5) + mean

    return change


def translation(n: int, device: torch.device) -> Transform:
    """Shifted by whole pixels, up to an eighth of the size each way; zeros come in."""
    down, right = (torch.rand(n, device=device) * 2 - 1 for _ in range(2))

    def change(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = torch.arange(height, device=device) - torch.round(down * SHIFT * height).long()[:, None]
        columns = torch.arange(width, device=device) - torch.round(right * SHIFT * width).long()[:, None]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
        return gather_pixels(x, index) * inside[:, None]

    return change


def cutout(n: int, device: torch.device) -> Transform:
    """Half of the height by half of the width set to zero, its middle anywhere."""
    y, x_ = (torch.rand(n, device=device) for _ in range(2))

    def change(x: Tensor) -> Tensor:
        hole = [_covered(middle, size) for middle, size in zip((y, x_), x.shape[2:], strict=True)]
        return x * ~(hole[0][:, :, None] & hole[1][:, None])[:, None]

    return change


def _covered(middle: Tensor, size: int) -> Tensor:
    """Which places of a line lie in a hole with its middle at a share of it.  N -> N(size), bool"""
    length = int(size * HOLE + 0.5)
    first = (middle * (size + 1 - length % 2)).floor().long()[:, None] - length // 2
    at = torch.arange(size, device=middle.device)
    return (at >= first) & (at < first + length)


MAKERS = {"color": color, "translation": translation, "cutout": cutout}


@register("augment", "diffaugment")
class DiffAugment(Augment):
    """Zhao, Liu, Lin, Zhu, Han 2020, "Differentiable Augmentation for Data-Efficient GAN Training",
    arXiv:2006.10738."""

    def __init__(self, *, policy: tuple[str, ...] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        check_policy(policy, MAKERS)
        self.policy = policy

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """NCHW, … -> (NCHW, …)"""
        return apply_policy(images, self.policy, MAKERS)
