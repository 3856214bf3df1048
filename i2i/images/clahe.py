"""Contrast-limited adaptive histogram equalization (CLAHE): levels are spread over the whole range tile by
tile, by curves of limited steepness.

Pizer et al. 1987 equalize the histogram of each tile and interpolate between the curves of the four tiles
around a pixel; Zuiderveld 1994 limits their steepness by clipping the histograms.  Tiles, clipping and
interpolation are OpenCV's, so at 8 bits the result is OpenCV's to the level.  At 16 bits OpenCV has a bin for
each of 65,536 levels, more than a tile has pixels, so that no limit is left there; here there are 256 bins
for every type, and what lies between two of them goes between what these become: all gradations stay.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BINS = 256
SMALLEST = 16       # Pixels a side of a tile, at least: a histogram of 256 bins needs as many pixels.


def clahe(image: Array, clip: float, tiles: int) -> Array:
    """Levels in [0, 1], of colors their lightness (CIE 1976 L*), of other numbers of channels each by itself.
    HWC -> HWC float32 in [0, 1]

    `clip`: how many times the mean of its histogram a tile's bin may hold, and so about how many times as
    steep as before its curve may be.  `tiles` on each side, fewer where they would be smaller than 16 pixels.
    """
    image = image.astype(np.float32).clip(0, 1)
    if image.shape[2] != 3:
        return np.dstack([clahe_levels(image[..., i], clip, tiles) for i in range(image.shape[2])])
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = 100 * clahe_levels(lab[..., 0] / 100, clip, tiles)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).clip(0, 1)


def clahe_levels(levels: Array, clip: float, tiles: int) -> Array:
    """HW in [0, 1] -> HW float32 in [0, 1]"""
    (height, width), at = levels.shape, levels.astype(np.float32) * (BINS - 1)
    down, across = (max(1, min(tiles, side // SMALLEST)) for side in (height, width))
    whole = height % down == 0 == width % across
    padded = at if whole else np.pad(at, ((0, down - height % down), (0, across - width % across)), "reflect")
    tall, wide = padded.shape[0] // down, padded.shape[1] // across
    curves = _curves(padded.reshape(down, tall, across, wide).transpose(0, 2, 1, 3).reshape(down * across,
                                                                                            -1), clip)
    below = at.astype(np.intp).clip(0, BINS - 2)
    between = at - below
    (top, bottom, y), (left, right, x) = _neighbors(height, tall, down), _neighbors(width, wide, across)

    def mapped(rows: Array, columns: Array) -> Array:
        place = (rows[:, None] * across + columns) * BINS + below
        low = curves.take(place)
        return low + between * (curves.take(place + 1) - low)

    upper = mapped(top, left) * (1 - x) + mapped(top, right) * x
    lower = mapped(bottom, left) * (1 - x) + mapped(bottom, right) * x
    return upper + (lower - upper) * y[:, None]


def _curves(tiles: Array, clip: float) -> Array:
    """The share of a tile's pixels up to each bin.  What is clipped is dealt out to all bins, and the rest of
    it one by one from the darkest on. T×P -> T·BINS"""
    count, pixels = tiles.shape
    bins = np.rint(tiles).astype(np.intp) + BINS * np.arange(count)[:, None]
    histograms = np.bincount(bins.ravel(), minlength=count * BINS).reshape(count, BINS)
    clipped = np.minimum(histograms, max(1, int(clip * pixels / BINS)))
    each, rest = np.divmod(pixels - clipped.sum(1, keepdims=True), BINS)
    step, bin_ = np.maximum(1, BINS // np.maximum(1, rest)), np.arange(BINS)
    clipped += each + ((bin_ % step == 0) & (bin_ // step < rest))
    return (clipped.cumsum(1) / pixels).astype(np.float32).ravel()


def _neighbors(size: int, tile: int, tiles: int) -> tuple[Array, Array, Array]:
    """The tiles before and after each pixel, and how far it is from the one to the other."""
    at = np.arange(size, dtype=np.float32) / tile - 0.5
    before = np.floor(at).astype(np.intp)
    return before.clip(0, tiles - 1), (before + 1).clip(0, tiles - 1), at - before
