"""A discriminator some steps into the future, in whose eyes G sees how D would answer.  Metz et al. 2017
(arXiv:1611.02163)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from i2i.errors import require
from i2i.nets.equalized import cast_like
from i2i.registry import register

MOST = 100          # Steps; the paper has up to 10.


class _Calls(nn.Module):
    """Any method of a module as the forward that `functional_call` takes."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, method: str, *inputs: Any) -> Any:
        """The method's output."""
        return getattr(self.module, method)(*inputs)


@dataclass(frozen=True)
class At:
    """A discriminator with other parameters and buffers than its own, which stay as they are."""

    D: nn.Module
    values: Mapping[str, Tensor]

    def _call(self, method: str, *inputs: Any) -> Any:
        return functional_call(_Calls(self.D),
                               {f"module.{name}": value for name, value in self.values.items()},
                               (method, *inputs))

    def __call__(self, *inputs: Any) -> Tensor:
        """Logits."""
        return self._call("__call__", *inputs)

    def features(self, *inputs: Any) -> list[Tensor]:
        """As those of D."""
        return self._call("features", *inputs)

    def trunk(self, *inputs: Any) -> Tensor:
        """As that of D."""
        return self._call("trunk", *inputs)

    def head(self, *inputs: Any) -> Tensor:
        """As that of D."""
        return self._call("head", *inputs)


Loss = Callable[[At], Tensor]       # D's loss with these parameters -> ()
SteppedParameters = Callable[[tuple[Tensor, ...]], list[Tensor]]


@register("unrolling", "none")
class NoUnrolling(nn.Module):
    """G sees D as it is."""

    steps: ClassVar[int] = 0
    through: ClassVar[bool] = False

    def __init__(self, D: nn.Module) -> None:
        super().__init__()

    def forward(self, D: nn.Module, loss: Loss) -> At:
        """D itself"""
        return At(D, {})


@register("unrolling", "descent")
class GradientSteps(nn.Module):
    """theta_{i+1} = theta_i - lr * gradient of D's loss, `steps` times from D as it is; G's loss is that of
    the last.  Equations 7 to 9.

    `through`: G's gradient takes into account how the steps depend on G (equation 11, second term); without
    it they are given.  The steps are taken on copies, in single precision at least.  Each costs a forward and
    backward pass of D on real and generated images, through them two, and memory for the activations of all
    steps.  The paper's steps are Adam's, with the moments of D's own optimizer; see `scaled`.
    """

    def __init__(self, D: nn.Module, *, steps: int = 5, lr: float = 0.1, through: bool = True) -> None:
        super().__init__()
        require(0 <= steps <= MOST, "unrolling.steps", steps, f"0 to {MOST}")
        require(lr > 0, "unrolling.lr", lr, "more than 0")
        self.steps, self.lr, self.through = steps, lr, through

    def forward(self, D: nn.Module, loss: Loss) -> At:
        """D after the steps.  Its own parameters and buffers stay."""
        if not self.steps:
            return At(D, {})
        theta: dict[str, Tensor] = dict(D.named_parameters())
        buffers = {name: value.clone() for name, value in D.named_buffers()}
        moves = self.pace()
        for _ in range(self.steps):
            with cast_like(next(iter(theta.values()))):
                value = loss(At(D, {**theta, **buffers}))
                slopes = torch.autograd.grad(value, list(theta.values()), create_graph=self.through,
                                             materialize_grads=True)
                theta = {name: self._next(p, move) for (name, p),
                         move in zip(theta.items(), moves(slopes), strict=True)}
        return At(D, {**theta, **buffers})

    def _next(self, p: Tensor, move: Tensor) -> Tensor:
        return p - self.lr * move if self.through else (p - self.lr * move).detach().requires_grad_()

    def pace(self) -> SteppedParameters:
        """From the gradients of each step to come, in turn, to what the rate is of."""
        return list


@register("unrolling", "scaled")
class AdamSteps(GradientSteps):
    """Steps of Adam without momentum (Kingma and Ba 2015; Tieleman and Hinton 2012): gradients over the roots
    of their running mean squares.

    What is kept are the mean squares of D as it is; they go along with the steps ahead, so that none is
    longer than Adam's, and G's gradient takes them as given.  Costs two copies of D's parameters more than
    `descent`.
    """

    count: Tensor

    def __init__(self, D: nn.Module, *, steps: int = 5, lr: float = 2e-4, through: bool = True,
                 beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__(D, steps=steps, lr=lr, through=through)
        require(0 <= beta2 < 1, "unrolling.beta2", beta2, "0 or more and less than 1")
        self.beta2, self.eps = beta2, eps
        # The engine averages them over processes.
        self.shared = tuple(f"square_{i}" for i, _ in enumerate(D.parameters()))
        for name, p in zip(self.shared, D.parameters(), strict=True):
            self.register_buffer(name, torch.zeros_like(p.detach()))
        self.register_buffer("count", torch.zeros(()))

    def pace(self) -> SteppedParameters:
        """Gradients over the roots of the mean squares, of which those of the first step are kept."""
        squares, count = [getattr(self, name) for name in self.shared], 0

        def moves(slopes: tuple[Tensor, ...]) -> list[Tensor]:
            nonlocal squares, count
            with torch.no_grad():
                count += 1
                squares = [torch.lerp(square, slope.square(), 1 - self.beta2) for square,
                           slope in zip(squares, slopes, strict=True)]
                if count == 1:
                    self.count.add_(1)
                    for name, square in zip(self.shared, squares, strict=True):
                        getattr(self, name).copy_(square)
                correction = 1 - self.beta2**(self.count + count - 1)
                roots = [(square / correction).sqrt() + self.eps for square in squares]
            return [slope / root for slope, root in zip(slopes, roots, strict=True)]

        return moves
