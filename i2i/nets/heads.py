"""More outputs for a discriminator."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.blocks import Conv, init_weights


class Codes(NamedTuple):
    """What Q takes the codes of an image to have been: a distribution each."""

    logits: tuple[Tensor, ...]      # Of each categorical code: N x its number of values.
    mean: Tensor                    # Of the continuous codes: N x their number.
    log_variance: Tensor            # The same shape.


class QHead(nn.Module):
    """Q(c|x) of InfoGAN on the trunk of a discriminator: one hidden layer, then a softmax or a factored
    Gaussian for each code. Chen et al. 2016 (arXiv:1606.03657), section 6 and appendix C (whose batch norm is
    left out: an image's codes are its own).

    `shape`: the discriminator's `feature_shape`; `categorical`: how many values each categorical code has;
    `continuous`: how many there are.
    """

    def __init__(self, shape: tuple[int, int, int], categorical: tuple[int, ...], continuous: int, *,
                 width: int = 128) -> None:
        super().__init__()
        require(all(values >= 2 for values in categorical), "categorical", categorical,
                "2 or more values for each code")
        require(continuous >= 0 and len(categorical) + continuous > 0, "continuous", continuous,
                "0 or more, and at least one code of either kind")
        self.categorical, self.continuous = categorical, continuous
        self.hidden = nn.Sequential(Conv(shape[0], width, shape[1:]), nn.LeakyReLU(0.2),
                                    nn.Flatten())     # type: ignore[arg-type]
        self.out = nn.Linear(width, sum(categorical) + 2 * continuous)
        init_weights(self)

    def forward(self, h: Tensor) -> Codes:
        """NChw features -> Codes"""
        *logits, mean, log_variance = self.out(self.hidden(h)).split([*self.categorical, self.continuous,
                                                                      self.continuous], 1)
        return Codes(tuple(logits), mean, log_variance)
