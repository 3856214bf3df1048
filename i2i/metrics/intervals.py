"""95 % confidence intervals, and whether a run is still improving by those of paired differences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

Z95 = float(stats.norm.ppf(0.975))      # Standard errors on either side of a 95 % interval.


def mean_interval(values: Sequence[float], comparisons: int = 1) -> tuple[float | None, float | None]:
    """Student's t interval of a mean, (None, None) of fewer than two values; Bonferroni's `comparisons`."""
    n = len(values)
    if n < 2:
        return None, None
    mean = float(np.mean(values))
    half = float(stats.t.ppf(1 - 0.05 / (2 * comparisons), n - 1) * np.std(values, ddof=1) / n**0.5)
    return mean - half, mean + half


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


def describe_progress(history: Sequence[Evaluation], metric: str) -> str:
    """One sentence: still improving, flat since image N, or worse since image N.

    Differences are paired by image, and their intervals corrected for choosing the best of all evaluations.
    "Worse": the last evaluation is worse than the best beyond its interval.  "Flat": evaluation N was the
    first that cannot be distinguished from the best.  Otherwise the run was still improving when it ended.
    """
    if len(history) < 3:
        return f"too few evaluations ({len(history)}) to tell whether it is still improving"
    best, last, others = min(history, key=lambda each: each.mean), history[-1], len(history) - 1
    low, high = paired_difference(last, best, others)
    if low > 0:
        return (f"worse since image {best.images:,}: {metric} went from {best.mean:.4g} to {last.mean:.4g} "
                f"(by {low:.2g} to {high:.2g}, 95 % interval); best.safetensors is from image "
                f"{best.images:,}")
    flat = next(each for each in history if paired_difference(each, best, others)[0] <= 0)
    if flat is last:
        return (f"still improving at image {last.images:,}: {metric} {last.mean:.4g}, "
                f"before {history[-2].mean:.4g}; longer training should help")
    low, high = paired_difference(last, flat, others)
    return (f"flat since image {flat.images:,}: {metric} {flat.mean:.4g} then and {last.mean:.4g} now "
            f"(change {low:+.2g} to {high:+.2g}, 95 % interval); longer training is unlikely to help")
