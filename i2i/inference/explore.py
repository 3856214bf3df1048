"""Images of what a generator has learned: interpolations, sums, mixed styles, walks, of seeds or latents."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from i2i.errors import RequestError, require
from i2i.images.convert import make_grid
from i2i.images.format import Array
from i2i.inference.animation import check_size
from i2i.inference.generation_plan import parse_classes
from i2i.inference.latent_space import NoiseSpace, StyleSpace, closed_path, latent_space
from i2i.inference.latents import Latents
from i2i.inference.model import Model

GAP = 2                     # Pixels between the images of a sheet.
MAX_FRAMES = 100_000        # Over an hour; the frames of a GIF are in memory together.
Rows = list[list[Tensor]]   # Images, (C, H, W) each.


def _prepare(model: Model, classes: str | None, seed: int, truncation: float,
             seeds: Sequence[int] = (), latents: Latents | None = None) -> tuple[int | None, ...]:
    """Set the truncation; the labels to show, (None,) for a model without classes."""
    model.set_truncation(truncation)
    require(seed >= 0, "--seed", seed, "0 or more")
    require(all(each >= 0 for each in seeds), "--seeds", ",".join(map(str, seeds)), "0 or more each")
    if sum((bool(seed), bool(seeds), latents is not None)) > 1:
        raise RequestError("--seed, --seeds and --latents say the same; accepted: one of them")
    if latents is None or not model.classes:
        return parse_classes(model, classes) or (None,)
    if latents.space == StyleSpace.name:        # A style holds its class.
        require(classes is None, "--classes", classes, "none, with --latents that are styles of a class")
        return (None,)
    found = dict.fromkeys(latents.labels.tolist())
    if classes is None and len(found) > 1:
        raise RequestError(f"--latents hold images of {len(found)} classes, "
                           f"{', '.join(model.classes[label] for label in found)}; accepted: --classes NAME "
                           "to show them as one, or latents of one class")
    return tuple(found) if classes is None else parse_classes(model, classes)


def _points(space: NoiseSpace, label: int | None, count: int, seed: int, seeds: Sequence[int],
            latents: Latents | None) -> Tensor:
    """The points of latents, of the first image of each of several seeds, or of `count` images of one."""
    if latents is not None:
        return latents.points.to(space.model.device if latents.space == StyleSpace.name else "cpu")
    return torch.cat([space.points(each, [0], label) for each in seeds]) if seeds else space.points(
        seed, range(count), label)


def interpolate(model: Model, columns: int, rows: int | None = None, *, classes: str | None = None,
                seed: int = 0, seeds: Sequence[int] = (), latents: Latents | None = None,
                truncation: float = 1.0) -> Rows:
    """Interpolate between images: linearly in the styles of networks that have them, else in noise.

    Without `rows`, from each image to the next in `columns` steps, for each class; with `rows`, the plane
    between four images of one class.

    Args:
        seed: between its first two, or four, images; by default.
        seeds: between the first image of each of these.
        latents: between these.
    """
    labels = _prepare(model, classes, seed, truncation, seeds, latents)
    grid = str(columns) if rows is None else f"{columns}x{rows}"
    require(columns >= 2 and (rows is None or rows >= 2), "--grid", grid,
            "2 columns or more, and for a plane 2 rows or more")
    if rows is not None and len(labels) > 1:
        raise RequestError(f"--grid {grid} is the plane between four images of one class; "
                           f"accepted: --classes NAME with it, or --grid {columns} for a row of each class")
    count = len(seeds or (latents.names if latents else ())) or (2 if rows is None else 4)
    if count < 2 or (rows is not None and count != 4):
        accepted = "2 or more" if rows is None else "4"
        raise RequestError(f"{count} images to go between; accepted: {accepted} with --grid {grid}")
    _check_sheet(model, columns, rows or (count - 1) * len(labels))
    space, result = latent_space(model, latents.space if latents else None), list[list[Tensor]]()
    for label in labels:
        points = _points(space, label, count, seed, seeds, latents).split(1)
        ends: Iterable[tuple[Tensor, Tensor]] = pairwise(points)
        if rows is not None:
            steps = torch.linspace(0, 1, rows).tolist()
            ends = ((space.between(points[0], points[2], t), space.between(points[1], points[3], t))
                    for t in steps)
        for left, right in ends:
            way = [space.between(left, right, t) for t in torch.linspace(0, 1, columns).tolist()]
            result.append(list(space.images(torch.cat(way), label)))
    return result


def arithmetic(model: Model, columns: int, *, strength: float = 1.0, classes: str | None = None,
               seed: int = 0, seeds: Sequence[int] = (), latents: Latents | None = None,
               truncation: float = 1.0) -> Rows:
    """A - B + C: add to one image what distinguishes a third from a second.  Radford et al. 2016.

    Returns:
        For each class a row of A, B, C and A + w (C - B), with `columns` weights w from 0 to `strength`.

    Args:
        seed: A, B and C are its first three images; by default.
        seeds: they are the first images of these three.
        latents: they are the images of these three.
    """
    labels = _prepare(model, classes, seed, truncation, seeds, latents)
    require(columns >= 2, "--grid", columns, "2 columns or more")
    require(math.isfinite(strength), "--strength", strength, "a finite number")
    count = len(seeds or (latents.names if latents else ())) or 3
    if count != 3:
        raise RequestError(f"{count} images to calculate with; accepted: 3, A, B and C of A - B + C")
    _check_sheet(model, count + columns, len(labels))
    space, result = latent_space(model, latents.space if latents else None), list[list[Tensor]]()
    for label in labels:
        points = _points(space, label, count, seed, seeds, latents)
        a, b, c = points.split(1)
        way = [space.add(a, c - b, weight) for weight in torch.linspace(0, strength, columns).tolist()]
        result.append(list(space.images(torch.cat([points, *way]), label)))
    return result


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
         seeds: Sequence[int] = (), latents: Latents | None = None, truncation: float = 1.0
         ) -> Iterator[list[Tensor]]:
    """A closed walk past the first `stops` images of a seed, the first of each of several, or latents: per
    frame a (C, H, W) image of each class."""
    labels = _prepare(model, classes, seed, truncation, seeds, latents)
    stops = len(seeds or (latents.names if latents else ())) or stops
    require(stops >= 2, "--stops", stops, "2 or more")
    require(stops <= frames <= MAX_FRAMES, "--frames", frames,
            f"{stops} or more, one for each stop, and at most {MAX_FRAMES:,}")
    space = latent_space(model, latents.space if latents else None)
    paths = [(label, closed_path(space, _points(space, label, stops, seed, seeds, latents), frames))
             for label in labels]
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
