"""What the two players minimize.  Logits may have any shape; every loss is a mean over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor
from torch.nn import functional as F

from i2i.errors import require
from i2i.registry import register


class Adversarial(Protocol):
    """A pair of losses.  `relativistic`: the generator's also needs the logits of real images."""

    relativistic: ClassVar[bool]

    @property
    def decision_boundary(self) -> float | None:
        """The logit of an image that D takes for real as much as for generated; None where only differences
        of logits mean something."""
        ...

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator.  logits, logits -> ()"""
        ...

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of the generator.  logits[, logits] -> ()"""
        ...


def check_smooth(smooth: float) -> None:
    """RequestError unless real images are still called real."""
    require(0 <= smooth < 0.5, "adversarial.smooth", smooth,
            "0 or more and less than 0.5, where D would no longer call real images real")


@register("adversarial", "nonsaturating")
@dataclass(frozen=True, kw_only=True)
class NonSaturating:
    """Binary cross entropy on logits; G maximizes log D(G(z)).  Goodfellow et al. 2014, section 3; Isola et
    al. 2017, section 3.3.

    `smooth`: D's target for real images is 1 - smooth, that for generated ones stays 0.  Salimans et al.
    2016, section 3.4.
    """

    smooth: float = 0.0
    decision_boundary: ClassVar[float] = 0.0
    relativistic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_smooth(self.smooth)

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-(1 - smooth) log D(real) - smooth log(1 - D(real)) - log(1 - D(fake))"""
        return (F.softplus(-real) + self.smooth * real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-log D(fake)"""
        return F.softplus(-fake).mean()


@register("adversarial", "minimax")
@dataclass(frozen=True, kw_only=True)
class Minimax(NonSaturating):
    """One value that D maximizes and G minimizes, so G learns little while D rejects its images with
    confidence.  Goodfellow et al. 2014, equation 1; `smooth` as in `nonsaturating`."""

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """log(1 - D(fake))"""
        return -F.softplus(fake).mean()


@register("adversarial", "lsgan")
@dataclass(frozen=True, kw_only=True)
class LeastSquares:
    """Squared distance to 1 (real) and 0 (fake), without the factors 1/2 of the paper, as in CycleGAN.  Mao
    et al. 2017, equation 9.

    `smooth`: 1 - smooth is what D gives real images and, as c = b in that equation, what G wants for its own.
    """

    smooth: float = 0.0
    relativistic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_smooth(self.smooth)

    @property
    def decision_boundary(self) -> float:
        """Half-way between the targets."""
        return (1 - self.smooth) / 2

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(real) - 1 + smooth)^2 + D(fake)^2"""
        return (real - (1 - self.smooth)).square().mean() + fake.square().mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """(D(fake) - 1 + smooth)^2"""
        return (fake - (1 - self.smooth)).square().mean()


@register("adversarial", "hinge")
@dataclass(frozen=True)
class Hinge:
    """Lim and Ye 2017; Miyato et al. 2018 (SNGAN), equations 16 and 17."""

    decision_boundary: ClassVar[float] = 0.0
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
    """D is a critic without limits of its own: give it a penalty.  Arjovsky et al. 2017, equations 2 and 3;
    Gulrajani et al. 2017."""

    decision_boundary: ClassVar[None] = None
    relativistic: ClassVar[bool] = False

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """D(fake) - D(real)"""
        return fake.mean() - real.mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-D(fake)"""
        return -fake.mean()


@register("adversarial", "rpgan")
@dataclass(frozen=True)
class RelativisticPairing:
    """Which of a real and a generated image is the real one?  Logit i of the one is held against logit i of
    the other.

    Jolicoeur-Martineau 2019 (arXiv:1807.00734), RSGAN; with penalty=r1r2 the loss of Huang et al. 2024
    (R3GAN, arXiv:2501.05441), section 2.
    """

    decision_boundary: ClassVar[None] = None
    relativistic: ClassVar[bool] = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log sigmoid(D(real) - D(fake))"""
        return F.softplus(fake - real).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-log sigmoid(D(fake) - D(real))"""
        return F.softplus(needed(real) - fake).mean()


@register("adversarial", "ragan")
@dataclass(frozen=True)
class RelativisticAverage:
    """Is an image more real than those of the other kind are on average?  Averages are over this process's
    batch.

    Jolicoeur-Martineau 2019, RaSGAN, without the factor 1/2 of the author's code.
    """

    decision_boundary: ClassVar[None] = None
    relativistic: ClassVar[bool] = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log sigmoid(D(real) - E D(fake)) - log(1 - sigmoid(D(fake) - E D(real)))"""
        return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """d with the kinds exchanged"""
        return self.d(fake, needed(real))


@register("adversarial", "ralsgan")
@dataclass(frozen=True)
class RelativisticAverageLeastSquares:
    """`ragan` with squares: differences to the average of the other kind are drawn to 1 and -1.
    Jolicoeur-Martineau 2019, RaLSGAN, without the factor 1/2 of the author's code."""

    decision_boundary: ClassVar[None] = None
    relativistic: ClassVar[bool] = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(real) - E D(fake) - 1)^2 + (D(fake) - E D(real) + 1)^2"""
        return (real - fake.mean() - 1).square().mean() + (fake - real.mean() + 1).square().mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """d with the kinds exchanged"""
        return self.d(fake, needed(real))


def needed(real: Tensor | None) -> Tensor:
    """The logits of real images; a relativistic loss cannot do without them."""
    if real is None:
        raise TypeError("a relativistic loss of G takes the logits of real images too")
    return real
