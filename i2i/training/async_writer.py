"""Files written while training goes on: by one thread at a time, in the order they were given, from copies of
what they hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType

from torch import Tensor

Job = Callable[[], None]


class AsyncWriter:
    """Carries out jobs one after the other, beside the training or, without `background`, at once.

    What a job raises is raised by the next `finish`, or at the end of the context; the jobs behind it are
    dropped, since they may rest on it. There is a thread only while there are jobs, so that loader processes
    can be forked once `finish` has returned.
    """

    def __init__(self, *, background: bool) -> None:
        self.background = background
        self._last: threading.Thread | None = None
        self._error: BaseException | None = None

    def hold(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that no later step changes while they wait to be written: copies in the memory of the
        CPU."""
        return {name: tensor.detach().to("cpu", copy=True) if self.background else tensor for name,
                tensor in tensors.items()}

    def submit(self, job: Job) -> None:
        """Carry it out, after those that were given before."""
        if not self.background:
            return job()
        self._last = threading.Thread(target=self._follow, args=(self._last, job), name="writer")
        self._last.start()

    def _follow(self, previous: threading.Thread | None, job: Job) -> None:
        if previous:
            previous.join()
        if self._error is None:
            try:
                job()
            except BaseException as error:      # Of whatever kind: it is raised where the run can end.
                self._error = error

    def finish(self) -> None:
        """Wait until everything is written; raise what went wrong."""
        if self._last:
            self._last.join()
        self._last, error, self._error = None, self._error, None
        if error:
            raise error

    def __enter__(self) -> AsyncWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Wait; an error that is on its way out already is the one that is told."""
        try:
            self.finish()
        except Exception:
            if error is None:
                raise
