"""Precision, recall, density and coverage, by balls around nearest neighbors.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2, k = 3.  Density and
coverage: Naeem et al. 2020 (arXiv 2002.09797), equations 4 and 5, k = 5.  Distances are float64, in blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from i2i.images.format import Array

BLOCK = 1024


@dataclass(frozen=True)
class Manifold:
    """Per-image terms of the four metrics; their means, also over a bootstrap sample, are the metrics."""

    fake_inside: Array     # Whether a generated image lies in the ball of any real one, (N,).
    fake_density: Array    # Number of real balls it lies in, divided by k, (N,).
    real_inside: Array     # Whether a real image lies in the ball of any generated one, (M,).
    real_covered: Array    # Whether any generated image lies in its own ball, (M,).

    def scores(self, fakes: Array | None = None, reals: Array | None = None) -> dict[str, float]:
        """Precision, recall, F1, density and coverage over these rows (all by default)."""
        def mean(array: Array, rows: Array | None) -> float:
            return float(array.mean() if rows is None else array[rows].mean())

        precision, recall = mean(self.fake_inside, fakes), mean(self.real_inside, reals)
        return {"precision": precision, "recall": recall,
                "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
                "density": mean(self.fake_density, fakes), "coverage": mean(self.real_covered, reals)}

    def bootstrap(self, *, seed: int, rounds: int) -> dict[str, list[float]]:
        """The scores of bootstrap samples of the images, by name; the balls stay as they are."""
        generator = np.random.default_rng(seed)
        n, m = len(self.fake_inside), len(self.real_inside)
        samples = [self.scores(generator.integers(0, n, n), generator.integers(0, m, m))
                   for _ in range(rounds)]
        return {name: [scores[name] for scores in samples] for name in self.scores()}


def distance_blocks(x: Array, y: Array) -> Iterator[tuple[slice, slice, Array]]:
    """Euclidean distances between (N, D) and (M, D) in float64, as (rows, columns, block)."""
    for i in range(0, len(x), BLOCK):
        a = np.asarray(x[i:i + BLOCK], np.float64)
        for j in range(0, len(y), BLOCK):
            b = np.asarray(y[j:j + BLOCK], np.float64)
            squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * a @ b.T
            yield slice(i, i + len(a)), slice(j, j + len(b)), np.sqrt(squared.clip(0))


def neighbor_radii(x: Array, k: int) -> Array:
    """Distance of each row of (N, D) to its k-th nearest other row, (N,).  ValueError if N <= k."""
    if not 1 <= k < len(x):
        raise ValueError(f"k={k} neighbors cannot be found among {len(x)} images")
    closest = np.full((len(x), k), np.inf)
    for rows, columns, block in distance_blocks(x, x):
        if rows == columns:
            np.fill_diagonal(block, np.inf)
        closest[rows] = np.partition(np.concatenate([closest[rows], block], 1), k - 1, axis=1)[:, :k]
    return closest.max(1)


def manifold(fake: Array, real: Array, *, k: int) -> Manifold:
    """Which images of (N, D) and (M, D) lie in which balls of radius `neighbor_radii(…, k)`."""
    real_radius, fake_radius = neighbor_radii(real, k), neighbor_radii(fake, k)
    balls, inside, covered = np.zeros(len(fake)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, columns, block in distance_blocks(fake, real):
        within = block <= real_radius[columns]
        balls[rows] += within.sum(1)
        covered[columns] |= within.any(0)
        inside[columns] |= (block <= fake_radius[rows][:, None]).any(0)
    return Manifold(balls > 0, balls / k, inside, covered)


def nearest_neighbors(x: Array, y: Array) -> tuple[Array, Array]:
    """The nearest row of y (M, D) for each row of x (N, D), as distances (N,) and indices (N,)."""
    distance, index = np.full(len(x), np.inf), np.zeros(len(x), int)
    for rows, columns, block in distance_blocks(x, y):
        column = block.argmin(1)
        value = block[np.arange(len(block)), column]
        closer = value < distance[rows]
        distance[rows] = np.where(closer, value, distance[rows])
        index[rows] = np.where(closer, column + columns.start, index[rows])
    return distance, index
