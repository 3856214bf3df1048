"""The Fréchet distance between two sets of features.

Heusel et al. 2017 (arXiv 1706.08500), equation 6:  ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½).  No matrix square
root is taken: the trace of (Σ₁Σ₂)^½ is the nuclear norm of Σ₁^½ Σ₂^½, and any A, B with AᵀA = Σ₁, BᵀB = Σ₂
have the same nuclear norm of A Bᵀ.  So it is the sum of the singular values of the centered features' cross
product where samples are fewer than dimensions (exact, real and never negative, also for singular
covariances), and a sum of roots of symmetric eigenvalues otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
BLOCK = 4096        # Rows taken into float64 at once.


class Moments:
    """Count, mean and scatter of features in float64, one batch after another.  Chan, Golub and LeVeque 1983,
    equations 2.1."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self.mean: Matrix = np.zeros(width)
        # Sum of outer products of deviations from the mean.
        self.scatter: Matrix = np.zeros((width, width))

    def update(self, features: Matrix, counts: Matrix | None = None) -> None:
        """Add a batch, each row once or `counts` times.  N×D.  ValueError if a number is not finite."""
        for start in range(0, len(features), BLOCK):
            x = np.asarray(features[start:start + BLOCK], dtype=np.float64)
            if not np.isfinite(x).all():
                raise ValueError(f"{(~np.isfinite(x).all(1)).sum()} feature vectors are not finite")
            w = np.ones(len(x)) if counts is None else counts[start:start + BLOCK].astype(np.float64)
            x, w = x[w > 0], w[w > 0]
            if len(x):
                mean = w @ x / w.sum()
                x = (x - mean) * np.sqrt(w)[:, None]
                self._add(int(w.sum()), mean, x.T @ x)

    def merge(self, other: Moments) -> None:
        """Add what another has seen, as if this one had seen it."""
        if other.n:
            self._add(other.n, other.mean, other.scatter)

    def _add(self, n: int, mean: Matrix, scatter: Matrix) -> None:
        total, step = self.n + n, mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(step, step) * (self.n * n / total)
        self.mean = self.mean + step * (n / total)
        self.n = total

    @property
    def covariance(self) -> Matrix:
        """Unbiased (divided by n - 1), as numpy.cov.  -> D×D"""
        return self.scatter / (self.n - 1)

    @classmethod
    def of(cls, features: Matrix) -> Moments:
        """Moments of features in memory or in a memory-mapped file.  N×D"""
        moments = cls(features.shape[1])
        moments.update(features)
        return moments


@dataclass(frozen=True)
class FeatureSet:
    """One set as the distance takes it: the mean, the trace of the covariance, and a root A with AᵀA = Σ, of
    as few rows as possible."""

    n: int
    mean: Matrix
    trace: float
    root: Matrix        # min(n, D) × D; lower-triangular factors are transposed, so rows need not be samples.

    @classmethod
    def of_features(cls, features: Matrix, counts: Matrix | None = None) -> FeatureSet:
        """From N×D features, each row taken once or `counts` times (a bootstrap sample).  ValueError below
        two rows.

        No more than D rows are ever held in float64; the rest is streamed.
        """
        rows = len(features) if counts is None else int((counts > 0).sum())
        if rows > features.shape[1]:
            moments = Moments(features.shape[1])
            moments.update(features, counts)
            return cls.of_moments(moments)
        w = np.ones(rows) if counts is None else counts[counts > 0].astype(np.float64)
        x = np.asarray(features if counts is None else features[counts > 0], dtype=np.float64)
        n = int(w.sum())
        if n < 2:
            raise ValueError(f"a covariance needs at least 2 images, these are {n}")
        if not np.isfinite(x).all():
            raise ValueError(f"{(~np.isfinite(x).all(1)).sum()} feature vectors are not finite")
        mean = w @ x / n
        root = (x - mean) * np.sqrt(w / (n - 1))[:, None]
        return cls(n, mean, float(np.einsum("ij,ij->", root, root)), root)

    @classmethod
    def of_moments(cls, moments: Moments) -> FeatureSet:
        """From streamed moments, whose covariance may be singular.  ValueError below two rows."""
        if moments.n < 2:
            raise ValueError(f"a covariance needs at least 2 images, these are {moments.n}")
        covariance = moments.covariance
        return cls(moments.n, moments.mean, float(np.trace(covariance)), _root(covariance))


def _root(covariance: Matrix) -> Matrix:
    """Some A with AᵀA = Σ: Cholesky's factor, or from eigenvalues where Σ is singular.  D×D -> R×D"""
    try:
        factor: Matrix = np.linalg.cholesky(covariance).T
        return factor
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        root: Matrix = (vectors[:, kept] * np.sqrt(values[kept])).T
    return root


def frechet_between(a: FeatureSet, b: FeatureSet) -> float:
    """The squared distance of two prepared sets, Heusel et al. 2017, equation 6; at least 0 but for
    rounding."""
    cross = a.root @ b.root.T
    if min(cross.shape) < a.root.shape[1]:
        overlap = float(np.linalg.svd(cross, compute_uv=False).sum())
    else:
        overlap = float(np.sqrt(np.linalg.eigvalsh(cross @ cross.T).clip(0)).sum())
    step = a.mean - b.mean
    return float(step @ step + a.trace + b.trace - 2 * overlap)


def frechet_from_features(fake: Matrix, real: Matrix) -> float:
    """Squared Fréchet distance from features.  N×D, M×D.  ValueError below two rows."""
    return frechet_between(FeatureSet.of_features(fake), FeatureSet.of_features(real))


def frechet_infinity(fake: Matrix, real: FeatureSet, *, seed: int, points: int = 8,
                     smallest: float = 0.5) -> tuple[float, list[tuple[int, float]]]:
    """The distance without the bias of few fakes: a line through (1/n, distance of n random fakes), read at
    1/n = 0.

    Chong and Forsyth 2020 (arXiv 1911.07023), section 3.2; sizes are evenly spaced in 1/n from `smallest`·N
    to N.  The reference set stays whole, so its own share of the bias stays.  N×D -> intercept, [(n,
    distance)]
    """
    total = len(fake)
    if points < 2 or not 0 < smallest < 1:
        raise ValueError(f"{points} sizes from {smallest:g} of the images on make no line; accepted: 2 or "
                         "more, from more than 0 and less than 1")
    draw = np.random.default_rng(seed)
    sizes = np.rint(1 / np.linspace(1 / total, 1 / max(2, total * smallest), points)).astype(int)
    curve = []
    for n in sizes.tolist():
        chosen = np.zeros(total, int)
        chosen[draw.choice(total, n, replace=False)] = 1
        curve.append((n, frechet_between(FeatureSet.of_features(fake, chosen), real)))
    x, y = np.array([1 / n for n, _ in curve]), np.array([value for _, value in curve])
    if np.ptp(x) == 0:
        raise ValueError(f"{total} images are too few to extrapolate from")
    slope = float(np.cov(x, y, ddof=0)[0, 1] / x.var())
    return float(y.mean() - slope * x.mean()), curve


def standard_error(fake: Matrix, real: Matrix, *, seed: int, rounds: int, limit: int = 5000) -> float:
    """Standard deviation of the distance over bootstrap samples of both sets (Efron 1979).  N×D, M×D

    Of more than `limit` rows, `limit` are drawn each time and the result is scaled by the root of the sizes'
    ratio (the m out of n bootstrap of Bickel, Götze and van Zwet 1997).  Only the spread is used: repeated
    rows raise the distance itself.
    """
    draw = np.random.default_rng(seed)

    def side(features: Matrix, m: int) -> FeatureSet:
        picks, counts = np.unique(draw.integers(0, len(features), m), return_counts=True)
        return FeatureSet.of_features(features[picks], counts)

    n, m = min(len(fake), limit), min(len(real), limit)
    values = [frechet_between(side(fake, n), side(real, m)) for _ in range(rounds)]
    return float(np.std(values, ddof=1) * np.sqrt((1 / len(fake) + 1 / len(real)) / (1 / n + 1 / m)))
