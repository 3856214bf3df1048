"""Discriminators whose trunk other heads can share, and such a head: the network Q of InfoGAN."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.blocks import GemmConv2d, init_weights


class TrunkDiscriminator(nn.Module):
    """Base class of discriminators with a `head` on the last of their `features`."""

    feature_shape: tuple[int, int, int]
    features: Any
    head: Any

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """The input of `head`: (N, C, H, W), (N) labels -> (N, *feature_shape)"""
        return self.features(x, c)[-1]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) labels -> (N, 1) logits"""
        return self.head(self.trunk(x, c), c)


class CodePosterior(NamedTuple):
    """Q(c|x): the distribution of the codes of N images."""

    logits: tuple[Tensor, ...]      # (N, K) for each categorical code of K values.
    mean: Tensor                    # (N, D) of the D continuous codes.
    log_variance: Tensor            # (N, D)


class QHead(nn.Module):
    """Q(c|x) on a discriminator's trunk.  Chen et al. 2016, section 6 and appendix C, without batch norm.

    Args:
        shape: the discriminator's `feature_shape`, (C, H, W).
        categorical: number of values of each categorical code.
        continuous: number of continuous codes.
    """

    def __init__(self, shape: tuple[int, int, int], categorical: tuple[int, ...], continuous: int, *,
                 width: int = 128) -> None:
        super().__init__()
        require(all(values >= 2 for values in categorical), "categorical", categorical,
                "2 or more values for each code")
        require(continuous >= 0 and len(categorical) + continuous > 0, "continuous", continuous,
                "0 or more, and at least one code of either kind")
        self.categorical, self.continuous = categorical, continuous
        self.hidden = nn.Sequential(GemmConv2d(shape[0], width, shape[1:]),      # type: ignore[arg-type]
                                    nn.LeakyReLU(0.2), nn.Flatten())
        self.out = nn.Linear(width, sum(categorical) + 2 * continuous)
        init_weights(self)

    def forward(self, h: Tensor) -> CodePosterior:
        """(N, C, H, W) features -> CodePosterior"""
        sections = [*self.categorical, self.continuous, self.continuous]
        *logits, mean, log_variance = self.out(self.hidden(h)).split(sections, 1)
        return CodePosterior(tuple(logits), mean, log_variance)
