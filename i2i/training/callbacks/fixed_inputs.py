"""The inputs that a run is asked again and again, and the real pictures that its answers are held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from i2i.data.dataset import Dataset
from i2i.data.labeled import ImageDataset
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable
from i2i.recipes.base import Recipe
from i2i.training.callbacks.embedding import Embedding

Matrix = NDArray[Any]
MIN_ROWS = 4      # Pictures of each class that is looked at: fewer say nothing of what is within it.
BATCH = 16      # Pictures at once: a multiple of any pack, and no more memory than a step takes.


class FixedInputs:
    """So many rows, each with something for `generate` and real images to look like; read when they are
    needed, so pictures may be large and many.

    `given(i)` and `wanted(i)` are parts of a batch without its first dimension; rows that cannot be read are
    left out.  `labels`: the rows' classes.
    """

    def __init__(self, n: int, given: Callable[[int], Mapping[str, Tensor]],
                 wanted: Callable[[int], Mapping[str, Tensor]],
                 labels: Matrix | None = None) -> None:
        self.given, self.wanted, self.labels = given, wanted, labels
        self.rows = list(range(n))
        self._known: dict[tuple[str, str], tuple[Matrix, Matrix, Matrix | None]] = {}

    def _batches(self, read: Callable[[int], Mapping[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        for first in range(0, len(rows := list(self.rows)), BATCH):
            found = []
            for row in rows[first:first + BATCH]:
                try:
                    found.append(read(row))
                except Unreadable:
                    self.rows.remove(row)
            if found:
                yield {key: torch.stack([part[key] for part in found]) for key in found[0]}

    def reals(self) -> Iterator[dict[str, Tensor]]:
        """The real images, 16 at a time."""
        return self._batches(self.wanted)

    @torch.no_grad()
    def made(self, recipe: Recipe, m: nn.ModuleDict, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """What the modules, in eval mode, make of the inputs, 16 at a time, on the device."""
        m.eval()
        for batch in self._batches(self.given):
            yield {key: image.float() for key,
                   image in recipe.generate(m,
                                            {key: value.to(device) for key, value in batch.items()}).items()}

    def real_points(self, look: Embedding, side: str) -> tuple[Matrix, Matrix, Matrix | None]:
        """The real images of a side as points, the same moved, and their classes; looked at once.  -> N×D,
        N×V×E, N"""
        if (look.name, side) not in self._known:
            points = [(look.take(batch[side]), look.moved(batch[side]))
                      for batch in self.reals()] or [(np.zeros((0, 1)), np.zeros((0, 1, 1)))]
            taken, moved = (np.concatenate(parts) for parts in zip(*points, strict=True))
            self._known[look.name, side] = taken, moved, self.classes
        return self._known[look.name, side]

    @property
    def classes(self) -> Matrix | None:
        """The class of each row that is left."""
        return None if self.labels is None else self.labels[self.rows]


def spread_over_classes(table: Matrix, n: int) -> list[int]:
    """Places of about n pictures, equally many of each class; of classes spread over all where there are too
    many for four each."""
    classes = np.unique(table)
    chosen = classes[evenly_spaced(len(classes), max(1, n // MIN_ROWS))]
    return [int(place) for c in chosen
            for place in np.flatnonzero(table == c)[evenly_spaced(int((table == c).sum()), n // len(chosen))]]


def noise_inputs(images: ImageDataset, noise: Callable[[int], Tensor], n: int, *, told: bool) -> FixedInputs:
    """Noise against pictures of the data, as many of each class; where the recipe is told classes, each noise
    gets its picture's.  `images` are prepared for evaluation."""
    places = evenly_spaced(len(images), n) if images.labels is None else spread_over_classes(np.asarray(images.labels), n)
    labels = None if images.labels is None else np.asarray(images.labels)[places]

    def given(i: int) -> dict[str, Tensor]:
        return {"eps": noise(i)} | ({"c": torch.tensor(int(labels[i]))} if told and labels is not None
                                    else {})

    def wanted(i: int) -> dict[str, Tensor]:
        return {"b": images.tensors(places[i])["b"]}

    return FixedInputs(len(places), given, wanted, labels)


def image_inputs(pairs: Dataset, n: int, recipe: Recipe) -> FixedInputs:
    """Pictures of the data as inputs, against those of the side that they are to look like.  `pairs` are
    prepared for evaluation."""
    places = evenly_spaced(len(pairs), n)

    def both(i: int) -> dict[str, Tensor]:
        return pairs.tensors(places[i])

    def given(i: int) -> dict[str, Tensor]:
        return {side: image for side, image in both(i).items() if side in recipe.sources.values()}

    return FixedInputs(len(places), given, both)
