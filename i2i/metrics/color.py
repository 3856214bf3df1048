"""Do fakes have the colors of reals?  Histogram intersection in CIE Lab: Isola et al. 2017 (arXiv
1611.07004), figure 7."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
WHITE = (0.95047, 1.0, 1.08883)             # D65, 2° observer: CIE 15:2004.
# ITU-R BT.709, D65.
FROM_SRGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
# L, a, b: every sRGB color, with neutral grays mid-bin.
RANGES = ((-0.5, 100.5), (-110.5, 110.5), (-110.5, 110.5))
# One unit wide, the smallest difference people see; the paper does not give its own.
BINS = (101, 221, 221)


def to_lab(rgb: Matrix) -> Matrix:
    """sRGB to CIE Lab: IEC 61966-2-1 and CIE 15:2004, equations 8.3 to 8.5.  …3 uint8 -> …3 float64"""
    levels = np.arange(256) / 255
    linear = np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)[rgb]
    xyz = linear @ np.array(FROM_SRGB).T / WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


class LabHistogram:
    """How often each L, a and b occurs in a set; every image weighs the same whatever its size."""

    def __init__(self) -> None:
        self.n = 0
        self.counts = [np.zeros(bins) for bins in BINS]

    def update(self, image: Matrix) -> None:
        """Add one picture.  HW3 uint8"""
        self.add(self.of(image))

    def add(self, shares: list[Matrix]) -> None:
        """Add what `of` made of one picture."""
        for i, each in enumerate(shares):
            self.counts[i] += each
        self.n += 1

    @staticmethod
    def of(image: Matrix) -> list[Matrix]:
        """The share of one picture's pixels in each bin of L, a and b.  HW3 uint8"""
        colors, times = np.unique(image.reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1],
                                                                                    np.uint32),
                                  return_counts=True)
        lab = to_lab(np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1))
        return [np.histogram(lab[:, i].clip(*limits), bins, limits, weights=times / times.sum())[0]
                for i, (bins, limits) in enumerate(zip(BINS, RANGES, strict=True))]

    def intersection(self, other: LabHistogram) -> dict[str, float]:
        """The share that two sets have in common, 0 … 1, of L, a and b apart.  Swain and Ballard 1991,
        equation 1."""
        if not self.n or not other.n:
            raise ValueError("a histogram of no images has no intersection")
        return {name: float(np.minimum(a / self.n, b / other.n).sum()) for name, a,
                b in zip("Lab", self.counts, other.counts, strict=True)}
