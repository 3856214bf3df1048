"""Points from which a model makes images, and the ways between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from i2i.inference.model import Model
from i2i.inference.translate import PIXELS
from i2i.seeding import noise_for


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """From a to b along the arc between them, so that what lies between is as long as noise is.  White 2016,
    "Sampling Generative Networks".

    N x d, N x d -> N x d
    """
    angle = torch.acos((torch.nn.functional.normalize(a, dim=1) * torch.nn.functional.normalize(b,
                                                                                                dim=1)).sum(1, keepdim=True).clamp(-1, 1))
    if float(angle.abs().max()) < 1e-4:         # So near that the arc is the line.
        return a.lerp(b, t)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


class LatentSpace(Protocol):
    """Where points lie."""

    def points(self, seed: int, places: Sequence[int], label: int | None) -> Tensor:
        """The points of images number `places` of a seed.  -> N x d"""
        ...

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """The point at t of the way from a to b."""
        ...

    def images(self, points: Tensor, label: int | None) -> Tensor:
        """N x d -> NCHW on the CPU"""
        ...


class NoiseSpace:
    """The normal noise behind z: what lies on an arc between two draws is as likely as they are, and the
    prior made of it stays that prior."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def points(self, seed: int, places: Sequence[int], label: int | None) -> Tensor:
        """Noise, which is the same for all classes.  -> N x inputs"""
        inputs = cast(int, self.model.modules["Z"].noise_dim)
        return torch.stack([noise_for(seed, place, inputs) for place in places])

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """On the arc."""
        return slerp(a, b, t)

    @torch.inference_mode()
    def images(self, points: Tensor, label: int | None) -> Tensor:
        """N x inputs -> NCHW on the CPU"""
        made = []
        for few in points.split(concat(self.model)):
            batch = {"eps": few.to(self.model.device)}
            if label is not None:
                batch["c"] = torch.full((len(few),), label, device=self.model.device)
            made.append(next(iter(self.model.recipe.generate(self.model.modules,
                                                             batch).values())).float().cpu())
        return torch.cat(made)


class StyleSpace:
    """The styles w: less entangled than z, and without a shape of their own, so ways are straight.  Karras et
    al. 2019, section 4.1."""

    def __init__(self, model: Model) -> None:
        self.model, self.G = model, cast(Any, model.modules["G"])

    @torch.inference_mode()
    def points(self, seed: int, places: Sequence[int], label: int | None) -> Tensor:
        """Styles, drawn to their mean by the model's truncation.  -> N x w_dim"""
        z = self.model.modules["Z"](NoiseSpace(self.model).points(seed, places, label).to(self.model.device))
        c = None if label is None else torch.full((len(z),), label, device=z.device)
        w = self.G.mapping(z, c)
        return w if self.G.truncation == 1 else self.G.w_avg.lerp(w, self.G.truncation)

    def between(self, a: Tensor, b: Tensor, t: float) -> Tensor:
        """On the line."""
        return a.lerp(b, t)

    def images(self, points: Tensor, label: int | None) -> Tensor:
        """N x w_dim, which hold the label -> NCHW on the CPU"""
        return self.synthesize(points[:, None].expand(-1, self.G.num_ws, -1))

    @torch.inference_mode()
    def synthesize(self, ws: Tensor) -> Tensor:
        """A style for each layer.  N x num_ws x w_dim -> NCHW on the CPU"""
        return torch.cat([self.G.synthesize(few).float().cpu() for few in ws.split(concat(self.model))])


def concat(model: Model) -> int:
    """How many images go through the network at once."""
    height, width = model.header["info"]["size"]
    return max(1, min(32, PIXELS // (height * width)))


def latent_space(model: Model) -> LatentSpace:
    """Styles where the network has them, else noise."""
    return StyleSpace(model) if hasattr(model.modules["G"], "synthesize") else NoiseSpace(model)


def closed_path(space: LatentSpace, points: Tensor, frames: int) -> Iterator[Tensor]:
    """A closed way through all points, in equal steps of t; the step after the last would be the first.  -> 1
    x d each"""
    count = len(points)
    for frame in range(frames):
        place, rest = divmod(frame * count, frames)
        a, b = points[place], points[(place + 1) % count]
        yield space.between(a[None], b[None], rest / frames)
