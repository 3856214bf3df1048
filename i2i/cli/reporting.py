"""i2i report."""

from __future__ import annotations

import sys

from i2i import report as reports
from i2i.errors import JobError


def report(run: str, out: str | None) -> None:
    """Write the report and say where it is; JobError if something had to be left out."""
    written = reports.write(run, out)
    for problem in written.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"{written.path} ({written.size / 1e6:.1f} MB)")
    if written.problems:
        count = len(written.problems)
        raise JobError(f"{written.path} is written, but {count} {'thing' if count == 1 else 'things'} in the "
                       "run folder could not be read")
