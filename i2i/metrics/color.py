"""Overlap of colors: histogram intersection in CIE Lab.  Isola et al. 2017 (arXiv 1611.07004), figure 7."""

import numpy as np
import torch

from i2i.images.format import Array

# Ranges of L, a and b that hold every sRGB color, with neutral grays in the middle of a bin.
RANGES = ((-0.5, 100.5), (-110.5, 110.5), (-110.5, 110.5))
BINS = (101, 221, 221)      # One unit wide, the smallest visible difference; the paper does not give its own.


def to_lab(rgb: Array) -> Array:
    """Convert sRGB (..., 3) uint8 to CIE Lab (..., 3) float64, for white D65."""
    from kornia.color import rgb_to_lab  # Takes a second to import.
    pixels = torch.from_numpy(rgb).double().div(255).reshape(1, -1, 3).mT[..., None]
    return rgb_to_lab(pixels)[..., 0].mT.reshape(rgb.shape).numpy()


class LabHistogram:
    """Frequencies of L, a and b in a set of images; all images weigh the same, whatever their size."""

    def __init__(self) -> None:
        self.n = 0
        self.counts = [np.zeros(bins) for bins in BINS]

    def add(self, frequencies: list[Array]) -> None:
        """Add the result of `of_image`."""
        for total, each in zip(self.counts, frequencies, strict=True):
            total += each
        self.n += 1

    @staticmethod
    def of_image(image: Array) -> list[Array]:
        """The fraction of an image's pixels in each bin of L, a and b; the image is (H, W, 3) uint8."""
        packed = image.reshape(-1, 3).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
        colors, counts = np.unique(packed, return_counts=True)
        lab = to_lab(np.stack([colors >> 16, colors >> 8 & 255, colors & 255], -1).astype(np.uint8))
        weights = counts / counts.sum()
        return [np.histogram(lab[:, i].clip(*limits), bins, limits, weights=weights)[0]
                for i, (bins, limits) in enumerate(zip(BINS, RANGES, strict=True))]

    def intersection(self, other: "LabHistogram") -> dict[str, float]:
        """Overlap of two sets in L, a and b, each in [0, 1].  Swain and Ballard 1991, equation 1."""
        if not self.n or not other.n:
            raise ValueError("a histogram of no images has no intersection")
        return {name: float(np.minimum(a / self.n, b / other.n).sum())
                for name, a, b in zip("Lab", self.counts, other.counts, strict=True)}
