"""Activations that are computed again in the backward pass instead of being kept until then: Chen et al.
2016, arXiv:1604.06174, section 4.

A network that has stages carries `recompute`, which the engine sets.  What it computes does not change by a
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils.checkpoint import checkpoint


class RestoredState:
    """Within it, modules have the buffers of the forward pass (running statistics, singular vectors), so that
    the second forward sees what the first saw and moves nothing twice, in the same modes, which torch leaves
    for a backward pass.  May be entered again: a penalty on gradients goes backward twice."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.before = [(module._buffers,
                        {name: None if b is None else b.clone() for name, b in module._buffers.items()})
                       for module in modules if module._buffers]
        self.now: list[dict[str, Tensor | None]] = []
        self.modes, self.entered = _get_current_function_mode_stack(), ExitStack()

    def __enter__(self) -> None:
        self.now = [dict(buffers) for buffers, _ in self.before]
        for buffers, before in self.before:
            buffers.update({name: None if b is None else b.clone() for name, b in before.items()})
        for mode in self.modes[len(_get_current_function_mode_stack()):]:
            self.entered.enter_context(mode)

    def __exit__(self, *error: object) -> None:
        self.entered.close()
        for (buffers, _), now in zip(self.before, self.now, strict=True):
            buffers.update(now)


def checkpointed(network: Any, run: Callable[..., Any], *inputs: Any) -> Any:
    """run(*inputs), of which, where the network is to recompute, only the inputs are kept for the backward
    pass.

    `run` is a module, or is given all modules that it uses among the inputs.  Its random numbers are drawn
    again as they were.
    """
    if not (network.recompute and network.training and torch.is_grad_enabled()):
        return run(*inputs)
    before = RestoredState([inner for module in (run, *inputs) if isinstance(module, nn.Module)
                            for inner in module.modules()])

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), before

    return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts)


def run_stages(network: Any, layers: nn.Sequential, ends: tuple[type[nn.Module], ...], x: Tensor) -> Tensor:
    """All layers one after the other; a stage ends after each layer of these types.  NCHW -> NC'H'W'"""
    if not network.recompute:
        return layers(x)
    places = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, ends)]
    for first, end in pairwise([0, *places, len(layers)]):
        x = checkpointed(network, layers[first:end], x)
    return x
