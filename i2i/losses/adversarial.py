"""Adversarial losses of G and D.  Logits may have any shape; losses are means over all of them.

In formulas D(x) is the logit of x and s the sigmoid; real and fake are the images that D sees.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import register


class Adversarial(ABC):
    """Base class of the losses of D and G.

    Attributes:
        relativistic: whether G's loss also needs the logits of real images.
        decision_boundary: the logit at which D is undecided; None if only differences have a meaning.
    """

    relativistic: ClassVar[bool] = False
    decision_boundary: float | None = None

    @abstractmethod
    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """Loss of the discriminator, from its logits of real and of generated images."""

    @abstractmethod
    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """Loss of the generator, from the logits of generated and, if relativistic, of real images."""


@dataclass(frozen=True, kw_only=True)
class SmoothedLabels(Adversarial):
    """Base class of losses with a target for real images."""

    smooth: Annotated[float, Doc(
        "The target for real images is 1 - smooth (Salimans et al. 2016, section 3.4); less than 0.5")] = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.smooth < 0.5, "adversarial.smooth", self.smooth,
                "0 or more and less than 0.5, where D would no longer call real images real")


@register("adversarial", "nonsaturating")
class NonSaturating(SmoothedLabels):
    """Non-saturating GAN loss: G maximizes log D(G(z)).  Goodfellow et al. 2014, section 3."""

    decision_boundary = 0.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-(1 - smooth) log s(D(real)) - smooth log(1 - s(D(real))) - log(1 - s(D(fake))).

        Minus equation 1, with the smoothed target of Salimans et al. 2016, section 3.4.
        """
        return (F.softplus(-real) + self.smooth * real).mean() + F.softplus(fake).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-log s(D(fake)): steep where D rejects, unlike equation 1 (Goodfellow et al. 2014, section 3)."""
        return F.softplus(-fake).mean()


@register("adversarial", "minimax")
class Minimax(NonSaturating):
    """Minimax GAN loss: G minimizes log(1 - D(G(z))), which saturates where D rejects with confidence.
    Goodfellow et al. 2014, equation 1."""

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """log(1 - s(D(fake))), the second term of equation 1."""
        return -F.softplus(fake).mean()


@register("adversarial", "lsgan")
class LeastSquares(SmoothedLabels):
    """Least squares GAN loss: squared distance to 1 and 0, without factors 1/2.  Mao et al. 2017.

    The target for real images is also G's for generated ones.
    """

    @property
    def decision_boundary(self) -> float:   # type: ignore[override]
        return (1 - self.smooth) / 2

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(real) - 1 + smooth)^2 + D(fake)^2: twice equation 2 with a = 0 and b = 1 - smooth."""
        return (real - (1 - self.smooth)).square().mean() + fake.square().mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """(D(fake) - 1 + smooth)^2: twice equation 2 with c = b."""
        return (fake - (1 - self.smooth)).square().mean()


@register("adversarial", "hinge")
class Hinge(Adversarial):
    """Hinge GAN loss.  Lim and Ye 2017; Miyato et al. 2018 (SNGAN), equations 16 and 17."""

    decision_boundary = 0.0

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """max(0, 1 - D(real)) + max(0, 1 + D(fake)) (equation 16)."""
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-D(fake), without a margin (equation 17)."""
        return -fake.mean()


@register("adversarial", "wasserstein")
class Wasserstein(Adversarial):
    """Wasserstein GAN loss, for a critic that a penalty keeps Lipschitz.  Arjovsky et al. 2017."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """D(fake) - D(real): minus the estimated Wasserstein-1 distance (equations 2 and 3)."""
        return fake.mean() - real.mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-D(fake): the part of the estimated distance that G can change."""
        return -fake.mean()


@register("adversarial", "rpgan")
class RelativisticPairing(Adversarial):
    """Relativistic pairing GAN loss (RSGAN).  Jolicoeur-Martineau 2019 (arXiv:1807.00734).

    Logit i of one kind is compared with logit i of the other.  With penalty=r1r2 the loss of Huang et al.
    2024 (R3GAN, arXiv:2501.05441), section 2.
    """

    relativistic = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log s(D(real) - D(fake)): that the real image of each pair is the more realistic one."""
        return F.softplus(fake - real).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-log s(D(fake) - D(real)): that the generated image of each pair is."""
        assert real is not None
        return F.softplus(real - fake).mean()


@register("adversarial", "ragan")
class RelativisticAverage(Adversarial):
    """Relativistic average GAN loss (RaSGAN), with the mean of the other kind.  Jolicoeur-Martineau 2019.

    Averages are over this process's batch.  Without the factor 1/2 of the author's code.
    """

    relativistic = True

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """-log s(D(real) - E D(fake)) - log(1 - s(D(fake) - E D(real))), E over the batch."""
        return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()

    def g(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """The loss of D with real and fake exchanged."""
        assert real is not None
        return self.d(fake, real)


@register("adversarial", "ralsgan")
class RelativisticAverageLeastSquares(RelativisticAverage):
    """Relativistic average least squares GAN loss (RaLSGAN): `ragan` with squared distances to 1 and -1.
    Jolicoeur-Martineau 2019, without the factor 1/2 of the author's code."""

    def d(self, real: Tensor, fake: Tensor) -> Tensor:
        """(D(real) - E D(fake) - 1)^2 + (D(fake) - E D(real) + 1)^2, E over the batch."""
        return (real - fake.mean() - 1).square().mean() + (fake - real.mean() + 1).square().mean()
