"""What an image tells of its codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def mutual_information_bound(found: tuple[Sequence[Tensor], Tensor, Tensor], categories: Sequence[Tensor],
                numbers: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The lower bound L_I = E[log Q(c | x)] + H(c) of the mutual information, in nats, and its two parts for
    the log.  Chen et al. 2016, equation 5.

    `found`: logits of each category (N x K), means and log variances of the numbers (N x numbers), as Q says
    them; then the codes that were given.  Categories are equally likely, H = log K; numbers are from U(-1,
    1), H = log 2 each.
    """
    logits, mean, log_variance = found
    gained = torch.zeros((), device=numbers.device)
    for each, index in zip(logits, categories, strict=True):
        gained = gained + math.log(each.shape[1]) - F.cross_entropy(each.float(), index)
    mean, log_variance = mean.float(), log_variance.float()
    density = -0.5 * (math.log(2 * math.pi) + log_variance
                      + (numbers - mean).square() * torch.exp(-log_variance))
    known = (density + math.log(2)).sum(1).mean()
    return gained + known, {"information_categorical": gained, "information_continuous": known}
