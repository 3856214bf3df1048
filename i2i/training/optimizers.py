"""Optimizers and learning rate schedules by name."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from i2i.errors import require
from i2i.registry import register
from i2i.seeding import Progress

Schedule = Callable[[Progress], float]      # The factor of the base rate, by position in the run.


@register("optimizer", "adam")
def adam(parameters: Iterable[nn.Parameter], *, lr: float = 2e-4, beta1: float = 0.5, beta2: float = 0.999,
         eps: float = 1e-8, weight_decay: float = 0.0, fused: bool = True) -> torch.optim.Optimizer:
    """Kingma and Ba 2015; beta1 0.5 as Radford et al. 2016.  `fused`: one kernel instead of a dozen."""
    _check(lr, eps, weight_decay, beta1=beta1, beta2=beta2)
    return torch.optim.Adam(parameters, lr, (beta1, beta2), eps, weight_decay, fused=fused)


@register("optimizer", "adamw")
def adamw(parameters: Iterable[nn.Parameter], *, lr: float = 2e-4, beta1: float = 0.5, beta2: float = 0.999,
          eps: float = 1e-8, weight_decay: float = 0.01, fused: bool = True) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay.  Loshchilov and Hutter 2019."""
    _check(lr, eps, weight_decay, beta1=beta1, beta2=beta2)
    return torch.optim.AdamW(parameters, lr, (beta1, beta2), eps, weight_decay, fused=fused)


@register("optimizer", "rmsprop")
def rmsprop(parameters: Iterable[nn.Parameter], *, lr: float = 5e-5, alpha: float = 0.99,
            eps: float = 1e-8) -> torch.optim.Optimizer:
    """Tieleman and Hinton 2012; the learning rate is that of Arjovsky et al. 2017, algorithm 1."""
    _check(lr, eps, alpha=alpha)
    return torch.optim.RMSprop(parameters, lr, alpha, eps, foreach=True)


def _check(lr: float, eps: float, weight_decay: float = 0.0, **decay_rates: float) -> None:
    require(lr > 0, "optimizer.lr", lr, "more than 0")
    require(eps > 0, "optimizer.eps", eps, "more than 0")
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "0 or more")
    for name, rate in decay_rates.items():
        require(0 <= rate < 1, f"optimizer.{name}", rate, "0 or more and less than 1")


@register("schedule", "constant")
def constant() -> Schedule:
    """Constant learning rate."""
    return lambda progress: 1.0


@register("schedule", "linear")
def linear(*, start: float = 0.5) -> Schedule:
    """Constant until `start` (a share of the run), then linear decay to zero (Isola et al. 2017)."""
    require(0 <= start < 1, "schedule.start", start, "0 or more and less than 1")
    return lambda progress: min(1.0, (1.0 - progress.fraction) / (1.0 - start))
