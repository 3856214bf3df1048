"""Statistics of how well people tell fake images from real ones (HYPE, Zhou et al. 2019)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

ROUNDS = 10_000


def modal_exposure(levels: Sequence[float]) -> float:
    """The commonest exposure of a staircase; of several that are equally common, their mean."""
    counts = Counter(levels)
    most = max(counts.values())
    return float(np.mean([level for level, count in counts.items() if count == most]))


def resampled_mean(values: Sequence[float], rounds: int = ROUNDS, seed: int = 0
                   ) -> tuple[float, float | None, float | None]:
    """Mean over people with its 95 % interval by resampling them, which takes two or more."""
    array = np.asarray(values, float)
    if len(array) < 2:
        return float(array.mean()), None, None
    low, high = np.percentile(_means(array, rounds, np.random.default_rng(seed)), [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def _means(values: np.ndarray, rounds: int, rng: np.random.Generator) -> np.ndarray:
    return values[rng.integers(0, len(values), (rounds, len(values)))].mean(1)


def difference(a: Sequence[float], b: Sequence[float], rounds: int = ROUNDS, seed: int = 0
               ) -> tuple[float, float, float, float]:
    """Difference of the means of two groups of people, a - b.

    Returns:
        The difference, its 95 % interval by resampling the people of each group, and the two-sided p value
        of a permutation test: how often groups drawn at random from all of them differ as much.
    """
    first, second, rng = np.asarray(a, float), np.asarray(b, float), np.random.default_rng(seed)
    found = float(first.mean() - second.mean())
    low, high = np.percentile(_means(first, rounds, rng) - _means(second, rounds, rng), [2.5, 97.5])
    mixed = rng.permuted(np.tile(np.concatenate([first, second]), (rounds, 1)), axis=1)
    drawn = mixed[:, :len(first)].mean(1) - mixed[:, len(first):].mean(1)
    extreme = int((np.abs(drawn) >= abs(found) - 1e-12).sum())
    return found, float(low), float(high), (extreme + 1) / (rounds + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the same order."""
    order, adjusted, highest = np.argsort(p_values), [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[int(i)] = highest
    return adjusted
