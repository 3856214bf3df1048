"""The kernel Inception distance: squared maximum mean discrepancy under a cubic kernel.  Unbiased at any n,
so it may be negative."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
BLOCK = 1024


def kernel(x: Matrix, y: Matrix) -> Matrix:
    """(x·y / D + 1)³.  Binkowski et al. 2018 (arXiv 1801.01401), section 4.  N×D, M×D -> N×M"""
    gram: Matrix = x @ y.T / x.shape[1] + 1
    return gram**3


def mmd2(x: Matrix, y: Matrix) -> float:
    """Unbiased squared MMD of two whole sets.  Gretton et al. 2012, equation 3.  N×D, M×D, float64 inside"""
    return float(mmd2_weighted(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def mmd2_weighted(x: Matrix, y: Matrix, u: Matrix, v: Matrix) -> Matrix:
    """Gretton et al. 2012, equation 3, with row i taken u_i times; a row is never paired with a copy of
    itself.  N×D, M×D, R×N, R×M -> R"""
    def within(a: Matrix, w: Matrix) -> Matrix:
        out: Matrix = (_form(a, a, w, w, diagonal=False)) / (w.sum(1) ** 2 - (w * w).sum(1))
        return out

    between: Matrix = _form(x, y, u, v) / (u.sum(1) * v.sum(1))
    out: Matrix = within(x, u) + within(y, v) - 2 * between
    return out


def _form(x: Matrix, y: Matrix, u: Matrix, v: Matrix, *, diagonal: bool = True) -> Matrix:
    """Sum of u_i v_j k(x_i, y_j), block by block; without i = j if `diagonal` is not wanted.  -> R"""
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
    """Mean and standard deviation of the unbiased squared MMD over random subsets without replacement.  N×D,
    M×D

    Binkowski et al. 2018, section 4; subsets and their order as torch-fidelity draws them.  ValueError if a
    set is smaller than `size`.
    """
    if size > min(len(fake), len(real)) or size < 2:
        raise ValueError(f"KID subsets of {size} cannot be drawn from {len(fake)} and {len(real)} images")
    if subsets < 1:
        raise ValueError(f"KID is a mean over 1 subset or more, not {subsets}")
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[draw.choice(len(fake), size, replace=False)]
        y = real[draw.choice(len(real), size, replace=False)]
        values.append(mmd2(x, y))
    return float(np.mean(values)), float(np.std(values))


def standard_error(fake: Matrix, real: Matrix, *, seed: int, rounds: int, limit: int = 5000) -> float:
    """Standard deviation of the whole-set value over bootstrap samples of both sets (Efron 1979).  N×D, M×D

    At most `limit` rows of each are looked at, and the result is scaled by the root of the sizes' ratio.
    """
    draw = np.random.default_rng(seed)

    def some(features: Matrix) -> tuple[Matrix, Matrix]:
        n = min(len(features), limit)
        rows = features[np.sort(draw.choice(len(features), n, replace=False))]
        return rows, draw.multinomial(n, np.full(n, 1 / n), size=rounds).astype(np.float64)

    (x, u), (y, v) = some(fake), some(real)
    scale = np.sqrt((1 / len(fake) + 1 / len(real)) / (1 / len(x) + 1 / len(y)))
    # A sample of one image alone has no pairs: then there is no error to be told.
    with np.errstate(invalid="ignore"):
        return float(mmd2_weighted(x, y, u, v).std(ddof=1) * scale)
