"""Pictures that are the same, and pictures that look the same, in nearly linear time.

Thumbnails are put into buckets by quantized random projections, several times over (Datar, Immorlica, Indyk,
Mirrokni 2004, section 3), and compared with their neighbors there.  An offset of the whole luma, as a change
of brightness is, counts for nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from i2i.data.check.file_facts import LUMA
from i2i.images.format import Array

# A pair that is alike and falls into one bucket in 2 of 3 tables is missed once in 6,000.
TABLES = 8
PROJECTIONS = 8         # Values that make a bucket.
WIDTH = 24.0            # Levels: an interval of a projection.
# In a bucket: what keeps a set of a million pictures of one thing from a million million comparisons.
NEIGHBORS = 16
# Levels: two thumbnails are alike if they differ by no more, on average and anywhere.  `python
# bench/near.py`: of 3.4 million
MEAN, MOST = 3.0, 24.0
                        # pairs of the bundled pictures 10 are told, all of them variants of one drawing; of
                        # copies that were encoded again,
                        # resized or made slightly darker 98 to 100 % are found.  Mirrored and moved ones
                        # are not.
ASPECT = 0.03           # And their proportions by no more.
CHUNK = 8192

Places = NDArray[np.int64]


def exact_duplicates(digests: Sequence[int]) -> list[list[int]]:
    """Groups of places with equal digests."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return [group for group in places.values() if len(group) > 1]


def near_duplicates(thumbs: Array, aspects: Array) -> tuple[Places, Array]:
    """Pairs of places whose thumbnails are alike, in order, and by how many levels they differ on average.  N
    x 384 uint8, N -> P x 2, P"""
    pairs, levels = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for table in range(TABLES if len(thumbs) > 1 else 0):
        for left, right in _neighbors(thumbs, table):
            like, distance = _alike(thumbs, aspects, left, right)
            pairs.append(np.sort(np.stack([left[like], right[like]], 1), 1))
            levels.append(distance)
    found, first = np.unique(np.concatenate(pairs), axis=0, return_index=True)
    return found, np.concatenate(levels)[first]


def _neighbors(thumbs: Array, table: int) -> Iterable[tuple[Places, Places]]:
    """Places that share a bucket of one table and are near each other in it."""
    random = np.random.default_rng(table)
    directions = random.standard_normal((thumbs.shape[1], PROJECTIONS)).astype(np.float32)
    luma = LUMA * LUMA
    directions[:luma] -= directions[:luma].mean(0)      # Blind to an offset.
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


def _alike(thumbs: Array, aspects: Array, left: Places, right: Places) -> tuple[Array, Array]:
    """Which of these pairs are alike, and their distances."""
    luma = LUMA * LUMA
    difference = thumbs[left].astype(np.float32) - thumbs[right]
    difference[:, :luma] -= difference[:, :luma].mean(1, keepdims=True)
    difference = np.abs(difference)
    mean = difference.mean(1)
    like = (mean <= MEAN) & (difference.max(1) <= MOST) & (np.abs(aspects[left] / aspects[right] - 1) <= ASPECT)
    return like, mean[like]


def connected_groups(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """What pairs hang together."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        parent.setdefault(place, place)
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for i, j in pairs:
        parent[root(j)] = root(i)
    together: dict[int, list[int]] = defaultdict(list)
    for place in sorted(parent):
        together[root(place)].append(place)
    return list(together.values())
