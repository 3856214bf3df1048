"""How well a score separates two kinds of images: the area under the ROC curve."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from i2i.metrics.intervals import Z95, proportion_interval

Scores = Sequence[float] | NDArray[np.floating]


def auroc(lower: Scores, higher: Scores) -> tuple[float, float, float]:
    """Area under the ROC curve: how often one of `higher` is above one of `lower`, ties counting half.

    Returns:
        The area with its 95 % interval by DeLong et al. 1988, never narrower than Wilson's.
    """
    n, m = len(lower), len(higher)
    ranks = rankdata(np.concatenate([lower, higher]))
    wins = 1 - (ranks[:n] - rankdata(lower)) / m            # Share of `higher` that are above.
    losses = (ranks[n:] - rankdata(higher)) / n
    area = float(wins.mean())
    variances = [each.var(ddof=1) / len(each) if len(each) > 1 else 0.0 for each in (wins, losses)]
    return area, *proportion_interval(area, n + m, Z95 * math.sqrt(sum(variances)))
