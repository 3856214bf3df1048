"""The kernel Inception distance: squared maximum mean discrepancy under a cubic kernel.  Unbiased at any n, so it may be negative."""

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
    return mmd2_weighted(x, y, np.ones(len(x)), np.ones(len(y)))


def mmd2_weighted(x: Matrix, y: Matrix, u: Matrix, v: Matrix) -> float:
    """Gretton et al. 2012, equation 3, with row i taken u_i times; a row is never paired with a copy of itself.  N×D, M×D, N, M"""
    def within(a: Matrix, w: Matrix) -> float:
        own = np.einsum("ij,ij->i", a.astype(np.float64), a.astype(np.float64)) / a.shape[1] + 1
        return float((_form(a, a, w, w) - (w * w) @ own**3) / (w.sum() ** 2 - w @ w))

    return within(x, u) + within(y, v) - 2 * _form(x, y, u, v) / float(u.sum() * v.sum())


def _form(x: Matrix, y: Matrix, u: Matrix, v: Matrix) -> float:
    total = 0.0
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            block = kernel(np.asarray(x[i:i + BLOCK], np.float64), np.asarray(y[j:j + BLOCK], np.float64))
            total += float(u[i:i + BLOCK] @ block @ v[j:j + BLOCK])
    return total


def kid(fake: Matrix, real: Matrix, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased squared MMD over random subsets without replacement.  N×D, M×D

    Binkowski et al. 2018, section 4; subsets and their order as torch-fidelity draws them.  ValueError if a set is smaller than `size`.
    """
    if size > min(len(fake), len(real)) or size < 2:
        raise ValueError(f"KID subsets of {size} cannot be drawn from {len(fake)} and {len(real)} images")
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[draw.choice(len(fake), size, replace=False)]
        y = real[draw.choice(len(real), size, replace=False)]
        values.append(mmd2(x, y))
    return float(np.mean(values)), float(np.std(values))


def resampled(fake: Matrix, real: Matrix, *, seed: int, rounds: int) -> list[float]:
    """Whole-set values of bootstrap samples of both sets (Efron 1979).  N×D, M×D -> rounds"""
    draw = np.random.default_rng(seed)

    def counts(n: int) -> Matrix:
        return draw.multinomial(n, np.full(n, 1 / n)).astype(np.float64)

    return [mmd2_weighted(fake, real, counts(len(fake)), counts(len(real))) for _ in range(rounds)]
