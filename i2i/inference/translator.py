"""The interface of everything that turns images into images: one model, or a chain of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from i2i.errors import RequestError
from i2i.images.convert import apply_clahe_to_tensors, convert_to, to_array, to_tensor
from i2i.images.format import DTYPES, Array, DecodedImage, ImageFormat
from i2i.images.pil import from_pil, pil_supports

ImageT = TypeVar("ImageT", Image.Image, Array, Tensor)


class Translator(ABC):
    """Translates images from one side ("a" or "b") to the other.

    Attributes:
        formats: dtype, channels and range of the images of each side.
        multiple: height and width that are multiples of this need no padding.
    """

    formats: Mapping[str, ImageFormat]
    multiple: int

    @abstractmethod
    def __call__(self, images: Tensor, *, seed: int | None = None, direction: str = "ab") -> Tensor:
        """Translate a batch, (N, C, H, W) in [-1, 1] -> (N, C', H, W), on the device of the model."""

    @abstractmethod
    def sides(self, direction: str) -> tuple[str, str]:
        """Source and target side of a direction it has learned: "ba" -> ("b", "a")."""

    @overload
    def translate(self, images: ImageT, *, seed: int | None = None, direction: str = "ab") -> ImageT: ...
    @overload
    def translate(self, images: Sequence[ImageT], *, seed: int | None = None,
                  direction: str = "ab") -> list[ImageT]: ...
    def translate(self, images: Any, *, seed: int | None = None, direction: str = "ab") -> Any:
        """Translate one image, or each image of a list.

        Args:
            images: a PIL image, an array ((H, W) or (H, W, C) of uint8, uint16 or float32) or a tensor
                ((C, H, W) or (N, C, H, W) in [-1, 1]), of any height and width.
            seed: samples dropout with this seed; without one the result is deterministic.
            direction: "ab", or "ba" in models that learned both.

        Returns:
            An image of the same type and size, with the dtype, channels and range of the target side.
        """
        if isinstance(images, list | tuple):
            return [self.translate(image, seed=seed, direction=direction) for image in images]
        target = self.formats[self.sides(direction)[1]]
        if isinstance(images, Tensor):
            return self._translate_tensor(images, seed, direction)
        if isinstance(images, Image.Image):
            if not pil_supports(target):
                raise RequestError(f"the results have {target}, which no PIL image holds; accepted: arrays "
                                   "and tensors")
            image = _from_pil(images)
        elif isinstance(images, np.ndarray):
            image = _from_array(images)
        else:
            raise RequestError("translate takes a PIL image, an array or a tensor, not "
                               f"{type(images).__name__}")
        output = self(self.prepare(image, direction)[None], seed=seed, direction=direction)[0]
        result = to_array(output, target)
        return Image.fromarray(result) if isinstance(images, Image.Image) else result

    def _translate_tensor(self, image: Tensor, seed: int | None, direction: str) -> Tensor:
        source = self.formats[self.sides(direction)[0]]
        if image.ndim not in (3, 4) or image.shape[-3] != source.channels or not image.is_floating_point():
            raise RequestError(f"a tensor must be CHW or NCHW with {source.channels} channels of floats in "
                               f"[-1, 1]; this one is {tuple(image.shape)} of {image.dtype}")
        batch = apply_clahe_to_tensors(image if image.ndim == 4 else image[None], source)
        result = self(batch, seed=seed, direction=direction).to(image.device)
        return result if image.ndim == 4 else result[0]

    def prepare(self, image: DecodedImage, direction: str = "ab") -> Tensor:
        """Convert an image to the input of the network, (C, H, W) in [-1, 1], or raise RequestError."""
        source = self.formats[self.sides(direction)[0]]
        try:
            return to_tensor(convert_to(image, source), source)
        except ValueError as error:
            raise RequestError(str(error)) from None


def _from_array(array: Array) -> DecodedImage:
    if array.dtype.name not in DTYPES or array.ndim not in (2, 3) or 0 in array.shape:
        raise RequestError(f"an array must be HW or HWC of {', '.join(DTYPES)}; this one is {array.shape} of "
                           f"{array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RequestError("an array must hold numbers; this one has NaN or infinite values")
    return DecodedImage(array.astype(array.dtype.newbyteorder("="), copy=False))


def _from_pil(image: Image.Image) -> DecodedImage:
    try:
        return from_pil(ImageOps.exif_transpose(image))
    except ValueError as error:
        raise RequestError(str(error)) from None
