"""Translate an image in parts: any size within a memory limit, with the result of the whole image."""

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2i.images.convert import convert_tensors, convert_to, to_array, to_tensor
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.inference.model import Model
from i2i.inference.tiled.execute import Bands, Execution, Read, make_store
from i2i.inference.tiled.limits import Limits
from i2i.inference.tiled.plan import Program
from i2i.inference.translator import Chain, Translator
from i2i.seeding import stable_seed


class _Network(nn.Module):
    """A model's translation of a batch as a module."""

    def __init__(self, model: Model, direction: str) -> None:
        super().__init__()
        self.networks, self.translate, self.direction = model.modules, model._forward, direction

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        return self.translate(images, self.direction)


def translate_bands(model: Translator, read: Read, shape: tuple[int, ...], limits: Limits, *,
                    seed: int | None = None, direction: str = "ab") -> Bands:
    """Translate one image.

    Args:
        read: first row and one past the last -> (1, C, rows, W) in [-1, 1].
        shape: (1, C, H, W).

    Yields:
        The first row of each band and its (1, C', rows, W), from the top to the bottom.
    """
    limit = limits.bytes(model)
    if isinstance(model, Chain):
        yield from _chain_bands(model, read, shape, limit, limits.tile, seed)
        return
    assert isinstance(model, Model)
    yield from _model_bands(model, read, shape, limit, limits.tile, seed, direction)


def _model_bands(model: Model, read: Read, shape: tuple[int, ...], limit: int, tile: int, seed: int | None,
                 direction: str) -> Bands:
    model._start_sampling(seed)
    program = Program(_Network(model, direction), shape, model.device)
    execution = Execution(program, read, limit, tile, model.device)
    model._start_sampling(seed)      # Tracing may have drawn.
    yield from execution.run()


def _chain_bands(chain: Chain, read: Read, shape: tuple[int, ...], limit: int, tile: int, seed: int | None
                 ) -> Bands:
    """Stage by stage; what each makes is kept for the next."""
    for i, (model, direction) in enumerate(chain.stages):
        stage_seed = stable_seed(seed, i) if seed is not None and i else seed
        bands = translate_bands(model, read, shape, Limits(limit, tile), seed=stage_seed, direction=direction)
        if i == len(chain.stages) - 1:
            yield from bands
            return
        result = 1, model.formats[model.sides(direction)[1]].channels, *shape[2:]
        kept = make_store(result, torch.float32, 4 * prod(result) < limit // 4)
        for first, band in bands:
            kept.write(first, band.cpu())
        conversion = chain._conversions[i]
        shape = (1, conversion[1].channels, *shape[2:])

        def read(low: int, high: int, kept: Any = kept, conversion: Any = conversion) -> Tensor:
            return convert_tensors(kept.read(low, high), *conversion)


def image_reader(image: DecodedImage, source: ImageFormat) -> Read:
    """Rows of an image in a model's format, which are converted as they are read."""
    if source.clahe:        # It equalizes whole images.
        whole = to_tensor(convert_to(image, source), source)[None]
        return lambda low, high: whole[..., low:high, :]

    def read(low: int, high: int) -> Tensor:
        rows = DecodedImage(image.array[low:high], image.alpha)
        return to_tensor(convert_to(rows, source), source)[None]

    return read


def translate_rows(model: Translator, read: Read, height: int, width: int, limits: Limits, *,
                   seed: int | None = None, direction: str = "ab") -> Iterator[Array]:
    """The result in the target format, (rows, W) or (rows, W, C) after another."""
    source, target = (model.formats[side] for side in model.sides(direction))
    for _, band in translate_bands(model, read, (1, source.channels, height, width), limits, seed=seed,
                                   direction=direction):
        yield to_array(band[0], target)


def join_rows(rows: Iterator[Array], height: int) -> Array:
    """Arrays below one another, without a second copy."""
    whole, first = np.empty(0), 0
    for part in rows:
        if not first:
            whole = np.empty((height, *part.shape[1:]), part.dtype)
        whole[first:first + len(part)] = part
        first += len(part)
    return whole
