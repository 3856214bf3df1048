"""A run folder, or an audit, as one self-contained HTML file, made without torch and without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import RequestError
from i2i.files import write_text
from i2i.report.audit_page import write_audit
from i2i.report.data_card import make_card
from i2i.report.page import check_page, render, render_markdown, write_page
from i2i.report.run_contents import read_run
from i2i.runs.folder import split_run

__all__ = ["ReportResult", "check_page", "write_audit", "write_report"]


@dataclass(frozen=True)
class ReportResult:
    """The file, its size in bytes, and what had to be left out."""

    path: Path
    size: int
    problems: tuple[str, ...]


def write_report(run: str | Path, out: str | Path | None = None, *, data_card: bool = False,
                 results: Sequence[str | Path] = ()) -> ReportResult:
    """Write the report of a run folder, by default as `report.html` in it, or raise RequestError.

    RUN@IMAGES or RUN@best: the run as it was then.

    With `data_card` it has a synthetic-data card, which is also written as `data-card.md` beside it: from the
    JSON files of tests in the run folder and in `results`, files or folders.
    """
    contents, (folder, which) = read_run(run), split_run(run)
    if data_card:
        if which:
            raise RequestError(f"--data-card is of a finished run, which results are of; accepted: {folder}")
        contents.card = make_card(Path(folder), contents, [Path(each) for each in results])
    path = Path(out) if out else Path(folder, f"report-{which}.html" if which else "report.html")
    size = write_page(path, render(contents), "--out")
    if contents.card:
        text = render_markdown(contents.card).encode(errors="backslashreplace").decode()
        write_text(path.with_name("data-card.md"), text)
    return ReportResult(path, size, tuple(contents.problems))
