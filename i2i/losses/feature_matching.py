"""What generated images have to share with real ones in the eyes of D, beside its logits.  D's features of
real images are no one's to move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import require
from i2i.registry import register


class FeatureMatching(Protocol):
    """An addition to G's loss; `gan` is what the adversarial loss weighs beside it.  `paired`: image i of
    both kinds are to be the same."""

    paired: ClassVar[bool]

    @property
    def weight(self) -> float:
        """Of the addition; 0: there is none."""
        ...

    @property
    def gan(self) -> float:
        """Of the adversarial loss of G."""
        ...

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """D's features, outermost first.  [NC..., …], [NC..., …] -> ()"""
        ...


@register("feature_matching", "none")
@dataclass(frozen=True)
class NoFeatureMatching:
    """G learns from D's logits alone."""

    weight: ClassVar[float] = 0.0
    gan: ClassVar[float] = 1.0
    paired: ClassVar[bool] = False

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """0"""
        return torch.zeros((), device=fake[0].device)


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    weight: float
    gan: float

    def __post_init__(self) -> None:
        require(self.weight > 0, "feature_matching.weight", self.weight,
                "more than 0; or feature_matching=none")
        require(self.gan >= 0, "feature_matching.gan", self.gan, "0 or more")


@register("feature_matching", "means")
@dataclass(frozen=True, kw_only=True)
class BatchMeans(_Weighted):
    """weight * |E f(x) - E f(G(z))|^2, f the last features of D, the means over the batch.  Salimans et al.
    2016, section 3.1, where it takes the place of G's own loss (gan=0).  The square is divided by the number
    of features, so that the weight means the same for any network. Costs a pass of D over real images in G's
    turn."""

    weight: float = 1.0
    gan: float = 0.0
    paired: ClassVar[bool] = False

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """|E f(real) - E f(fake)|^2 / features, in single precision at least"""
        return F.mse_loss(_mean(fake[-1]), _mean(real[-1].detach()))


@register("feature_matching", "layers")
@dataclass(frozen=True, kw_only=True)
class Layers(_Weighted):
    """weight * sum over layers of |D_i(a, b) - D_i(a, G(a))|_1 / N_i, N_i the numbers in layer i.  Wang et
    al. 2018 (pix2pixHD, arXiv:1711.11585), equation 5, whose weight is 10.  Costs a pass of D over real
    images in G's turn."""

    weight: float = 10.0
    gan: float = 1.0
    paired: ClassVar[bool] = True

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        """sum |f_i(real) - f_i(fake)|_1 / N_i"""
        return torch.stack([F.l1_loss(ours, theirs.detach()).float() for ours,
                            theirs in zip(fake, real, strict=True)]).sum()


def _mean(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32)).mean(0)
