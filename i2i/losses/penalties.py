"""What keeps a critic smooth.  Everything is computed in single precision at least, whatever the step around it runs in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from i2i.spec import register, require

Critic = Callable[[Tensor], Tensor]     # NCHW -> logits, N first, with source image and labels already bound.


class Penalty(Protocol):
    """An addition to the discriminator's loss.

    `differentiates`: it takes gradients with respect to each image, so the critic must not mix the images of a batch.
    """

    differentiates: ClassVar[bool]

    @property
    def every(self) -> int:
        """It is due in one of so many steps."""
        ...

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """critic, NCHW, NCHW -> ()"""
        ...


def penalised(penalty: Penalty, step: int, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """The penalty in steps when it is due, times `every` so that its mean over steps stays, else 0.  Karras et al.
    2020b (StyleGAN2), section 3.1."""
    if step % penalty.every:
        return real.new_zeros(())
    kind = real.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return penalty.every * penalty(critic, single(real), single(fake))


def single(images: Tensor) -> Tensor:
    """Detached, in single precision at least."""
    return images.detach().to(torch.promote_types(images.dtype, torch.float32))


def gradients(critic: Critic, images: Tensor) -> Tensor:
    """Gradient of an image's mean logit with respect to the image: a patch critic is the mean of its patches, as the adversarial losses
    take it (the reference code of CycleGAN sums them; then 1 would hold for the sum).  NCHW -> N(CHW), differentiable"""
    images = images.requires_grad_()
    values = critic(images).reshape(len(images), -1).mean(1)
    return torch.autograd.grad(values.sum(), images, create_graph=True)[0].flatten(1)


@register("penalty", "none")
@dataclass(frozen=True)
class NoPenalty:
    """Nothing is added."""

    differentiates: ClassVar[bool] = False
    every: ClassVar[int] = 1

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """0"""
        return real.new_zeros(())


@register("penalty", "wgan-gp")
@dataclass(frozen=True, kw_only=True)
class GradientPenalty:
    """weight * E[(|grad D(x)| - 1)^2], x uniform on the lines between real and generated images.  Gulrajani et al. 2017, equation 3."""

    weight: float = 10.0
    every: int = 1
    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.weight >= 0, "penalty.weight", self.weight, "0 or more")
        require(self.every >= 1, "penalty.every", self.every, "1 or more")

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """weight (|grad D| - 1)^2"""
        share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
        slopes = gradients(critic, share * real + (1 - share) * fake).norm(dim=1)
        return self.weight * (slopes - 1).square().mean()


@register("penalty", "r1")
@dataclass(frozen=True, kw_only=True)
class R1:
    """gamma / 2 * E[|grad D(real)|^2].  Mescheder et al. 2018, equation 9; gamma 10 as in their experiments."""

    gamma: float = 10.0
    every: int = 1
    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.gamma >= 0, "penalty.gamma", self.gamma, "0 or more")
        require(self.every >= 1, "penalty.every", self.every, "1 or more")

    def __call__(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """gamma / 2 |grad D|^2"""
        return self.gamma / 2 * gradients(critic, real).square().sum(1).mean()
