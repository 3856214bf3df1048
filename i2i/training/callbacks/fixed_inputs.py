"""Fixed inputs of a generator, and the embeddings in which outputs for them are compared with real images."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.data.dataset import Dataset
from i2i.data.labeled import ImageDataset
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable
from i2i.errors import RequestError
from i2i.images.convert import tensor_to_rgb
from i2i.metrics.feature_networks import load_extractor
from i2i.metrics.judges import partiality_warnings, training_judge
from i2i.metrics.set_metrics import slug
from i2i.recipes.base import Recipe

Matrix = NDArray[Any]
MIN_PER_CLASS = 4   # Images; fewer say nothing about the variety within a class.
BATCH_SIZE = 16     # A multiple of any pack, and no more memory than a training step takes.
SHIFT_GRID = 32         # Images are shifted by one of this many parts of their side.
QUICK_SIZE = 8          # Side of the thumbnails of quick checks,
THUMBNAIL_SIZE = 16     # and of those that replace missing feature networks.


@dataclass(frozen=True)
class Embedding:
    """A map from images (N, C, H, W) in [-1, 1] to points.

    Args:
        name: for the names of metrics.
        embed: images to points, (N, D).
        embed_shifted: images to points of V slightly shifted versions, (N, V, E); the middle is not shifted.
    """

    name: str
    embed: Callable[[Tensor], Matrix]
    embed_shifted: Callable[[Tensor], Matrix]


def thumbnails(size: int) -> Embedding:
    """Thumbnails by averaging, insensitive to noise; shifted by 1/32 of the side in eight directions."""
    def embed(images: Tensor) -> Matrix:
        points: Matrix = F.adaptive_avg_pool2d(images.float(), size).flatten(1).cpu().double().numpy()
        return points

    def embed_shifted(images: Tensor) -> Matrix:
        grid = F.adaptive_avg_pool2d(images.float(), SHIFT_GRID).cpu()
        padded = F.pad(grid, (1, 1, 1, 1), mode="replicate")
        return np.stack([embed(padded[..., y:y + SHIFT_GRID, x:x + SHIFT_GRID])
                         for y in range(3) for x in range(3)], 1)

    return Embedding("pixels", embed, embed_shifted)


def best_embedding(device: torch.device, log: Callable[[str], None],
                   trained_with: Mapping[str, str] = MappingProxyType({})) -> Embedding:
    """Features of EfficientNet-Lite0, or of another network if the run trains with that one.

    Thumbnails where the weights are missing.
    """
    name = training_judge(trained_with)
    for warning in partiality_warnings({name: ""}, trained_with):
        log(f"warning: {warning}")
    try:
        return features_of(name, device)
    except RequestError as error:
        log(f"note: images are compared by their pixels, not by features: {error}")
        return thumbnails(THUMBNAIL_SIZE)


def features_of(name: str, device: torch.device) -> Embedding:
    """The features of a network.  RequestError if it cannot be loaded."""
    extractor = load_extractor(name, device=str(device))

    def embed(images: Tensor) -> Matrix:
        points: Matrix = extractor.extract([*map(tensor_to_rgb, images)])[0].double().numpy()
        return points

    return Embedding(slug(extractor.name), embed, thumbnails(THUMBNAIL_SIZE).embed_shifted)


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

    @classmethod
    def from_noise(cls, images: ImageDataset, noise: Callable[[int], Tensor], count: int, *,
                   conditional: bool) -> "FixedInputs":
        """Noise, compared to about `count` real images, as many of each class.

        Where there are too many classes for four images each, a part of the classes is taken.
        """
        if images.labels is None:
            return cls(images, evenly_spaced(len(images), count), noise)
        labels = np.asarray(images.labels)
        classes = np.unique(labels)
        classes = classes[evenly_spaced(len(classes), max(1, count // MIN_PER_CLASS))]
        indices: list[int] = []
        for label in classes:
            members = np.flatnonzero(labels == label)
            indices += members[evenly_spaced(len(members), count // len(classes))].tolist()
        return cls(images, indices, noise, conditional=conditional)

    def limited(self, count: int) -> "FixedInputs":
        """At most `count` of the samples, evenly spaced."""
        if count >= len(self.indices):
            return self
        return FixedInputs(self.dataset, [self.indices[i] for i in evenly_spaced(len(self.indices), count)],
                           self.noise, conditional=self.conditional)

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
