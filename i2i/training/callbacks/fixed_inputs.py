"""Inputs that a generator gets repeatedly during a run, with the real images to compare its outputs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
MIN_PER_CLASS = 4   # Images; fewer say nothing about the variety within a class.
BATCH_SIZE = 16     # A multiple of any pack, and no more memory than a training step takes.


class FixedInputs:
    """Some samples of a data set, read whenever they are needed; samples that cannot be read are left out.

    Args:
        dataset: prepared for evaluation.
        indices: of the samples.
        noise: for generators from noise, the noise of each row; None where the samples are the inputs.
        conditional: whether the class of a sample goes with its noise.
    """

    def __init__(self, dataset: Dataset, indices: Sequence[int],
                 noise: Callable[[int], Tensor] | None = None, *, conditional: bool = False) -> None:
        self.dataset, self.indices, self.noise, self.conditional = dataset, indices, noise, conditional
        self.rows = list(range(len(indices)))
        labels = dataset.labels if isinstance(dataset, ImageDataset) else None
        self._labels = None if labels is None else np.asarray(labels)[list(indices)]
        self._real_points: dict[tuple[str, str], tuple[Matrix, Matrix]] = {}

    @property
    def labels(self) -> Matrix | None:
        """The class of each remaining row, if the data have classes."""
        return None if self._labels is None else self._labels[self.rows]

    def inputs(self, row: int) -> dict[str, Tensor]:
        """What the generator gets, without a batch dimension."""
        if self.noise is None:
            return self.sample(row)
        inputs = {"eps": self.noise(row)}
        if self.conditional and self._labels is not None:
            inputs["c"] = torch.tensor(int(self._labels[row]))
        return inputs

    def sample(self, row: int) -> dict[str, Tensor]:
        """The inputs and the real images of a row."""
        sample = self.dataset.tensors(self.indices[row])
        return sample if self.noise is None else {"b": sample["b"], **self.inputs(row)}

    def batches(self, device: torch.device | str = "cpu", *,
                inputs_only: bool = False) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """The readable rows, 16 at a time, and their batch."""
        read: Callable[[int], Mapping[str, Tensor]] = self.inputs if inputs_only else self.sample
        rows = list(self.rows)
        for start in range(0, len(rows), BATCH_SIZE):
            readable, parts = [], []
            for row in rows[start:start + BATCH_SIZE]:
                try:
                    parts.append(read(row))
                    readable.append(row)
                except Unreadable:
                    self.rows.remove(row)
            if parts:
                yield readable, {key: torch.stack([part[key] for part in parts]).to(device)
                                 for key in parts[0]}

    @torch.no_grad()
    def generate(self, recipe: Recipe, modules: nn.ModuleDict,
                 device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The outputs for all rows, 16 at a time.  Puts the modules into eval mode."""
        modules.eval()
        for _, batch in self.batches(device, inputs_only=True):
            yield {key: image.float() for key, image in recipe.generate(modules, batch).items()}

    def real_points(self, embedding: Embedding, side: str) -> tuple[Matrix, Matrix]:
        """The embedded real images of a side, (N, D), and shifted versions, (N, V, E); computed once."""
        if (embedding.name, side) not in self._real_points:
            parts = [(embedding.embed(batch[side]), embedding.embed_shifted(batch[side]))
                     for _, batch in self.batches()] or [(np.zeros((0, 1)), np.zeros((0, 1, 1)))]
            points, shifted = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            self._real_points[embedding.name, side] = points, shifted
        return self._real_points[embedding.name, side]


def evenly_spaced_inputs(dataset: Dataset, count: int) -> FixedInputs:
    """At most `count` samples of a data set as inputs of a translator."""
    return FixedInputs(dataset, evenly_spaced(len(dataset), count))


def noise_inputs(images: ImageDataset, noise: Callable[[int], Tensor], count: int, *,
                 conditional: bool) -> FixedInputs:
    """Noise, compared to about `count` real images, as many of each class.

    Where there are too many classes for four images each, a part of the classes is taken.
    """
    if images.labels is None:
        return FixedInputs(images, evenly_spaced(len(images), count), noise)
    labels = np.asarray(images.labels)
    classes = np.unique(labels)
    classes = classes[evenly_spaced(len(classes), max(1, count // MIN_PER_CLASS))]
    indices: list[int] = []
    for label in classes:
        members = np.flatnonzero(labels == label)
        indices += members[evenly_spaced(len(members), count // len(classes))].tolist()
    return FixedInputs(images, indices, noise, conditional=conditional)
