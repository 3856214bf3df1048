"""Do fakes differ from one another?  The readings of mode collapse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2i.images.formats import Array
from i2i.metrics.paired import MS_SSIM_SMALLEST, ms_ssim

Matrix = NDArray[Any]


def random_pairs(n: int, count: int, seed: int) -> Matrix:
    """Different pairs i < j, or all of them where there are no more than `count`.  -> P×2"""
    if n < 2:
        raise ValueError(f"pairs need at least 2 images, these are {n}")
    if count < 1:
        raise ValueError(f"a mean is over 1 pair or more, not {count}")
    total = n * (n - 1) // 2
    if total <= count:
        return np.stack(np.triu_indices(n, 1), 1)
    picks = np.random.default_rng(seed).choice(total, count, replace=False)
    # Pair number j(j-1)/2 + i, with i < j.
    j = ((1 + np.sqrt(1 + 8 * picks.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > picks
    j += j * (j + 1) // 2 <= picks
    return np.stack([picks - j * (j - 1) // 2, j], 1)


def pairwise_distance(features: Matrix, *, pairs: int = 10_000, seed: int = 0) -> float:
    """Mean Euclidean distance between the features of random different images.  N×D"""
    total = 0.0
    chosen = random_pairs(len(features), pairs, seed)
    for start in range(0, len(chosen), 1024):
        left, right = chosen[start:start + 1024].T
        total += float(np.linalg.norm(np.asarray(features[left], np.float64) - np.asarray(features[right],
                                                                                          np.float64),
                                      axis=1).sum())
    return total / len(chosen)


def pairwise_images(read: Callable[[int], Array], n: int, distance: Callable[[Tensor, Tensor], Tensor], *,
                    pairs: int, seed: int) -> float:
    """Mean of a pair metric over random different images.  `read(i)` -> HW3 uint8; the metric takes 13HW,
    13HW in 0 … 255 -> 1

    ValueError if two images differ in size.
    """
    values = []
    for i, j in random_pairs(n, pairs, seed):
        a, b = (_levels(read(int(k))) for k in (i, j))
        if a.shape != b.shape:
            raise ValueError(f"images of different sizes ({a.shape[-1]}x{a.shape[-2]}, "
                             f"{b.shape[-1]}x{b.shape[-2]}) cannot be compared")
        values.append(float(distance(a, b)))
    return float(np.mean(values))


def ms_ssim_between(read: Callable[[int], Array], n: int, *, pairs: int = 100, seed: int = 0) -> float:
    """MS-SSIM between random fakes; 1 is total collapse.  Odena et al. 2017 (arXiv 1610.09585), section 4.2,
    on RGB."""
    return pairwise_images(read, n, lambda a, b: ms_ssim(a, b, data_range=255), pairs=pairs, seed=seed)


def large_enough(image: Array) -> bool:
    """Whether MS-SSIM is defined for images of this size.  HWC"""
    return bool(min(image.shape[:2]) >= MS_SSIM_SMALLEST)


def duplicate_rate(digests: Sequence[str]) -> float:
    """The share of images whose pixels another image of the set has too, 0 … 1."""
    counts = Counter(digests)
    return sum(count for count in counts.values() if count > 1) / len(digests)


def _levels(image: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()
