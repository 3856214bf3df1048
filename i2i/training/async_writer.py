"""Files written by a thread while training goes on."""

import threading
from collections.abc import Callable, Mapping

from torch import Tensor


class AsyncWriter:
    """Runs jobs one after the other in a thread or, without `background`, at once.

    An error of a job is raised by the next `finish` or at the end of the context; the jobs after it are
    dropped, as they may depend on it.  There is a thread only while there are jobs, so loader processes can
    be forked once `finish` has returned.
    """

    def __init__(self, *, background: bool) -> None:
        self.background = background
        self._last: threading.Thread | None = None
        self._error: BaseException | None = None

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that no later step changes while they wait to be written: copies on the CPU."""
        if not self.background:
            return dict(tensors)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job after those submitted before."""
        if not self.background:
            return job()
        self._last = threading.Thread(target=self._run, args=(self._last, job), name="writer")
        self._last.start()

    def _run(self, previous: threading.Thread | None, job: Callable[[], None]) -> None:
        if previous:
            previous.join()
        if self._error is None:
            try:
                job()
            except BaseException as error:      # Of any kind: it is raised where the run can end.
                self._error = error

    def finish(self) -> None:
        """Wait for all jobs; raise the error of the one that failed."""
        if self._last:
            self._last.join()
        self._last, error, self._error = None, self._error, None
        if error:
            raise error

    def __enter__(self) -> "AsyncWriter":
        return self

    def __exit__(self, error_type: object, *details: object) -> None:
        try:
            self.finish()
        except Exception:
            if error_type is None:      # An error that is on its way out comes first.
                raise
