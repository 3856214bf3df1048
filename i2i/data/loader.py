"""Batches from a position on, read in this process, by a thread or by loader processes.

When a loader process dies or hangs, the error names the file that it was reading.
"""

import atexit
import contextlib
import functools
import itertools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from i2i.data.dataset import Dataset, OnSkip, Sample
from i2i.data.sources import Unreadable
from i2i.errors import JobError
from i2i.registry.plugins import LoadedPlugins

MAX_NAME = 8192          # Bytes of a file name.
JOIN_TIMEOUT = 5.0       # Seconds that a closed prefetch thread may take for the file it is reading,
EXIT_TIMEOUT = 30.0      # and before the interpreter exits under it, which aborts in compiled code.
MEMORY_HINTS = {"SIGKILL": " (out of memory?)",
                "SIGBUS": " (out of shared memory? a container's /dev/shm is small unless --shm-size says "
                          "otherwise)"}

T = TypeVar("T")


class Loaded(NamedTuple):
    """A sample or a batch as it is sent to the training process."""

    values: Any                         # None if an image could not be read: the last skipped one.
    skipped: tuple[Unreadable, ...]
    warning: str                        # Of the cache, or "".
    failure: JobError | None = None     # What ends the job.


class CurrentFiles:
    """The file that each loader process is reading, in shared memory."""

    def __init__(self, workers: int) -> None:
        self.pids = RawArray("q", workers)
        self.names = [RawArray("c", MAX_NAME) for _ in range(workers)]

    def init_worker(self, worker: int) -> None:
        """Called in each loader process when it starts."""
        # Ctrl-C reaches the whole process group; the training process decides when to stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.pids[worker] = os.getpid()

    def set(self, name: str) -> None:
        """Note the file that this loader process reads next; "" for none."""
        if (worker := get_worker_info()) is not None:
            self.names[worker.id].value = name.encode("utf-8", "surrogateescape")[:MAX_NAME]

    def get(self, pid: int | None) -> str:
        """The file that a process is reading, or ""."""
        return next((name.value.decode("utf-8", "surrogateescape")
                     for known, name in zip(self.pids, self.names, strict=True) if known == pid), "")


class LoaderDataset(TorchDataset[Loaded]):
    """The samples of a dataset by position, for torch's DataLoader."""

    def __init__(self, dataset: Dataset, current: CurrentFiles) -> None:
        self.plugins = LoadedPlugins()      # First, as the class of the dataset may be one of theirs.
        self.dataset, self.current = dataset, current

    def __getitem__(self, position: int) -> Loaded:
        skipped: list[Unreadable] = []
        values: Sample | None = None
        try:
            values = self.dataset.sample(position, on_read=self.current.set, on_skip=skipped.append)
        except Unreadable as error:
            skipped.append(error)
        except JobError as error:
            return Loaded(None, (), "", error)
        self.current.set("")
        return Loaded(values, tuple(skipped), self.dataset.cache.warning)

    def collate(self, samples: list[Loaded]) -> Loaded:
        """Samples as one batch."""
        if unreadable := [sample for sample in samples if sample.values is None]:
            return unreadable[0]
        return Loaded(self.dataset.collate([sample.values for sample in samples]),
                      tuple(problem for sample in samples for problem in sample.skipped), samples[-1].warning)


def batches(dataset: Dataset, *, start: int, batch_size: int, rank: int = 0, world_size: int = 1,
            num_workers: int = 0, prefetch_factor: int = 0, pin_memory: bool = False,
            on_skip: OnSkip | None = None, warn: Callable[[str], None] | None = None,
            stall_timeout: float = 300.0, poll_interval: float = 1.0) -> Generator[dict[str, Tensor]]:
    """Batches of a dataset, without end.

    Args:
        dataset: prepared for training.
        start: position of the first batch.
        batch_size: of all processes together.
        rank: of this process, which takes the positions start + rank, start + rank + world_size, …
        world_size: number of processes.
        num_workers: loader processes; 0 reads in this one.
        prefetch_factor: batches that each loader process reads ahead, or a thread if there are none.
        pin_memory: whether to copy batches to page-locked memory.
        on_skip: called for each image that was skipped, before its batch comes.
        warn: called once with each warning.
        stall_timeout: seconds that loader processes may take for a batch; network disks stall for minutes.
        poll_interval: seconds between checks of the loader processes.

    Raises:
        JobError: names an image that cannot be read, or the file that a loader process was reading when it
            died or hung.
    """
    current = CurrentFiles(num_workers)
    source = LoaderDataset(dataset, current)
    loader: DataLoader[Any] = DataLoader(
        source, batch_size // world_size,
        sampler=itertools.count(start + rank, world_size),          # type: ignore[arg-type]
        num_workers=num_workers, collate_fn=source.collate, pin_memory=pin_memory,
        worker_init_fn=current.init_worker, timeout=poll_interval if num_workers else 0,
        prefetch_factor=(prefetch_factor or 2) if num_workers else None)
    loaded = (supervised(*_start(loader), current, stall_timeout, poll_interval) if num_workers
              else prefetched(iter(loader), prefetch_factor))
    logged = {""}
    with contextlib.closing(loaded):
        for values, skipped, warning, failure in loaded:
            if failure:
                raise failure
            if warn and warning not in logged:
                warn(warning)
                logged.add(warning)
            if values is None:
                raise JobError(f"{skipped[-1]}; remove or repair it, or pass over such files with "
                               "--on-error skip (data.on_error=skip)")
            for problem in skipped:
                if on_skip:
                    on_skip(problem)
            yield values


def prefetched(items: Iterator[T], count: int) -> Generator[T]:
    """The items and errors of an iterator, read up to `count` ahead by a thread; 0 reads none ahead.

    The thread ends with the generator.  The caller makes the iterator: torch's draws a seed when it starts,
    which must not happen during a step.
    """
    if not count:
        yield from items
        return
    results: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
    free, closed = threading.Semaphore(count), threading.Event()

    def read() -> None:
        while free.acquire() and not closed.is_set():
            try:
                results.put((next(items), None))
            except BaseException as error:      # StopIteration, too.
                results.put((None, error))
                return

    def close(seconds: float) -> None:
        closed.set()
        free.release()
        thread.join(seconds)

    # A daemon, so that a file that hangs for good does not prevent the exit.
    thread = threading.Thread(target=read, name="prefetch", daemon=True)
    thread.start()
    at_exit = atexit.register(functools.partial(close, EXIT_TIMEOUT))
    try:
        while True:
            item, error = results.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            free.release()
            yield item  # type: ignore[misc]
    finally:
        close(JOIN_TIMEOUT)
        if not thread.is_alive():
            atexit.unregister(at_exit)


def _start(loader: DataLoader[Any]) -> tuple[Iterator[Loaded], list[BaseProcess]]:
    """The loader's iterator and its processes.

    Removes PyTorch's handler of SIGCHLD, which raises anywhere in the training process, such as within a
    step; `supervised` finds dead processes instead.  Windows has no such signal.
    """
    before = multiprocessing.active_children()
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    iterator = iter(loader)
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return iterator, [process for process in multiprocessing.active_children() if process not in before]


def supervised(iterator: Iterator[Loaded], processes: list[BaseProcess], current: CurrentFiles,
               stall_timeout: float, poll_interval: float) -> Generator[Loaded]:
    """The batches of loader processes, until one of them dies or hangs."""
    waiting_since: float | None = None
    stalled, closed = "", threading.Event()

    def kill_stalled() -> None:     # A thread: receiving from a process stopped halfway has no timeout.
        nonlocal stalled
        while not closed.wait(poll_interval):
            if (since := waiting_since) is not None and time.monotonic() - since > stall_timeout:
                names = sorted(filter(None, (current.get(process.pid) for process in processes)))
                stalled = (f"no batch came from the loader processes in {stall_timeout:g} s"
                           + (f"; they are reading {', '.join(names)}" if names else ""))
                for process in processes:
                    process.kill()      # Nothing less ends one that is stopped or waits for a disk.
                return

    threading.Thread(target=kill_stalled, name="stall guard", daemon=True).start()
    try:
        while True:
            waiting_since = waiting_since or time.monotonic()
            try:
                item = next(iterator)
            except (RuntimeError, OSError, EOFError) as error:
                timed_out = "timed out" in str(error)
                ended = multiprocessing.connection.wait([process.sentinel for process in processes],
                                                        0 if timed_out else poll_interval)
                if stalled:
                    raise JobError(stalled) from None
                for process in processes:
                    if process.sentinel in ended:
                        process.join()      # Its connections close a moment before it has ended.
                        raise JobError(_death_message(process, current)) from None
                if not timed_out:
                    raise
                continue
            waiting_since = None
            yield item
    finally:
        closed.set()


def _death_message(process: BaseProcess, current: CurrentFiles) -> str:
    code, name = process.exitcode or 0, current.get(process.pid)
    cause = f"ended with exit code {code}"
    if code < 0:
        signal_name = signal.Signals(-code).name
        cause = f"was ended by {signal_name}{MEMORY_HINTS.get(signal_name, '')}"
    return (f"a loader process {cause}" + (f" while reading {name}" if name else "")
            + "; train.num_workers=0 reads in the training process")
