"""Unrolling: show G how D would respond to it.  Metz et al. 2017 (arXiv:1611.02163)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32
from i2i.recipes.base import get_module
from i2i.recipes.discriminator_outputs import AdversarialOverOutputs
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.registry import Spec, build, register

MAX_STEPS = 100         # The paper has up to 10.
DiscriminatorLoss = Callable[[DiscriminatorView], Tensor]
Preconditioner = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Steps = Annotated[int, Doc(f"Unrolled steps of D, 0 to {MAX_STEPS}")]
LearningRate = Annotated[float, Doc("Learning rate of the unrolled steps")]
SecondOrder = Annotated[bool, Doc(
    "G's gradient includes how the steps depend on G (equation 11, second term): twice the cost, and the "
    "activations of all steps in memory")]


def build_unrolling(unrolling: Spec, D: nn.Module, penalty: Spec) -> nn.Module:
    """Build the unrolling of D.  RequestError together with a penalty."""
    U: nn.Module = build("unrolling", unrolling, D)
    require(penalty.name == "none" or not getattr(U, "steps", 0), "unrolling", unrolling.name,
            "none with a penalty: the unrolled steps descend the adversarial loss alone, and the gradient of "
            "a penalty would be differentiated a third time")
    return U


def unrolled(m: nn.ModuleDict, D: DiscriminatorView, adversarial: AdversarialOverOutputs, real: Tensor,
             fake: Tensor) -> DiscriminatorView:
    """D as G sees it: after the steps of `m["U"]` against these images, or as it is."""
    U = get_module(m, "U")
    real, fake = to_float32(real), to_float32(fake if U.second_order else fake.detach())
    view: DiscriminatorView = U(D, lambda D: adversarial.d(D(real), D(fake)))
    return view


@register("unrolling", "none")
class NoUnrolling(nn.Module):
    """G sees D as it is."""

    second_order: ClassVar[bool] = False

    def __init__(self, D: nn.Module) -> None:
        super().__init__()

    def forward(self, D: DiscriminatorView, loss: DiscriminatorLoss) -> DiscriminatorView:
        return D


@register("unrolling", "sgd")
class UnrolledSGD(nn.Module):
    """Steps of gradient descent on D's loss from the current D; G's loss is evaluated at the last.

    Steps are taken on copies, in single precision or higher.  Each costs a forward and backward pass of D on
    real and generated images.  The paper has Adam's steps; see `adam`.
    """

    def __init__(self, D: nn.Module, *, steps: Steps = 5, lr: LearningRate = 0.1,
                 second_order: SecondOrder = True) -> None:
        super().__init__()
        require(0 <= steps <= MAX_STEPS, "unrolling.steps", steps, f"0 to {MAX_STEPS}")
        require(lr > 0, "unrolling.lr", lr, "more than 0")
        self.steps, self.lr, self.second_order = steps, lr, second_order

    def forward(self, D: DiscriminatorView, loss: DiscriminatorLoss) -> DiscriminatorView:
        """D after the steps; its own parameters and buffers do not change."""
        if not self.steps:
            return D
        parameters: dict[str, Tensor] = dict(D.network.named_parameters())
        buffers = {name: value.clone() for name, value in D.network.named_buffers()}
        precondition = self.preconditioner()
        for _ in range(self.steps):
            with fp32_island(next(iter(parameters.values()))):
                value = loss(replace(D, state={**parameters, **buffers}))
                gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True,
                                                create_graph=self.second_order)
                steps = zip(parameters.values(), precondition(gradients), strict=True)
                after = [p - self.lr * direction for p, direction in steps]
                if not self.second_order:
                    after = [p.detach().requires_grad_() for p in after]
                parameters = dict(zip(parameters, after, strict=True))
        return replace(D, state={**parameters, **buffers})

    def preconditioner(self) -> Preconditioner:
        """A function called with the gradients of each step in turn, which returns the step's directions."""
        return list


@register("unrolling", "adam")
class UnrolledAdam(UnrolledSGD):
    """Steps of Adam without momentum (Kingma and Ba 2015): gradients over root mean squares.

    The buffers hold the mean squares of the current D.  The unrolled steps continue them, so that no step is
    longer than Adam's, and G's gradient treats them as constants.  Costs two more copies of D.
    """

    count: Tensor

    def __init__(self, D: nn.Module, *, steps: Steps = 5, lr: LearningRate = 2e-4,
                 second_order: SecondOrder = True,
                 beta2: Annotated[float, Doc("Decay rate of the mean squared gradient")] = 0.999,
                 eps: Annotated[float, Doc("Added to the divisor of the gradient")] = 1e-8) -> None:
        super().__init__(D, steps=steps, lr=lr, second_order=second_order)
        require(0 <= beta2 < 1, "unrolling.beta2", beta2, "0 or more and less than 1")
        self.beta2, self.eps = beta2, eps
        # Averaged over processes by the engine.
        self.synced_buffers = tuple(f"square_{i}" for i, _ in enumerate(D.parameters()))
        for name, p in zip(self.synced_buffers, D.parameters(), strict=True):
            self.register_buffer(name, torch.zeros_like(p.detach()))
        self.register_buffer("count", torch.zeros(()))

    def preconditioner(self) -> Preconditioner:
        squares, steps = [getattr(self, name) for name in self.synced_buffers], 0

        def precondition(gradients: Sequence[Tensor]) -> list[Tensor]:
            nonlocal squares, steps
            with torch.no_grad():
                steps += 1
                squares = [torch.lerp(square, gradient.square(), 1 - self.beta2)
                           for square, gradient in zip(squares, gradients, strict=True)]
                if steps == 1:      # The buffers track the current D.
                    self.count.add_(1)
                    for name, square in zip(self.synced_buffers, squares, strict=True):
                        getattr(self, name).copy_(square)
                correction = 1 - self.beta2**(self.count + steps - 1)
                roots = [(square / correction).sqrt() + self.eps for square in squares]
            return [gradient / root for gradient, root in zip(gradients, roots, strict=True)]

        return precondition
