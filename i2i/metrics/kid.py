"""The kernel inception distance: unbiased squared maximum mean discrepancy under a cubic kernel.

Binkowski et al. 2018 (arXiv 1801.01401).  It may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
BLOCK = 1024


def kernel(x: Matrix, y: Matrix) -> Matrix:
    """(x·y / D + 1)³ of all rows: (N, D), (M, D) -> (N, M).  Binkowski et al. 2018, section 4."""
    gram: Matrix = x @ y.T / x.shape[1] + 1
    return gram**3


def mmd2(x: Matrix, y: Matrix) -> float:
    """Unbiased squared MMD of two sets of features (N, D) and (M, D).  Gretton et al. 2012, equation 3."""
    return float(mmd2_weighted(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def mmd2_weighted(x: Matrix, y: Matrix, x_weights: Matrix, y_weights: Matrix) -> Matrix:
    """Unbiased squared MMD of R weighted sets; a row is never paired with its own copies.

    Args:
        x, y: features, (N, D) and (M, D).
        x_weights, y_weights: how often each row counts, (R, N) and (R, M).

    Returns:
        Squared MMD, (R,).
    """
    def within(a: Matrix, w: Matrix) -> Matrix:
        return _kernel_sum(a, a, w, w, diagonal=False) / (w.sum(1) ** 2 - (w * w).sum(1))

    between = _kernel_sum(x, y, x_weights, y_weights) / (x_weights.sum(1) * y_weights.sum(1))
    return within(x, x_weights) + within(y, y_weights) - 2 * between


def _kernel_sum(x: Matrix, y: Matrix, u: Matrix, v: Matrix, *, diagonal: bool = True) -> Matrix:
    """Sum of u_i v_j k(x_i, y_j) in blocks, with or without i = j.  -> (R,)"""
    total: Matrix = np.zeros(len(u))
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            block = kernel(np.asarray(x[i:i + BLOCK], np.float64), np.asarray(y[j:j + BLOCK], np.float64))
            if i == j and not diagonal:
                np.fill_diagonal(block, 0)
            total += ((u[:, i:i + BLOCK] @ block) * v[:, j:j + BLOCK]).sum(1)
    return total


def kid(fake: Matrix, real: Matrix, *, subsets: int = 100, size: int = 1000,
        seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the squared MMD over random subsets, drawn as torch-fidelity draws them.

    Args:
        fake, real: features, (N, D) and (M, D).
        subsets: number of subsets.
        size: images of each set in a subset, without replacement.

    Raises:
        ValueError: if a set is smaller than `size`.
    """
    if size > min(len(fake), len(real)) or size < 2:
        raise ValueError(f"KID subsets of {size} cannot be drawn from {len(fake)} and {len(real)} images")
    if subsets < 1:
        raise ValueError(f"KID is a mean over 1 subset or more, not {subsets}")
    generator = np.random.RandomState(seed)
    values = [mmd2(fake[generator.choice(len(fake), size, replace=False)],
                   real[generator.choice(len(real), size, replace=False)]) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def standard_error(fake: Matrix, real: Matrix, *, seed: int, rounds: int, limit: int = 5000) -> float:
    """Bootstrap standard error of the squared MMD of both whole sets (Efron 1979).

    At most `limit` random rows of each set are used; the result is then scaled by the root of the sizes'
    ratio.
    """
    generator = np.random.default_rng(seed)

    def resample(features: Matrix) -> tuple[Matrix, Matrix]:
        n = min(len(features), limit)
        rows = features[np.sort(generator.choice(len(features), n, replace=False))]
        return rows, generator.multinomial(n, np.full(n, 1 / n), size=rounds).astype(np.float64)

    (x, u), (y, v) = resample(fake), resample(real)
    scale = np.sqrt((1 / len(fake) + 1 / len(real)) / (1 / len(x) + 1 / len(y)))
    with np.errstate(invalid="ignore"):     # A sample that repeats a single image has no pairs: NaN.
        return float(mmd2_weighted(x, y, u, v).std(ddof=1) * scale)
