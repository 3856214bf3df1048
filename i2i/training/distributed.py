"""Devices, processes and precision.  The only module that uses Accelerate; networks are never wrapped."""

import atexit
import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, gather_object, reduce
from torch import Tensor, nn

from i2i.errors import JobError, RequestError
from i2i.inference.device import best_device, num_launched
from i2i.training.config import TrainConfig

T = TypeVar("T")
BUCKET_BYTES = 25 * 2**20       # Gradients averaged in one message, as in DistributedDataParallel.


class Runtime:
    """The device and the process group of a run.  Collective methods must be called by all processes."""

    def __init__(self, *, precision: str = "fp32", device: str = "auto", threads: int = 0,
                 tf32: bool = False) -> None:
        chosen = best_device(device)
        if num_launched() > 1:
            # Imported later, its functions would hold the group in their default arguments, and the group's
            # threads would live until Python's end, where they may abort the process.
            importlib.import_module("torch.distributed.nn.functional")
        # Without cpu=True there would be no process group where there is no GPU.
        self._state = PartialState(cpu=chosen.type == "cpu")
        # A singleton, perhaps made for another device; with GPUs it knows which one is this process's.
        self.device = self._state.device if self._state.device.type == chosen.type else chosen
        self.rank: int = self._state.process_index
        self.world_size: int = self._state.num_processes
        if self.world_size < num_launched():
            raise JobError(f"a launcher started {num_launched()} processes, which did not become one job on "
                           f"{self.device.type}; accepted: --device cpu, or one process")
        self._bf16 = precision == "bf16"
        self._copies = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        # Torch's own default is true for convolutions.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        if threads:
            torch.set_num_threads(threads)
        if self.world_size > 1:     # A process that leaves its group open may abort at exit.
            atexit.register(self._state.destroy_process_group)

    @classmethod
    def for_config(cls, config: TrainConfig, device: str) -> "Runtime":
        """What the settings of a run and the device that was requested make."""
        return cls(precision=config.precision, device=device, threads=config.threads, tf32=config.tf32)

    @property
    def local_world_size(self) -> int:
        """Number of processes of this job on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.world_size))

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which a recipe's step runs."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    def to_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device.

        On a GPU a stream of its own copies it, so that the step before, which the host has only launched, is
        computed meanwhile; what this process launches next waits for the copy.
        """
        with torch.cuda.stream(self._copies) if self._copies else nullcontext():
            moved = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        if self._copies:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._copies)
            for value in moved.values():
                value.record_stream(computing)      # Its memory is not free before the step has used it.
        return moved

    @contextmanager
    def collective(self) -> Iterator[None]:
        """JobError if another process has ended."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise JobError("another process of this job has ended, and its own last line says why; process "
                           f"{self.rank} of {self.world_size} cannot go on alone "
                           f"({' '.join(str(error).split())[:120]})") from None

    def barrier(self) -> None:
        """Wait for all processes."""
        with self.collective():
            self._state.wait_for_everyone()

    def broadcast(self, item: T) -> T:
        """Rank 0's item."""
        with self.collective():
            return cast(T, broadcast_object_list([item])[0])

    def gather_objects(self, item: T) -> list[T]:
        """All items by rank, in rank 0; an empty list in the others."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size if self.is_main_process else []
        with self.collective():
            torch.distributed.gather_object(item, items if self.is_main_process else None)
        return items

    def all_gather_objects(self, items: list[T]) -> list[T]:
        """The items of all processes in one list."""
        with self.collective():
            return list(gather_object(items))

    def gather_tensors(self, tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """Rank -> tensors, of all ranks but 0."""
        others: dict[int, dict[str, Tensor]] = {rank: {} for rank in range(1, self.world_size)}
        for name, tensor in tensors.items() if others else ():
            with self.collective():
                _, *values = gather(tensor[None]).unbind()
            for rank, value in enumerate(values, 1):
                others[rank][name] = value
        return others

    def all_reduce_max(self, number: int) -> int:
        """All-reduce with max."""
        if self.world_size == 1:
            return number
        numbers = torch.zeros(self.world_size, device=self.device)
        numbers[self.rank] = number
        with self.collective():
            return int(reduce(numbers, reduction="sum").max())

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """All-reduce with mean."""
        if self.world_size == 1:
            return value
        with self.collective():
            return reduce(value, reduction="mean")

    def check_same(self, named: Iterable[tuple[str, Tensor]], when: str) -> None:
        """JobError with the name of the first tensor that does not have the same bits in all processes."""
        if self.world_size == 1:
            return
        pairs = list(named)
        with self.collective():
            sums = gather(torch.stack([_bit_sum(tensor) for _, tensor in pairs])[None])
        for (name, _), by_rank in zip(pairs, sums.unbind(1), strict=True):
            for rank in (by_rank != by_rank[0]).nonzero().flatten().tolist()[:1]:
                raise JobError(f"{name} differs between processes 0 and {rank} {when}: something that is "
                               "learned depends on the process; nothing was written")


class GradientBuckets:
    """Backward passes that leave the mean of each gradient over processes.

    Buckets are sent while the pass computes others, as in DistributedDataParallel (Li et al. 2020,
    arXiv:2006.15704): the last parameters first, in the same order in all processes.
    """

    def __init__(self, runtime: Runtime, parameters: list[nn.Parameter]) -> None:
        self.runtime, self.parameters = runtime, parameters
        self._buckets: list[list[nn.Parameter]] = []
        self._missing: list[int] = []           # Gradients that each bucket waits for.
        self._sent: list[tuple[Tensor, Any]] = []           # Gradients of a bucket, and its message.
        size = BUCKET_BYTES + 1
        for p in reversed(parameters if runtime.world_size > 1 else []):
            if size + p.nbytes > BUCKET_BYTES:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(p)
            size += p.nbytes
            p.register_post_accumulate_grad_hook(partial(self._count, len(self._buckets) - 1))

    def backward(self, loss: Tensor) -> None:
        """Gradients of these parameters alone.  The same ones must be None in all processes."""
        self._missing, self._sent = [len(bucket) for bucket in self._buckets], []
        loss.backward(inputs=self.parameters)
        for bucket in self._buckets[len(self._sent):]:      # Those with parameters without a gradient.
            self._send(bucket)
        self._missing = []
        for bucket, (flat, message) in zip(self._buckets, self._sent, strict=True):
            with self.runtime.collective():
                message.wait()
            flat /= self.runtime.world_size
            having = [p for p in bucket if p.grad is not None]
            for p, gradient in zip(having, flat.split([p.numel() for p in having]), strict=True):
                # In the parameter's memory format, which fused optimizers need.
                p.grad = torch.empty_like(p).copy_(gradient.view_as(p))

    def _count(self, number: int, _: Tensor) -> None:
        if not self._missing:       # Another player's pass reaches a parameter that both have.
            return
        self._missing[number] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send(self._buckets[len(self._sent)])

    def _send(self, bucket: list[nn.Parameter]) -> None:
        gradients = [p.grad.flatten() for p in bucket if p.grad is not None]
        flat = torch.cat(gradients or [torch.zeros(0, device=self.runtime.device)])
        with self.runtime.collective():
            self._sent.append((flat, torch.distributed.all_reduce(flat, async_op=True)))


def _call(module: nn.Module, compiled: Any, *args: Any, **options: Any) -> Any:
    """Use compiled code in training alone: batches of evaluations have other sizes."""
    return (compiled if module.training else module._call_impl)(*args, **options)


def compile_networks(modules: nn.ModuleDict, names: Iterable[str], device: torch.device, *,
                     cuda_graphs: bool = False) -> None:
    """Compile modules in place, so that the names in their state dicts stay.  RequestError if impossible.

    Each shape gets code of its own: with dynamic shapes the code would depend on which came first, and a
    resumed run may see another first.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].strip()
        raise RequestError(f"train.compile=true: torch.compile does not work here ({reason}); accepted: "
                           "false, or a compiler for it") from None
    for module in map(modules.__getitem__, names):
        module.compile(dynamic=False, mode="reduce-overhead" if cuda_graphs else None)
        module._compiled_call_impl = partial(_call, module, module._compiled_call_impl)


def _bit_sum(tensor: Tensor) -> Tensor:
    """Sum of a tensor's bits, read as integers, modulo 2^64.  Shape (), int64."""
    flat = tensor.detach().flatten()
    return flat.view(torch.uint8 if flat.element_size() % 4 else torch.int32).sum(dtype=torch.int64)
