"""What the two players minimise.  Logits may have any shape; every loss is a mean over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional as F

from i2i.spec import register


class Adversarial(Protocol):
    """A pair of losses.  `relativistic`: the generator's also needs the logits of real images."""

    relativistic: ClassVar[bool]

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator.  logits, logits -> ()"""
        ...

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of the generator.  logits[, logits] -> ()"""
        ...


@register("adversarial", "nonsaturating")
@dataclass(frozen=True)
class NonSaturating:
    """Binary cross entropy on logits; G maximises log D(G(z)).  Goodfellow et al. 2014, section 3; Isola et al. 2017, section 3.3."""

    relativistic: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log D(real) - log(1 - D(fake))"""
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-log D(fake)"""
        return F.softplus(-fake).mean()


@register("adversarial", "lsgan")
@dataclass(frozen=True)
class LeastSquares:
    """Squared distance to 1 (real) and 0 (fake), without the factors 1/2 of the paper, as in CycleGAN.  Mao et al. 2017, equation 9."""

    relativistic: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(real) - 1)^2 + D(fake)^2"""
        return (real - 1).square().mean() + fake.square().mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """(D(fake) - 1)^2"""
        return (fake - 1).square().mean()


@register("adversarial", "hinge")
@dataclass(frozen=True)
class Hinge:
    """Lim and Ye 2017; Miyato et al. 2018 (SNGAN), equations 16 and 17."""

    relativistic: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - D(real)) + max(0, 1 + D(fake))"""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-D(fake)"""
        return -fake.mean()


@register("adversarial", "wasserstein")
@dataclass(frozen=True)
class Wasserstein:
    """D is a critic without limits of its own: give it a penalty.  Arjovsky et al. 2017, equations 2 and 3; Gulrajani et al. 2017."""

    relativistic: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """D(fake) - D(real)"""
        return fake.mean() - real.mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-D(fake)"""
        return -fake.mean()
