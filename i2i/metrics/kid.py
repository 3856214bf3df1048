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
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"the squared MMD needs at least 2 images of each set, these are {n} and {m}")
    within = (_kernel_sum(x, x, diagonal=False) / (n * (n - 1))
              + _kernel_sum(y, y, diagonal=False) / (m * (m - 1)))
    return within - 2 * _kernel_sum(x, y) / (n * m)


def _kernel_sum(x: Array, y: Array, *, diagonal: bool = True) -> float:
    """Sum of k(x_i, y_j) in blocks, with or without i = j."""
    total = 0.0
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            block = kernel(np.asarray(x[i:i + BLOCK], np.float64), np.asarray(y[j:j + BLOCK], np.float64))
            if i == j and not diagonal:
                np.fill_diagonal(block, 0)
            total += float(block.sum())
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
