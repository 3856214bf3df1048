"""Precision, recall, density and coverage, by balls around nearest neighbors.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2, k = 3.  Density and
coverage: Naeem et al. 2020 (arXiv 2002.09797), equations 4 and 5, k = 5.  Distances are float64, in blocks.
"""

from collections.abc import Iterator

import numpy as np

from i2i.images.format import Array

BLOCK = 1024


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


def manifold_scores(fake: Array, real: Array, *, k: int) -> dict[str, float]:
    """Precision, recall, their harmonic mean F1, density and coverage of features (N, D) and (M, D)."""
    real_radius, fake_radius = neighbor_radii(real, k), neighbor_radii(fake, k)
    balls, inside, covered = np.zeros(len(fake)), np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, columns, block in distance_blocks(fake, real):
        within = block <= real_radius[columns]
        balls[rows] += within.sum(1)        # Of real images, in which a generated one lies.
        covered[columns] |= within.any(0)   # Whether any generated image lies in the ball of a real one.
        inside[columns] |= (block <= fake_radius[rows][:, None]).any(0)
    precision, recall = float((balls > 0).mean()), float(inside.mean())
    return {"precision": precision, "recall": recall, "f1": f1(precision, recall),
            "density": float(balls.mean() / k), "coverage": float(covered.mean())}


def f1(precision: float, recall: float) -> float:
    """The harmonic mean; 0 if both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def nearest_neighbors(x: Array, y: Array, exclude: Array | None = None) -> tuple[Array, Array]:
    """The nearest row of y (M, D) for each row of x (N, D), as distances (N,) and indices (N,).

    Distances are exact, 0 between equal rows.  `exclude`: a row of y for each row of x that does not count.
    """
    distance, index = np.full(len(x), np.inf), np.zeros(len(x), int)
    for rows, columns, block in distance_blocks(x, y):
        if exclude is not None:
            own = np.flatnonzero((exclude[rows] >= columns.start) & (exclude[rows] < columns.stop))
            block[own, exclude[rows][own] - columns.start] = np.inf
        column = block.argmin(1)
        value = block[np.arange(len(block)), column]
        closer = value < distance[rows]
        distance[rows] = np.where(closer, value, distance[rows])
        index[rows] = np.where(closer, column + columns.start, index[rows])
    for i in range(0, len(x), BLOCK):       # Products of matrices leave 1e-8 of the norm between equal rows.
        difference = np.asarray(x[i:i + BLOCK], np.float64) - np.asarray(y[index[i:i + BLOCK]], np.float64)
        distance[i:i + BLOCK] = np.linalg.norm(difference, axis=1)
    return distance, index
