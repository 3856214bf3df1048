"""Collapse of a generator, by distances between hundreds of its images, in whole float64 distance tables."""

import numpy as np
import torch

from i2i.images.format import Array
from i2i.metrics.intervals import Z95

# Near-duplicates are closer than this fraction of the median distance of a real image to its nearest other.
NEAR_DUPLICATE_RATIO = 0.2
# Fraction of the variance of real images that must lie between classes for `between` to be reported.
MIN_BETWEEN_FRACTION = 0.05


def distance_table(x: Array) -> Array:
    """Euclidean distances (N, N) between the rows of (N, D), infinity on the diagonal.

    In (N, V, D), V variants of each image with the original in the middle, the distance of two images is the
    least from any variant of one to the original of the other.
    """
    # torch keeps to `train.threads`; the threads of NumPy's products wait for one another on a busy machine.
    rows = torch.from_numpy(np.asarray(x, np.float64))
    variants = rows[None] if rows.ndim == 2 else rows.transpose(0, 1)
    nearest = torch.cdist(variants, variants[len(variants) // 2, None],
                          compute_mode="use_mm_for_euclid_dist").amin(0)
    return torch.minimum(nearest, nearest.T).fill_diagonal_(torch.inf).numpy()


def mean_distance(x: Array) -> float:
    """Mean distance between two different rows of (N, D); 0 for a single one."""
    distances = distance_table(x)[np.triu_indices(len(x), 1)]
    return float(distances.mean()) if len(distances) else 0.0


def median_nearest_distance(real: Array) -> float:
    """Median distance of an image to its nearest other one; (N, D) or (N, V, D)."""
    return float(np.median(distance_table(real).min(1))) if len(real) > 1 else 0.0


def near_duplicates(x: Array, radius: float) -> Array:
    """Pairs i < j closer than `radius`, nearest first: (N, D) or (N, V, D) -> (P, 2)."""
    distances = distance_table(x)
    i, j = np.nonzero(np.triu(distances < radius, 1))
    pairs: Array = np.stack([i, j], 1)[np.argsort(distances[i, j], kind="stable")]
    return pairs


def distinct_fraction(pairs: Array, n: int) -> float:
    """Fraction of n images that are in no near-duplicate pair."""
    return 1 - len(np.unique(pairs)) / n


def support_size(n: int, pairs: int) -> tuple[float, float, float]:
    """Birthday paradox test: how many different images give so many coinciding pairs, and its 95 % interval.

    Arora and Zhang 2017 (arXiv 1706.08224), section 2.  n draws of S equally likely images hold
    n(n - 1) / 2S coinciding pairs on average, nearly Poisson, whose root has variance 1/4.
    """
    total = n * (n - 1) / 2
    low, high = max(np.sqrt(pairs) - Z95 / 2, 0) ** 2, (np.sqrt(pairs) + Z95 / 2) ** 2
    estimate, lower, upper = (float(total / count) if count else float("inf") for count in (pairs, high, low))
    return estimate, lower, upper


def class_spread(x: Array, labels: Array) -> tuple[float, float, float] | None:
    """Spread of the classes of features (N, D) that have two images or more; None if there is only one.

    The squared distance between the means of n images with variance v is larger by v/n + v'/n' on average
    than that of the true centers; these terms are subtracted.

    Returns:
        Mean distance within classes, RMS distance between class centers, and the fraction of the variance of
        all images that lies between classes.
    """
    groups = [np.asarray(x[labels == label], np.float64) for label in np.unique(labels)]
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2:
        return None
    centers = np.stack([group.mean(0) for group in groups])
    variances = np.array([group.var(0, ddof=1).sum() for group in groups])
    noise = variances / [len(group) for group in groups]
    i, j = np.triu_indices(len(groups), 1)
    squared = float(((centers[i] - centers[j]) ** 2).sum(1).mean() - (noise[i] + noise[j]).mean())
    between = max(squared, 0.0)
    return (float(np.mean([mean_distance(group) for group in groups])), between**0.5,
            between / 2 / (between / 2 + float(variances.mean()) or 1.0))


def collapse_ratios(fake: Array, real: Array, fake_labels: Array | None = None,
                    real_labels: Array | None = None, *,
                    variants: tuple[Array, Array] | None = None) -> dict[str, float]:
    """Diversity of generated images relative to real ones: 1 is as varied, 0 is collapse.

    Args:
        fake, real: features, (N, D) and (M, D), with classes (N,) and (M,) if they are labeled.
        variants: features of both with shifted variants, (N, V, E) and (M, V, E), to find near-duplicates by.

    Returns:
        `diversity`: mean distance between two images.  `distinct`: fraction without a near-duplicate.
        With labels also `within` classes, and `between` classes where real ones can be separated.
    """
    fake_variants, real_variants = variants or (fake, real)
    radius = NEAR_DUPLICATE_RATIO * median_nearest_distance(real_variants)
    ratios = {"diversity": _ratio(mean_distance(fake), mean_distance(real)),
              "distinct": _ratio(*(distinct_fraction(near_duplicates(x, radius), len(x))
                                   for x in (fake_variants, real_variants)))}
    fake_spread = None if fake_labels is None else class_spread(fake, fake_labels)
    real_spread = None if real_labels is None else class_spread(real, real_labels)
    if fake_spread and real_spread:
        (fake_within, fake_between, _), (within, between, fraction) = fake_spread, real_spread
        ratios["within"] = _ratio(fake_within, within)
        if fraction > MIN_BETWEEN_FRACTION:
            ratios["between"] = _ratio(fake_between, between)
    return ratios


def _ratio(fake: float, real: float) -> float:
    return round(fake / real, 4) if real > 0 else 1.0
