"""A run folder as one self-contained HTML file: read, drawn, written without torch and without a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from i2i.errors import JobError, RequestError
from i2i.report.contents import read
from i2i.report.page import page
from i2i.runs.folder import write_atomically

__all__ = ["Written", "write"]


@dataclass(frozen=True)
class ReportResult:
    """Where the report is, how long it is, and what had to be left out."""

    path: Path
    size: int                   # Bytes.
    problems: tuple[str, ...]


def write(run: str | Path, out: str | Path | None = None) -> ReportResult:
    """Write the report of a run folder, by default into it; RequestError if there is nothing to report or no
    place for it."""
    contents = read(run)
    path = Path(out) if out else Path(run) / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"--out {path} must end in .html")
    if path.is_dir():
        raise RequestError(f"--out {path} is a folder; accepted: a file such as {path / 'report.html'}")
    # Names of files may hold bytes that are no text.
    data = page(contents).encode(errors="backslashreplace")

    def save(part: Path) -> None:
        part.write_bytes(data)

    try:
        write_atomically(path, save)
    except (JobError, OSError) as error:
        why = str(error) if isinstance(error, JobError) else f"{path} could not be written: {error.strerror}"
        raise RequestError(f"{why}; choose another place with --out FILE.html") from None
    return ReportResult(path, len(data), tuple(contents.problems))
