"""95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

Z95 = float(stats.norm.ppf(0.975))      # Standard errors on either side of a 95 % interval.


def mean_interval(values: Sequence[float], comparisons: int = 1) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of independent values, (None, None) for fewer than two.

    `comparisons` is the number of intervals that must hold together (Bonferroni correction).
    """
    n = len(values)
    if n < 2:
        return None, None
    mean = float(np.mean(values))
    half = float(stats.t.ppf(1 - 0.05 / (2 * comparisons), n - 1) * np.std(values, ddof=1) / n**0.5)
    return mean - half, mean + half
