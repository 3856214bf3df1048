"""Are fakes real (precision, density), and is all of the real covered (recall, coverage)?  By balls around
nearest neighbors.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2, k = 3.  Density and
coverage: Naeem et al. 2020 (arXiv 2002.09797), equations 4 and 5, k = 5.  Distances are float64 and made a
block at a time: memory is that of one block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]
BLOCK = 1024


@dataclass(frozen=True)
class Neighborhood:
    """What each image adds to the four numbers, so that they can be averaged, or averaged again over a
    bootstrap sample."""

    fake_inside: Matrix     # N: whether a fake lies in the ball of any real image.
    fake_density: Matrix    # N: in how many balls of reals it lies, divided by k.
    real_inside: Matrix     # M: whether a real image lies in the ball of any fake.
    real_covered: Matrix    # M: whether any fake lies in its own ball.

    def values(self, fakes: Matrix | None = None, reals: Matrix | None = None) -> dict[str, float]:
        """Precision, recall, F1, density and coverage over these rows (all by default)."""
        def mean(array: Matrix, rows: Matrix | None) -> float:
            return float(array.mean() if rows is None else array[rows].mean())

        precision, recall = mean(self.fake_inside, fakes), mean(self.real_inside, reals)
        return {"precision": precision, "recall": recall,
                "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
                "density": mean(self.fake_density, fakes), "coverage": mean(self.real_covered, reals)}


def distances(x: Matrix, y: Matrix) -> Iterator[tuple[slice, slice, Matrix]]:
    """Euclidean distances in float64, block by block.  N×D, M×D -> rows, columns, block"""
    for i in range(0, len(x), BLOCK):
        a = np.asarray(x[i:i + BLOCK], np.float64)
        for j in range(0, len(y), BLOCK):
            b = np.asarray(y[j:j + BLOCK], np.float64)
            squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * a @ b.T
            yield slice(i, i + len(a)), slice(j, j + len(b)), np.sqrt(squared.clip(0))


def radii(x: Matrix, k: int) -> Matrix:
    """Distance of each row to its k-th nearest other row.  N×D -> N.  ValueError if there are no k others."""
    if not 1 <= k < len(x):
        raise ValueError(f"k={k} neighbors cannot be found among {len(x)} images")
    nearest = np.full((len(x), k), np.inf)
    for rows, columns, block in distances(x, x):
        if rows == columns:
            np.fill_diagonal(block, np.inf)
        both = np.concatenate([nearest[rows], block], 1)
        nearest[rows] = np.partition(both, k - 1, axis=1)[:, :k]
    out: Matrix = nearest.max(1)
    return out


def neighborhood(fake: Matrix, real: Matrix, *, k: int) -> Neighborhood:
    """Which images lie in which balls of radius `radii(…, k)`.  N×D, M×D"""
    real_radius, fake_radius = radii(real, k), radii(fake, k)
    balls, inside = np.zeros(len(fake)), np.zeros(len(real), bool)
    covered = np.zeros(len(real), bool)
    for rows, columns, block in distances(fake, real):
        within = block <= real_radius[columns]
        balls[rows] += within.sum(1)
        covered[columns] |= within.any(0)
        inside[columns] |= (block <= fake_radius[rows][:, None]).any(0)
    return Neighborhood(balls > 0, balls / k, inside, covered)


def nearest(x: Matrix, y: Matrix) -> tuple[Matrix, Matrix]:
    """For each row of x its nearest row of y.  N×D, M×D -> distances N, indices N"""
    best, where = np.full(len(x), np.inf), np.zeros(len(x), int)
    for rows, columns, block in distances(x, y):
        at = block.argmin(1)
        value = block[np.arange(len(block)), at]
        closer = value < best[rows]
        best[rows] = np.where(closer, value, best[rows])
        where[rows] = np.where(closer, at + columns.start, where[rows])
    return best, where


def resampled(found: Neighborhood, *, seed: int, rounds: int) -> dict[str, list[float]]:
    """The numbers over bootstrap samples of the images; balls stay as they are.  -> rounds of each"""
    draw = np.random.default_rng(seed)
    n, m = len(found.fake_inside), len(found.real_inside)
    each = [found.values(draw.integers(0, n, n), draw.integers(0, m, m)) for _ in range(rounds)]
    return {key: [values[key] for values in each] for key in found.values()}
