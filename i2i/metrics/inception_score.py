"""The Inception Score: how certain and how varied the classes of fakes are.  Says little of images unlike
ImageNet's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[Any]


def inception_score(logits: Matrix, *, splits: int = 10, shuffle: bool = True,
                    seed: int = 2020) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) from p(y), mean and standard deviation over splits.  N×K logits
    without bias

    Salimans et al. 2016 (arXiv 1606.03498), section 4; natural logarithm, float64, split i covers rows
    i·N//splits …; the shuffle is torch-fidelity's.  ValueError if there are fewer images than splits.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} images cannot be cut into {splits} splits")
    order = np.random.RandomState(seed).permutation(n) if shuffle else np.arange(n)
    scores = []
    for i in range(splits):
        rows = np.asarray(logits[np.sort(order[i * n // splits:(i + 1) * n // splits])], np.float64)
        scores.append(score_of(log_softmax(rows)))
    return float(np.mean(scores)), float(np.std(scores))


def score_of(log_p: Matrix, weights: Matrix | None = None) -> float:
    """The score of one split, each row counted `weights` times.  N×K log probabilities"""
    w = np.full(len(log_p), 1 / len(log_p)) if weights is None else weights / weights.sum()
    p = np.exp(log_p)
    marginal = w @ p
    divergence = w @ (p * log_p).sum(1) - (marginal * np.log(np.maximum(marginal,
                                                                        np.finfo(np.float64).tiny))).sum()
    return float(np.exp(divergence))


def log_softmax(logits: Matrix) -> Matrix:
    """Log probabilities.  N×K"""
    shifted = logits - logits.max(1, keepdims=True)
    normalized: Matrix = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return normalized


def resampled(logits: Matrix, *, splits: int, seed: int, rounds: int) -> list[float]:
    """Scores of bootstrap samples, at the size of one split so that they have the same bias.  N×K ->
    rounds"""
    draw, size = np.random.default_rng(seed), max(1, len(logits) // splits)
    out = []
    for _ in range(rounds):
        picks = np.sort(draw.integers(0, len(logits), (splits, size)), axis=1)
        out.append(float(np.mean([score_of(log_softmax(np.asarray(logits[rows], np.float64)))
                                  for rows in picks])))
    return out
