"""Resizing and random crops and flips of the images of one sample."""

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise

import cv2
import numpy as np

from i2i.images.format import Array
from i2i.seeding import stable_seed

MAX_AREA_CHANNELS = 4       # cv2.INTER_AREA takes no more at once.
Size = tuple[int, int]      # Height and width.


@dataclass(frozen=True)
class Resize:
    """Resize HW or HWC images to `load`, or keep the stored size; the base of augmentations.

    The deterministic part, `resize`, comes first, so that its result can be cached; the random part,
    `augment`, is a function of its seed.
    """

    load: Size | None = None

    def loaded_size(self, size: Size) -> Size:
        """The size that `resize` gives an image of this size."""
        return self.load or size

    def resize(self, image: Array, how: str = "bicubic") -> Array:
        """The deterministic part."""
        return resize(image, self.loaded_size(image.shape[:2]), how)

    def augment(self, images: Sequence[Array], seed: int) -> list[Array]:
        """The random part, for resized images; may return views."""
        return list(images)

    def __call__(self, images: Sequence[Array], seed: int) -> list[Array]:
        return self.augment([self.resize(image) for image in images], seed)


@dataclass(frozen=True)
class JointCropFlip(Resize):
    """Resize, then crop and flip all images alike (Isola et al. 2017, section 6.2).

    Crops are those of albumentations' RandomCrop; flips are independent of them, which they are not in a
    Compose of albumentations 2.0 with a seed, where every transform draws the same numbers.
    """

    _: KW_ONLY
    crop: Size
    flip: bool = True

    def augment(self, images: Sequence[Array], seed: int) -> list[Array]:
        generator = random.Random(seed)
        down, across, mirror = generator.random(), generator.random(), generator.random()
        (height, width), (rows, columns) = images[0].shape[:2], self.crop
        y, x = int((height - rows + 1) * down), int((width - columns + 1) * across)
        step = -1 if self.flip and mirror < 0.5 else 1
        return [image[y:y + rows, x:x + columns][:, ::step] for image in images]


class SeparateCropFlip(JointCropFlip):
    """As JointCropFlip, with an independent crop and flip for each image."""

    def augment(self, images: Sequence[Array], seed: int) -> list[Array]:
        return [super(SeparateCropFlip, self).augment([image], stable_seed(seed, number))[0]
                for number, image in enumerate(images, 1)]


class CoveringCropFlip(JointCropFlip):
    """As JointCropFlip, but resize in the image's own proportions until it covers `load`."""

    def loaded_size(self, size: Size) -> Size:
        height, width = self.load or size
        scale = max(height / size[0], width / size[1])
        return max(height, round(scale * size[0])), max(width, round(scale * size[1]))


def resize(image: Array, size: Size, how: str = "bicubic") -> Array:
    """Resize an HW or HWC image, to shrink by averaging areas, so that nothing is aliased.

    Args:
        image: the image.
        size: its new height and width.
        how: "bicubic" or "bilinear" to enlarge; "nearest" also to shrink, which makes no new colors.
    """
    if image.shape[:2] == size:
        return image
    if how == "nearest":
        rows, columns = (((np.arange(size[axis]) + 0.5) * image.shape[axis] / size[axis]).astype(int)
                         for axis in (0, 1))
        return image[rows[:, None], columns]
    shrinks = image.shape[0] > size[0] or image.shape[1] > size[1]
    enlarging = cv2.INTER_LINEAR if how == "bilinear" else cv2.INTER_CUBIC
    interpolation = cv2.INTER_AREA if shrinks else enlarging
    if image.ndim == 2 or image.shape[2] <= MAX_AREA_CHANNELS:
        return cv2.resize(image, size[::-1], interpolation=interpolation)
    starts = [*range(0, image.shape[2], MAX_AREA_CHANNELS), image.shape[2]]
    if starts[-1] - starts[-2] == 2:        # OpenCV rounds two channels otherwise than one or four.
        starts.insert(-1, starts[-1] - 1)
    return np.dstack([cv2.resize(image[..., i:j], size[::-1], interpolation=interpolation)
                      for i, j in pairwise(starts)])
