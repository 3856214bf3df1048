"""Contrast-limited adaptive histogram equalization (CLAHE).

Pizer et al. 1987 equalize the histogram of each tile and interpolate between the curves of the four tiles
around a pixel; Zuiderveld 1994 limits the slope of the curves by clipping the histograms.  Tiles, clipping
and interpolation are those of OpenCV, so at 8 bits the result is the same.  At 16 bits OpenCV has a bin for
each of 65,536 levels, more than a tile has pixels, so the limit has no effect; here every type has 256 bins,
and values between two bins are interpolated, so that all gradations are kept.
"""

import cv2
import numpy as np

from i2i.images.format import Array

BINS = 256
MIN_TILE_SIZE = 16      # A histogram of 256 bins needs as many pixels.


def clahe(image: Array, clip: float, tiles: int) -> Array:
    """Equalize the contrast of an image: the lightness (CIE 1976 L*) of three channels, else each channel.

    Args:
        image: (H, W, C) in [0, 1].
        clip: how many times the mean of its histogram a bin may hold, which limits the slope of the curve.
        tiles: tiles on each side, fewer if they would be smaller than 16 pixels.

    Returns:
        (H, W, C) float32 in [0, 1].
    """
    image = image.astype(np.float32).clip(0, 1)
    if image.shape[2] != 3:
        return np.dstack([clahe_levels(image[..., i], clip, tiles) for i in range(image.shape[2])])
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    lab[..., 0] = 100 * clahe_levels(lab[..., 0] / 100, clip, tiles)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).clip(0, 1)


def clahe_levels(levels: Array, clip: float, tiles: int) -> Array:
    """`clahe` for one channel.  (H, W) in [0, 1] -> (H, W) float32 in [0, 1]"""
    (height, width), values = levels.shape, levels.astype(np.float32) * (BINS - 1)
    rows, columns = (max(1, min(tiles, side // MIN_TILE_SIZE)) for side in (height, width))
    padded = values
    if height % rows or width % columns:        # As in OpenCV, both sides are then padded.
        padded = np.pad(values, ((0, rows - height % rows), (0, columns - width % columns)), "reflect")
    tall, wide = padded.shape[0] // rows, padded.shape[1] // columns
    split = padded.reshape(rows, tall, columns, wide).transpose(0, 2, 1, 3)
    curves = _curves(split.reshape(rows * columns, -1), clip)
    lower_bin = values.astype(np.intp).clip(0, BINS - 2)
    fraction = values - lower_bin
    (top, bottom, y), (left, right, x) = _neighbors(height, tall, rows), _neighbors(width, wide, columns)

    def mapped(row: Array, column: Array) -> Array:
        index = (row[:, None] * columns + column) * BINS + lower_bin
        low = curves.take(index)
        return low + fraction * (curves.take(index + 1) - low)

    upper = mapped(top, left) * (1 - x) + mapped(top, right) * x
    lower = mapped(bottom, left) * (1 - x) + mapped(bottom, right) * x
    return upper + (lower - upper) * y[:, None]


def _curves(tiles: Array, clip: float) -> Array:
    """The share of a tile's pixels up to each bin, (T, P) -> (T * 256,).

    Clipped counts are distributed evenly over all bins, and the remainder one by one from the darkest on.
    """
    count, pixels = tiles.shape
    bins = np.rint(tiles).astype(np.intp) + BINS * np.arange(count)[:, None]
    histograms = np.bincount(bins.ravel(), minlength=count * BINS).reshape(count, BINS)
    clipped = np.minimum(histograms, max(1, int(clip * pixels / BINS)))
    each, rest = np.divmod(pixels - clipped.sum(1, keepdims=True), BINS)
    step, index = np.maximum(1, BINS // np.maximum(1, rest)), np.arange(BINS)
    clipped += each + ((index % step == 0) & (index // step < rest))
    return (clipped.cumsum(1) / pixels).astype(np.float32).ravel()


def _neighbors(size: int, tile: int, tiles: int) -> tuple[Array, Array, Array]:
    """The tiles before and after each pixel, and its position between their centers, in [0, 1)."""
    position = np.arange(size, dtype=np.float32) / tile - 0.5
    before = np.floor(position).astype(np.intp)
    return before.clip(0, tiles - 1), (before + 1).clip(0, tiles - 1), position - before
