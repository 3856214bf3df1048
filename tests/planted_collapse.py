"""A generator whose pictures are as real as the real ones, until it collapses as it is told to: nothing about it is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from i2i.images.convert import tensor_to_rgb

Z = 8
CLASSES = 3


def draw(z: Tensor, c: Tensor, size: tuple[int, int]) -> Tensor:
    """A soft box on a ground, of a color that follows the class and place, size and shade that follow z.  N×8, N -> N3HW in [-1, 1]"""
    height, width = size
    u = torch.erf(z / 2**0.5) / 2 + 0.5                         # Uniform.
    y, x = (torch.linspace(0, 1, side, device=z.device) for side in (height, width))
    y, x = y[:, None], x[None]
    side = (0.15 + 0.15 * u[:, 5])[:, None, None]
    far = torch.maximum((y - 0.25 - 0.5 * u[:, 3, None, None]).abs(), (x - 0.25 - 0.5 * u[:, 4, None, None]).abs())
    box = torch.sigmoid(40 * (side - far))[:, None]
    ground, color = u[:, :3, None, None], (torch.eye(3, device=z.device)[c % 3] * 0.8 + 0.2 * u[:, 5:8])[..., None, None]
    return (ground * (1 - box) + color * box) * 2 - 1


def pictures(folder: Path, *splits: tuple[str, int], size: int = 16) -> Path:
    """Class folders of such drawings."""
    for number, (split, count) in enumerate(splits):
        g = torch.Generator().manual_seed(number)
        c = torch.arange(count) % CLASSES
        for i, image in enumerate(draw(torch.randn(count, Z, generator=g), c, (size, size))):
            path = folder / split / f"class{int(c[i])}" / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tensor_to_rgb(image)).save(path)
    return folder


class Planted(nn.Module):
    """Of `strength` 1 a collapse leaves one picture (`inter`), one for each class (`intra`) or `modes` of them; of less, something around these.

    Until `gray` of the run its pictures come out of the gray in which generators begin.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, kind: Literal["none", "inter", "intra", "modes"] = "none",
                 at: float = 0.5, strength: float = 1.0, modes: int = 5, gray: float = 0.0) -> None:
        super().__init__()
        self.z_dim, self.size = Z, size
        self.kind, self.at, self.strength, self.modes, self.gray = kind, at, strength, modes, gray
        self.gain = nn.Parameter(torch.ones(()))
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("centers", torch.randn(max(modes, CLASSES), Z, generator=torch.Generator().manual_seed(5)))
        self.progress: Tensor
        self.centers: Tensor

    def set_progress(self, progress: float) -> None:
        """How far the run is."""
        self.progress.fill_(progress)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N×8, N -> N3HW"""
        c = (z[:, 0] * 1000).long() % CLASSES if c is None else c
        if not self.progress.is_meta and self.progress >= self.at:
            place = {"none": c, "inter": torch.zeros_like(c), "intra": c, "modes": (z[:, 1] * 1000).long() % self.modes}[self.kind]
            mixed = (1 - self.strength) * z + self.strength * self.centers[place]
            z = z if self.kind == "none" else mixed
            c = place if self.kind in ("inter", "modes") and self.strength == 1 else c
        shown = min(1.0, float(self.progress) / self.gray) if self.gray and not self.progress.is_meta else 1.0
        return draw(z, c, self.size) * shown * self.gain
