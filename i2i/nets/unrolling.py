"""Unrolled discriminator updates: G is trained against D after some further steps.  Metz et al. 2017
(arXiv:1611.02163)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from i2i.errors import require
from i2i.nets.precision import fp32_island
from i2i.registry import register

MAX_STEPS = 100     # The paper has up to 10.


class _MethodCall(nn.Module):
    """Any method of a module as a `forward`, for `functional_call`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *inputs: Any) -> Any:
        return getattr(self.module, method)(*inputs)


@dataclass(frozen=True)
class FunctionalDiscriminator:
    """A discriminator with other parameters and buffers (`values`) than its own, which it does not change."""

    D: nn.Module
    values: Mapping[str, Tensor]

    def _call(self, method: str, *inputs: Any) -> Any:
        values = {f"module.{name}": value for name, value in self.values.items()}
        return functional_call(_MethodCall(self.D), values, (method, *inputs))

    def __call__(self, *inputs: Any) -> Tensor:
        return self._call("__call__", *inputs)

    def features(self, *inputs: Any) -> list[Tensor]:
        """`D.features` with these values."""
        return self._call("features", *inputs)

    def trunk(self, *inputs: Any) -> Tensor:
        """`D.trunk` with these values."""
        return self._call("trunk", *inputs)

    def head(self, *inputs: Any) -> Tensor:
        """`D.head` with these values."""
        return self._call("head", *inputs)


Loss = Callable[[FunctionalDiscriminator], Tensor]
UpdateRule = Callable[[tuple[Tensor, ...]], list[Tensor]]       # Gradients -> directions, for one step at a time.


@register("unrolling", "none")
class NoUnrolling(nn.Module):
    """No unrolling: G is trained against the current D."""

    steps: ClassVar[int] = 0
    second_order: ClassVar[bool] = False

    def __init__(self, D: nn.Module) -> None:
        super().__init__()

    def forward(self, D: nn.Module, loss: Loss) -> FunctionalDiscriminator:
        return FunctionalDiscriminator(D, {})


@register("unrolling", "sgd")
class UnrolledSGD(nn.Module):
    """Unrolled steps of gradient descent: theta_{i+1} = theta_i - lr * gradient of D's loss.  Metz et al. 2017,
    equations 7 to 9.

    `second_order`: G's gradient includes how the steps depend on G (equation 11, second term).  Steps are
    taken on copies, in single precision.  Each costs a forward and backward pass of D on real and generated
    images, two with `second_order`, and memory for the activations of all steps.  The paper's steps are those
    of Adam; see `adam`.
    """

    def __init__(self, D: nn.Module, *, steps: int = 5, lr: float = 0.1, second_order: bool = True) -> None:
        super().__init__()
        require(0 <= steps <= MAX_STEPS, "unrolling.steps", steps, f"0 to {MAX_STEPS}")
        require(lr > 0, "unrolling.lr", lr, "more than 0")
        self.steps, self.lr, self.second_order = steps, lr, second_order

    def forward(self, D: nn.Module, loss: Loss) -> FunctionalDiscriminator:
        """D after the steps.

        Args:
            D: the discriminator; its parameters and buffers are not changed.
            loss: D's loss, a scalar, as a function of a discriminator.
        """
        if not self.steps:
            return FunctionalDiscriminator(D, {})
        theta: dict[str, Tensor] = dict(D.named_parameters())
        buffers = {name: value.clone() for name, value in D.named_buffers()}
        rule = self.update_rule()
        for _ in range(self.steps):
            with fp32_island(next(iter(theta.values()))):
                value = loss(FunctionalDiscriminator(D, {**theta, **buffers}))
                gradients = torch.autograd.grad(value, list(theta.values()), create_graph=self.second_order,
                                                materialize_grads=True)
                updated = [p - self.lr * direction
                           for p, direction in zip(theta.values(), rule(gradients), strict=True)]
                if not self.second_order:
                    updated = [p.detach().requires_grad_() for p in updated]
                theta = dict(zip(theta, updated, strict=True))
        return FunctionalDiscriminator(D, {**theta, **buffers})

    def update_rule(self) -> UpdateRule:
        """Directions from the gradients of consecutive steps."""
        return list


@register("unrolling", "adam")
class UnrolledAdam(UnrolledSGD):
    """Unrolled steps of Adam with beta1 = 0: gradients divided by the root of their running mean squares.  Metz
    et al. 2017; Kingma and Ba 2015.

    The mean squares of the current D are kept from step to step; those of the unrolled steps start from them,
    and are constants in G's gradient.  Costs two more copies of D's parameters than `sgd`.
    """

    count: Tensor

    def __init__(self, D: nn.Module, *, steps: int = 5, lr: float = 2e-4, second_order: bool = True,
                 beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(D, steps=steps, lr=lr, second_order=second_order)
        require(0 <= beta2 < 1, "unrolling.beta2", beta2, "0 or more and less than 1")
        self.beta2, self.eps = beta2, eps
        self.synced_buffers = tuple(f"square_{i}" for i, _ in enumerate(D.parameters()))
        for name, p in zip(self.synced_buffers, D.parameters(), strict=True):
            self.register_buffer(name, torch.zeros_like(p.detach()))
        self.register_buffer("count", torch.zeros(()))

    def update_rule(self) -> UpdateRule:
        squares, count = [getattr(self, name) for name in self.synced_buffers], 0

        @torch.no_grad()
        def roots(gradients: tuple[Tensor, ...]) -> list[Tensor]:
            nonlocal squares, count
            count += 1
            squares = [torch.lerp(square, gradient.square(), 1 - self.beta2)
                       for square, gradient in zip(squares, gradients, strict=True)]
            if count == 1:      # The step of the current D.
                self.count.add_(1)
                for name, square in zip(self.synced_buffers, squares, strict=True):
                    getattr(self, name).copy_(square)
            correction = 1 - self.beta2**(self.count + count - 1)
            return [(square / correction).sqrt() + self.eps for square in squares]

        return lambda gradients: [gradient / root
                                  for gradient, root in zip(gradients, roots(gradients), strict=True)]
