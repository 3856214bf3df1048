"""Faults that are planted in real images, at several strengths, to find out what a judge sees."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from i2i.images.format import Array

GRID = 4            # Patches across, of which some change places.
SHEET_SIDE = 64     # Of the images on a sheet.


@dataclass(frozen=True)
class Fault:
    """A way in which generated images go wrong."""

    name: str
    strengths: tuple[float, ...]            # From weak to strong.
    unit: str                               # Of the strength, with {} for the number.
    plant: Callable[[Array, float, np.random.Generator], Array] | None = None      # Into (H, W, 3) uint8.
    # Or which images of the set, by their labels, take the place of n: (n, labels, strength) -> indices.
    choose: Callable[[int, Array, float], Array] | None = None
    needs_labels: bool = False

    def describe(self, strength: float) -> str:
        """The strength for people."""
        return self.unit.format(f"{strength:g}")


def blur(image: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Gaussian blur, sigma in pixels."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def jpeg(image: Array, quality: float, rng: np.random.Generator) -> Array:
    """Save as JPEG of this quality, 1 to 95, and read it again."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=int(quality))
    return np.asarray(Image.open(data))


def noise(image: Array, deviation: float, rng: np.random.Generator) -> Array:
    """Gaussian noise, independent in each channel."""
    noisy = image + rng.normal(0, deviation, image.shape)
    return noisy.round().clip(0, 255).astype(np.uint8)


def permute_channels(image: Array, share: float, rng: np.random.Generator) -> Array:
    """Red, green and blue change places, in a share of the images."""
    return image[..., [2, 0, 1]] if rng.random() < share else image


def shuffle_patches(image: Array, share: float, rng: np.random.Generator) -> Array:
    """A share of the patches of a grid change places."""
    height, width = image.shape[0] // GRID, image.shape[1] // GRID
    out = image.copy()
    moved = rng.permutation(GRID * GRID)[:max(2, round(share * GRID * GRID))]
    for target, source in zip(moved, np.roll(moved, 1), strict=True):
        (y, x), (v, u) = divmod(int(target), GRID), divmod(int(source), GRID)
        out[y * height:(y + 1) * height, x * width:(x + 1) * width] = \
            image[v * height:(v + 1) * height, u * width:(u + 1) * width]
    return out


def shift_hue(image: Array, degrees: float, rng: np.random.Generator) -> Array:
    """Hues turn by an angle."""
    hsv = np.asarray(Image.fromarray(image).convert("HSV")).copy()
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256))     # Wraps around.
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def repeat(n: int, labels: Array, times: float) -> Array:
    """A few images, each many times."""
    return np.arange(n) // int(times)


def drop_classes(n: int, labels: Array, share: float) -> Array:
    """A share of the classes is missing."""
    classes = np.unique(labels)
    kept = classes[round(share * len(classes)):]
    return np.flatnonzero(np.isin(labels, kept))[:n]


FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in (
    Fault("blur", (0.5, 1, 2), "sigma {}", blur),
    Fault("JPEG", (50, 25, 10), "quality {}", jpeg),
    Fault("noise", (5, 10, 20), "{} levels", noise),
    Fault("permuted channels", (0.25, 0.5, 1), "{} of images", permute_channels),
    Fault("shuffled patches", (0.25, 0.5, 1), "{} of patches", shuffle_patches),
    Fault("shifted hue", (15, 45, 120), "{}°", shift_hue),
    Fault("repeated images", (5, 10, 20), "each {} times", choose=repeat),
    Fault("missing classes", (0.25, 0.5, 0.75), "{} of classes",
          choose=drop_classes, needs_labels=True),
)}


def plant(fault: Fault, images: Sequence[Array], strength: float, seed: int = 0) -> list[Array]:
    """Images (H, W, 3) uint8 with a fault in each."""
    assert fault.plant is not None
    rng = np.random.default_rng(seed)
    return [fault.plant(image, strength, rng) for image in images]


def sheet(images: Sequence[Array]) -> Array:
    """A sheet (H, W, 3) uint8: the images, then a row for each fault with its strengths side by side."""
    small = [np.asarray(Image.fromarray(image).resize((SHEET_SIDE, SHEET_SIDE))) for image in images]
    faults = [fault for fault in FAULTS.values() if fault.plant]
    width = max(len(fault.strengths) for fault in faults)
    rows = [np.concatenate(small * width, 1)]
    for fault in faults:
        rows.append(np.concatenate([image for strength in fault.strengths
                                    for image in plant(fault, small, strength)], 1))
    return np.concatenate(rows, 0)
