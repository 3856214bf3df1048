"""Images of what a generator has learned: interpolations, mixed styles and walks, by the seed alone."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from i2i.errors import RequestError, require
from i2i.images.convert import make_grid
from i2i.images.format import Array
from i2i.inference.animation import check_size
from i2i.inference.generation_plan import parse_classes
from i2i.inference.latents import invert, read_images
from i2i.inference.model import Model

GAP = 2                     # Pixels between the images of a sheet.
MAX_FRAMES = 100_000        # Over an hour; the frames of a GIF are in memory together.
Rows = list[list[Tensor]]   # Images, (C, H, W) each.


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
    has_styles = "G" in model.modules and hasattr(model.modules["G"], "synthesize")
    return (StyleSpace if has_styles else NoiseSpace)(model)


def closed_path(space: NoiseSpace, points: Tensor, frames: int) -> Iterator[Tensor]:
    """A closed path through all points in steps of equal t, (1, D) each; one more step would be the first."""
    for frame in range(frames):
        i, rest = divmod(frame * len(points), frames)
        start, end = points[i], points[(i + 1) % len(points)]
        yield space.between(start[None], end[None], rest / frames)


def _prepare(model: Model, classes: str | None, seed: int, truncation: float) -> tuple[int | None, ...]:
    """Set the truncation; the labels to show, (None,) for a model without classes."""
    model.set_truncation(truncation)
    require(seed >= 0, "--seed", seed, "0 or more")
    return parse_classes(model, classes) or (None,)


def interpolate(model: Model, columns: int, rows: int | None = None, *, classes: str | None = None,
                seed: int = 0, truncation: float = 1.0, images: Sequence[str | Path] = (),
                warn: Callable[[str], None] = lambda line: None) -> Rows:
    """Interpolate between images of a seed: linearly in the styles of networks that have them, else in noise.

    Without `rows`, from the first image to the second in `columns` steps, with a row for each class; with
    `rows`, the plane between four images of one class.  With `images`, between those instead; `warn` is
    called with each line on what was converted of them.
    """
    labels = _prepare(model, classes, seed, truncation)
    grid = str(columns) if rows is None else f"{columns}x{rows}"
    require(columns >= 2 and (rows is None or rows >= 2), "--grid", grid,
            "2 columns or more, and for a plane 2 rows or more")
    if rows is not None and len(labels) > 1:
        raise RequestError(f"--grid {grid} is the plane between four images of one class; "
                           f"accepted: --classes NAME with it, or --grid {columns} for a row of each class")
    _check_sheet(model, columns, rows or len(labels))
    space, steps = latent_space(model), torch.linspace(0, 1, columns).tolist()
    count, result = 2 if rows is None else 4, list[list[Tensor]]()
    if len(images) not in (0, count):
        raise RequestError(f"{len(images)} images to go between; accepted: {count} with --grid {grid}")
    originals = read_images(model, images, count, warn=warn) if images else None
    for label in labels:
        corners = (invert(model, originals, label) if originals is not None
                   else space.points(seed, range(count), label)).split(1)
        for t in [0.0] if rows is None else torch.linspace(0, 1, rows).tolist():
            left, right = corners if rows is None else (space.between(corners[0], corners[2], t),
                                                        space.between(corners[1], corners[3], t))
            points = torch.cat([space.between(left, right, s) for s in steps])
            result.append(list(space.images(points, label)))
    return result


def reconstruct(model: Model, images: Sequence[str | Path], n: int, *, classes: str | None = None,
                warn: Callable[[str], None] = lambda line: None) -> tuple[Rows, float]:
    """The first images of files and folders, below them what a model makes of their noise, and the mean
    peak signal-to-noise ratio in dB; `warn` is called with each line on what was converted."""
    labels = _prepare(model, classes, 0, 1.0)
    require(n >= 1, "--n", n, "1 or more")
    if len(labels) > 1:
        raise RequestError("the class of an image is not known; accepted: --classes NAME with one")
    _check_sheet(model, n, 2)
    originals = read_images(model, images, n, warn=warn)
    made = latent_space(model).images(invert(model, originals, labels[0]), labels[0])
    error = ((made.clamp(-1, 1) - originals) / 2).square().flatten(1).mean(1).clamp(min=1e-10)
    return [list(originals), list(made)], float(-10 * error.log10().mean())


def mix(model: Model, columns: int, rows: int, *, layers: str | None = None, classes: str | None = None,
        seed: int = 0, truncation: float = 1.0) -> Rows:
    """Mix styles: those of a row's first image, in `layers` ("4-9") of a column's.  Karras et al. 2019."""
    labels = _prepare(model, classes, seed, truncation)
    require(columns >= 1 and rows >= 1, "--grid", f"{columns}x{rows}", "1 column and 1 row or more")
    _check_sheet(model, columns + 1, rows + 1)
    space = latent_space(model)
    if not isinstance(space, StyleSpace):
        name = model.header["recipe"]["name"]
        raise RequestError(f"the networks of this {name} model have no styles to mix; accepted: a model with "
                           "generator=stylegan or stylegan2")
    count = space.G.num_ws
    finer_half = f"{count // 2}-{count - 1}"
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", layers or finer_half)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (count, count)
    require(first <= last < count, "--layers", layers, f"layers from 0 to {count - 1}, such as {finer_half}")
    w = torch.cat([space.points(seed, [i], labels[i % len(labels)]) for i in range(rows + columns)])
    images = list(space.images(w, None))
    result = [[torch.ones_like(images[0]), *images[rows:]]]
    for row in range(rows):
        ws = w[row].repeat(columns, count, 1)
        ws[:, first:last + 1] = w[rows:, None]
        result.append([images[row], *space.synthesize(ws)])
    return result


def walk(model: Model, frames: int, *, stops: int = 4, classes: str | None = None, seed: int = 0,
         truncation: float = 1.0) -> Iterator[list[Tensor]]:
    """A closed walk past the first `stops` images of a seed: per frame a (C, H, W) image of each class."""
    labels = _prepare(model, classes, seed, truncation)
    require(stops >= 2, "--stops", stops, "2 or more")
    require(stops <= frames <= MAX_FRAMES, "--frames", frames,
            f"{stops} or more, one for each stop, and at most {MAX_FRAMES:,}")
    space = latent_space(model)
    paths = [(label, closed_path(space, space.points(seed, range(stops), label), frames)) for label in labels]
    return ([space.images(next(path), label)[0] for label, path in paths] for _ in range(frames))


def strip(frames: Iterator[list[Tensor]], count: int) -> Array:
    """All frames of a walk side by side, classes below each other, as one (H, W, C) uint8 image."""
    first = next(frames)
    height, width = first[0].shape[-2:]
    check_size(len(first) * height, count * width)
    return make_grid(list(zip(*[first, *frames], strict=True)), gap=0)


def sheet(rows: Rows) -> Array:
    """A sheet of images as one (H, W, C) uint8 image."""
    return make_grid(rows, gap=GAP)


def frame(images: Sequence[Tensor]) -> Array:
    """The images of a frame of a walk below each other, as one (H, W, C) uint8 image."""
    return make_grid([[image] for image in images], gap=GAP if len(images) > 1 else 0)


def parse_grid(text: str) -> tuple[int, int | None]:
    """`8x6` as columns and rows, `8` as columns; RequestError for anything else."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise RequestError(f"--grid {text} cannot be read; accepted: COLUMNSxROWS, such as 8x6, or COLUMNS")
    return int(match[1]), int(match[2]) if match[2] else None


def _check_sheet(model: Model, columns: int, rows: int) -> None:
    height, width = model.header["info"]["size"]
    check_size(rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
