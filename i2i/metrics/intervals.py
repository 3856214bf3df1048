"""95 % confidence intervals, and whether a run is still improving by those of paired differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from i2i.images.format import Array

Z95 = 1.959963984540054      # Standard errors on either side of a 95 % interval.


def mean_interval(values: Sequence[float], comparisons: int = 1) -> tuple[float | None, float | None]:
    """Student's t interval of a mean, (None, None) of fewer than two values; Bonferroni's `comparisons`."""
    n = len(values)
    if n < 2:
        return None, None
    mean = float(np.mean(values))
    half = float(scipy.stats.t.ppf(1 - 0.05 / (2 * comparisons), n - 1) * np.std(values, ddof=1) / n**0.5)
    return mean - half, mean + half


Statistics = Callable[..., Mapping[str, float]]      # Of one or more sets of rows, (N, D) each.


def margins(statistics: Statistics, *sets: Array, seed: int, rounds: int, limit: int = 5000,
            overlapping: bool = False) -> dict[str, float]:
    """Half the widths of 95 % intervals of statistics of sets (N, D), by comparing random parts of them.

    Two disjoint halves are independent sets, so the difference of their statistics has twice the variance of
    one half and four times that of the whole.  No row is repeated, as the bootstrap does, which would be its
    own nearest neighbor.  Of more than `limit` rows, parts of `limit` are compared and the variance is
    scaled.  {} below two rounds, and where parts are too small.

    Args:
        statistics: the values by name, ValueError if the sets are too small.
        rounds: how often they are computed.
        overlapping: whether to take the spread of parts of n^0.92 instead (Politis, Romano and Wolf 1999,
            section 2.3): somewhat too wide, but of use where the variance falls more slowly than 1/n.
    """
    generator = np.random.default_rng(seed)
    used = [min(len(rows), limit) for rows in sets]
    sizes = [int(n**0.92) if overlapping else n // 2 for n in used]
    if rounds < 2 or min(sizes) < 2:
        return {}
    samples: list[Mapping[str, float]] = []
    for _ in range(rounds if overlapping else rounds // 2):
        orders = [generator.permutation(len(rows)) for rows in sets]
        for part in range(1 if overlapping else 2):
            chosen = (rows[np.sort(order[part * size:(part + 1) * size])]
                      for rows, order, size in zip(sets, orders, sizes, strict=True))
            try:
                samples.append(statistics(*chosen))
            except ValueError:
                return {}
    whole, parts = sum(1 / len(rows) for rows in sets), sum(1 / size for size in sizes)
    widths = {}
    for name in samples[0]:
        values = np.array([sample[name] for sample in samples])
        if overlapping:
            widths[name] = Z95 * float((values.var(ddof=1) * whole / (parts - whole)) ** 0.5)
        else:
            variance = ((values[::2] - values[1::2]) ** 2).mean() / 2 * whole / parts
            widths[name] = float(scipy.stats.t.ppf(0.975, rounds // 2) * variance**0.5)
    return widths


def proportion_interval(p: float, n: int, margin: float = 0.0) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a proportion of n images, never narrower than of independent ones.

    `margin`: half the width of the symmetric interval, which is that of an effective number of independent
    images (Korn and Graubard 1998).
    """
    x = max(Z95**2 / n, margin**2 / (p * (1 - p)) if 0 < p < 1 else 0)
    center, half = p + x / 2, (x * p * (1 - p) + x**2 / 4) ** 0.5
    return max(0.0, (center - half) / (1 + x)), min(1.0, (center + half) / (1 + x))


@dataclass(frozen=True)
class Evaluation:
    """The values of one evaluation, lower is better, in the same order of images each time."""

    images: int                 # Training images seen when the run was evaluated.
    values: Sequence[float]     # One per evaluated image.

    @property
    def mean(self) -> float:
        """Mean over images."""
        return float(np.mean(self.values))


def paired_difference(a: Evaluation, b: Evaluation, comparisons: int = 1) -> tuple[float, float]:
    """The 95 % interval of the mean of a - b, paired by image and corrected for that many comparisons."""
    low, high = mean_interval([x - y for x, y in zip(a.values, b.values, strict=True)], comparisons)
    return (-math.inf, math.inf) if low is None or high is None else (low, high)


def progress_state(history: Sequence[Evaluation]) -> tuple[str, Evaluation]:
    """Whether a run is "improving", "flat" or "worse", with the evaluation since when.

    Differences are paired by image, and their intervals corrected for choosing the best of all evaluations.
    "worse": the last evaluation is worse than the best beyond its interval.  "flat": an evaluation before the
    last was the first that cannot be distinguished from the best.  "unknown" of fewer than three.
    """
    if len(history) < 3:
        return "unknown", history[-1]
    best, last, others = min(history, key=lambda each: each.mean), history[-1], len(history) - 1
    if paired_difference(last, best, others)[0] > 0:
        return "worse", best
    flat = next(each for each in history if paired_difference(each, best, others)[0] <= 0)
    return "improving" if flat is last else "flat", flat


def describe_progress(history: Sequence[Evaluation], metric: str) -> str:
    """One sentence: still improving, flat since image N, or worse since image N."""
    if len(history) < 3:
        return f"too few evaluations ({len(history)}) to tell whether it is still improving"
    (state, since), last = progress_state(history), history[-1]
    low, high = paired_difference(last, since, len(history) - 1)
    if state == "worse":
        return (f"worse since image {since.images:,}: {metric} went from {since.mean:.4g} to {last.mean:.4g} "
                f"(by {low:.2g} to {high:.2g}, 95 % interval); best.safetensors is from image "
                f"{since.images:,}")
    if state == "improving":
        return (f"still improving at image {last.images:,}: {metric} {last.mean:.4g}, "
                f"before {history[-2].mean:.4g}; longer training should help")
    return (f"flat since image {since.images:,}: {metric} {since.mean:.4g} then and {last.mean:.4g} now "
            f"(change {low:+.2g} to {high:+.2g}, 95 % interval); longer training is unlikely to help")
