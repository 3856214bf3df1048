"""Gradient checkpointing: recompute activations in the backward pass.  Chen et al. 2016 (arXiv:1604.06174).

The engine sets the attribute `gradient_checkpointing` of networks.  Results are bit-identical.
"""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class RestoredBuffers:
    """Context in which modules have the buffers of the first forward pass.

    The second forward pass thus sees the same running statistics and singular vectors and updates nothing
    twice.  It can be entered several times, as gradient penalties do a double backward.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        self.saved = [(module._buffers, _clone(module._buffers)) for module in modules if module._buffers]
        self.current: list[dict[str, Tensor | None]] = []

    def __enter__(self) -> None:
        self.current = [dict(buffers) for buffers, _ in self.saved]
        for buffers, saved in self.saved:
            buffers.update(_clone(saved))

    def __exit__(self, *error: object) -> None:
        for (buffers, _), current in zip(self.saved, self.current, strict=True):
            buffers.update(current)


def _clone(buffers: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if b is None else b.clone() for name, b in buffers.items()}


def checkpoint_stage(network: Any, function: Callable[..., Any], *inputs: Any) -> Any:
    """Call `function(*inputs)`, storing only the inputs for the backward pass if the network is set to.

    `function` is a module, or is passed all modules that it uses.
    """
    if not (network.gradient_checkpointing and network.training and torch.is_grad_enabled()):
        return function(*inputs)
    buffers = RestoredBuffers([inner for module in (function, *inputs) if isinstance(module, nn.Module)
                               for inner in module.modules()])
    return checkpoint(function, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), buffers))


def checkpoint_sequential(network: Any, layers: nn.Sequential, ends: tuple[type[nn.Module], ...],
                          x: Tensor) -> Tensor:
    """Apply `layers` with checkpointed stages, each of which ends with a layer of the types `ends`."""
    if not network.gradient_checkpointing:
        return layers(x)
    cuts = [i + 1 for i, layer in enumerate(layers) if isinstance(layer, ends)]
    for start, end in pairwise([0, *cuts, len(layers)]):
        x = checkpoint_stage(network, layers[start:end], x)
    return x
