"""i2i report."""

import sys
from typing import Annotated

from i2i.cli.options import argument, option
from i2i.errors import JobError


def report(
    run: Annotated[str, argument("RUN", "A run folder, of a finished or a running training.")],
    out: Annotated[str | None, option("FILE.html", "The file to write; by default RUN/report.html.")] = None,
) -> None:
    """Write one HTML file about a run: settings, curves, samples, best and worst pairs, verdict."""
    from i2i.report import write_report
    written = write_report(run, out)
    for problem in written.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"{written.path} ({written.size / 1e6:.1f} MB)")
    if written.problems:
        count = len(written.problems)
        raise JobError(f"{written.path} is written, but {count} {'item' if count == 1 else 'items'} in the "
                       "run folder could not be read")
