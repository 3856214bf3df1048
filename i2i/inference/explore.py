"""What a model from noise has learned, to be looked at: the ways between images, styles mixed, walks.  All a
function of the seed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from i2i.errors import RequestError, require
from i2i.images.formats import Array, grid
from i2i.inference.animation import (
    check_size,
)
from i2i.inference.generation_plan import class_of
from i2i.inference.latent_paths import StyleSpace, closed_path, latent_space
from i2i.inference.model import Model

GAP = 2                     # Pixels between the images of a sheet.
MOST = 100_000              # Frames of a walk: over an hour; those of a GIF are in memory together.
Rows = list[list[Tensor]]


def prepare(model: Model, classes: str | None, seed: int, truncation: float) -> tuple[int | None, ...]:
    """The labels to show, by `name,name` or `balanced`: all, which is the default; (None,) without labels.
    RequestError for other wishes."""
    if model.recipe.sources:
        raise RequestError(f"this {model.header['recipe']['name']} model makes images from images; there is "
                           "no noise to explore")
    require(seed >= 0, "--seed", seed, "0 or more")
    model.truncate(truncation)
    return class_of(model, classes) or (None,)


def interpolate(model: Model, columns: int, rows: int | None = None, *, classes: str | None = None,
                seed: int = 0, truncation: float = 1.0) -> Rows:
    """The way from the first image of a seed to the second in `columns` steps, a row for each class; with
    `rows`, the plane between four images of one class: spherical in the noise, linear in the styles of
    networks that have them."""
    labels = prepare(model, classes, seed, truncation)
    require(columns >= 2 and (rows is None or rows >= 2), "--grid", _options(columns, rows),
            "2 columns or more, and for a plane 2 rows or more")
    if rows is not None and len(labels) > 1:
        raise RequestError(f"--grid {columns}x{rows} is the plane between four images of one class; "
                           "accepted: --classes NAME with it, "
                           f"or --grid {columns} for a row of each class")
    _check_size(model, columns, rows or len(labels))
    space, steps = latent_space(model), torch.linspace(0, 1, columns).tolist()
    if rows is None:
        ends = {label: space.points(seed, range(2), label).split(1) for label in labels}
        ways = {label: torch.cat([space.between(a, b, t) for t in steps]) for label, (a, b) in ends.items()}
        return [list(space.images(way, label)) for label, way in ways.items()]
    label = labels[0]
    corner = space.points(seed, range(4), label).split(1)
    plane = []
    for down in torch.linspace(0, 1, rows).tolist():
        left, right = space.between(corner[0], corner[2], down), space.between(corner[1], corner[3], down)
        plane.append(list(space.images(torch.cat([space.between(left, right, t) for t in steps]), label)))
    return plane


def mix(model: Model, columns: int, rows: int, *, layers: str | None = None, classes: str | None = None,
        seed: int = 0,
        truncation: float = 1.0) -> Rows:
    """Each image has the styles of its row's first image, but in `layers` ("4-9") those of its column's; by
    default in the finer half. Karras et al. 2019, figure 3.  RequestError for networks without styles."""
    labels = prepare(model, classes, seed, truncation)
    require(columns >= 1 and rows >= 1, "--grid", _options(columns, rows), "1 column and 1 row or more")
    _check_size(model, columns + 1, rows + 1)
    space = latent_space(model)
    if not isinstance(space, StyleSpace):
        raise RequestError(f"this model's generator ({model.recipe.generator.name}) has no styles to mix; "  # type: ignore[attr-defined]
                           "accepted: a model with generator=stylegan or stylegan2")
    taken = _layers(layers, space.G.num_ws)
    places = range(rows + columns)
    w = torch.cat([space.points(seed, [place], labels[place % len(labels)]) for place in places])
    pure = list(space.images(w, None))
    mixed = [[torch.ones_like(pure[0]), *pure[rows:]]]
    for row in range(rows):
        ws = w[row].repeat(columns, space.G.num_ws, 1)
        ws[:, taken] = w[rows:, None]
        mixed.append([pure[row], *space.synthesize(ws)])
    return mixed


def walk(model: Model, frames: int, *, stops: int = 4, classes: str | None = None, seed: int = 0,
         truncation: float = 1.0) -> Iterator[list[Tensor]]:
    """A closed walk past the first `stops` images of a seed.  -> for each frame an image of each class, made
    when it is asked for"""
    labels = prepare(model, classes, seed, truncation)
    require(stops >= 2, "--stops", stops, "2 or more")
    require(stops <= frames <= MOST, "--frames", frames,
            f"{stops} or more, one for each stop, and at most {MOST:,}")
    space = latent_space(model)
    ways = [(label, closed_path(space, space.points(seed, range(stops), label), frames)) for label in labels]
    return ([space.images(next(way), label)[0] for label, way in ways] for _ in range(frames))


def strip(frames: Iterator[list[Tensor]], count: int) -> Array:
    """All frames of a walk side by side, classes below each other."""
    first = next(frames)
    height, width = first[0].shape[-2:]
    check_size(len(first) * height, count * width)
    columns = [first, *frames]
    return grid([[column[row] for column in columns] for row in range(len(first))], gap=0)


def sheet(rows: Rows) -> Array:
    """A sheet of images.  CHW each -> HWC uint8"""
    return grid(rows, gap=GAP)


def frame(images: Sequence[Tensor]) -> Array:
    """The images of a walk's frame, below each other.  CHW each -> HWC uint8"""
    return grid([[image] for image in images], gap=GAP if len(images) > 1 else 0)


def parse_grid(text: str) -> tuple[int, int | None]:
    """`8x6` as columns and rows, `8` as columns.  RequestError for other words."""
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not found:
        raise RequestError(f"--grid {text} cannot be read; accepted: COLUMNSxROWS, such as 8x6, or COLUMNS")
    return int(found[1]), int(found[2]) if found[2] else None


def _options(columns: int, rows: int | None) -> str:
    return str(columns) if rows is None else f"{columns}x{rows}"


def _check_size(model: Model, columns: int, rows: int) -> None:
    height, width = model.header["info"]["size"]
    check_size(rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)


def _layers(text: str | None, count: int) -> slice:
    finer = f"{count // 2}-{count - 1}"
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", finer if text is None else text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (count, count)
    require(first <= last < count, "--layers", text, f"layers from 0 to {count - 1}, such as {finer}")
    return slice(first, last + 1)
