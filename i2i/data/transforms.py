"""Random variation of training images, a function of the seed alone: the same for both images of a pair, or
each its own. What is the same every time (`sized`) comes before what is not (`varied`), so that it can be
kept."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from i2i.images.formats import Array
from i2i.seeding import stable_seed

AREA_CHANNELS = 4       # The most that OpenCV averages at once.


@dataclass(frozen=True)
class JointCropFlip:
    """Resize to `load`, crop `crop` at random, mirror half of the time; jointly.  Isola et al. 2017, section
    6.2.

    Enlarging is bicubic; shrinking averages areas, so that no detail is aliased.
    """

    crop: tuple[int, int]
    load: tuple[int, int]
    flip: bool = True

    def sized(self, image: Array) -> Array:
        """An image as it is loaded.  HW or HWC"""
        return resize(image, self.load)

    def varied(self, images: Sequence[Array], seed: int) -> list[Array]:
        """The same part of each, mirrored or not.  Images of one size, as loaded -> views of them

        Numbers are drawn as albumentations 2.0 draws them, which did this before.
        """
        g = random.Random(seed)
        down, across = g.random(), g.random()
        (height, width), (rows, columns) = images[0].shape[:2], self.crop
        y, x = int((height - rows + 1) * down), int((width - columns + 1) * across)
        step = -1 if self.flip and down < 0.5 else 1
        return [image[y:y + rows, x:x + columns][:, ::step] for image in images]

    def __call__(self, images: Sequence[Array], seed: int) -> list[Array]:
        """Images as stored, in any sizes."""
        return self.varied([self.sized(image) for image in images], seed)


class SeparateCropFlip(JointCropFlip):
    """As `Jitter`, but each image by itself: crops and mirrorings are independent."""

    def varied(self, images: Sequence[Array], seed: int) -> list[Array]:
        """A part of each, mirrored or not."""
        return [super(SeparateCropFlip, self).varied([image], stable_seed(seed, side))[0] for side,
                image in enumerate(images, 1)]


class CoveringCropFlip(JointCropFlip):
    """As `Jitter`, but each image in its own proportions: it is resized until it covers `load`."""

    def sized(self, image: Array) -> Array:
        """An image as it is loaded.  HW or HWC"""
        return resize(image, resize_to_cover(image.shape[:2], self.load))


def resize_to_cover(size: tuple[int, int], load: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of the same proportions that covers `load`."""
    scale = max(load[0] / size[0], load[1] / size[1])
    return max(load[0], round(scale * size[0])), max(load[1], round(scale * size[1]))


def resize(image: Array, size: tuple[int, int]) -> Array:
    """The whole image at this size, for sample grids and evaluation at the training size.  HW or HWC"""
    if image.shape[:2] == size:
        return image
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    if image.ndim == 2 or image.shape[2] <= AREA_CHANNELS:
        return cv2.resize(image, size[::-1], interpolation=how)
    starts = [*range(0, image.shape[2], AREA_CHANNELS), image.shape[2]]
    if starts[-1] - starts[-2] == 2:
        # Two channels at once are rounded otherwise than one or four are.
        starts.insert(-1, starts[-1] - 1)
    return np.dstack([cv2.resize(image[..., i:j], size[::-1], interpolation=how) for i,
                      j in pairwise(starts)])
