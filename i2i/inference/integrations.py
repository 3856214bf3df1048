"""Trained models in other training code: an albumentations transform, datasets with generated images."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from i2i.data.labeled import ImageDataset, find_images
from i2i.data.sampler import Order
from i2i.data.sources import Unreadable, open_source
from i2i.errors import JobError, RequestError, require
from i2i.images.convert import (
    convert_channels,
    convert_tensors,
    tensor_to_rgb,
    to_8bit,
    to_array,
    to_rgb,
    to_tensor,
)
from i2i.images.format import DTYPES, Array, ImageFormat
from i2i.inference.model import Model, check_seed, load
from i2i.inference.model_file import find_model, is_model

# Its version check would use the network at import.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations
from albumentations.core.transforms_interface import BaseTransformInitSchema


class Translate(albumentations.ImageOnlyTransform):         # type: ignore[misc]
    """A trained translator as a transform: `A.Compose([i2i.Translate("runs/night", p=0.3), …])`.

    Images are gray or color, of any size, uint8, uint16 or float32 in [0, 1] (in the range the model was
    trained with, if they are of its dtype); size, dtype and channels stay.  Each process loads the model when
    its first image comes, so that loader workers receive a path and no weights.

    Args:
        model: a model file or a run folder.
        direction: "ab", or "ba" in models that learned both.
        device: where to run the model; in loader workers leave it at "cpu".
        p: probability of applying the transform.
    """

    class InitSchema(BaseTransformInitSchema):              # type: ignore[misc]
        """Types of the arguments, for albumentations."""

        model: str | Path
        direction: str
        device: str

    def __init__(self, model: str | Path, direction: str = "ab", device: str = "cpu", p: float = 0.5) -> None:
        super().__init__(p=p)
        self.model, self.direction, self.device = str(model), direction, device
        self._loaded: Model | None = None
        if not find_model(model).exists():
            raise RequestError(f"{model} does not exist; accepted: a run folder made by i2i train, or a "
                               "model file")

    def apply(self, img: Array, **params: Any) -> Array:
        """Translate an (H, W) or (H, W, C) array; returns one of the same shape and dtype."""
        if img.dtype.name not in DTYPES:
            raise RequestError(f"Translate takes arrays of {', '.join(DTYPES)}, not {img.dtype}")
        model = self._loaded = self._loaded or load(self.model, self.device)
        source, target = (model.formats[side] for side in model.sides(self.direction))
        image = to_tensor(img, _with_dtype(source, img))
        channels = len(image)
        try:
            image = convert_tensors(image[None], replace(source, channels=channels, alpha=False), source)
            image = model(image, direction=self.direction).cpu()
            image = convert_tensors(image, target, replace(target, channels=channels, alpha=False, clahe=0.0))
        except ValueError as error:
            raise RequestError(str(error)) from None
        return to_array(image[0].clamp(-1, 1), _with_dtype(target, img)).reshape(img.shape)

    def get_transform_init_args_names(self) -> tuple[str, ...]:
        return "model", "direction", "device"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}


def _with_dtype(image_format: ImageFormat, array: Array) -> ImageFormat:
    """The format for arrays of its dtype; for others the full range of theirs."""
    return image_format if array.dtype.name == image_format.dtype else ImageFormat(dtype=array.dtype.name)


class Mixed(Dataset[Any]):
    """A dataset with generated images among its own.

    Each real image comes once, and generated ones, spread evenly, are `ratio` of the whole: the length is
    len(real) + round(len(real) * ratio / (1 - ratio)).  An item depends on its index and the seed alone.

    Args:
        real: a dataset with a length, of images or (image, label).  If it has `classes`, as torchvision's
            datasets do, they must be those of `fake`.
        fake: a model (a file, a run folder or loaded), which generates images on demand, its
            classes in turn; or a folder or zip of images, as `i2i generate` writes, all of which come once,
            in an order of the seed, before one comes again.
        ratio: share of generated images, 0 or more and less than 1.
        seed: seed of the noise, or of the order.
        truncation: see `Model.generate`.
        transform: makes an item of a generated PIL image; by default items get the type and channels of the
            real ones: PIL images, uint8 arrays (H, W[, C]) or uint8 tensors (C, H, W).
        device: where to run the model.
    """

    def __init__(self, real: Any, fake: Model | str | Path, ratio: float = 0.5, seed: int = 0, *,
                 truncation: float = 1.0, transform: Callable[[Image.Image], Any] | None = None,
                 device: str = "cpu") -> None:
        require(0 <= ratio < 1, "ratio", ratio, "0 or more and less than 1")
        check_seed(seed)
        require(len(real) >= 1, "real", "an empty set", "a set that holds images")
        self._real, self._transform = real, transform
        self._num_fake = round(len(real) * ratio / (1 - ratio))
        self._fake: GeneratedImages | StoredImages
        if isinstance(fake, Model) or is_model(fake):
            self._fake = GeneratedImages(fake, seed, truncation, device)
        else:
            self._fake = StoredImages(str(fake), seed)
        sample = real[0]
        self._labeled = isinstance(sample, tuple | list)
        if self._labeled:
            if len(sample) != 2:
                raise RequestError(f"an item of the real set has {len(sample)} parts; accepted: an image, or "
                                   "(image, label)")
            classes, real_classes = self._fake.classes, getattr(real, "classes", None)
            if not classes:
                raise RequestError("the real images have labels and the generated ones have none; accepted: "
                                   "a model trained with conditional=true, or images in class folders")
            if real_classes is not None and tuple(real_classes) != classes:
                raise RequestError(f"the real classes are {', '.join(map(str, real_classes))}, the generated "
                                   f"ones {', '.join(classes)}; they must be the same in the same order")
        self._like: Any
        self._label_like: Any
        self._like, self._label_like = sample if self._labeled else (sample, 0)
        if transform is None:
            _check_convertible(self._like)

    def __repr__(self) -> str:
        return f"Mixed({len(self):,} images: {len(self._real):,} real, {self._num_fake:,} generated)"

    def __len__(self) -> int:
        return len(self._real) + self._num_fake

    def generated(self, index: int) -> int | None:
        """The number of the generated image at an index; None if a real one is there."""
        before, after = (i * self._num_fake // len(self) for i in (index, index + 1))
        return before if after > before else None

    def __getitem__(self, index: int) -> Any:
        index += len(self) if index < 0 else 0
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)}")
        number = self.generated(index)
        if number is None:
            return self._real[index - index * self._num_fake // len(self)]
        array, label = self._fake[number]
        image = (self._transform(Image.fromarray(array)) if self._transform
                 else _convert_like(array, self._like))
        if not self._labeled:
            return image
        tensor = isinstance(self._label_like, Tensor)
        return image, torch.tensor(label, dtype=self._label_like.dtype) if tensor else label


class GeneratedImages:
    """Images of a model, generated one at a time: number i is image i of the seed."""

    def __init__(self, model: Model | str | Path, seed: int, truncation: float, device: str) -> None:
        self.source, self.seed, self.truncation, self.device = model, seed, truncation, device
        self._loaded: Model | None = None
        self.classes = self.model.classes
        self[0]     # RequestError now, not in a worker.

    @property
    def model(self) -> Model:
        """The model, which each process loads once."""
        if isinstance(self.source, Model):
            return self.source
        self._loaded = self._loaded or load(self.source, self.device)
        return self._loaded

    def __getitem__(self, index: int) -> tuple[Array, int | None]:
        """An image, (H, W, 3) uint8, and its class."""
        turn = self.model.learned_classes
        label = turn[index % len(turn)] if self.classes else None
        image = self.model.render([index], None if label is None else torch.tensor([label]), seed=self.seed,
                                  truncation=self.truncation)[0]
        return tensor_to_rgb(image, self.model.formats["b"]), label

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}


class StoredImages:
    """Images of a folder or zip, in an order of the seed."""

    def __init__(self, path: str, seed: int) -> None:
        splits = find_images(open_source(path))
        require("train" in splits, "fake", path, "a folder of class folders, or with train/ in it")
        self.images: ImageDataset = splits["train"]
        self.classes, self.order = self.images.classes, Order(len(self.images), seed)

    def __getitem__(self, index: int) -> tuple[Array, int | None]:
        """An image, (H, W, 3) uint8, and its class; JobError if it cannot be read."""
        try:
            image, label = self.images[self.order(index)]
            return to_rgb(to_8bit(image)), label
        except Unreadable as error:
            raise JobError(str(error)) from None


def _check_convertible(image: Any) -> None:
    if not (isinstance(image, Image.Image)
            or (isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3))
            or (isinstance(image, Tensor) and image.dtype == torch.uint8 and image.ndim == 3)):
        kind = type(image).__name__ + (f" of {image.dtype}" if hasattr(image, "dtype") else "")
        raise RequestError(f"the real images are {kind}, so what their values mean cannot be known; "
                           "accepted: PIL images, uint8 arrays (HWC) or uint8 tensors (CHW), or transform=, "
                           "which makes one like them of a PIL image")


def _convert_like(array: Array, like: Any) -> Any:
    """Convert an (H, W, 3) uint8 array to the type and channels of another image."""
    if isinstance(like, Image.Image):
        return Image.fromarray(array).convert(like.mode)
    if isinstance(like, Tensor):
        return torch.from_numpy(np.atleast_3d(convert_channels(array, len(like))).transpose(2, 0, 1).copy())
    image = convert_channels(array, 1 if like.ndim == 2 else like.shape[2])
    return image if image.ndim == like.ndim else image[..., None]
