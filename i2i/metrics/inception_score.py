"""The Inception Score: how certain and how varied the classes of generated images are.

Salimans et al. 2016 (arXiv 1606.03498), section 4.  Means little for images unlike ImageNet's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, xlogy

Matrix = NDArray[Any]


def inception_score(logits: Matrix, *, splits: int = 10, shuffle: bool = True,
                    seed: int = 2020) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) from p(y): mean and standard deviation over splits.

    Args:
        logits: (N, K), without the bias of the last layer.
        splits: number of splits; split i holds the rows from i·N//splits on.
        shuffle: shuffle the images first, as torch-fidelity does.

    Raises:
        ValueError: if there are fewer images than splits.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} images cannot be cut into {splits} splits")
    order = np.random.RandomState(seed).permutation(n) if shuffle else np.arange(n)
    scores = [_score(logits[np.sort(order[i * n // splits:(i + 1) * n // splits])]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Matrix) -> float:
    """The score of one split, in float64 and with natural logarithms."""
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    p = np.exp(log_p)
    marginal = p.mean(0)
    return float(np.exp((p * log_p).sum(1).mean() - xlogy(marginal, marginal).sum()))


def bootstrap(logits: Matrix, *, splits: int, seed: int, rounds: int) -> list[float]:
    """The scores of bootstrap samples, in splits of the same size and therefore with the same bias."""
    generator, size = np.random.default_rng(seed), max(1, len(logits) // splits)
    return [float(np.mean([_score(logits[rows])
                           for rows in np.sort(generator.integers(0, len(logits), (splits, size)), axis=1)]))
            for _ in range(rounds)]
