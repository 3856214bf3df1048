"""The memory that training takes, estimated on tensors without data."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from i2i.inference.memory import LiveTensors
from i2i.inference.memory import available_memory as available_memory
from i2i.inference.memory import format_bytes as format_bytes
from i2i.inference.memory import is_out_of_memory as is_out_of_memory
from i2i.recipes.base import DataInfo, Recipe, feature_networks, get_module, set_checkpointing
from i2i.recipes.meta_device import build_on_meta, check_tensor_sizes
from i2i.seeding import Progress
from i2i.training import optimizers, schedules  # noqa: F401 - registers.
from i2i.training.flops import FlopCount

EVALUATION_BATCH = 16       # Images that are generated at once in an evaluation.
FEATURE_BYTES = 330 * 10**6     # That the feature network takes for them, loading it included: measured.
NETWORK_BYTES = 75 * 10**6      # That loading a feature network to train with takes, measured.
ADAM_MOMENTS = 2            # Numbers that Adam keeps for each parameter.


@dataclass(frozen=True)
class ModuleSummary:
    """Name and size of a network, and the shapes of its input and output."""

    name: str
    parameters: int
    shapes: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes on the device of the networks, in one process.

    Attributes:
        weights: parameters, buffers, their average and the optimizers' state, with their copies; feature
            networks that are trained with.
        state: the same without copies, which is the size of a training state on disk.
        working: activations, gradients and temporary tensors of a step, at their peak.
        evaluation: what generating and comparing images takes at its peak.
        gradients: what a process averages with others in a step.
        flops: floating-point operations of a step, from which its time is estimated.
    """

    weights: int
    state: int
    working: int
    evaluation: int
    gradients: int
    flops: int = 0

    @property
    def total(self) -> int:
        """Weights and a step or evaluation; what the process has before, such as torch, comes on top."""
        return self.weights + max(self.working, self.evaluation)


def estimate_memory(recipe: Recipe, info: DataInfo, *, batch_size: int, ema: bool,
                    gradient_checkpointing: bool = False,
                    copies: int = 0) -> tuple[list[ModuleSummary], MemoryEstimate]:
    """Run one step of a recipe in fp32 on tensors without data.  RequestError for an impossible size.

    Args:
        batch_size: images in one process.
        ema: whether an average of the generating networks is kept.
        gradient_checkpointing: whether generators recompute their activations.
        copies: how many copies of the state there are while it is written to disk.
    """
    modules = build_on_meta(recipe, info)
    set_checkpointing(recipe, modules, gradient_checkpointing)
    with torch.device("meta"), check_tensor_sizes():
        batch = {"a": torch.empty(batch_size, info.a_channels, *info.size),
                 "b": torch.empty(batch_size, info.b_channels, *info.size),
                 "c": torch.empty(batch_size, dtype=torch.int64)}
    shapes, gradients = dict[str, str](), 0

    def record_shapes(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = inputs[0], output[0] if isinstance(output, tuple) else output
        if all(isinstance(tensor, Tensor) for tensor in tensors):
            shapes.setdefault(name, " -> ".join("x".join(map(str, tensor.shape)) for tensor in tensors))

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        nonlocal gradients
        parameters = [p for name in recipe.players[player].modules for p in modules[name].parameters()]
        loss.backward(inputs=parameters)
        gradients += sum(p.nbytes for p in parameters if p.grad is not None)
        del loss
        scratch = [torch.empty_like(p) for p in parameters]     # Of a step over all parameters at once.
        del scratch
        for p in parameters:
            p.grad = None

    for name, module in modules.items():
        module.register_forward_hook(partial(record_shapes, name))
    live = LiveTensors([*modules.parameters(), *modules.buffers()])
    with live, FlopCount() as count, check_tensor_sizes():
        recipe.step(modules, {key: tensor.clone() for key, tensor in batch.items()},
                    Progress(0, batch_size, batch_size), update)
    summaries = [ModuleSummary(name, sum(p.numel() for p in module.parameters()), shapes.get(name, ""))
                 for name, module in modules.items()]
    state = _state_bytes(recipe, modules, ema)
    # The trainer keeps a copy of the buffers; feature networks are no part of the state.
    beside = sum(b.nbytes for b in modules.buffers()) + NETWORK_BYTES * len(feature_networks(recipe))
    evaluation = _generation_peak(recipe, modules, batch) + (0 if recipe.sources else FEATURE_BYTES)
    return summaries, MemoryEstimate(state * (1 + copies) + beside, state, live.peak, evaluation, gradients,
                                     count.flops)


def _state_bytes(recipe: Recipe, modules: nn.ModuleDict, ema: bool) -> int:
    sizes = {name: sum(p.nbytes for p in module.parameters()) for name, module in modules.items()}
    trained = sum(sizes[name] for player in recipe.players.values() for name in player.modules)
    averaged = sum(sizes[name] for name in recipe.ema_modules) if ema else 0
    return sum(sizes.values()) + sum(b.nbytes for b in modules.buffers()) + averaged + ADAM_MOMENTS * trained


def _generation_peak(recipe: Recipe, modules: nn.ModuleDict, batch: dict[str, Tensor]) -> int:
    """Bytes for generating the images of a batch as an evaluation does, on tensors without data."""
    live = LiveTensors([*modules.parameters(), *modules.buffers()])
    with live, check_tensor_sizes(), torch.no_grad(), torch.device("meta"):
        batch = {key: torch.empty(EVALUATION_BATCH, *tensor.shape[1:], dtype=tensor.dtype)
                 for key, tensor in batch.items()}
        if "Z" in modules:
            batch["eps"] = torch.empty(EVALUATION_BATCH, int(get_module(modules, "Z").noise_dim))
        recipe.generate(modules.eval(), batch)
    return live.peak


def largest_batch_size(recipe: Recipe, info: DataInfo, available: int, below: int, **options: Any) -> int:
    """The largest batch size below `below` that fits, to one in eight, or 0; options of `estimate_memory`."""
    low, high = 0, below
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        fits = estimate_memory(recipe, info, batch_size=middle, **options)[1].total <= available
        low, high = (middle, high) if fits else (low, middle)
    return low


def peak_memory() -> int:
    """The most bytes that this process has had in memory, or has now where the system does not remember."""
    try:        # Not ru_maxrss, which a process takes over from its parent.
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
