"""Kernel inception distance: squared MMD under a cubic kernel.  Binkowski et al. 2018 (arXiv 1801.01401)."""

import numpy as np

from i2i.images.format import Array

BLOCK = 1024


def kernel(x: Array, y: Array) -> Array:
    """(x·y / D + 1)³ of all rows: (N, D), (M, D) -> (N, M).  Binkowski et al. 2018, section 4."""
    gram: Array = x @ y.T / x.shape[1] + 1
    return gram**3


def mmd2(x: Array, y: Array) -> float:
    """Unbiased squared MMD of two sets of features (N, D) and (M, D).  Gretton et al. 2012, equation 3."""
    return float(mmd2_weighted(x, y, np.ones((1, len(x))), np.ones((1, len(y))))[0])


def mmd2_weighted(x: Array, y: Array, x_weights: Array, y_weights: Array) -> Array:
    """Unbiased squared MMD of R weighted sets; a row is never paired with its own copies.

    Args:
        x, y: features, (N, D) and (M, D).
        x_weights, y_weights: how often each row counts, (R, N) and (R, M).
    """
    def within(a: Array, w: Array) -> Array:
        return _kernel_sum(a, a, w, w, diagonal=False) / (w.sum(1) ** 2 - (w * w).sum(1))

    between = _kernel_sum(x, y, x_weights, y_weights) / (x_weights.sum(1) * y_weights.sum(1))
    return within(x, x_weights) + within(y, y_weights) - 2 * between


def _kernel_sum(x: Array, y: Array, u: Array, v: Array, *, diagonal: bool = True) -> Array:
    """Sum of u_i v_j k(x_i, y_j) in blocks, with or without i = j.  -> (R,)"""
    total: Array = np.zeros(len(u))
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            block = kernel(np.asarray(x[i:i + BLOCK], np.float64), np.asarray(y[j:j + BLOCK], np.float64))
            if i == j and not diagonal:
                np.fill_diagonal(block, 0)
            total += ((u[:, i:i + BLOCK] @ block) * v[:, j:j + BLOCK]).sum(1)
    return total


def kid(fake: Array, real: Array, *, subsets: int = 100, size: int = 1000,
        seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the squared MMD over random subsets, drawn as torch-fidelity draws them.

    `size` rows of fake (N, D) and of real (M, D) make a subset; ValueError if a set has fewer.
    """
    if size > min(len(fake), len(real)) or size < 2:
        raise ValueError(f"KID subsets of {size} cannot be drawn from {len(fake)} and {len(real)} images")
    if subsets < 1:
        raise ValueError(f"KID is a mean over 1 subset or more, not {subsets}")
    generator = np.random.RandomState(seed)
    values = [mmd2(fake[generator.choice(len(fake), size, replace=False)],
                   real[generator.choice(len(real), size, replace=False)]) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def standard_error(fake: Array, real: Array, *, seed: int, rounds: int, limit: int = 5000) -> float:
    """Bootstrap standard error of the squared MMD (Efron 1979), scaled from at most `limit` rows of each."""
    generator = np.random.default_rng(seed)

    def resample(features: Array) -> tuple[Array, Array]:
        n = min(len(features), limit)
        rows = features[np.sort(generator.choice(len(features), n, replace=False))]
        return rows, generator.multinomial(n, np.full(n, 1 / n), size=rounds).astype(np.float64)

    (x, u), (y, v) = resample(fake), resample(real)
    scale = np.sqrt((1 / len(fake) + 1 / len(real)) / (1 / len(x) + 1 / len(y)))
    with np.errstate(invalid="ignore"):     # A sample that repeats a single image has no pairs: NaN.
        return float(mmd2_weighted(x, y, u, v).std(ddof=1) * scale)
