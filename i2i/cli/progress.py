"""Progress bars on stderr, and the processes that share a command's work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from i2i.data.sharding import ProcessGroup


def process_group(device: str) -> ProcessGroup:
    """The processes that torchrun or accelerate launch started for this command, or this one alone."""
    from i2i.data.sharding import SingleProcess
    from i2i.inference.device import num_launched
    if num_launched() < 2:
        return SingleProcess()
    from i2i.training.distributed import Runtime
    return Runtime(device=device)


class ProgressBars:
    """Shows a bar for each task on a terminal, if `rank` is 0; with `keep` they stay at the end."""

    def __init__(self, rank: int = 0, *, keep: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        self._shown = rank == 0 and sys.stderr.isatty()
        self._progress = Progress(BarColumn(None), MofNCompleteColumn(), TextColumn("{task.description}"),
                                  TimeRemainingColumn(), console=Console(stderr=True),
                                  disable=not self._shown, transient=not keep)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> ProgressBars:
        if self._shown:     # Bars that are disabled end with an empty line in older versions of Rich.
            self._progress.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._shown:
            self._progress.__exit__(*error)

    def update(self, task: str, completed: int, total: int | None = None) -> None:
        """Move the bar of a task, which appears with its first update."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
        self._progress.update(self._tasks[task], completed=completed, total=total)
