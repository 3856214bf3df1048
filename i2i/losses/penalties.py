"""Discriminator penalties: gradient penalties, always in float32, and weight clipping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register

# (N, C, H, W) -> (N, ...) logits, with source image and labels already bound.
Critic = Callable[[Tensor], Tensor]
Weight = Annotated[float, Doc("Weight of the penalty in D's loss")]
Gamma = Annotated[float, Doc("The penalty is gamma / 2 times the mean of |grad D|^2")]
Every = Annotated[int, Doc("Interval of the penalty in steps of D, by which it is multiplied")]


@register("penalty", "none")
class Penalty:
    """No penalty; the base class of all terms of the discriminator's loss.

    Attributes:
        uses_input_gradients: whether it takes gradients with respect to each image, so that the critic must
            not mix the images of a batch.
        every: interval in steps of D at which it is taken.
        clip: maximum absolute value of the critic's parameters after each of its steps; 0: no limit.
    """

    uses_input_gradients: ClassVar[bool] = False
    every: Every = 1
    clip: float = 0.0

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty, a scalar, for real and generated images (N, C, H, W)."""
        return real.new_zeros(())


def lazy_penalty(penalty: Penalty, step: int, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The penalty times `every` in steps when it is due, else 0.  Karras et al. 2020b, section 3.1."""
    if step % penalty.every:
        return real.new_zeros(())
    with fp32_island(real):
        return penalty.every * penalty(critic, to_float32(real.detach()), to_float32(fake.detach()))


def gradients(critic: Critic, images: Tensor) -> Tensor:
    """Gradient of an image's mean logit with respect to the image, differentiable.  (N, C, H, W) -> (N, CHW)

    The mean over patches, as in the adversarial losses; the reference code of CycleGAN has their sum.
    """
    images = images.requires_grad_()
    values = critic(images).reshape(len(images), -1).mean(1)
    return torch.autograd.grad(values.sum(), images, create_graph=True)[0].flatten(1)


def gradient_norm(critic: Critic, images: Tensor) -> Tensor:
    """Mean squared length of the critic's gradient, E[|grad D|^2].  (N, C, H, W) -> scalar"""
    return gradients(critic, images).square().sum(1).mean()


def interpolate(real: Tensor, fake: Tensor) -> Tensor:
    """A random point per image, uniform on the line from `fake` to `real`."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    return share * real + (1 - share) * fake


def _check(weight: str, value: float, every: int) -> None:
    require(value >= 0, f"penalty.{weight}", value, "0 or more")
    require(every >= 1, "penalty.every", every, "1 or more")


@register("penalty", "clip")
@dataclass(frozen=True, kw_only=True)
class WeightClipping(Penalty):
    """Weight clipping: the critic's parameters stay in [-limit, limit].  Arjovsky et al. 2017."""

    limit: Annotated[float, Doc("Maximum absolute value of a parameter")] = 0.01

    def __post_init__(self) -> None:
        require(self.limit > 0, "penalty.limit", self.limit, "more than 0")

    @property
    def clip(self) -> float:    # type: ignore[override]
        return self.limit


@register("penalty", "wgan-gp")
@dataclass(frozen=True, kw_only=True)
class GradientPenalty(Penalty):
    """WGAN-GP: weight * E[(|grad D(x)| - 1)^2], x between real and generated.  Gulrajani et al. 2017."""

    weight: Weight = 10.0
    every: Every = 1
    uses_input_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check("weight", self.weight, self.every)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return self.weight * (gradients(critic, interpolate(real, fake)).norm(dim=1) - 1).square().mean()


@register("penalty", "wgan-lp")
class LipschitzPenalty(GradientPenalty):
    """WGAN-LP: weight * E[max(0, |grad D(x)| - 1)^2] at the points of `wgan-gp`.  Petzka et al. 2018."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        norms = gradients(critic, interpolate(real, fake)).norm(dim=1)
        return self.weight * F.relu(norms - 1).square().mean()


@register("penalty", "dragan")
class DRAGAN(GradientPenalty):
    """DRAGAN: weight * E[(|grad D(x)| - 1)^2], x around real images.  Kodali et al. 2017 (arXiv:1705.07215).

    x = real + share * noise, as in the authors' code: noise uniform on [0, std / 2] for each value, std that
    of the batch; share uniform on [0, 1] for each image.  The paper has normal noise.
    """

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        noise = 0.5 * real.std(correction=0) * torch.rand_like(real)
        return super().__call__(critic, real + noise, real)


@register("penalty", "r1")
@dataclass(frozen=True, kw_only=True)
class R1(Penalty):
    """R1: gamma / 2 * E[|grad D(real)|^2].  Mescheder et al. 2018, equation 9."""

    gamma: Gamma = 10.0
    every: Every = 1
    uses_input_gradients: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check("gamma", self.gamma, self.every)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return self.gamma / 2 * gradient_norm(critic, real)


@register("penalty", "r2")
class R2(R1):
    """R2: gamma / 2 * E[|grad D(fake)|^2].  Mescheder et al. 2018, equation 10."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return self.gamma / 2 * gradient_norm(critic, fake)


@register("penalty", "r1r2")
class R1R2(R1):
    """R1 and R2 with the same gamma.  Huang et al. 2024 (R3GAN, arXiv:2501.05441), section 2."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        return self.gamma / 2 * (gradient_norm(critic, real) + gradient_norm(critic, fake))
