"""Identical images, and images that look the same, in nearly linear time.

Thumbnails are hashed into buckets by quantized random projections, several times over (Datar, Immorlica,
Indyk, Mirrokni 2004, section 3), and compared with their neighbors in a bucket.  A constant offset of the
luma, such as a change of brightness, does not count.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from i2i.data.check.file_facts import LUMA
from i2i.images.format import Array

TABLES = 8              # A similar pair that shares a bucket in 2 of 3 tables is missed once in 6,000.
PROJECTIONS = 8         # Values that make a bucket.
WIDTH = 24.0            # Levels of an interval of a projection.
NEIGHBORS = 16          # Compared in a bucket, so that a million images of one thing take no quadratic time.
# Levels by which similar thumbnails differ on average and at most.  `python bench/near_duplicates.py`: of 3.4
# million pairs of bundled emoji 10 are reported, all variants of one drawing; of copies that were
# encoded again, resized or made slightly darker 98 to 100 % are found.  Mirrored and shifted ones are not.
MAX_MEAN_DIFFERENCE, MAX_DIFFERENCE = 3.0, 24.0
MAX_ASPECT_DIFFERENCE = 0.03
CHUNK = 8192

Positions = NDArray[np.int64]


def near_duplicates(thumbs: Array, aspects: Array) -> tuple[Positions, Array]:
    """Find similar images.

    Args:
        thumbs: (N, 384) uint8, see `thumbnail`.
        aspects: (N,) width over height.

    Returns:
        (P, 2) sorted pairs of positions, and (P,) their mean differences in levels.
    """
    pairs, levels = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for table in range(TABLES if len(thumbs) > 1 else 0):
        for left, right in _neighbors(thumbs, table):
            difference = thumbs[left].astype(np.float32) - thumbs[right]
            difference[:, :LUMA**2] -= difference[:, :LUMA**2].mean(1, keepdims=True)
            difference = np.abs(difference)
            mean = difference.mean(1)
            like = (mean <= MAX_MEAN_DIFFERENCE) & (difference.max(1) <= MAX_DIFFERENCE)
            like &= np.abs(aspects[left] / aspects[right] - 1) <= MAX_ASPECT_DIFFERENCE
            pairs.append(np.sort(np.stack([left[like], right[like]], 1), 1))
            levels.append(mean[like])
    found, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    return found, np.concatenate(levels)[first]


def _neighbors(thumbs: Array, table: int) -> Iterable[tuple[Positions, Positions]]:
    """Positions that share a bucket of one table and are near each other in it."""
    random = np.random.default_rng(table)
    directions = random.standard_normal((thumbs.shape[1], PROJECTIONS)).astype(np.float32)
    directions[:LUMA**2] -= directions[:LUMA**2].mean(0)      # Ignore a constant offset.
    directions /= np.linalg.norm(directions, axis=0)
    offsets = random.uniform(0, WIDTH, PROJECTIONS).astype(np.float32)
    mixing = random.integers(1, 2**62, PROJECTIONS, dtype=np.int64) | 1
    keys, first = np.empty(len(thumbs), np.int64), np.empty(len(thumbs), np.float32)
    for start in range(0, len(thumbs), CHUNK):
        values = thumbs[start:start + CHUNK].astype(np.float32) @ directions
        cells = np.floor((values + offsets) / WIDTH).astype(np.int64)
        # Wraps around, as a hash may.
        keys[start:start + CHUNK], first[start:start + CHUNK] = (cells * mixing).sum(1), values[:, 0]
    order = np.lexsort((first, keys))
    sorted_keys = keys[order]
    for step in range(1, NEIGHBORS + 1):
        same = np.flatnonzero(sorted_keys[step:] == sorted_keys[:-step])
        if not len(same):
            return
        for start in range(0, len(same), CHUNK):
            part = same[start:start + CHUNK]
            yield order[part], order[part + step]


def count_groups(pairs: Sequence[tuple[int, int]]) -> int:
    """Number of groups of images that pairs connect."""
    if not pairs:
        return 0
    images, edges = np.unique(np.array(pairs), return_inverse=True)
    left, right = edges.reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(len(images), len(images)))
    return int(connected_components(graph, directed=False)[0])
