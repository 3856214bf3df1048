"""What keeps a critic smooth.  Everything is computed in single precision at least, whatever the step around
it runs in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import require
from i2i.registry import register

Critic = Callable[[Tensor], Tensor]     # NCHW -> logits, N first, with source image and labels already bound.


class Penalty(Protocol):
    """An addition to the discriminator's loss.

    `uses_input_gradients`: it takes gradients with respect to each image, so the critic must not mix the images of
    a batch.
    """

    uses_input_gradients: ClassVar[bool]

    @property
    def every(self) -> int:
        """It is due in one of so many steps."""
        ...

    @property
    def clip(self) -> float:
        """Largest absolute value of a critic's parameter after each of its steps, which the engine sees to;
        0: no limit."""
        ...

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """critic, NCHW, NCHW -> ()"""
        ...


def lazy_penalty(penalty: Penalty, step: int, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The penalty in steps when it is due, times `every` so that its mean over steps stays, else 0.  Karras
    et al. 2020b (StyleGAN2), section 3.1."""
    if step % penalty.every:
        return real.new_zeros(())
    kind = real.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return penalty.every * penalty(critic, single(real), single(fake))


def single(images: Tensor) -> Tensor:
    """Detached, in single precision at least."""
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


def gradients(critic: Critic, images: Tensor) -> Tensor:
    """Gradient of an image's mean logit with respect to the image: a patch critic is the mean of its patches,
    as the adversarial losses take it (the reference code of CycleGAN sums them; then 1 would hold for the
    sum).  NCHW -> N(CHW), differentiable"""
    images = images.requires_grad_()
    values = critic(images).reshape(len(images), -1).mean(1)
    return torch.autograd.grad(values.sum(), images, create_graph=True)[0].flatten(1)


def gradient_norm(critic: Critic, images: Tensor) -> Tensor:
    """E[|grad D|^2].  NCHW -> ()"""
    return gradients(critic, images).square().sum(1).mean()


def interpolate(real: Tensor, fake: Tensor) -> Tensor:
    """One point for each image, uniform on the line from the generated to the real one.  NCHW, NCHW ->
    NCHW"""
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    return share * real + (1 - share) * fake


def check_lazy(penalty: str, value: float, every: int) -> None:
    """RequestError unless the weight, known as `penalty`, and `every` can be."""
    require(value >= 0, f"penalty.{penalty}", value, "0 or more")
    require(every >= 1, "penalty.every", every, "1 or more")


@register("penalty", "none")
@dataclass(frozen=True)
class NoPenalty:
    """Nothing is added."""

    uses_input_gradients: ClassVar[bool] = False
    every: ClassVar[int] = 1
    clip: ClassVar[float] = 0.0

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """0"""
        return real.new_zeros(())


@register("penalty", "clip")
@dataclass(frozen=True, kw_only=True)
class Clip:
    """Weight clipping: no addition to the loss, the critic's parameters stay in [-limit, limit].  Arjovsky et
    al. 2017 (WGAN), algorithm 1."""

    limit: float = 0.01
    uses_input_gradients: ClassVar[bool] = False
    every: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(self.limit > 0, "penalty.limit", self.limit, "more than 0")

    @property
    def clip(self) -> float:
        """The limit."""
        return self.limit

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """0"""
        return real.new_zeros(())


@register("penalty", "wgan-gp")
@dataclass(frozen=True, kw_only=True)
class GradientPenalty:
    """weight * E[(|grad D(x)| - 1)^2], x uniform on the lines between real and generated images.  Gulrajani
    et al. 2017, equation 3."""

    weight: float = 10.0
    every: int = 1
    uses_input_gradients: ClassVar[bool] = True
    clip: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_lazy("weight", self.weight, self.every)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """weight (|grad D| - 1)^2"""
        return self.weight * (gradients(critic, interpolate(real, fake)).norm(dim=1) - 1).square().mean()


@register("penalty", "wgan-lp")
@dataclass(frozen=True, kw_only=True)
class LipschitzPenalty(GradientPenalty):
    """weight * E[max(0, |grad D(x)| - 1)^2] at the points of `wgan-gp`: a critic may be flatter than 1.
    Petzka et al. 2018 (WGAN-LP)."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """weight max(0, |grad D| - 1)^2"""
        return self.weight * F.relu(gradients(critic,
                                              interpolate(real, fake)).norm(dim=1) - 1).square().mean()


@register("penalty", "dragan")
@dataclass(frozen=True, kw_only=True)
class DRAGAN(GradientPenalty):
    """weight * E[(|grad D(x)| - 1)^2], x around real images.  Kodali et al. 2017 (arXiv:1705.07215).

    x = real + share * noise, as in the authors' code: noise uniform on [0, std / 2] for each value, std that
    of the batch; share uniform on [0, 1] for each image.  The paper has normal noise.
    """

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """weight (|grad D| - 1)^2"""
        noise = 0.5 * real.std(correction=0) * torch.rand_like(real)
        return self.weight * (gradients(critic,
                                        interpolate(real + noise, real)).norm(dim=1) - 1).square().mean()


@register("penalty", "r1")
@dataclass(frozen=True, kw_only=True)
class R1:
    """gamma / 2 * E[|grad D(real)|^2].  Mescheder et al. 2018, equation 9; gamma 10 as in their
    experiments."""

    gamma: float = 10.0
    every: int = 1
    uses_input_gradients: ClassVar[bool] = True
    clip: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        check_lazy("gamma", self.gamma, self.every)

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """gamma / 2 |grad D(real)|^2"""
        return self.gamma / 2 * gradient_norm(critic, real)


@register("penalty", "r2")
@dataclass(frozen=True, kw_only=True)
class R2(R1):
    """gamma / 2 * E[|grad D(fake)|^2].  Mescheder et al. 2018, equation 10."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """gamma / 2 |grad D(fake)|^2"""
        return self.gamma / 2 * gradient_norm(critic, fake)


@register("penalty", "r1r2")
@dataclass(frozen=True, kw_only=True)
class R1R2(R1):
    """Both, with one gamma.  Huang et al. 2024 (R3GAN, arXiv:2501.05441), section 2."""

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """gamma / 2 |grad D(real)|^2 + gamma / 2 |grad D(fake)|^2"""
        return self.gamma / 2 * (gradient_norm(critic, real) + gradient_norm(critic, fake))
