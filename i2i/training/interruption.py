"""Signals that ask a run to save and stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

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
