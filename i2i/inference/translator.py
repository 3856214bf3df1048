"""The interface of everything that turns images into images: one model, or a chain of them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from i2i.data.sources.base import Unreadable, decode_bytes
from i2i.errors import RequestError
from i2i.images.convert import apply_clahe_to_tensors, convert_tensors, convert_to, to_array, to_tensor
from i2i.images.format import DTYPES, Array, DecodedImage, ImageFormat
from i2i.images.pil import from_pil, pil_supports
from i2i.inference.memory import LARGE_IMAGE, format_bytes
from i2i.seeding import stable_seed

ImageT = TypeVar("ImageT", Image.Image, Array, Tensor)


class Translator(ABC):
    """Translates images from one side ("a" or "b") to the other."""

    formats: Mapping[str, ImageFormat]      # Of the images of each side.
    multiple: int                           # Heights and widths that are multiples of this need no padding.

    @abstractmethod
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Translate a batch, (N, C, H, W) in [-1, 1] -> (N, C', H, W), on the device of the model."""

    @abstractmethod
    def sides(self, direction: str) -> tuple[str, str]:
        """Source and target side of a direction it has learned: "ba" -> ("b", "a")."""

    @abstractmethod
    def memory(self, height: int, width: int, direction: str = "ab") -> int:
        """About how many bytes translating one image of this size takes on the device of the model."""

    @abstractmethod
    def available_memory(self) -> int:
        """How many bytes the device of the model has left for this process."""

    @property
    def feature_networks(self) -> Mapping[str, str]:
        """The feature networks that it was trained with, name: sha256."""
        return {}

    def check_memory(self, height: int, width: int, direction: str = "ab") -> None:
        """RequestError with what it would need if a large image of this size does not fit in memory."""
        if height * width <= LARGE_IMAGE:
            return
        needed, available = self.memory(height, width, direction), self.available_memory()
        if needed > available:
            scale = (max(available, 0) / needed) ** 0.5
            raise RequestError(f"{width}x{height} pixels need about {format_bytes(needed)} of memory, and "
                               f"{format_bytes(available)} are free; accepted: at most about "
                               f"{int(width * scale)}x{int(height * scale)} pixels, or more memory")

    @overload
    def translate(self, images: str | Path, *, seed: int | None = ..., direction: str = ...,
                  memory: str | int = ..., tile: str | int = ...) -> Image.Image: ...
    @overload
    def translate(self, images: ImageT, *, seed: int | None = ..., direction: str = ...,
                  memory: str | int = ..., tile: str | int = ...) -> ImageT: ...
    @overload
    def translate(self, images: Sequence[ImageT], *, seed: int | None = ..., direction: str = ...,
                  memory: str | int = ..., tile: str | int = ...) -> list[ImageT]: ...
    @overload
    def translate(self, images: list[str] | Sequence[Path], *, seed: int | None = ..., direction: str = ...,
                  memory: str | int = ..., tile: str | int = ...) -> list[Image.Image]: ...
    def translate(self, images: Any, *, seed: int | None = None, direction: str = "ab",
                  memory: str | int = "auto", tile: str | int = "auto") -> Any:
        """Translate one image, or each image of a list.

        Args:
            images: a PIL image, the path of an image file, an array ((H, W) or (H, W, C) of uint8, uint16 or
                float32) or a tensor ((C, H, W) or (N, C, H, W) in [-1, 1]), of any height and width.
            seed: samples dropout with this seed; without one the result is deterministic.
            direction: "ab", or "ba" in models that learned both.
            memory: limit of working memory, "2GB" or bytes; images that take more are computed in parts, with
                the result of the whole image.  "auto": what is free.
            tile: rows that are computed at once; "auto": the whole image if it fits, else as many as fit.

        Returns:
            An image of the same type and size, with the dtype, channels and range of the target side; of a
            path a PIL image.

        Raises:
            RequestError: if an image cannot be read or converted to the source side, or the results to the
                same type, or the direction was not learned, or the limits are too small.
        """
        from i2i.inference.tiled.limits import Limits
        if isinstance(images, list | tuple):
            return [self.translate(image, seed=seed, direction=direction, memory=memory, tile=tile)
                    for image in images]
        source, target = (self.formats[side] for side in self.sides(direction))
        limits = Limits.parse(memory, tile)
        if isinstance(images, Tensor):
            return self._translate_tensor(images, seed, direction, limits)
        image = _decode(images, target)
        height, width = image.array.shape[:2]
        if limits.in_parts(self, height, width, direction):
            from i2i.inference.tiled.translate import image_reader, join_rows, translate_rows
            try:
                result = join_rows(translate_rows(self, image_reader(image, source), height, width, limits,
                                                  seed=seed, direction=direction), height)
            except ValueError as error:
                raise RequestError(str(error)) from None
        else:
            output = self(self.prepare(image, direction)[None], seed=seed, direction=direction)[0]
            result = to_array(output, target)
        return result if isinstance(images, np.ndarray) else Image.fromarray(result)

    def _translate_tensor(self, image: Tensor, seed: int | None, direction: str, limits: Any) -> Tensor:
        source = self.formats[self.sides(direction)[0]]
        if image.ndim not in (3, 4) or image.shape[-3] != source.channels or not image.is_floating_point():
            raise RequestError(f"a tensor must be CHW or NCHW with {source.channels} channels of floats in "
                               f"[-1, 1]; this one is {tuple(image.shape)} of {image.dtype}")
        batch = apply_clahe_to_tensors(image if image.ndim == 4 else image[None], source)
        result = self.in_any_size(batch, seed=seed, direction=direction, limits=limits)
        return result if image.ndim == 4 else result[0]

    def in_any_size(self, images: Tensor, *, seed: int | None = None, direction: str = "ab",
                    limits: Any = None) -> Tensor:
        """As a call, on the device of the images; what memory, or `limits`, does not hold is computed in
        parts.  ValueError if that is impossible."""
        from i2i.inference.tiled.limits import Limits
        limits = limits or Limits()
        if not limits.in_parts(self, *images.shape[2:], direction):
            return self(images, seed=seed, direction=direction).to(images.device)
        from i2i.inference.tiled.translate import translate_bands
        return torch.cat([torch.cat([band.to(images.device) for _, band in translate_bands(
            self, partial(_rows, one), (1, *one.shape), limits, seed=seed, direction=direction)], -2)
            for one in images])

    def prepare(self, image: DecodedImage, direction: str = "ab") -> Tensor:
        """Convert an image to the input of the network, (C, H, W) in [-1, 1], or raise RequestError."""
        source = self.formats[self.sides(direction)[0]]
        try:
            return to_tensor(convert_to(image, source), source)
        except ValueError as error:
            raise RequestError(str(error)) from None


class Chain(Translator):
    """Translators as one: `Chain(load("sketch"), load("refine"), (load("style"), "ba"))`.

    Nothing is written or rounded between two stages; channels, alpha and range are converted as if the first
    had written files and the second had read them.  `formats` are the source format of the first stage ("a")
    and the target format of the last ("b").  RequestError if a stage cannot take what the one before makes.

    Args:
        stages: models, or (model, direction) where the direction is not "ab".
    """

    def __init__(self, *stages: Translator | tuple[Translator, str]) -> None:
        self.stages = [stage if isinstance(stage, tuple) else (stage, "ab") for stage in stages]
        if not self.stages:
            raise RequestError("a chain of no translators; accepted: one or more")
        if wrong := [stage for stage, _ in self.stages if not isinstance(stage, Translator)]:
            raise RequestError(f"{str(wrong[0])[:100]!r} is no model; accepted: i2i.load(PATH) of each")
        ends = [[model.formats[side] for side in model.sides(direction)] for model, direction in self.stages]
        self._conversions = [(before[1], after[0]) for before, after in pairwise(ends)]
        self.formats = {"a": ends[0][0], "b": ends[-1][1]}
        self.multiple = max(model.multiple for model, _ in self.stages)
        for number, (made, accepted) in enumerate(self._conversions, 2):
            try:
                convert_tensors(torch.zeros(1, made.channels, 1, 1), made, accepted)
            except ValueError:
                raise RequestError(f"translator {number} of the chain takes {accepted}, which {made}, as the "
                                   "one before makes, cannot become") from None

    def __repr__(self) -> str:
        return "Chain(" + ", ".join(f"{model!r}" if direction == "ab" else f"({model!r}, {direction!r})"
                                    for model, direction in self.stages) + ")"

    def sides(self, direction: str = "ab") -> tuple[str, str]:
        if direction != "ab":
            raise RequestError(f"direction {direction} of a chain; each of its translators has a direction "
                               "of its own")
        return "a", "b"

    @property
    def feature_networks(self) -> Mapping[str, str]:
        return {name: sha256 for model, _ in self.stages for name, sha256 in model.feature_networks.items()}

    def memory(self, height: int, width: int, direction: str = "ab") -> int:
        return max(model.memory(height, width, way) for model, way in self.stages)

    def available_memory(self) -> int:
        return min(model.available_memory() for model, _ in self.stages)

    @torch.inference_mode()
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """As a model does; with a seed, each stage samples other dropout, the first the same as alone."""
        self.sides(direction)
        for i, (model, stage_direction) in enumerate(self.stages):
            if i:
                images = convert_tensors(images, *self._conversions[i - 1])
            stage_seed = stable_seed(seed, i) if seed is not None and i else seed
            images = model(images, seed=stage_seed, direction=stage_direction)
        return images


def _rows(image: Tensor, low: int, high: int) -> Tensor:
    return image[None, :, low:high]


def _decode(image: Any, target: ImageFormat) -> DecodedImage:
    """An image of any type, whose result in the target format is of the same type."""
    if isinstance(image, np.ndarray):
        return array_image(image)
    if not isinstance(image, Image.Image | str | Path):
        raise RequestError("translate takes a PIL image, a path, an array or a tensor, not "
                           f"{type(image).__name__}")
    if not pil_supports(target):
        raise RequestError(f"the results have {target}, which no PIL image holds; accepted: arrays and "
                           "tensors")
    return _from_pil(image) if isinstance(image, Image.Image) else _from_file(Path(image))


def array_image(array: Array) -> DecodedImage:
    """An array, (H, W) or (H, W, C), as an image.  RequestError for another shape or type, or NaN."""
    if array.dtype.name not in DTYPES or array.ndim not in (2, 3) or 0 in array.shape:
        raise RequestError(f"an array must be HW or HWC of {', '.join(DTYPES)}; this one is {array.shape} of "
                           f"{array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError("an array must hold numbers; this one has NaN or infinite values")
    return DecodedImage(array.astype(array.dtype.newbyteorder("="), copy=False))


def _from_file(path: Path) -> DecodedImage:
    try:
        return decode_bytes(str(path), path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror or error}") from None
    except Unreadable as error:
        raise RequestError(str(error)) from None


def _from_pil(image: Image.Image) -> DecodedImage:
    try:
        return from_pil(ImageOps.exif_transpose(image))
    except ValueError as error:
        raise RequestError(str(error)) from None
