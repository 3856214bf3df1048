"""What a job will do, found out before it starts: shapes, parameters and memory, on tensors without data."""

from __future__ import annotations

import resource
import sys
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from i2i.recipes.base import DataInfo, Recipe, set_checkpointing
from i2i.recipes.meta import build_on_meta, check_tensor_sizes
from i2i.seeding import Progress

UNKNOWN = 1 << 60           # Bytes: more than any machine has.


@dataclass(frozen=True)
class MemoryPart:
    """One module: what it is called, how many parameters it has, what goes in and comes out."""

    name: str
    parameters: int
    shapes: str


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training takes on the device that holds the networks, in one process."""

    # Parameters, buffers, their average and the optimizers' state; twice where a copy of them is written
    # beside the training.
    weights: int
    working: int        # Activations, gradients and what is in between, at their peak.
    sent: int           # Gradients that a process averages with the others in a step, all players together.

    @property
    def total(self) -> int:
        """All of it; torch itself and the kernels' scratch space come on top."""
        return self.weights + self.working


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of all tensors that are made within it and still there, each storage once, and
    remembers the most there were."""

    def __init__(self, fixed: Iterable[Tensor]) -> None:
        super().__init__()
        self.sizes = {tensor.untyped_storage()._cdata: 0 for tensor in fixed}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and (key := made.untyped_storage()._cdata) not in self.sizes:
                storage = made.untyped_storage()
                self.sizes[key] = storage.nbytes()
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self._gone, key)
        return out

    def _gone(self, key: int) -> None:
        self.bytes -= self.sizes.pop(key)


def estimate_memory(recipe: Recipe, info: DataInfo, *, batch: int, averages: bool, again: bool = False,
            held: bool = False) -> tuple[list[MemoryPart], MemoryEstimate]:
    """Run one step of the recipe on tensors without data: that of `batch` images in one process, in fp32,
    `again`: with activations computed again.

    RequestError from a network that cannot be built for this size.
    """
    modules = build_on_meta(recipe, info)
    with torch.device("meta"), check_tensor_sizes():
        data = {key: torch.empty(batch, channels, *info.size) for key,
                channels in (("a", info.a_channels), ("b", info.b_channels))}
        data["c"] = torch.empty(batch, dtype=torch.int64)
    set_checkpointing(recipe, modules, again)
    shapes: dict[str, str] = {}
    for name, module in modules.items():
        module.register_forward_hook(_track(shapes, name))
    sent = 0

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        nonlocal sent
        parameters = [p for name in recipe.players[player].modules for p in modules[name].parameters()]
        loss.backward(inputs=parameters)
        sent += sum(p.nbytes for p in parameters if p.grad is not None)
        del loss
        # Of an optimizer's step over all parameters at once.
        scratch = [torch.empty_like(p) for p in parameters]
        del scratch
        for p in parameters:
            p.grad = None

    alive = _LiveTensors([*modules.parameters(), *modules.buffers()])
    with alive, check_tensor_sizes():
        recipe.step(modules, {key: tensor.clone() for key, tensor in data.items()},
                    Progress(0, batch, batch), update)
    sizes = {name: sum(p.nbytes for p in module.parameters()) for name, module in modules.items()}
    buffers = sum(b.nbytes for b in modules.buffers())
    learned = {player: sum(sizes[name] for name in who.modules) for player, who in recipe.players.items()}
    averaged = sum(sizes[name] for name in recipe.ema_modules) if averages else 0
    parts = [MemoryPart(name, sum(p.numel() for p in module.parameters()), shapes.get(name, "")) for name,
             module in modules.items()]
    adam = 2        # Moments per parameter.
    state = sum(sizes.values()) + buffers + averaged + adam * sum(learned.values())
    # Buffers are copied at the start of each step.
    return parts, MemoryEstimate(state * (2 if held else 1) + buffers, alive.peak, sent)


def largest_batch(recipe: Recipe, info: DataInfo, room: int, below: int, **more: Any) -> int:
    """The most images, fewer than `below`, of which a step fits into so many bytes by the estimate, to one in
    eight; 0 if not even one does."""
    least, most = 0, below
    while most - least > max(1, least // 8):
        middle = (least + most) // 2
        fits = estimate_memory(recipe, info, batch=middle, **more)[1].total <= room
        least, most = (middle, most) if fits else (least, middle)
    return least


def available_memory(device: torch.device) -> int:
    """Bytes that this process can still have on a device: what is free and, of a GPU, what it holds already;
    never more than the limits of the process, its container and the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    limits = [_number("/proc/meminfo", "MemAvailable") * 1024]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft - _number("/proc/self/status", "VmSize") * 1024)
    if (most := _number("/sys/fs/cgroup/memory.max")) < UNKNOWN:
        limits.append(most - _number("/sys/fs/cgroup/memory.current"))
    return min(limits)


def _number(path: str, key: str = "") -> int:
    """The number in a file of the kernel's, behind `key:` where it has many; UNKNOWN where it is not told."""
    try:
        with open(path) as file:
            words = next(line.removeprefix(f"{key}:").split() for line in file if line.startswith(key))
        return int(words[0])
    except (OSError, StopIteration, ValueError, IndexError):
        return UNKNOWN


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is how Python, torch or an allocator says that memory is used up."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc",
             "Cannot allocate memory")
    return isinstance(error,
                      MemoryError | torch.OutOfMemoryError) or (isinstance(error, RuntimeError)
                                                                and any(word in str(error) for word in words))


def _track(shapes: dict[str, str], name: str) -> Any:
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


def format_bytes(size: float) -> str:
    """12.3 MB, 1.2 GB."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def table(parts: list[MemoryPart]) -> list[str]:
    """The parts as aligned lines."""
    wide = max(len(part.name) for part in parts)
    return [f"  {part.name:<{wide}}  {part.parameters:>12,} parameters   {part.shapes}" for part in parts]


def format_table(settings: Mapping[str, Any]) -> list[str]:
    """Settings as key = value lines."""
    wide = max(map(len, settings))
    return [f"  {key:<{wide}}  {value}" for key, value in settings.items()]
