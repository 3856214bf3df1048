"""The Fréchet distance between two sets of features.

Heusel et al. 2017 (arXiv 1706.08500), equation 6:  ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½).  No matrix square
root is taken: the trace of (Σ₁Σ₂)^½ is the nuclear norm of A Bᵀ for any A, B with AᵀA = Σ₁, BᵀB = Σ₂.  With
fewer samples than dimensions it is the sum of the singular values of the centered features' cross product
(exact, real and never negative, also for singular covariances), else a sum of roots of symmetric eigenvalues.
"""

from dataclasses import dataclass

import numpy as np
import scipy

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
    def from_features(cls, features: Array) -> "Gaussian":
        """Fit to features (N, D).

        No more than D rows are held in float64; more are streamed.  ValueError below two rows, or for
        numbers that are not finite.
        """
        n, dim = features.shape
        if n < 2:
            raise ValueError(f"a covariance needs at least 2 images, these are {n}")
        if n <= dim:
            x = _to_finite_float64(features)
            mean = x.mean(0)
            root = (x - mean) / np.sqrt(n - 1)
            return cls(n, mean, float(np.einsum("ij,ij->", root, root)), root)
        # Chan et al. 1983, equation 2.1; the scatter sums the outer products of deviations from the mean.
        mean, scatter = np.zeros(dim), np.zeros((dim, dim))
        for start in range(0, n, BLOCK):
            x = _to_finite_float64(features[start:start + BLOCK])
            step, total = x.mean(0) - mean, start + len(x)
            x -= mean + step
            scatter += x.T @ x + np.outer(step, step) * (start * len(x) / total)
            mean = mean + step * (len(x) / total)
        return cls.from_moments(mean, scatter / (n - 1), n)

    @classmethod
    def from_moments(cls, mean: Array, covariance: Array, n: int = 0) -> "Gaussian":
        """From a mean (D,) and a covariance (D, D), of `n` images; 0 if it is not known of how many."""
        return cls(n, mean, float(np.trace(covariance)), _root(covariance))


def _to_finite_float64(features: Array) -> Array:
    x = np.array(features, dtype=np.float64)
    if bad := (~np.isfinite(x).all(1)).sum():
        raise ValueError(f"{bad} feature vectors are not finite")
    return x


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
        rows = np.sort(generator.choice(total, n, replace=False))
        curve.append((n, frechet_distance(Gaussian.from_features(fake[rows]), real)))
    line = scipy.stats.linregress([1 / n for n, _ in curve], [distance for _, distance in curve])
    return float(line.intercept), curve
