"""Optimizers by name."""

from collections.abc import Iterable
from typing import Annotated

import torch
from torch import nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import register

LearningRate = Annotated[float, Doc("Learning rate")]
Beta1 = Annotated[float, Doc("Decay rate of the mean gradient")]
Beta2 = Annotated[float, Doc("Decay rate of the mean squared gradient")]
Epsilon = Annotated[float, Doc("Added to the divisor, the root of the mean squared gradient")]
WeightDecay = Annotated[float, Doc("Weight decay")]
Fused = Annotated[bool, Doc("Use torch's fused implementation")]


@register("optimizer", "adam")
def adam(parameters: Iterable[nn.Parameter], *, lr: LearningRate = 2e-4, beta1: Beta1 = 0.5,
         beta2: Beta2 = 0.999, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.0,
         fused: Fused = True) -> torch.optim.Optimizer:
    """Adam.  Kingma and Ba 2015; beta1 0.5 as Radford et al. 2016."""
    _check(lr, eps, weight_decay, beta1=beta1, beta2=beta2)
    return torch.optim.Adam(parameters, lr, (beta1, beta2), eps, weight_decay, fused=fused)


@register("optimizer", "adamw")
def adamw(parameters: Iterable[nn.Parameter], *, lr: LearningRate = 2e-4, beta1: Beta1 = 0.5,
          beta2: Beta2 = 0.999, eps: Epsilon = 1e-8, weight_decay: WeightDecay = 0.01,
          fused: Fused = True) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay.  Loshchilov and Hutter 2019."""
    _check(lr, eps, weight_decay, beta1=beta1, beta2=beta2)
    return torch.optim.AdamW(parameters, lr, (beta1, beta2), eps, weight_decay, fused=fused)


@register("optimizer", "rmsprop")
def rmsprop(parameters: Iterable[nn.Parameter], *, lr: LearningRate = 5e-5, alpha: Beta2 = 0.99,
            eps: Epsilon = 1e-8) -> torch.optim.Optimizer:
    """RMSprop.  Tieleman and Hinton 2012; the learning rate is that of Arjovsky et al. 2017, algorithm 1."""
    _check(lr, eps, alpha=alpha)
    return torch.optim.RMSprop(parameters, lr, alpha, eps, foreach=True)


def _check(lr: float, eps: float, weight_decay: float = 0.0, **decay_rates: float) -> None:
    require(lr > 0, "optimizer.lr", lr, "more than 0")
    require(eps > 0, "optimizer.eps", eps, "more than 0")
    require(weight_decay >= 0, "optimizer.weight_decay", weight_decay, "0 or more")
    for name, rate in decay_rates.items():
        require(0 <= rate < 1, f"optimizer.{name}", rate, "0 or more and less than 1")
