"""Is a run still improving?  Answered from the same held-out images judged again and again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """One evaluation: the value of every image, lower is better, in the same order each time."""

    images: int
    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean over images."""
        return float(np.mean(self.values))


def interval(values: Sequence[float], comparisons: int = 1) -> tuple[float | None, float | None]:
    """95 % interval of the mean by its standard error, widened for that many comparisons (Bonferroni);
    nothing for a single value."""
    if len(values) < 2:
        return None, None
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * comparisons))
    middle, half = float(np.mean(values)), z * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return middle - half, middle + half


def worse(one: Comparison, other: Comparison, comparisons: int = 1) -> tuple[float, float]:
    """By how much `one` is worse than `other`, as the 95 % interval of the paired difference."""
    low, high = interval([a - b for a, b in zip(one.values, other.values, strict=True)], comparisons)
    return (-math.inf, math.inf) if low is None or high is None else (low, high)


def verdict(history: Sequence[Comparison], name: str) -> str:
    """One plain sentence: still improving, flat since image N, or worse since image N.

    Differences are paired, image by image, and their intervals widened because the best is chosen among all.
    "Worse": the last evaluation is worse than the best by more than its interval.  "Flat": N was the first
    that cannot be told from the best.  Otherwise the run was still improving when it ended.
    """
    if len(history) < 3:
        return f"too few evaluations ({len(history)}) to tell whether it is still improving"
    best, last, others = min(history, key=lambda judged: judged.mean), history[-1], len(history) - 1
    low, high = worse(last, best, others)
    if low > 0:
        return (f"worse since image {best.images:,}: {name} went from {best.mean:.4g} to {last.mean:.4g} "
                f"(by {low:.2g} to {high:.2g}, 95 % interval); best.safetensors is from image {best.images:,}")
    flat = next(judged for judged in history if worse(judged, best, others)[0] <= 0)
    if flat is last:
        return f"still improving at image {last.images:,}: {name} {last.mean:.4g}, before {history[-2].mean:.4g}; longer training should help"
    low, high = worse(last, flat, others)
    return (f"flat since image {flat.images:,}: {name} {flat.mean:.4g} then and {last.mean:.4g} now "
            f"(change {low:+.2g} to {high:+.2g}, 95 % interval); longer training is unlikely to help")
