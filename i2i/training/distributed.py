"""Devices, processes and precision.  The one file that knows Accelerate; networks are never wrapped."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce
from torch import Tensor, nn

from i2i.errors import JobError, RequestError
from i2i.inference.device import best_device, num_launched

T = TypeVar("T")
BUCKET = 25 * 2**20     # Bytes of gradients averaged in one message, as DistributedDataParallel.


class Runtime:
    """The device and process group this run has."""

    def __init__(self, *, precision: str = "fp32", device: str = "auto", threads: int = 0,
                 tf32: bool = False) -> None:
        chosen = best_device(device)
        # Without cpu=True it makes no group of processes where there is no GPU.
        self._state = PartialState(cpu=chosen.type == "cpu")
        # The state is made once for a process; with a GPU it knows which one is this process's.
        self.device = self._state.device if self._state.device.type == chosen.type else chosen
        self.rank: int = self._state.process_index
        self.world_size: int = self._state.num_processes
        if self.world_size < num_launched():
            raise JobError(f"a launcher started {num_launched()} processes, which did not become one job on "
                           f"{self.device.type}: "
                           "each would do all the work; accepted: --device cpu, or one process")
        self._bf16 = precision == "bf16"
        # Torch's own default is true for convolutions.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        if threads:
            torch.set_num_threads(threads)
        if self.world_size > 1:
            # A process that leaves its group open may abort on its way out.
            atexit.register(self._state.destroy_process_group)

    @property
    def local_world_size(self) -> int:
        """How many processes of this job are on this machine, this one among them."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a recipe's step runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Where all processes have to come to.  JobError if one has ended: its own last line says why."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise JobError(f"another process of this job has ended, and its own last line says why; process "
                           f"{self.rank} of {self.world_size} "
                           f"cannot go on alone ({' '.join(str(error).split())[:120]})") from None

    def barrier(self) -> None:
        """Wait for all processes."""
        with self._meeting():
            self._state.wait_for_everyone()

    def broadcast(self, item: T) -> T:
        """The leading process's item, in all processes."""
        if self.world_size == 1:
            return item
        with self._meeting():
            return cast(T, broadcast_object_list([item])[0])

    def gather_objects(self, item: T) -> list[T]:
        """Every process's item, by rank, in the leading process; nothing in the others.  All must ask."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size if self.is_main_process else []
        with self._meeting():
            torch.distributed.gather_object(item, items if self.is_main_process else None)
        return items

    def check_same(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """JobError names the first tensor that has not the same bits in all processes; all must ask."""
        if self.world_size == 1:
            return
        pairs = list(named)
        with self._meeting():
            sums = gather(torch.stack([_bits(tensor) for _, tensor in pairs])[None])
        for (name, _), each in zip(pairs, sums.unbind(1), strict=True):
            for rank in (each != each[0]).nonzero().flatten().tolist()[:1]:
                raise JobError(f"{name} differs between processes 0 and {rank} {when}: something that is "
                               "learned depends on the process; "
                               "nothing was written")

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers, in all of them."""
        if self.world_size == 1:
            return number
        everyone = torch.zeros(self.world_size, device=self.device)
        everyone[self.rank] = number
        with self._meeting():
            return int(reduce(everyone, reduction="sum").max())

    def gather_tensors(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """The tensors of the processes that do not lead, by rank; all processes must ask."""
        if self.world_size == 1:
            return {}
        everyone: dict[int, dict[str, Tensor]] = {rank: {} for rank in range(1, self.world_size)}
        for name, tensor in tensors.items():
            with self._meeting():
                values = gather(tensor[None]).unbind()
            for rank, value in enumerate(values):
                if rank:
                    everyone[rank][name] = value
        return everyone

    def all_gather_objects(self, items: list[T]) -> list[T]:
        """Every process's items, in all of them; all must ask."""
        if self.world_size == 1:
            return items
        with self._meeting():
            return list(gather_object(items))

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over processes."""
        if self.world_size == 1:
            return value
        with self._meeting():
            return reduce(value, reduction="mean")

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over processes.  Which gradients are None must not depend on the
        process."""
        if self.world_size == 1:
            return
        for bucket in _buckets([p for p in parameters if p.grad is not None]):
            flat = torch.cat([p.grad.flatten() for p in bucket if p.grad is not None])
            with self._meeting():
                flat = reduce(flat, reduction="mean")
            for p, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                # In the parameter's memory format, as fused optimizers need it.
                p.grad = torch.empty_like(p).copy_(gradient.view_as(p))


def compile_networks(modules: nn.ModuleDict, names: Iterable[str], device: torch.device) -> None:
    """Have torch.compile take these modules, in place, so that the names of their states stay.  RequestError
    if it does not work here.

    Each shape gets code of its own: with shapes left open, the code would depend on which came first, and a
    resumed run might see another first.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()),
                      type(error).__name__)
        raise RequestError(f"train.compile=true: torch.compile does not work here ({reason}); accepted: "
                           "false, or a compiler for it") from None
    for name in names:
        modules[name].compile(dynamic=False)


def _bits(tensor: Tensor) -> Tensor:
    """The sum of a tensor's bits, taken as whole numbers, over 2^64.  -> (), int64"""
    flat = tensor.detach().flatten()
    return flat.view(torch.uint8 if flat.element_size() % 4 else torch.int32).sum(dtype=torch.int64)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for p in parameters:
        if bucket and size + p.nbytes > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.nbytes
    if bucket:
        yield bucket
