"""A trained translator as a picklable callable on batches: for Ray, Spark and process pools."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.data.sources.base import Unreadable, decode_bytes
from i2i.errors import RequestError, require
from i2i.images.convert import to_array
from i2i.images.encode import FILE_FORMATS, encode, formats_for
from i2i.images.format import Array, DecodedImage
from i2i.inference.model import Model, default_batch_size
from i2i.inference.shared_model import load_shared
from i2i.inference.translator import array_image


class BatchTranslator:
    """A trained translator as a function of batches: `dataset.map_batches(i2i.BatchTranslator("runs/x"))`.

    It holds a path and settings, and no weights: it is pickled in a few hundred bytes, and each process loads
    the model once, with the first batch, from a path that means the same on every machine.

    Args:
        model: a model file, a run folder, hf:USER/NAME or the name of a bundled model.
        column: the column of a batch that holds the images.
        out: the column for the results; by default the same.
        direction: "ab", or "ba" in models that learned both.
        device: where to run the model.
        batch_size: images per pass through the network; 0 fits their size.
    """

    def __init__(self, model: str | Path, *, column: str = "image", out: str = "", direction: str = "ab",
                 device: str = "auto", batch_size: int = 0) -> None:
        require(batch_size >= 0, "batch_size", batch_size, "0 or more")
        self.path, self.column, self.out = str(model), column, out or column
        self.direction, self.device, self.batch_size = direction, device, batch_size
        self._loaded: Model | None = None

    def __repr__(self) -> str:
        return f"BatchTranslator({self.path!r}, direction={self.direction!r})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    @property
    def model(self) -> Model:
        """The model, which each process loads once."""
        if self._loaded is None:
            self._loaded = load_shared(self.path, self.device)
        return self._loaded

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Translate one column of a batch, and pass the others on.

        Args:
            batch: columns; that of the images is an array (N, H, W) or (N, H, W, C) of uint8, uint16 or
                float32, or holds N such images of any sizes.

        Returns:
            The columns with that of the results: (N, H, W, C'), or (N,) objects if sizes differ.

        Raises:
            RequestError: if there is no such column, or the model does not take such images.
        """
        if self.column not in batch:
            raise RequestError(f"column={self.column} is not in the batch; it has {', '.join(batch)}")
        images = [array_image(np.asarray(image)) for image in batch[self.column]]
        results = self._translate(images)
        column: Array = np.empty(len(results), object)
        for number, result in enumerate(results):
            column[number] = result
        if len({result.shape for result in results}) == 1:
            column = np.stack(results)
        return {**batch, self.out: column}

    def files(self, files: Iterable[bytes], suffix: str = ".png") -> list[bytes]:
        """Translate image files in memory: bytes in, bytes of another file out.

        Raises:
            RequestError: if one cannot be read or is not for this model, or the format does not hold results.
        """
        made = self.model.formats[self.model.sides(self.direction)[1]]
        require(suffix in FILE_FORMATS and FILE_FORMATS[suffix].supports(made), "suffix", suffix,
                ", ".join(f".{name}" for name in formats_for(made)))
        try:
            images = [decode_bytes(f"file {number}", bytes(data)) for number, data in enumerate(files)]
            return [encode(suffix, array, made, image)
                    for array, image in zip(self._translate(images), images, strict=True)]
        except (Unreadable, ValueError) as error:
            raise RequestError(str(error)) from None

    def _translate(self, images: Sequence[DecodedImage]) -> list[Array]:
        made = self.model.formats[self.model.sides(self.direction)[1]]
        inputs = [self.model.prepare(image, self.direction) for image in images]
        return [to_array(output, made)
                for output in translate_tensors(self.model, inputs, self.direction, self.batch_size)]


def translate_tensors(model: Model, images: Sequence[Tensor], direction: str = "ab",
                      batch_size: int = 0) -> list[Tensor]:
    """Translate images (C, H, W) of any sizes, those of one size in batches, by default as fit their size."""
    results, shapes = dict[int, Tensor](), dict[tuple[int, ...], list[int]]()
    for number, image in enumerate(images):
        shapes.setdefault(tuple(image.shape), []).append(number)
    for (_, height, width), numbers in shapes.items():
        size = batch_size or default_batch_size(height, width)
        for start in range(0, len(numbers), size):
            batch = numbers[start:start + size]
            outputs = model(torch.stack([images[i] for i in batch]), direction=direction).cpu()
            results |= zip(batch, outputs, strict=True)
    return [results[number] for number in range(len(images))]
