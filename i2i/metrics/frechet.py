"""The Fréchet distance between two sets of features.

Heusel et al. 2017 (arXiv 1706.08500), equation 6:  ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½).  No matrix square
root is taken: the trace of (Σ₁Σ₂)^½ is the nuclear norm of A Bᵀ for any A, B with AᵀA = Σ₁, BᵀB = Σ₂.  With
fewer samples than dimensions it is the sum of the singular values of the centered features' cross product
(exact, real and never negative, also for singular covariances), else a sum of roots of symmetric eigenvalues.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from i2i.images.format import Array

BLOCK = 4096        # Rows converted to float64 at once.


@dataclass(frozen=True)
class Gaussian:
    """The normal distribution fitted to a set of features, as the distance needs it."""

    n: int              # Number of images.
    mean: Array         # (D,)
    trace: float        # Of the covariance Σ.
    root: Array         # Some A with AᵀA = Σ, of as few rows as possible, (min(n, D), D).

    @classmethod
    def from_features(cls, features: Array, counts: Array | None = None) -> "Gaussian":
        """Fit to features (N, D), each row taken once or `counts` times (a bootstrap sample).

        No more than D rows are held in float64; more are streamed.  ValueError below two rows, or for
        numbers that are not finite.
        """
        weights = np.ones(len(features)) if counts is None else counts.astype(np.float64)
        n, dim = int(weights.sum()), features.shape[1]
        if n < 2:
            raise ValueError(f"a covariance needs at least 2 images, these are {n}")
        if np.count_nonzero(weights) <= dim:
            x, w = _counted_rows(features, weights)
            mean = w @ x / n
            root = (x - mean) * np.sqrt(w / (n - 1))[:, None]
            return cls(n, mean, float(np.einsum("ij,ij->", root, root)), root)
        # Chan et al. 1983, equation 2.1; the scatter sums the outer products of deviations from the mean.
        done, mean, scatter = 0.0, np.zeros(dim), np.zeros((dim, dim))
        for start in range(0, len(features), BLOCK):
            x, w = _counted_rows(features[start:start + BLOCK], weights[start:start + BLOCK])
            if len(x):
                added = w.sum()
                step = w @ x / added - mean
                x = (x - mean - step) * np.sqrt(w)[:, None]
                scatter += x.T @ x + np.outer(step, step) * (done * added / (done + added))
                mean, done = mean + step * (added / (done + added)), done + added
        covariance = scatter / (n - 1)
        return cls(n, mean, float(np.trace(covariance)), _root(covariance))


def _counted_rows(features: Array, weights: Array) -> tuple[Array, Array]:
    """The rows that count, in float64, and how often they do."""
    x = np.asarray(features[weights > 0], np.float64)
    if bad := (~np.isfinite(x).all(1)).sum():
        raise ValueError(f"{bad} feature vectors are not finite")
    return x, weights[weights > 0]


def _root(covariance: Array) -> Array:
    """Some A with AᵀA = Σ: Cholesky's factor, or from eigenvalues if Σ is singular.  (D, D) -> (R, D)"""
    try:
        return np.linalg.cholesky(covariance).T
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        positive = values > values[-1] * len(values) * np.finfo(np.float64).eps
        return (vectors[:, positive] * np.sqrt(values[positive])).T


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Fréchet distance of two fitted Gaussians, at least 0 but for rounding."""
    cross = a.root @ b.root.T
    if min(cross.shape) < a.root.shape[1]:
        overlap = float(np.linalg.svd(cross, compute_uv=False).sum())
    else:
        overlap = float(np.sqrt(np.linalg.eigvalsh(cross @ cross.T).clip(0)).sum())
    step = a.mean - b.mean
    return float(step @ step + a.trace + b.trace - 2 * overlap)


def frechet_from_features(fake: Array, real: Array) -> float:
    """Squared Fréchet distance between features (N, D) and (M, D).  ValueError below two rows."""
    return frechet_distance(Gaussian.from_features(fake), Gaussian.from_features(real))


def frechet_infinity(fake: Array, real: Gaussian, *, seed: int, points: int = 8,
                     smallest: float = 0.5) -> tuple[float, list[tuple[int, float]]]:
    """The distance extrapolated to infinitely many generated images.

    Chong and Forsyth 2020 (arXiv 1911.07023), section 3.2: a line through (1/n, distance of n random images),
    read at 1/n = 0.  The reference set stays whole, and so does its own part of the bias.

    Args:
        fake: features, (N, D).
        points: number of sizes, evenly spaced in 1/n.
        smallest: smallest size as a fraction of N.

    Returns:
        The intercept, and the points as (n, distance).
    """
    total = len(fake)
    if points < 2 or not 0 < smallest < 1:
        raise ValueError(f"{points} sizes from {smallest:g} of the images on make no line; accepted: 2 or "
                         "more, from more than 0 and less than 1")
    generator = np.random.default_rng(seed)
    sizes = np.rint(1 / np.linspace(1 / total, 1 / max(2, total * smallest), points)).astype(int)
    if len(set(sizes)) == 1:
        raise ValueError(f"{total} images are too few to extrapolate from")
    curve = []
    for n in sizes.tolist():
        counts = np.zeros(total, int)
        counts[generator.choice(total, n, replace=False)] = 1
        curve.append((n, frechet_distance(Gaussian.from_features(fake, counts), real)))
    line = stats.linregress([1 / n for n, _ in curve], [distance for _, distance in curve])
    return float(line.intercept), curve


def standard_error(fake: Array, real: Array, *, seed: int, rounds: int, limit: int = 5000) -> float:
    """Bootstrap standard error of the distance between features (N, D) and (M, D) (Efron 1979).

    From sets larger than `limit`, `limit` rows are drawn, and the result is scaled by the root of the sizes'
    ratio (the m out of n bootstrap of Bickel, Götze and van Zwet 1997).  Only the spread is used: repeated
    rows raise the distance itself.
    """
    generator = np.random.default_rng(seed)

    def resample(features: Array, size: int) -> Gaussian:
        rows, counts = np.unique(generator.integers(0, len(features), size), return_counts=True)
        return Gaussian.from_features(features[rows], counts)

    n, m = min(len(fake), limit), min(len(real), limit)
    values = [frechet_distance(resample(fake, n), resample(real, m)) for _ in range(rounds)]
    return float(np.std(values, ddof=1) * np.sqrt((1 / len(fake) + 1 / len(real)) / (1 / n + 1 / m)))
