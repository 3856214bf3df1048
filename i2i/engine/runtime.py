"""Devices, processes and precision.  The one file that knows Accelerate; networks are never wrapped."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce
from torch import Tensor, nn

from i2i.errors import RequestError

T = TypeVar("T")
BUCKET = 25 * 2**20     # Bytes of gradients averaged in one message, as DistributedDataParallel.


class Runtime:
    """The device and process group this run has."""

    def __init__(self, *, precision: str = "fp32", device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda", "mps"):
            raise RequestError(f"--device {device} is not known; accepted: auto, cpu, cuda, mps")
        if (device == "cuda" and not torch.cuda.is_available()) or (device == "mps" and not torch.backends.mps.is_available()):
            raise RequestError(f"--device {device}: this machine or this build of torch has none; accepted: auto, cpu")
        self._state = PartialState(cpu=device == "cpu")
        self.device = torch.device("cpu") if device == "cpu" else self._state.device
        self.rank: int = self._state.process_index
        self.world: int = self._state.num_processes
        self._bf16 = precision == "bf16"
        if self.world > 1:
            atexit.register(self._state.destroy_process_group)      # A process that leaves its group open may abort on its way out.

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which a recipe's step runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def barrier(self) -> None:
        """Wait for all processes."""
        self._state.wait_for_everyone()

    def first(self, text: str) -> str:
        """The leading process's text, in all processes."""
        return str(broadcast_object_list([text])[0]) if self.world > 1 else text

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers, in all of them."""
        if self.world == 1:
            return number
        everyone = torch.zeros(self.world, device=self.device)
        everyone[self.rank] = number
        return int(reduce(everyone, reduction="sum").max())

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """The tensors of the processes that do not lead, by rank; all processes must ask."""
        if self.world == 1:
            return {}
        everyone: dict[int, dict[str, Tensor]] = {rank: {} for rank in range(1, self.world)}
        for name, tensor in tensors.items():
            for rank, value in enumerate(gather(tensor[None]).unbind()):
                if rank:
                    everyone[rank][name] = value
        return everyone

    def collect(self, items: list[T]) -> list[T]:
        """Every process's items, in all of them; all must ask."""
        return list(gather_object(items)) if self.world > 1 else items

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over processes."""
        return reduce(value, reduction="mean") if self.world > 1 else value

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over processes.  Which gradients are None must not depend on the process."""
        if self.world == 1:
            return
        for bucket in _buckets([p for p in parameters if p.grad is not None]):
            flat = reduce(torch.cat([p.grad.flatten() for p in bucket if p.grad is not None]), reduction="mean")
            for p, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = gradient.view_as(p)


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
