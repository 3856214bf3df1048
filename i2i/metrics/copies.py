"""Copies of training images, including mirrored, shifted, recompressed and recolored ones.

Candidates are the training images with the most similar power spectra, which hardly change with a shift.
Each is aligned with the image at every shift, and its brightness and contrast are fitted.  The distance is
the largest difference of any small part.  So two drawings that differ in a single feature are not copies of
each other, while the errors of JPEG, which are small everywhere, do not count.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from i2i.images.convert import middle_square
from i2i.images.format import Array

SIDE = 64                   # Of the thumbnails that are compared.
MAX_SHIFT = 2               # Pixels of them, in both directions.
CANDIDATES = 8              # Training images that are compared with an image, and with its mirror image.
SPECTRUM_SIDE, FREQUENCIES, EXPONENT = 32, 8, 0.5
LUMA_CELL, COLOR_CELL = 4, 10       # Sides of the parts, of which 15 x 15 and 6 x 6 are compared.
MAX_GAIN = 1 / 0.7          # Of contrast.
MIN_CORRELATION = 0.8       # Below, images only resemble each other in that both are nearly blank.
UNLIKE = 255.0              # The distance of such.
RARE = 0.01                 # The share of held-out images that may look like copies.
MAX_DIFFERENCE = 20.0       # Of copies; those saved as JPEG of quality 50 differ by up to 12 levels.
BATCH = 256
MAX_COMPARED = 2_000_000    # Pairs of spectra at once, 24 MB.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)         # ITU-R BT.601
_SHIFTS = [(y, x) for y in range(2 * MAX_SHIFT + 1) for x in range(2 * MAX_SHIFT + 1)]
_WINDOW = np.outer(*2 * [np.hanning(SPECTRUM_SIDE + 2)[1:-1]]).astype(np.float32)


def thumbnail(image: Array, side: int = SIDE) -> Array:
    """The middle square of an image, (H, W, 3) uint8 -> (side, side, 3)."""
    square = middle_square(image)
    how = Image.Resampling.BOX if len(square) > side else Image.Resampling.BICUBIC
    return square if len(square) == side else np.asarray(Image.fromarray(square).resize((side, side), how))


@dataclass(frozen=True)
class Match:
    """The training image that an image is most nearly a copy of."""

    index: int
    distance: float             # In levels of 255; 0 for copies.
    mirrored: bool
    shift: tuple[int, int]      # By which the image lies lower and further right, in pixels of 64.

    def __str__(self) -> str:
        down, right = self.shift
        moved = f"shifted by {right}, {down} of {SIDE} pixels" if down or right else ""
        return ", ".join(filter(None, ["mirrored" * self.mirrored, moved])) or "in place"


class CopyFinder:
    """Finds the training image that an image is most nearly a copy of.

    Args:
        thumbnails: of the training images, (N, 64, 64, 3) uint8, possibly memory-mapped.
    """

    def __init__(self, thumbnails: Array) -> None:
        self.thumbnails = thumbnails
        self._spectra = np.concatenate([_spectra(thumbnails[i:i + BATCH])
                                        for i in range(0, len(thumbnails), BATCH)])

    def find(self, images: Array, exclude: Array | None = None) -> list[Match]:
        """The match of each of up to a few hundred thumbnails (N, 64, 64, 3).

        `exclude`: for each the training image that does not count, because it is the same.
        """
        mirrored = np.ascontiguousarray(images[:, :, ::-1])
        nearest = [self._candidates(each, exclude) for each in (images, mirrored)]
        matches = []
        for i in range(len(images)):
            found = (self._match(images[i], nearest[0][i], False),
                     self._match(mirrored[i], nearest[1][i], True))
            matches.append(min(found, key=lambda match: match.distance))
        return matches

    def _candidates(self, images: Array, exclude: Array | None) -> Array:
        """The training images with the most similar spectra, (N, up to 8), unsorted."""
        count, rows = min(CANDIDATES, len(self.thumbnails)), max(1, MAX_COMPARED // len(self.thumbnails))
        spectra, found = _spectra(images), list[Array]()
        for i in range(0, len(images), rows):
            unlike = -spectra[i:i + rows] @ self._spectra.T
            if exclude is not None:
                unlike[np.arange(len(unlike)), exclude[i:i + rows]] = np.inf
            found.append(np.argpartition(unlike, count - 1, axis=1)[:, :count])
        return np.concatenate(found)

    def _match(self, image: Array, candidates: Array, mirrored: bool) -> Match:
        candidates = np.sort(candidates)
        distances, shifts = _align(image, self.thumbnails[candidates])
        best = int(distances.argmin())
        down, right = _SHIFTS[shifts[best]]
        down, right = MAX_SHIFT - down, MAX_SHIFT - right
        # A mirrored image was mirrored back before it was shifted.
        return Match(int(candidates[best]), float(distances[best]), mirrored,
                     (down, -right if mirrored else right))


def _spectra(thumbnails: Array) -> Array:
    """Magnitudes of low frequencies of the luma, as unit vectors.  (N, 64, 64, 3) -> (N, 120) float32"""
    luma = thumbnails @ _LUMA
    factor = SIDE // SPECTRUM_SIDE
    small = luma.reshape(-1, SPECTRUM_SIDE, factor, SPECTRUM_SIDE, factor).mean((2, 4))
    small = (small - small.mean((1, 2), keepdims=True)) * _WINDOW
    found = np.abs(np.fft.rfft2(small))[:, :, :FREQUENCIES]
    found = np.concatenate([found[:, :FREQUENCIES], found[:, 1 - FREQUENCIES:]], 1)
    found = found.reshape(len(found), -1).astype(np.float32)**EXPONENT
    unit: Array = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)
    return unit


def _align(image: Array, candidates: Array) -> tuple[Array, Array]:
    """The distance of each candidate (N, 64, 64, 3) where its luma fits best, and which shift that is.

    Colors are compared of those alone that can be the nearest; the distances of others are those of luma.
    """
    sums, own = _integrals(candidates @ _LUMA), _integrals(image[None] @ _LUMA)
    shifted = np.stack([_cell_means(sums, y, x, LUMA_CELL) for y, x in _SHIFTS], 1)
    own_cells = _cell_means(own, MAX_SHIFT, MAX_SHIFT, LUMA_CELL)[0]
    differences, alike = _compare(shifted, own_cells)
    shifts, rows = differences.argmin(1), np.arange(len(candidates))
    distances = np.where(alike[rows, shifts], differences[rows, shifts], UNLIKE)
    own_colors, nearest = _color_cells(image, (MAX_SHIFT, MAX_SHIFT)), math.inf
    for i in np.argsort(distances, kind="stable"):
        if distances[i] > nearest or distances[i] >= UNLIKE:
            break
        colors, _ = _compare(_color_cells(candidates[i], _SHIFTS[shifts[i]]), own_colors)
        distances[i] = max(distances[i], colors.max())
        nearest = min(nearest, distances[i])
    return distances, shifts


def _color_cells(image: Array, shift: tuple[int, int]) -> Array:
    """Means of the color cells of an image (64, 64, 3), (3, 36)."""
    return _cell_means(_integrals(np.moveaxis(image, -1, 0).astype(np.float32)), *shift, COLOR_CELL)


def _integrals(planes: Array) -> Array:
    """Sums over everything above and left of each corner.  (..., 64, 64) -> (..., 65, 65)"""
    padding = [(0, 0)] * (planes.ndim - 2) + [(1, 0), (1, 0)]
    return np.pad(planes, padding).cumsum(-2, np.float64).cumsum(-1)


def _cell_means(integrals: Array, y: int, x: int, cell: int) -> Array:
    """Means of the square cells of the part of 60 x 60 pixels that begins there.  -> (..., cells)"""
    end = SIDE - 2 * MAX_SHIFT + 1
    corners = integrals[..., y:y + end:cell, x:x + end:cell]
    sums = corners[..., 1:, 1:] - corners[..., :-1, 1:] - corners[..., 1:, :-1] + corners[..., :-1, :-1]
    means: Array = sums.reshape(*sums.shape[:-2], -1) / cell**2
    return means


def _compare(cells: Array, target: Array) -> tuple[Array, Array]:
    """Compare cells (..., K) with a target, once brightness and contrast are fitted.

    Returns:
        The largest differences (...), and whether the others are small beside the contrast of the target.
    """
    cells = cells - cells.mean(-1, keepdims=True)
    target = target - target.mean(-1, keepdims=True)
    gain = (cells * target).sum(-1) / np.maximum((cells**2).sum(-1), 1)
    rest = gain.clip(1 / MAX_GAIN, MAX_GAIN)[..., None] * cells - target
    unexplained = (1 - MIN_CORRELATION**2) * (target**2).mean(-1) + 1
    return np.abs(rest).max(-1), (rest**2).mean(-1) <= unexplained


def copy_threshold(held_out: Array, limit: float = math.inf) -> tuple[float, float]:
    """The distance below which an image counts as a copy, and the share of unseen reals that lie below it.

    The k-th smallest of n distances of held-out images, such that k / (n + 1), which is the probability that
    one more lies below it, is at most 1 %; the smallest, if n < 99.  Never above `limit`.
    """
    n = len(held_out)
    threshold = min(float(np.sort(held_out)[max(1, math.floor(RARE * (n + 1))) - 1]), limit)
    return threshold, (int((held_out < threshold).sum()) + 1) / (n + 1)
