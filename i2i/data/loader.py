"""Batches from a stream of positions, read here or in loader processes.  A process that dies or hangs is
told, with the file it had in hand."""

from __future__ import annotations

import atexit
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from i2i.data.sampler import Sample, TrainingDataset, stack_samples
from i2i.data.sources import Unreadable
from i2i.errors import JobError
from i2i.images.formats import ImageFormat

MAX_NAME = 8192          # Bytes of a file name that are told.
# Seconds that all loader processes together may take for a batch: network disks stall for minutes.
STALL_TIMEOUT = 300.0
# Seconds that a thread has for the file in its hand before it is left to end by itself,
JOIN_TIMEOUT = 5.0
# and before the process ends under it: within compiled code that would be an abort.
EXIT_TIMEOUT = 30.0
POLL_INTERVAL = 1.0            # Seconds between two looks whether they are alive.
SHORTAGE = {"SIGKILL": " (out of memory?)",
            "SIGBUS": " (out of shared memory? a container's /dev/shm is small unless --shm-size says "
                      "otherwise)"}

T = TypeVar("T")
OnSkip = Callable[[Unreadable], None]
_Collated = tuple[dict[str, Tensor] | None, tuple[Unreadable, ...], tuple[str, ...]]


class CurrentFile:
    """The file that each loader process is reading, in memory it shares with the training process."""

    def __init__(self, workers: int) -> None:
        self.pids = torch.zeros(workers, dtype=torch.int64).share_memory_()
        self.names = torch.zeros(workers, MAX_NAME, dtype=torch.uint8).share_memory_()

    def take(self, name: str) -> None:
        """This process is about to read `name`; nothing more if that is empty."""
        worker = get_worker_info()
        if worker is not None:
            data = name.encode("utf-8", "surrogateescape")[:MAX_NAME]
            row = self.names.numpy()[worker.id]
            row[:len(data)] = bytearray(data)
            row[len(data):] = 0

    def of(self, pid: int | None) -> str:
        """What a process is reading."""
        rows = (self.pids == (pid or 0)).nonzero().flatten().tolist()
        return self.names[rows[0]].numpy().tobytes().rstrip(b"\0").decode("utf-8",
                                                                          "surrogateescape") if rows else ""


class Loading(Dataset[Sample]):
    """Training images for a DataLoader."""

    def __init__(self, data: TrainingDataset, hand: CurrentFile) -> None:
        self.data, self.hand, self._warned = data, hand, False

    def __getitem__(self, at: Any) -> Sample:
        sample = self.data.sample(at, self.hand.take)
        self.hand.take("")
        if self.data.cache.warning and not self._warned:
            self._warned = True
            return replace(sample, warning=self.data.cache.warning)
        return sample


def collate(kinds: Mapping[str, ImageFormat], samples: list[Sample]) -> _Collated:
    """Samples as one batch, or None if one of them could not be read; what was left out; and what is to be
    told."""
    left_out = tuple(problem for sample in samples for problem in sample.left_out)
    warnings = tuple(sample.warning for sample in samples if sample.warning)
    values = [sample.values for sample in samples if sample.values is not None]
    if len(values) < len(samples):
        return None, next(sample.left_out for sample in samples if sample.values is None), warnings
    return stack_samples(values, kinds), left_out, warnings


def _settle(hand: CurrentFile, worker: int) -> None:
    # Ctrl-C reaches the whole group; the trainer decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hand.pids[worker] = os.getpid()


def batches(data: TrainingDataset, *, seed: int, start: int, batch: int, rank: int = 0, world_size: int = 1,
            workers: int = 0,
            prefetch: int = 0, pin: bool = False, told: OnSkip | None = None,
            warn: Callable[[str], None] | None = None) -> Generator[dict[str, Tensor]]:
    """Batches from position `start` on, without end.  `told` hears of each image that was left out before its
    batch comes, `warn` of anything else that a person should know, once.

    `prefetch` batches are read ahead by each loader process, or by a thread where there is none. JobError
    names an image that cannot be read, or the file that a loader process had in hand when it died or stopped
    answering.
    """
    hand = CurrentFile(workers)
    loader: DataLoader[Any] = DataLoader(
        Loading(data, hand), batch // world_size,
        sampler=data.positions(seed=seed, start=start, rank=rank,
                               world_size=world_size),  # type: ignore[arg-type]
        num_workers=workers, collate_fn=functools.partial(collate, data.kinds), pin_memory=pin,
        worker_init_fn=functools.partial(_settle, hand), timeout=POLL_INTERVAL if workers else 0,
        prefetch_factor=prefetch or 2 if workers else None)
    read = _with_timeout(*_start(loader), hand) if workers else prefetched(iter(loader), prefetch)
    known: set[str] = set()
    with contextlib.closing(read):
        for tensors, left_out, warnings in read:
            for line in warnings:
                if warn and line not in known:      # Each loader process may have found the same.
                    warn(line)
                known.add(line)
            if tensors is None:
                raise JobError(f"{left_out[-1]}; remove or repair it, or pass over such files with "
                               "--on-error skip (data.on_error=skip)")
            for problem in left_out:
                if told:
                    told(problem)
            yield tensors


def prefetched(items: Iterator[T], count: int) -> Generator[T]:
    """What the iterator gives, in its order, taken by a thread up to `count` items before they are asked for;
    so are errors.  The thread ends with the generator.  0 takes each when it is asked for.

    The iterator is made by whoever calls: PyTorch's draws a seed when it begins, which a step that runs at
    the same time would miss.
    """
    if not count:
        yield from items
        return
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
    free, ended = threading.Semaphore(count), threading.Event()

    def take() -> None:
        while free.acquire() and not ended.is_set():
            try:
                waiting.put((next(items), None))
            except BaseException as error:      # Also that there are no more.
                waiting.put((None, error))
                return

    def part(seconds: float) -> None:
        ended.set()
        free.release()
        thread.join(seconds)

    # Where a file hangs for good, it holds up no exit.
    thread = threading.Thread(target=take, name="prefetch", daemon=True)
    thread.start()
    leave = atexit.register(functools.partial(part, EXIT_TIMEOUT))
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield item  # type: ignore[misc]
    finally:
        part(JOIN_TIMEOUT)
        if not thread.is_alive():
            atexit.unregister(leave)


def _start(loader: DataLoader[Any]) -> tuple[Iterator[_Collated], list[BaseProcess]]:
    """The loader's iterator and its processes.

    PyTorch's handler of SIGCHLD raises wherever the training process happens to be, so a step could be left
    half done; it is taken out again, and death is noticed where batches are fetched.
    """
    before, handler = multiprocessing.active_children(), signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return iterator, [process for process in multiprocessing.active_children() if process not in before]


class _Guard:
    """Ends loader processes that keep one fetch for longer than PATIENCE, from a thread: a process that is
    stopped while it hands over a batch holds whoever takes it in a read without a time limit.  `reason` is
    then what is to be told."""

    def __init__(self, processes: list[BaseProcess], hand: CurrentFile) -> None:
        self.processes, self.hand, self.reason = processes, hand, ""
        self.since: float | None = None         # When a batch was asked for that has not come.
        self._over = threading.Event()
        threading.Thread(target=self._look, name="guard", daemon=True).start()

    def _look(self) -> None:
        while not self._over.wait(POLL_INTERVAL):
            if (since := self.since) is not None and time.monotonic() - since > STALL_TIMEOUT + 2 * POLL_INTERVAL:
                # Before they end, which wakes whoever waits.
                self.reason = _stuck(self.processes, self.hand)
                _shut_down(self.processes)
                return

    def __enter__(self) -> _Guard:
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()


def _with_timeout(iterator: Iterator[_Collated], processes: list[BaseProcess],
                  hand: CurrentFile) -> Generator[_Collated]:
    """What the iterator gives, for as long as its processes live and answer."""
    with _Guard(processes, hand) as guard:
        guard.since = time.monotonic()
        while True:
            try:
                item = next(iterator)
            except (RuntimeError, OSError, EOFError) as error:
                if guard.reason:
                    raise JobError(guard.reason) from None
                late = "timed out" in str(error)
                ending = multiprocessing.connection.wait([process.sentinel for process in processes],
                                                         0 if late else POLL_INTERVAL)
                for process in processes:
                    if process.sentinel in ending:
                        process.join()      # Its connections close a moment before it has ended.
                        raise JobError(_death_message(process, hand)) from None
                if not late:
                    raise
                if time.monotonic() - guard.since > STALL_TIMEOUT:
                    reason = _stuck(processes, hand)
                    _shut_down(processes)
                    raise JobError(reason) from None
                continue
            guard.since = None
            yield item
            guard.since = time.monotonic()


def _death_message(process: BaseProcess, hand: CurrentFile) -> str:
    code, name = process.exitcode or 0, hand.of(process.pid)
    cause = f"was ended by {signal.Signals(-code).name}{SHORTAGE.get(signal.Signals(-code).name, '')}" if code < 0 else f"ended with exit code {code}"
    return f"a loader process {cause}" + (f" while reading {name}" if name
                                          else "") + "; train.num_workers=0 reads in the training process"


def _stuck(processes: list[BaseProcess], hand: CurrentFile) -> str:
    names = sorted({name for process in processes if (name := hand.of(process.pid))})
    return f"no batch came from the loader processes in {STALL_TIMEOUT:g} s" + (f"; they are reading "
                                                                                f"{', '.join(names)}"
                                                                                if names else "")


def _shut_down(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()      # Nothing less ends one that waits for a disk, or is stopped.
