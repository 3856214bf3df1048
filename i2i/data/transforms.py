"""Random variation of training images, a function of the seed alone: the same for both images of a pair, or each its own."""

from __future__ import annotations

import os
from collections.abc import Callable

from i2i.clock import stable_seed
from i2i.images import Array

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")      # Its version check would ask the network at import.

import albumentations
import cv2
import numpy as np

AREA_CHANNELS = 4       # The most that OpenCV averages at once.
Jitter = Callable[[Array, Array, int], tuple[Array, Array]]
JitterAlone = Callable[[Array, int], Array]


def jitter(crop: tuple[int, int], load: tuple[int, int], *, flip: bool) -> Jitter:
    """Resize to `load`, crop `crop` at random, mirror half of the time; jointly, also where the two differ in size.
    Isola et al. 2017, section 6.2.

    Enlarging is bicubic; shrinking averages areas, so that no detail is aliased.
    """
    compose = _compose(crop, load, flip, {"b": "image"})

    def apply(a: Array, b: Array, seed: int) -> tuple[Array, Array]:
        if a.shape[:2] != b.shape[:2]:
            a, b = fit(a, load), fit(b, load)
        compose.set_random_seed(seed)
        out = compose(image=a, b=b)
        return out["image"], out["b"]

    return apply


def jitter_apart(crop: tuple[int, int], load: tuple[int, int], *, flip: bool) -> Jitter:
    """As `jitter`, but each image by itself: they may have different sizes, and their crops and mirrorings are independent."""
    alone = jitter_alone(crop, load, flip=flip)
    return lambda a, b, seed: (alone(a, stable_seed(seed, 1)), alone(b, stable_seed(seed, 2)))


def jitter_alone(crop: tuple[int, int], load: tuple[int, int], *, flip: bool) -> JitterAlone:
    """As `jitter`, for one image."""
    compose = _compose(crop, load, flip, {})

    def alone(image: Array, seed: int) -> Array:
        compose.set_random_seed(seed)
        return compose(image=image)["image"]

    return alone


def jitter_covering(crop: tuple[int, int], load: tuple[int, int], *, flip: bool) -> JitterAlone:
    """As `jitter_alone`, but in its own proportions: the image is resized until it covers `load`."""
    compose = albumentations.Compose([albumentations.RandomCrop(*crop), albumentations.HorizontalFlip(p=0.5 if flip else 0.0)])

    def alone(image: Array, seed: int) -> Array:
        scale = max(load[0] / image.shape[0], load[1] / image.shape[1])
        size = max(load[0], round(scale * image.shape[0])), max(load[1], round(scale * image.shape[1]))
        compose.set_random_seed(seed)
        return compose(image=fit(image, size))["image"]

    return alone


def _compose(crop: tuple[int, int], load: tuple[int, int], flip: bool, targets: dict[str, str]) -> albumentations.Compose:
    steps = [
        albumentations.Resize(*load, interpolation=cv2.INTER_CUBIC, area_for_downscale="image"),
        albumentations.RandomCrop(*crop),
        albumentations.HorizontalFlip(p=0.5 if flip else 0.0)]
    return albumentations.Compose(steps, additional_targets=targets)


def fit(image: Array, size: tuple[int, int]) -> Array:
    """The whole image at this size, for sample grids and evaluation at the training size.  HW or HWC"""
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    if image.ndim == 2 or image.shape[2] <= AREA_CHANNELS:
        return cv2.resize(image, size[::-1], interpolation=how)
    return np.dstack([cv2.resize(image[..., i:i + AREA_CHANNELS], size[::-1], interpolation=how) for i in range(0, image.shape[2], AREA_CHANNELS)])
