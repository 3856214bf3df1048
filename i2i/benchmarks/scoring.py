"""What the literature measures of a generator whose target has known modes, and intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]      # Samples that belong to each mode.
# A sample of high quality is within so many standard deviations of its mode.  Srivastava et al. 2017,
# section 4.1.
SIGMAS = 3.0
LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """One generator: modes it has; its share of high-quality samples, None where the test knows none; its
    reverse KL, None without such samples."""

    modes: int
    high_quality: float | None
    reverse_kl: float | None


def nearest_modes(points: NDArray[np.float64], means: NDArray[np.float64], std: float) -> Counts:
    """High-quality samples of each mode: a sample is its nearest mean's if it is less than three standard
    deviations away, and nobody's otherwise.

    Srivastava et al. 2017 (VEEGAN), section 4.1; Lin et al. 2018 (PacGAN), section 4.1, whose code this
    distance and `<` are.  N2, M2 -> M
    """
    squares = ((points[:, None] - means[None]) ** 2).sum(2)
    mode, near = squares.argmin(1), squares.min(1) < (SIGMAS * std) ** 2       # Not-a-number is nowhere near.
    return np.bincount(mode[near], minlength=len(means))


def reverse_kl(counts: Counts) -> float | None:
    """KL(generated || real) over modes, in nats, the real ones being equally likely; between 0 and log M.
    Lin et al. 2018, section 4.1.

    sum_i p_i log(M p_i), p_i the share of mode i among the samples that belong to any; None if none does.
    """
    if not counts.sum():
        return None
    p = counts[counts > 0] / counts.sum()
    return max(0.0, float((p * np.log(len(counts) * p)).sum()))


def score(counts: Counts, samples: int | None) -> Score:
    """From the samples of each mode; `samples` is how many were drawn, None where each belongs to a mode."""
    return Score(int((counts > 0).sum()), float(counts.sum() / samples) if samples else None,
                 reverse_kl(counts))


# ---------------------------------------------------------------------------------------------- over seeds

def student_cdf(t: float, n: int) -> float:
    """P(T <= t) for Student's distribution with n degrees of freedom.  Abramowitz and Stegun 1964, equations
    26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(n))
    sine, cosine = math.sin(theta), math.cos(theta)
    term, total = (cosine, cosine) if n % 2 else (1.0, 1.0)
    for k in range(3 if n % 2 else 2, n - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    # P(-t <= T <= t)
    within = 2 / math.pi * (theta + (sine * total if n > 1 else 0.0)) if n % 2 else sine * total
    return (1 + within) / 2


def student_quantile(n: int, level: float = LEVEL) -> float:
    """The t that a variable with n degrees of freedom exceeds in absolute value with probability 1 -
    level."""
    low, high = 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, n) < (1 + level) / 2 else (low, middle)
    return (low + high) / 2


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds, and half the width of its 95 % interval by Student's distribution; None with a single
    seed."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return mean, None
    return mean, student_quantile(n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n)
