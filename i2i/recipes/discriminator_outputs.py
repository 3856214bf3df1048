"""Discriminators with several outputs, such as one for each scale: losses are means over the outputs.

Such a discriminator returns a list of logits, and a list of the features of each output, where others return
one tensor of logits and one list of features.  Several discriminators at once return a tuple of the logits of
each, and losses are sums over them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from i2i.losses.adversarial import Adversarial
from i2i.registry import Spec, build

# (N, ...), or one such tensor for each output; of several discriminators, a tuple of either.
Logits = Tensor | list[Tensor] | tuple[Any, ...]


def mean_over_outputs(function: Callable[..., Tensor], *logits: Logits) -> Tensor:
    """The mean of `function` of the logits of each output, summed over discriminators, `()`."""
    if isinstance(logits[0], tuple):
        by_discriminator = zip(*logits, strict=True)
        return torch.stack([mean_over_outputs(function, *each) for each in by_discriminator]).sum()
    if isinstance(logits[0], Tensor):
        return function(*logits)
    return torch.stack([function(*each) for each in zip(*logits, strict=True)]).mean()


def join_logits(logits: Logits) -> Tensor:
    """The logits of all outputs.  (N, ...) each -> (N, ...)"""
    if isinstance(logits, Tensor):
        return logits
    return torch.cat([join_logits(each).flatten(1) for each in logits], 1)


def average_logits(logits: Logits) -> Tensor:
    """The mean logit of each output, of which all weigh the same; one output as it is.  -> (N, ...)"""
    if isinstance(logits, Tensor):
        return logits
    return torch.stack([average_logits(each).flatten(1).mean(1) for each in logits], 1)


def features_by_output(features: list[Any]) -> list[list[Tensor]]:
    """The features of each output: [those of the only one], or as they are."""
    return [features] if isinstance(features[0], Tensor) else features


class AdversarialOverOutputs(Adversarial):
    """An adversarial loss that takes the logits of several outputs."""

    def __init__(self, loss: Adversarial) -> None:
        self.loss = loss
        self.relativistic = loss.relativistic               # type: ignore[misc]
        self.decision_boundary = loss.decision_boundary     # type: ignore[misc]

    def d(self, real: Logits, fake: Logits) -> Tensor:
        return mean_over_outputs(self.loss.d, real, fake)

    def g(self, fake: Logits, real: Logits | None = None) -> Tensor:
        return mean_over_outputs(self.loss.g, fake, *([] if real is None else [real]))


def build_adversarial(spec: Spec) -> AdversarialOverOutputs:
    """Build an adversarial loss for discriminators with one output or several."""
    return AdversarialOverOutputs(build("adversarial", spec))
