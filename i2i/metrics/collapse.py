"""Has a generator collapsed?  How far its pictures are from one another, within classes and between them, and
how many are the same again.

Few features are compared (hundreds), so whole tables of distances are made, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Matrix = NDArray[Any]
# Pictures are near-duplicates below this share of the usual distance of a real picture to its nearest
# other.
NEAR = 0.2
CERTAIN = 1.959964  # Standard errors to either side of a 95 % interval.
# Share of classes in the variance of real pictures from which on they can be told apart by these features.
SEPARATE = 0.05


def distance_table(x: Matrix) -> Matrix:
    """Distances of all rows to all others; of rows in several versions, of which the middle one is their own,
    the least of any version of one to the other's own.  N×D or N×V×D -> N×N, infinity on the diagonal

    By torch, which keeps to `train.threads`: the threads of NumPy's products wait for one another where a
    machine is busy.
    """
    rows = torch.from_numpy(np.asarray(x, np.float64))
    versions = rows[None] if rows.ndim == 2 else rows.transpose(0, 1)       # V×N×D
    nearest = torch.cdist(versions, versions[len(versions) // 2, None],
                          compute_mode="use_mm_for_euclid_dist").amin(0)
    out: Matrix = torch.minimum(nearest, nearest.T).fill_diagonal_(torch.inf).numpy()
    return out


def mean_distance(x: Matrix) -> float:
    """Mean distance of two different rows; 0 for a single one.  N×D"""
    distances = distance_table(x)[np.triu_indices(len(x), 1)]
    return float(distances.mean()) if len(distances) else 0.0


def usual_distance(real: Matrix) -> float:
    """Median distance of a real picture to its nearest other.  N×D or N×V×D"""
    return float(np.median(distance_table(real).min(1))) if len(real) > 1 else 0.0


def near_pairs(x: Matrix, radius: float) -> Matrix:
    """Pairs nearer to each other than `radius`, nearest first.  N×D or N×V×D -> P×2, i < j"""
    distances = distance_table(x)
    i, j = np.nonzero(np.triu(distances < radius, 1))
    out: Matrix = np.stack([i, j], 1)[np.argsort(distances[i, j], kind="stable")]
    return out


def distinct(pairs: Matrix, n: int) -> float:
    """The share of n pictures that none of the others repeats."""
    return 1 - len(np.unique(pairs)) / n


def support_size(n: int, pairs: int) -> tuple[float, float, float]:
    """The birthday test: how many different pictures would give so many coinciding pairs among n, with a 95 %
    interval.

    Arora and Zhang 2017 (arXiv 1706.08224), section 2.  Of S equally likely pictures n draws hold n(n - 1) /
    2S such pairs on average, nearly Poisson; its interval is that of the square root's variance, 1/4.
    Pictures that are not equally likely only make S smaller than their number.
    """
    every = n * (n - 1) / 2
    low, high = max(np.sqrt(pairs) - CERTAIN / 2, 0) ** 2, (np.sqrt(pairs) + CERTAIN / 2) ** 2
    return tuple(float(every / count) if count else float("inf")
                 for count in (pairs, high, low))  # type: ignore[return-value]


@dataclass(frozen=True)
class SpreadOf:
    """How far pictures are from one another: of one class, and the centers of the classes."""

    within: float       # Mean distance of two pictures of a class, mean over classes.
    # Root mean square distance of two classes' centers, without what chance adds to it; 0 if that is all.
    between: float
    share: float        # Of `between` in the variance of all.


def by_class(x: Matrix, labels: Matrix) -> SpreadOf | None:
    """The spread of classes that have two pictures or more; None where they are fewer than two.  N×D, N

    Centers of n pictures with variance v are |difference|² + v/n + v'/n' apart, squared and on average, so
    the last two are taken off.
    """
    groups = [np.asarray(x[labels == label], np.float64) for label in np.unique(labels)]
    groups = [group for group in groups if len(group) > 1]
    if len(groups) < 2:
        return None
    centers, noise = np.stack([group.mean(0)
                               for group in groups]), np.array([group.var(0, ddof=1).sum() / len(group)
                                                                for group in groups])
    i, j = np.triu_indices(len(groups), 1)
    squared = float(((centers[i] - centers[j]) ** 2).sum(1).mean() - (noise[i] + noise[j]).mean())
    inside = float(np.mean([group.var(0, ddof=1).sum() for group in groups]))
    between = max(squared, 0.0)
    return SpreadOf(float(np.mean([mean_distance(group) for group in groups])), between ** 0.5,
                    between / 2 / (between / 2 + inside or 1.0))


def _apart(fake: Matrix, real: Matrix, fake_labels: Matrix | None = None, real_labels: Matrix | None = None,
           *,
          moved: tuple[Matrix, Matrix] | None = None) -> dict[str, float]:
    """Readings of collapse, each a share of what it is in real pictures: 1 is as varied as those, 0 is
    collapse.  N×D, M×D, N, M; N×V×E, M×V×E

    `diversity`: mean distance of two pictures.  `distinct`: pictures that have no near-duplicate, also where
    they are `moved`.  With labels `within` a class, and `between` classes where real ones can be told apart.
    """
    ours, theirs = moved or (fake, real)
    radius = NEAR * usual_distance(theirs)
    out = {"diversity": _share(mean_distance(fake), mean_distance(real)),
           "distinct": _share(distinct(near_pairs(ours, radius), len(ours)),
                              distinct(near_pairs(theirs, radius), len(theirs)))}
    made = None if fake_labels is None else by_class(fake, fake_labels)
    wanted = None if real_labels is None else by_class(real, real_labels)
    if made and wanted:
        out["within"] = _share(made.within, wanted.within)
        if wanted.share > SEPARATE:
            out["between"] = _share(made.between, wanted.between)
    return out


def _share(ours: float, theirs: float) -> float:
    return round(ours / theirs, 4) if theirs > 0 else 1.0
