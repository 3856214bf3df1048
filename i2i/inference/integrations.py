"""Trained models in people's own training code: a translator as an albumentations transform, generated images
among real ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from i2i.data.labeled import ImageDataset, find_images
from i2i.data.sampler import Order
from i2i.data.sources import Unreadable, open_source
from i2i.errors import JobError, RequestError, require
from i2i.images.formats import (
    DTYPES,
    Array,
    DecodedImage,
    ImageFormat,
    apply_clahe,
    convert_channels,
    to_8bit,
    to_array,
    to_pil,
    to_rgb,
    to_tensor,
)
from i2i.inference.model import Model, load, model_file

# Its version check would ask the network at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
from albumentations.core.transforms_interface import BaseTransformInitSchema

LUMA = (0.299, 0.587, 0.114)       # ITU-R BT.601.


class Translate(albumentations.ImageOnlyTransform):         # type: ignore[misc]
    """A trained translator as an albumentations transform: `A.Compose([i2i.Translate("runs/night", p=0.3),
    …])`.

    `model` is a model file or a run folder; `direction` "ba" goes from b to a, in models that learned both.
    Images are uint8, uint16 or float32 in [0, 1] (of the type that the model has learned: in the range it has
    learned), gray or color, of any size; size, type and channels stay. The model is loaded in each process
    when its first image comes, so loader workers are handed a path and no weights; in workers leave `device`
    at "cpu".  RequestError if there is no such model.
    """

    class InitSchema(BaseTransformInitSchema):              # type: ignore[misc]
        """What may be given."""

        model: str | Path
        direction: str
        device: str

    def __init__(self, model: str | Path, direction: str = "ab", device: str = "cpu", p: float = 0.5) -> None:
        super().__init__(p=p)
        self.model, self.direction, self.device = str(model), direction, device
        self._loaded: Model | None = None
        if not model_file(model).exists():
            raise RequestError(f"{model} does not exist; accepted: a run folder made by i2i train, or a "
                               "model file")

    @property
    def loaded(self) -> Model:
        """The model.  RequestError if it is damaged or has not learned the direction"""
        if self._loaded is None:
            loaded = load(self.model, self.device)
            loaded.sides(self.direction)
            self._loaded = loaded
        return self._loaded

    def apply(self, img: Array, **params: Any) -> Array:
        """HW or HWC -> the same shape and type"""
        if img.dtype.name not in DTYPES:
            raise RequestError(f"Translate takes arrays of {', '.join(DTYPES)}, not {img.dtype}")
        source, target = (self.loaded.kinds[side] for side in self.loaded.sides(self.direction))
        kind = self._kind(img, source)
        x = to_tensor(img, kind)
        given = _convert_channels(x, source.channels)
        if source.clahe:
            kind = replace(kind, clahe=source.clahe, clahe_tiles=source.clahe_tiles, channels=len(given),
                           alpha=source.alpha)
            given = to_tensor(apply_clahe(to_array(given, kind), kind), kind)
        made = self.loaded(given[None], direction=self.direction)[0].cpu()
        return to_array(_convert_channels(made, len(x)).clamp(-1, 1),
                        self._kind(img, target)).reshape(img.shape)

    def _kind(self, img: Array, side: ImageFormat) -> ImageFormat:
        """The range of a side for images of its type, else all of the type's."""
        return side if img.dtype.name == side.dtype else ImageFormat(dtype=img.dtype.name)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        """What a saved pipeline needs to make this again."""
        return "model", "direction", "device"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}


def _convert_channels(image: Tensor, channels: int) -> Tensor:
    """Gray to color by repetition, color to gray by luma.  CHW -> C'HW; RequestError for other numbers of
    channels"""
    if len(image) == channels:
        return image
    if len(image) == 1:
        return image.expand(channels, -1, -1)
    if len(image) == 3 and channels == 1:
        return (image * torch.tensor(LUMA)[:, None, None]).sum(0, keepdim=True)
    raise RequestError(f"an image of {len(image)} channels cannot become one of {channels}")


class SizedDataset(Protocol):
    """A data set of people's own: images, or (image, label), by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> Any:
        """One of them."""
        ...


class Mixed(Dataset[Any]):
    """A data set with generated images among its own: each real one once, and so many generated ones that
    they are `ratio` of the whole.

    `fake` is a model (a file, a run folder, or loaded), whose images are made when they are asked for, its
    classes taking turns; or a folder or zip, as `i2i generate` makes them, from which images are taken in an
    order of the seed, all before one comes again.  What comes at a position depends on the position and the
    seed alone; generated ones are spread evenly.  Length: len(real) + round(len(real) ratio / (1 - ratio)).

    An item is what `real` has: an image, or (image, label).  Generated images become PIL images, uint8 arrays
    or uint8 tensors as the real ones are; `transform` takes a generated PIL image and makes anything else.
    Labels are numbers of the classes of `fake`; if `real` has `classes`, as torchvision's sets do, they must
    be the same.  RequestError where the two do not fit.
    """

    def __init__(self, real: SizedDataset, fake: Model | str | Path, ratio: float = 0.5, seed: int = 0, *,
                 truncation: float = 1.0,
                 transform: Callable[[Image.Image], Any] | None = None, device: str = "cpu") -> None:
        require(0 <= ratio < 1, "ratio", ratio, "0 or more and less than 1")
        require(len(real) >= 1, "real", "an empty set", "a set that holds images")
        self.real, self.added = real, round(len(real) * ratio / (1 - ratio))
        drawn = isinstance(fake,
                           Model) or Path(fake).suffix == ".safetensors" or (Path(fake) / "model.safetensors").exists()
        self.fake = GeneratedSamples(fake, seed, truncation, device) if drawn else StoredSamples(str(fake),
                                                                                                 seed)
        sample = real[0]
        self.labeled = isinstance(sample, tuple | list)
        if self.labeled and len(sample) != 2:
            raise RequestError(f"an item of the real set has {len(sample)} parts; accepted: an image, or "
                               "(image, label)")
        self.convert = convert_like(sample[0] if self.labeled
                                    else sample) if transform is None else partial(_round_trip, transform)
        self.number: Callable[[Any], Any] = partial(torch.tensor,
                                                    dtype=sample[1].dtype) if self.labeled and isinstance(sample[1], Tensor) else int
        if self.labeled:
            self._check_classes()

    def _check_classes(self) -> None:
        classes, known = self.fake.classes, getattr(self.real, "classes", None)
        if not classes:
            raise RequestError("the real images have labels and the generated ones have none; accepted: a "
                               "model trained with conditional=true, "
                               "or images in class folders")
        if known is not None and tuple(known) != classes:
            raise RequestError(f"the real classes are {', '.join(map(str, known))}, the generated ones "
                               f"{', '.join(classes)}; "
                               "they must be the same in the same order")

    def __len__(self) -> int:
        return len(self.real) + self.added

    def generated(self, index: int) -> int | None:
        """Which generated image stands at a position, None where a real one does."""
        before = index * self.added // len(self)
        return before if (index + 1) * self.added // len(self) > before else None

    def __getitem__(self, index: int) -> Any:
        """An item as the real set has them.  JobError if a generated one cannot be read"""
        index += len(self) if index < 0 else 0
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        number = self.generated(index)
        if number is None:
            return self.real[index - index * self.added // len(self)]
        array, label = self.fake[number]
        image = self.convert(array)
        return (image, self.number(label)) if self.labeled else image


class GeneratedSamples:
    """Images of a model, made one at a time: number i is image i of the seed."""

    def __init__(self, model: Model | str | Path, seed: int, truncation: float, device: str) -> None:
        self.path, self.seed, self.truncation, self.device = None if isinstance(model,
                                                                                Model) else model, seed, truncation, device
        self._model = model if isinstance(model, Model) else None
        self.classes = self.model.classes
        self[0]     # RequestError now, not in a worker.

    @property
    def model(self) -> Model:
        """The model, loaded in each process once."""
        if self._model is None:
            assert self.path is not None
            self._model = load(self.path, self.device)
        return self._model

    def __getitem__(self, index: int) -> tuple[Array, int | None]:
        """An image and its class.  -> HW3 uint8"""
        label = index % len(self.classes) if self.classes else None
        image = self.model.render([index], None if label is None else torch.tensor([label]), seed=self.seed,
                                  truncation=self.truncation)[0]
        kind = self.model.kinds["b"]
        return to_rgb(to_8bit(DecodedImage(to_array(image, ImageFormat(len(image))), kind.alpha))), label

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({} if self.path is None else {"_model": None})


class StoredSamples:
    """Images of a folder or zip, in an order of the seed."""

    def __init__(self, where: str, seed: int) -> None:
        splits = find_images(open_source(where))
        require("train" in splits, "fake", where, "a folder of class folders, or with train/ in it")
        self.images: ImageDataset = splits["train"]
        self.classes, self.order = self.images.classes, Order(len(self.images), seed)

    def __getitem__(self, index: int) -> tuple[Array, int | None]:
        """An image and its class.  -> HW3 uint8; JobError if it cannot be read"""
        try:
            picture, label = self.images[self.order(index)]
            return to_rgb(to_8bit(picture)), label
        except Unreadable as error:
            raise JobError(str(error)) from None


def convert_like(image: Any) -> Callable[[Array], Any]:
    """What brings an HW3 uint8 array to the type and channels of a real image.  RequestError where the real
    one does not say what its values mean."""
    if isinstance(image, Image.Image):
        return partial(_picture, image.mode)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        return partial(_array, 1 if image.ndim == 2 else image.shape[2], image.ndim)
    if isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        return partial(_tensor, len(image))
    told = f"{type(image).__name__} of {image.dtype}" if hasattr(image, "dtype") else type(image).__name__
    raise RequestError(f"the real images are {told}, so what their values mean cannot be known; accepted: "
                       "PIL images, uint8 arrays (HWC) or uint8 "
                       "tensors (CHW), or transform=, which makes one like them of a PIL image")


def _picture(mode: str, array: Array) -> Image.Image:
    return to_pil(array).convert(mode)


def _array(channels: int, ndim: int, array: Array) -> Array:
    made = convert_channels(array, channels)      # Of a gray image all three are alike.
    return made if ndim == made.ndim else made[..., None]


def _tensor(channels: int, array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(_array(channels, 3, array).transpose(2, 0, 1)))


def _round_trip(transform: Callable[[Image.Image], Any], array: Array) -> Any:
    return transform(to_pil(array))
