"""What a job will do, found out before it starts: shapes, parameters and memory, on tensors without data."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from i2i.clock import Clock
from i2i.recipes.base import DataInfo, Recipe


@dataclass(frozen=True)
class Part:
    """One module: what it is called, how many parameters it has, what goes in and comes out."""

    name: str
    parameters: int
    shapes: str


@dataclass(frozen=True)
class Estimate:
    """Bytes that training takes on the device that holds the networks."""

    weights: int        # Parameters, buffers, their average and the optimisers' state.
    gradients: int      # Of the largest player.
    activations: int    # Kept for the backward pass, at their peak.

    @property
    def total(self) -> int:
        """All of it; torch itself and the kernels' scratch space come on top."""
        return self.weights + self.gradients + self.activations


class _Alive:
    """Counts the bytes that autograd holds at once, each storage once."""

    def __init__(self, fixed: set[int]) -> None:
        self.fixed, self.holders, self.bytes, self.peak = fixed, dict[int, int](), 0, 0

    def pack(self, tensor: Tensor) -> _Held:
        return _Held(tensor, self)


class _Held:
    def __init__(self, tensor: Tensor, alive: _Alive) -> None:
        self.tensor, self.alive = tensor, alive
        self.key, self.size = tensor.untyped_storage()._cdata, tensor.untyped_storage().nbytes()
        if self.key not in alive.fixed:
            alive.holders[self.key] = alive.holders.get(self.key, 0) + 1
            if alive.holders[self.key] == 1:
                alive.bytes += self.size
                alive.peak = max(alive.peak, alive.bytes)

    def __del__(self) -> None:
        if self.key in self.alive.holders:
            self.alive.holders[self.key] -= 1
            if not self.alive.holders[self.key]:
                del self.alive.holders[self.key]
                self.alive.bytes -= self.size


def inspect(recipe: Recipe, info: DataInfo, *, batch: int, averages: bool) -> tuple[list[Part], Estimate]:
    """Run one step of the recipe on tensors without data.  RequestError from a network that cannot be built for this size."""
    with torch.device("meta"):
        modules = recipe.modules(info)
        data = {key: torch.empty(batch, channels, *info.size) for key, channels in (("a", info.a_channels), ("b", info.b_channels))}
        data["c"] = torch.empty(batch, dtype=torch.int64)
    shapes: dict[str, str] = {}
    for name, module in modules.items():
        module.register_forward_hook(_remember(shapes, name))
    fixed = {tensor.untyped_storage()._cdata for tensor in [*modules.parameters(), *modules.buffers(), *data.values()]}
    alive = _Alive(fixed)

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        parameters = [p for name in recipe.players[player].modules for p in modules[name].parameters()]
        loss.backward(inputs=parameters)
        for p in parameters:
            p.grad = None

    with torch.autograd.graph.saved_tensors_hooks(alive.pack, lambda held: held.tensor):
        recipe.step(modules, data, Clock(0, batch, batch), update)
    sizes = {name: sum(p.nbytes for p in module.parameters()) for name, module in modules.items()}
    buffers = sum(b.nbytes for b in modules.buffers())
    learnt = {player: sum(sizes[name] for name in who.modules) for player, who in recipe.players.items()}
    averaged = sum(sizes[name] for name in recipe.averaged) if averages else 0
    parts = [Part(name, sum(p.numel() for p in module.parameters()), shapes.get(name, "")) for name, module in modules.items()]
    adam = 2        # Moments per parameter.
    estimate = Estimate(sum(sizes.values()) + buffers + averaged + adam * sum(learnt.values()), max(learnt.values()), alive.peak)
    return parts, estimate


def _remember(shapes: dict[str, str], name: str) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        made = output[0] if isinstance(output, tuple) else output
        if isinstance(inputs[0], Tensor) and isinstance(made, Tensor):
            shapes.setdefault(name, f"{_shape(inputs[0])} -> {_shape(made)}")
    return hook


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def peak_memory() -> int:
    """Bytes this process has held at most so far."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def size_in_words(size: float) -> str:
    """12.3 MB, 1.2 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def table(parts: list[Part]) -> list[str]:
    """The parts as aligned lines."""
    wide = max(len(part.name) for part in parts)
    return [f"  {part.name:<{wide}}  {part.parameters:>12,} parameters   {part.shapes}" for part in parts]


def as_lines(settings: Mapping[str, Any]) -> list[str]:
    """Settings as key = value lines."""
    wide = max(map(len, settings))
    return [f"  {key:<{wide}}  {value}" for key, value in settings.items()]
