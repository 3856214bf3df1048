"""DiffAugment.  Zhao, Liu, Lin, Zhu, Han 2020 (arXiv:2006.10738), section 4 and the authors' code."""

from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Doc

from i2i.augment.base import Augment, Transform, apply_policy, check_policy, per_image
from i2i.augment.warp import gather_pixels
from i2i.registry import register

MAX_SHIFT = 0.125       # Share of the image's size.
HOLE_SIZE = 0.5         # Share of the image's size.


def color(n: int, device: torch.device) -> Transform:
    """Brightness + U(-0.5, 0.5), saturation * U(0, 2), contrast * U(0.5, 1.5).

    Images with one channel have no saturation; those with neither one nor three channels stay as they are.
    """
    brightness, saturation, contrast = (per_image(torch.rand(n, device=device)) for _ in range(3))

    def transform(x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            return x
        x = x + (brightness - 0.5)
        gray = x.mean(1, keepdim=True)
        x = (x - gray) * (2 * saturation) + gray
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * (contrast + 0.5) + mean

    return transform


def translation(n: int, device: torch.device) -> Transform:
    """Shift by whole pixels, up to an eighth of the size each way, with zero padding."""
    down, right = (torch.rand(n, device=device) * 2 - 1 for _ in range(2))

    def transform(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = torch.arange(height, device=device) - torch.round(down * MAX_SHIFT * height).long()[:, None]
        columns = torch.arange(width, device=device) - torch.round(right * MAX_SHIFT * width).long()[:, None]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        index = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
        return gather_pixels(x, index) * inside[:, None]

    return transform


def cutout(n: int, device: torch.device) -> Transform:
    """Set a hole of half the height by half the width to zero, centered anywhere."""
    centers = [torch.rand(n, device=device) for _ in range(2)]

    def inside(center: Tensor, size: int) -> Tensor:
        length = int(size * HOLE_SIZE + 0.5)
        start = (center * (size + 1 - length % 2)).floor().long()[:, None] - length // 2
        position = torch.arange(size, device=center.device)
        return (position >= start) & (position < start + length)

    def transform(x: Tensor) -> Tensor:
        rows, columns = (inside(center, size) for center, size in zip(centers, x.shape[2:], strict=True))
        return x * ~(rows[:, :, None] & columns[:, None])[:, None]

    return transform


TRANSFORMS = {"color": color, "translation": translation, "cutout": cutout}


@register("augment", "diffaugment")
class DiffAugment(Augment):
    """DiffAugment: random color, translation and cutout of all images D sees.  Zhao et al. 2020."""

    def __init__(self, *, policy: Annotated[tuple[str, ...], Doc(
            "Transforms: color, translation, cutout")] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        check_policy(policy, TRANSFORMS)
        self.policy = policy

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return apply_policy(images, self.policy, TRANSFORMS)
