"""Signals that ask a run to save and stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from i2i.errors import RequestError

# Ctrl-C, and what schedulers send before they kill; Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Interrupted(BaseException):
    """A signal came within `interruptible`.  Not an Exception, which readers of files would handle."""


@dataclass
class Interruption:
    """Remembers the first signal; the second of its kind acts at once."""

    signal: int = 0
    _interruptible: bool = False
    _old_handlers: dict[int, Any] = field(default_factory=dict)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._old_handlers[number])
        if self._interruptible:
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Raise Interrupted as soon as a signal comes, as while waiting for a disk."""
        self._interruptible = True
        try:
            if self.signal:
                raise Interrupted
            yield
        finally:
            self._interruptible = False

    def __enter__(self) -> "Interruption":
        for number in SIGNALS:
            try:
                self._old_handlers[number] = signal.signal(number, self._handle)
            except ValueError:      # Not in the main thread, whose handlers stay.
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, old in self._old_handlers.items():
            signal.signal(number, old)


def interrupt(run: str | Path) -> int:
    """Ask the process that trains in a run folder to save and stop, as Ctrl-C does, and return its number.

    RequestError if none does on this machine that this user may see.
    """
    lock, found = os.path.realpath(Path(run, ".lock")), dict[int, int]()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and any(file.path == lock for file in process.open_files()):
                found[process.pid] = process.ppid()
    trainers = [pid for pid, parent in found.items() if parent not in found]        # Not what it has forked.
    if not trainers:
        raise RequestError(f"no process of this machine trains in {run}")
    os.kill(trainers[0], signal.SIGINT)
    return trainers[0]
