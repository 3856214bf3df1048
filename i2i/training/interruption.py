"""Signals that ask a run to save and stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any


class Interrupted(BaseException):
    """A signal came while something was done that may be left at any point.  No Exception, as readers of
    files take those for theirs."""


@dataclass
class Interruption:
    """Ctrl-C, SIGTERM and SIGUSR1 (schedulers send one of them before they kill) ask the loop to save and
    stop; a second signal acts at once."""

    signal: int = 0
    _leaving: bool = False
    _old: dict[int, Any] = field(default_factory=dict)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, self._old[number])
        if self._leaving:
            raise Interrupted

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """What is done within, such as waiting for a disk, is left as soon as a signal comes: Interrupted."""
        self._leaving = True
        try:
            if self.signal:
                raise Interrupted
            yield
        finally:
            self._leaving = False

    def __enter__(self) -> Interruption:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            try:
                self._old[number] = signal.signal(number, self._take)
            except ValueError:      # Not in the main thread: whoever started it decides.
                break
        return self

    def __exit__(self, *error: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
