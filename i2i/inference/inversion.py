"""Find the latents from which a generator makes an image, or one near it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import RequestError, require
from i2i.images.convert import make_grid
from i2i.inference.animation import save_sheet
from i2i.inference.generation_plan import parse_classes
from i2i.inference.latent_space import NoiseSpace, latent_space
from i2i.inference.latents import Latents, read_images
from i2i.inference.model import Model
from i2i.recipes.base import Inverts
from i2i.registry import Spec, build

STEPS, STARTS = 200, 8
CANDIDATES = 256            # Random points; the search starts from those of the nearest images.
COARSE_SIZE = 16            # Pixels a side, at which these are compared.
RATE = 0.1                  # Standard deviations of the latents in a step, falling to 0 in the last half.
HALVINGS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)     # When the worse half of the starts is given up.
PERCEPTUAL = 0.1            # Weight of the perceptual distance, beside the logarithm of the squared error.
PRIOR = 10.0                # Weight of the squared excess of the latents' length over its usual one.
ADAM = (0.9, 0.99)
MIN_ERROR = 1e-4            # 46 dB.
Progress = Callable[[int, int], None]


def inverts(model: Model) -> bool:
    """Whether the recipe itself goes back from an image to noise."""
    return isinstance(model.recipe, Inverts) and not model.directions


@torch.inference_mode()
def invert(model: Model, images: Tensor, label: int | None = None) -> Tensor:
    """The standard normal noise of images, (N, C, H, W) in [-1, 1] -> (N, D) on the CPU, by a recipe that
    goes back from an image to noise.

    `Model.generate_from` makes them again from it, or something near.
    """
    recipe: Any = model.recipe
    found = []
    for batch in images.split(model.batch_size()):
        labels = {} if label is None else {"c": torch.full((len(batch),), label, device=model.device)}
        found.append(recipe.invert(model.modules, {"b": batch.to(model.device)} | labels).float().cpu())
    return torch.cat(found)


class Search:
    """Search by gradients for the point of a latent space whose image is nearest to a given one.

    Starts are the points of the nearest of some random images; Adam minimizes the logarithm of the squared
    error of pixels and a perceptual distance, and the worse half of the points is given up again and again.
    Latents longer than those of random images are penalized, as the model has not learned to make images of
    them.

    Args:
        labels: the classes to search in; empty in a model without classes.
        starts: how many points to start from.
        perceptual: weight of the distance in the features of EfficientNet-Lite0; 0: pixels alone.
        seed: of the random images.
    """

    def __init__(self, space: NoiseSpace, labels: Sequence[int], *, steps: int = STEPS, starts: int = STARTS,
                 perceptual: float = PERCEPTUAL, seed: int = 0) -> None:
        require(steps >= 1, "--steps", steps, "1 or more")
        require(1 <= starts <= CANDIDATES, "--starts", starts, f"1 to {CANDIDATES}")
        require(0 <= perceptual < float("inf"), "--perceptual", perceptual, "0 or more")
        self.space, self.steps, self.starts, self.weight = space, steps, starts, perceptual
        self.distance = build("perceptual", Spec("features", {"weight": perceptual})) if perceptual else None
        self.labels = (torch.tensor(labels)[torch.arange(CANDIDATES) % len(labels)].to(space.model.device)
                       if labels else None)
        self.points = space.points(seed, range(CANDIDATES), self.labels).clone().to(space.model.device)
        self.mean, self.std = self.points.mean(0), self.points.std(0)
        self.thumbnails = self._thumbnails(space.images(self.points, self.labels))

    def __call__(self, image: Tensor) -> tuple[Tensor, int]:
        """The point (D,) and the label, or -1, whose image is nearest to a (C, H, W) image."""
        target = image[None].to(self.space.model.device)
        distances = torch.cdist(self._thumbnails(target.cpu()), self.thumbnails)[0]
        nearest = distances.topk(self.starts, largest=False).indices.to(target.device)
        labels = None if self.labels is None else self.labels[nearest]
        z = (self.points[nearest] - self.mean) / self.std
        first, second, error = torch.zeros_like(z), torch.zeros_like(z), z.new_zeros(len(z))
        halvings = {round(fraction * self.steps) for fraction in HALVINGS}
        for step in range(self.steps):
            if step in halvings and step and len(z) > 1:
                kept = error.topk(len(z) // 2, largest=False).indices
                z, first, second = z[kept], first[kept], second[kept]
                labels = None if labels is None else labels[kept]
            gradient, error = self._gradient(z, labels, target)
            first, second = first.lerp(gradient, 1 - ADAM[0]), second.lerp(gradient.square(), 1 - ADAM[1])
            rate = RATE * min(1.0, 2 * (1 - step / self.steps))
            z = z - (rate * first / (1 - ADAM[0] ** (step + 1))
                     / ((second / (1 - ADAM[1] ** (step + 1))).sqrt() + 1e-8))
        _, error = self._gradient(z, labels, target)
        best = int(error.argmin())
        return ((self.mean + self.std * z[best]).cpu(), -1 if labels is None else int(labels[best]))

    def _gradient(self, z: Tensor, labels: Tensor | None, target: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient of the loss by normalized points, and the squared errors of their images, (N,)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            made = self.space.render(self.mean + self.std * z, labels).float()
            error = (made - target).square().flatten(1).mean(1)
            excess = (z.norm(dim=1) / z.shape[1] ** 0.5 - 1).clamp(min=0)
            loss = ((error + MIN_ERROR).log() + PRIOR * excess.square()).sum()
            if self.distance is not None:
                loss = loss + self.weight * len(z) * self.distance(made, target.expand_as(made))
            return torch.autograd.grad(loss, z)[0], error.detach()

    @staticmethod
    def _thumbnails(images: Tensor) -> Tensor:
        size = min(COARSE_SIZE, *images.shape[-2:])
        return F.adaptive_avg_pool2d(images, size).flatten(1)


def invert_images(model: Model, paths: Sequence[str | Path], folder: Path, *, classes: str | None = None,
                  n: int | None = None, steps: int | None = None, starts: int | None = None,
                  perceptual: float | None = None, seed: int = 0,
                  warn: Callable[[str], None] = lambda line: None,
                  progress: Progress = lambda done, total: None) -> Latents:
    """Find the latents of images, and write them as `latents.npz`, and for each image a picture of it and of
    what the model makes of them.

    Args:
        paths: files, folders and zips.
        classes: names or numbers of those to search in, separated by commas; by default all.
        n: how many of the images; by default all.
        steps, starts, perceptual, seed: see `Search`; not of models that go back from an image to noise.
        warn: called with each line on what was converted.

    Raises:
        RequestError: if an image cannot be read, or the model cannot be inverted.
    """
    model.set_truncation(1.0)
    labels = parse_classes(model, classes)
    given: dict[str, Any] = {key: value for key, value in (
        ("steps", steps), ("starts", starts), ("perceptual", perceptual)) if value is not None}
    _check(model, labels, given)
    names, images = read_images(model, paths, n or sys.maxsize, warn=warn)
    space = latent_space(model, NoiseSpace.name if inverts(model) else None)
    search = None if inverts(model) else Search(space, labels, seed=seed, **given)
    points, found, psnr = list[Tensor](), list[int](), list[float]()
    try:
        for i, image in enumerate(images):
            label = labels[0] if labels else -1
            point, label = search(image) if search else (
                invert(model, image[None], label if labels else None)[0], label)
            made = space.images(point[None], label if labels else None)[0]
            error = ((made.clamp(-1, 1) - image) / 2).square().mean().clamp(min=1e-10)
            save_sheet(folder / f"{i:04}-{PurePath(names[i]).stem}.png", make_grid([[image, made]]))
            points.append(point)
            found.append(label)
            psnr.append(float(-10 * error.log10()))
            progress(i + 1, len(images))
    finally:        # What was found is kept if the rest fails.
        if points:
            latents = Latents(torch.stack(points), torch.tensor(found), names[:len(points)], psnr, space.name)
            latents.save(folder / "latents.npz")
    return latents


def _check(model: Model, labels: Sequence[int], settings: dict[str, Any]) -> None:
    """RequestError for a model that cannot be inverted, or not with these settings."""
    name, steps = model.header["recipe"]["name"], model.recipe.family.steps
    if not inverts(model):
        if steps != 1:
            raise RequestError(f"this {name} model cannot be inverted; accepted: a model that makes an image "
                               "in one step, or that goes back from an image to noise (i2i list family)")
        return
    if settings:
        key = next(iter(settings))
        raise RequestError(f"--{key} is for models that are searched by gradients; this {name} model goes "
                           f"back from an image to noise by itself; accepted: no --{key}")
    if len(labels) > 1:
        raise RequestError("the class of an image is not known; accepted: --classes NAME with one")
