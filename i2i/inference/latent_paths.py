"""Points in the latent space of a generator, and paths between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from i2i.inference.model import Model


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of (N, D) and (N, D), which keeps the length of normal noise.  White 2016."""
    angle = torch.acos((normalize(a, dim=1) * normalize(b, dim=1)).sum(1, keepdim=True).clamp(-1, 1))
    if float(angle.abs().max()) < 1e-4:         # So near that the arc is a line.
        return a.lerp(b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


class NoiseSpace:
    """The normal noise from which the prior makes z; paths are arcs, on which noise stays equally likely."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def points(self, seed: int, indices: Sequence[int], label: int | None) -> Tensor:
        """The points of the images with these indices of a seed, (N, D)."""
        return self.model.noise(seed, indices)

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """The points at t, from 0 to 1, of the paths from a to b, (N, D)."""
        return slerp(a, b, t)

    def images(self, points: Tensor, label: int | None) -> Tensor:
        """Images at points, (N, D) -> (N, C, H, W) on the CPU."""
        images = []
        for batch in points.split(self.model.batch_size()):
            labels = None if label is None else torch.full((len(batch),), label)
            images.append(self.model.generate_from(batch, labels))
        return torch.cat(images)


class StyleSpace(NoiseSpace):
    """The styles w, less entangled than z; paths are straight.  Karras et al. 2019, section 4.1."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.G = cast(Any, model.modules["G"])

    @torch.inference_mode()
    def points(self, seed: int, indices: Sequence[int], label: int | None) -> Tensor:
        z = self.model.modules["Z"](super().points(seed, indices, label).to(self.model.device))
        w = self.G.mapping(z, None if label is None else torch.full((len(z),), label, device=z.device))
        return w if self.G.truncation == 1 else self.G.w_avg.lerp(w, self.G.truncation)

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        return a.lerp(b, t)

    def images(self, points: Tensor, label: int | None) -> Tensor:
        return self.synthesize(points[:, None].expand(-1, self.G.num_ws, -1))

    @torch.inference_mode()
    def synthesize(self, ws: Tensor) -> Tensor:
        """Images from a style for each layer, (N, num_ws, D) -> (N, C, H, W) on the CPU."""
        batches = ws.split(self.model.batch_size())
        return torch.cat([self.G.synthesize(batch).float().cpu() for batch in batches])


def latent_space(model: Model) -> NoiseSpace:
    """The styles of a network that has them, else the noise."""
    return (StyleSpace if hasattr(model.modules["G"], "synthesize") else NoiseSpace)(model)


def closed_path(space: NoiseSpace, points: Tensor, frames: int) -> Iterator[Tensor]:
    """A closed path through all points in steps of equal t, (1, D) each; one more step would be the first."""
    for frame in range(frames):
        i, rest = divmod(frame * len(points), frames)
        start, end = points[i], points[(i + 1) % len(points)]
        yield space.between(start[None], end[None], rest / frames)
