"""Inception Score: certainty and variety of classes.  Salimans et al. 2016 (arXiv 1606.03498), section 4."""

import numpy as np
import scipy

from i2i.images.format import Array


def inception_score(logits: Array, *, splits: int = 10, shuffle: bool = True,
                    seed: int = 2020) -> tuple[float, float]:
    """exp of the mean KL divergence of p(y|x) from p(y): mean and standard deviation over splits.

    Args:
        logits: (N, K), without the bias of the last layer.
        splits: split i holds the rows from i·N//splits on; ValueError if there are fewer rows than splits.
        shuffle: shuffle the images first, as torch-fidelity does.
    """
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"{n} images cannot be cut into {splits} splits")
    order = np.random.RandomState(seed).permutation(n) if shuffle else np.arange(n)
    scores = [_score(logits[np.sort(order[i * n // splits:(i + 1) * n // splits])]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(logits: Array) -> float:
    """The score of one split, in float64 and with natural logarithms."""
    log_p = scipy.special.log_softmax(np.asarray(logits, np.float64), axis=1)
    p = np.exp(log_p)
    marginal = p.mean(0)
    return float(np.exp((p * log_p).sum(1).mean() - scipy.special.xlogy(marginal, marginal).sum()))
