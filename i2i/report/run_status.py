"""How a run stands, from its logs: cheap enough to be asked every few seconds."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from i2i.report.run_contents import number, part, read_logs
from i2i.runs.folder import RunFolder


@dataclass(frozen=True)
class RunStatus:
    """Images seen and in all, images per second, state, and what the verdict or the collapse detector says.

    State: training, finished or stopped.
    """

    recipe: str
    images: int
    total: int
    speed: float | None
    state: str
    sentence: str
    collapsed: bool

    @property
    def seconds_left(self) -> float | None:
        """At the speed of the last log entry; None unless it is training."""
        return (self.total - self.images) / self.speed if self.speed and self.state == "training" else None


def version_of(run: Path) -> str:
    """A text that changes whenever there is something new to show of a run."""
    folder = RunFolder(run)
    files = (folder.log, folder.metrics, folder.speed, folder.collapse, folder.verdict, run / "samples")
    return " ".join(str(file.stat().st_mtime_ns) if file.exists() else "-" for file in files)


def read_status(run: Path) -> RunStatus:
    """The status of a run folder.  RequestError if its config cannot be read."""
    status, folder = _read(run, version_of(run)), RunFolder(run)
    state = ("finished" if folder.verdict.exists() or 0 < status.total <= status.images
             else "training" if folder.is_locked() else "stopped")
    return RunStatus(**vars(status) | {"state": state})


@lru_cache(maxsize=1000)
def _read(run: Path, version: str) -> RunStatus:
    contents = read_logs(run)
    sentence = str(contents.detection.get("sentence") or contents.verdict.get("sentence") or "")
    speeds = [speed for entry in contents.speed if (speed := number(entry.get("images_per_second")))]
    return RunStatus(str(part(contents.config, "recipe").get("name", "")), contents.images,
                     int(number(part(contents.config, "train").get("images")) or 0),
                     speeds[-1] if speeds else None, "", sentence, bool(contents.detection))
