"""Do generated images differ from one another?"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from i2i.images.format import Array
from i2i.metrics.paired import ms_ssim

BLOCK = 1024        # Pairs whose features are converted to float64 at once.


def random_pairs(n: int, count: int, seed: int) -> Array:
    """Draw different pairs i < j of n images: (P, 2), all of them if there are no more than `count`."""
    if n < 2:
        raise ValueError(f"pairs need at least 2 images, these are {n}")
    if count < 1:
        raise ValueError(f"a mean is over 1 pair or more, not {count}")
    total = n * (n - 1) // 2
    if total <= count:
        return np.stack(np.triu_indices(n, 1), 1)
    index = np.random.default_rng(seed).choice(total, count, replace=False)
    # index = j(j - 1)/2 + i with i < j; the root may be off by one.
    j = ((1 + np.sqrt(1 + 8 * index.astype(np.float64))) / 2).astype(np.int64)
    j -= j * (j - 1) // 2 > index
    j += j * (j + 1) // 2 <= index
    return np.stack([index - j * (j - 1) // 2, j], 1)


def pairwise_distance(features: Array, *, pairs: int = 10_000, seed: int = 0) -> float:
    """Mean Euclidean distance between the features (N, D) of random different images."""
    total = 0.0
    chosen = random_pairs(len(features), pairs, seed)
    for start in range(0, len(chosen), BLOCK):
        a, b = (np.asarray(features[rows], np.float64) for rows in chosen[start:start + BLOCK].T)
        total += float(np.linalg.norm(a - b, axis=1).sum())
    return total / len(chosen)


def ms_ssim_between(read: Callable[[int], Array], n: int, *, pairs: int = 100, seed: int = 0) -> float:
    """Mean MS-SSIM between random different images; 1 is total collapse.

    Odena et al. 2017 (arXiv 1610.09585), section 4.2, on the n RGB images that `read` returns as (H, W, 3)
    uint8.  ValueError if two differ in size or are too small for MS-SSIM.
    """
    values = []
    for pair in random_pairs(n, pairs, seed):
        a, b = (torch.from_numpy(read(int(i)).transpose(2, 0, 1).copy())[None] for i in pair)
        if a.shape != b.shape:
            raise ValueError(f"images of different sizes ({a.shape[-1]}x{a.shape[-2]}, "
                             f"{b.shape[-1]}x{b.shape[-2]}) cannot be compared")
        values.append(float(ms_ssim(a, b, data_range=255)))
    return float(np.mean(values))


def duplicate_rate(digests: Sequence[str]) -> float:
    """Fraction of images, in [0, 1], whose pixels another image of the set has too."""
    counts = Counter(digests)
    return sum(count for count in counts.values() if count > 1) / len(digests)
