"""Recall of classifiers, and the gain of one set of trainings over another with a paired interval."""

import math
from dataclasses import dataclass

import numpy as np
import scipy

from i2i.images.format import Array
from i2i.metrics.intervals import Z95

Z_POWER = 0.8416212335729143    # A difference as large as the true one is then seen in 80 % of all cases.
MAX_SEEDS = 30                  # Advice is to take more test images rather than more seeds than this.


def class_recall(correct: Array, labels: Array) -> Array:
    """The share of each class's images that are right, (..., N) and (N,) -> (..., C)."""
    return np.stack([correct[..., labels == number].mean(-1) for number in range(int(labels.max()) + 1)], -1)


@dataclass(frozen=True)
class Gain:
    """A difference of mean recalls, and the variance of it that seeds, images and both together cause.

    Attributes:
        by_seed: variance that remains with endless test images, plus `by_both`.
        by_image: variance that remains with endless seeds, plus `by_both`.
        by_both: of single answers.
    """

    value: float
    seeds: int
    images: int
    classes: int
    by_seed: float
    by_image: float
    by_both: float

    def interval(self, comparisons: int = 1) -> tuple[float, float]:
        """The 95 % interval, with Bonferroni's correction for a number of comparisons.

        Student's t with Satterthwaite's degrees of freedom (1946).
        """
        variance = max(self.by_seed + self.by_image - self.by_both, self.by_seed, self.by_image)
        if variance == 0:
            return self.value, self.value
        a, b = self.seeds - 1, self.images - self.classes
        freedom = variance**2 / (self.by_seed**2 / a + self.by_image**2 / b + self.by_both**2 / (a * b))
        half = float(scipy.stats.t.ppf(1 - 0.025 / comparisons, freedom)) * math.sqrt(variance)
        return self.value - half, self.value + half

    def needed(self, difference: float) -> tuple[int, int]:
        """The number of seeds and of test images that show a true difference in 80 % of all cases."""
        target = (difference / (Z95 + Z_POWER))**2
        of_seeds, of_images = (max(0.0, each - self.by_both) for each in (self.by_seed, self.by_image))
        for seeds in range(self.seeds, MAX_SEEDS + 1):
            share = self.seeds / seeds
            if (of_seeds + self.by_both) * share + of_images <= target:
                return seeds, self.images
        seeds = self.seeds
        while of_seeds * self.seeds / seeds > target / 2:
            seeds += 1
        share = self.seeds / seeds
        more = (of_images + self.by_both * share) / (target - of_seeds * share)
        return seeds, math.ceil(self.images * max(1.0, more))


def paired_gain(ours: Array, theirs: Array, labels: Array) -> Gain:
    """How much higher the mean recall of some trainings is than that of others, paired by seed and image.

    Seeds and test images are both samples, so the variance of the mean of the differences (seed, image) is
    that of their rows plus that of their columns less what both share, images within their classes.

    Args:
        ours, theirs: (S, N), whether image n was classified rightly after the training of seed s.
        labels: (N,) classes 0 … C - 1, two images of each or more.
    """
    difference = ours.astype(float) - theirs.astype(float)
    seeds, classes = len(difference), int(labels.max()) + 1
    means = class_recall(difference, labels)
    by_image = by_both = 0.0
    for number in range(classes):
        part = difference[:, labels == number]
        n, of_images = part.shape[1], part.mean(0)
        rest = part - of_images - (means[:, number] - means[:, number].mean())[:, None]
        by_image += float(of_images.var(ddof=1)) / n / classes**2
        by_both += float((rest**2).sum()) / ((seeds - 1) * (n - 1)) / (seeds * n) / classes**2
    of_seeds = means.mean(1)
    return Gain(float(of_seeds.mean()), seeds, len(labels), classes, float(of_seeds.var(ddof=1)) / seeds,
                by_image, by_both)
