"""The mutual information bound of InfoGAN."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def mutual_information_bound(posterior: tuple[Sequence[Tensor], Tensor, Tensor], categories: Sequence[Tensor],
                             numbers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Lower bound E[log Q(c|x)] + H(c) of the mutual information, in nats.  Chen et al. 2016, equation 5.

    Args:
        posterior: Q(c|x): (N, K) logits of each categorical code, and (N, D) means and log variances of the
            continuous codes.
        categories: the true categorical codes, (N) indices each; equally likely, so H = log K.
        numbers: (N, D) true continuous codes from U(-1, 1), so H = log 2 each.

    Returns:
        The bound, and its two parts for the log.
    """
    logits, mean, log_variance = posterior
    categorical = torch.zeros((), device=numbers.device)
    for each, index in zip(logits, categories, strict=True):
        categorical = categorical + math.log(each.shape[1]) - F.cross_entropy(each.float(), index)
    mean, log_variance = mean.float(), log_variance.float()
    log_density = -0.5 * (math.log(2 * math.pi) + log_variance
                          + (numbers - mean).square() * torch.exp(-log_variance))
    continuous = (log_density + math.log(2)).sum(1).mean()
    return categorical + continuous, {"information_categorical": categorical,
                                      "information_continuous": continuous}
