"""The spaces in which the images of a generator lie near each other: its noise, or its styles."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from i2i.inference.model import Model

Label = int | Tensor | None     # Of all points, or (N,) of each; None in models without classes.


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of (N, D) and (N, D), which keeps the length of normal noise.  White 2016."""
    angle = torch.acos((normalize(a, dim=1) * normalize(b, dim=1)).sum(1, keepdim=True).clamp(-1, 1))
    if float(angle.abs().max()) < 1e-4:         # So near that the arc is a line.
        return a.lerp(b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


class NoiseSpace:
    """The normal noise from which the prior makes z; paths are arcs, on which noise stays equally likely."""

    name = "noise"

    def __init__(self, model: Model) -> None:
        self.model = model

    def points(self, seed: int, indices: Sequence[int], label: Label) -> Tensor:
        """The points of the images with these indices of a seed, (N, D)."""
        return self.model.noise(seed, indices)

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """The points at t, from 0 to 1, of the paths from a to b, (N, D)."""
        return slerp(a, b, t)

    def add(self, points: Tensor, direction: Tensor, weight: float) -> Tensor:
        """Points moved along a direction, (N, D) each, at the length they had, which is that of noise."""
        moved = points + weight * direction
        return normalize(moved, dim=1) * points.norm(dim=1, keepdim=True)

    def render(self, points: Tensor, label: Label) -> Tensor:
        """Images at points on the model's device, (N, D) -> (N, C, H, W), differentiable by the points."""
        labels = {} if label is None else {
            "c": torch.as_tensor(label, device=self.model.device).expand(len(points))}
        return next(iter(self.model.recipe.generate(self.model.modules, {"eps": points} | labels).values()))

    @torch.inference_mode()
    def images(self, points: Tensor, label: Label) -> Tensor:
        """Images at points, (N, D) -> (N, C, H, W) on the CPU."""
        size = self.model.batch_size()
        return torch.cat([self.render(batch.to(self.model.device), label[i * size:(i + 1) * size]
                                      if isinstance(label, Tensor) else label).float().cpu()
                          for i, batch in enumerate(points.split(size))])


class StyleSpace(NoiseSpace):
    """The styles w, less entangled than z; paths are straight.  Karras et al. 2019, section 4.1."""

    name = "styles"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.G = cast(Any, model.modules["G"])

    @torch.inference_mode()
    def points(self, seed: int, indices: Sequence[int], label: Label) -> Tensor:
        z = self.model.modules["Z"](super().points(seed, indices, label).to(self.model.device))
        return self.G.mapping(z, None if label is None
                              else torch.as_tensor(label, device=z.device).expand(len(z)))

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        return a.lerp(b, t)

    def add(self, points: Tensor, direction: Tensor, weight: float) -> Tensor:
        return points + weight * direction

    def render(self, points: Tensor, label: Label) -> Tensor:
        return self._synthesize(points[:, None].expand(-1, self.G.num_ws, -1))

    @torch.inference_mode()
    def synthesize(self, ws: Tensor) -> Tensor:
        """Images from a style for each layer, (N, num_ws, D) -> (N, C, H, W) on the CPU."""
        return torch.cat([self._synthesize(batch).float().cpu()
                          for batch in ws.split(self.model.batch_size())])

    def _synthesize(self, ws: Tensor) -> Tensor:
        truncation = self.G.truncation
        return self.G.synthesize(ws if truncation == 1 else self.G.w_avg.lerp(ws, truncation))


def latent_spaces(model: Model) -> dict[str, NoiseSpace]:
    """The latent spaces of a model by name; the last one is the least entangled."""
    has_styles = "G" in model.modules and hasattr(model.modules["G"], "synthesize")
    spaces = [NoiseSpace(model), *([StyleSpace(model)] if has_styles else [])]
    return {space.name: space for space in spaces}


def latent_space(model: Model, name: str | None = None) -> NoiseSpace:
    """A space by name; by default the styles of a network that has them, else the noise."""
    spaces = latent_spaces(model)
    return spaces[name or list(spaces)[-1]]


def closed_path(space: NoiseSpace, points: Tensor, frames: int) -> Iterator[Tensor]:
    """A closed path through all points in steps of equal t, (1, D) each; one more step would be the first."""
    for frame in range(frames):
        i, rest = divmod(frame * len(points), frames)
        start, end = points[i], points[(i + 1) % len(points)]
        yield space.between(start[None], end[None], rest / frames)
