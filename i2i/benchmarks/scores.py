"""Scores of a generator whose target has known modes, and confidence intervals over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

Counts = NDArray[np.int64]      # Samples that belong to each mode, (M,).
SIGMAS = 3.0        # High-quality samples are within so many standard deviations of a mode.


@dataclass(frozen=True)
class Score:
    """The scores of one generator."""

    modes: int                      # Modes with at least one sample.
    high_quality: float | None      # Share of high-quality samples; None if the benchmark defines none.
    reverse_kl: float | None        # None if no sample belongs to a mode.


def nearest_modes(points: NDArray[np.float64], means: NDArray[np.float64], std: float) -> Counts:
    """Samples less than three standard deviations from the nearest mean, for each mode.

    Points `(N, 2)`, of which NaN belongs to no mode; means `(M, 2)`.  Srivastava et al. 2017 (VEEGAN),
    section 4.1; Lin et al. 2018 (PacGAN), section 4.1, with the strict comparison of their code.
    """
    squares = ((points[:, None] - means[None]) ** 2).sum(2)
    mode, near = squares.argmin(1), squares.min(1) < (SIGMAS * std) ** 2
    return np.bincount(mode[near], minlength=len(means))


def reverse_kl(counts: Counts) -> float | None:
    """KL(generated || real) over M equally likely modes, in nats: sum_i p_i log(M p_i), p_i the share of mode
    i among the samples that belong to any.  None if none does.  Lin et al. 2018, section 4.1."""
    if not counts.sum():
        return None
    p = counts[counts > 0] / counts.sum()
    return max(0.0, float((p * np.log(len(counts) * p)).sum()))


def score_counts(counts: Counts, samples: int | None) -> Score:
    """Scores from the samples of each mode, of so many; None if every sample belongs to a mode."""
    return Score(int((counts > 0).sum()), float(counts.sum() / samples) if samples else None,
                 reverse_kl(counts))


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and half the width of its 95 % interval by Student's t; None for a single seed."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None
    return mean, float(scipy.stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
