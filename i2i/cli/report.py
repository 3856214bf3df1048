"""i2i report."""

import sys
from typing import Annotated

from i2i.cli.options import argument, option, output_option
from i2i.errors import JobError, RequestError
from i2i.files import location_of


def report(
    run: Annotated[str, argument(
        "RUN", "A run folder, of a finished or a running training, or RUN@IMAGES, the run until then.")],
    out: Annotated[str | None, output_option(
        "FILE.html|URL", "The file to write; by default RUN/report.html.")] = None,
    data_card: Annotated[bool, option(
        None, "Add a synthetic-data card, also as data-card.md: what was tested, by the JSON files of "
              "evaluate, worth, leaks, hype and audit in RUN, and what was not.", "--data-card")] = False,
    results: Annotated[list[str] | None, option(
        "FILE|DIR", "More JSON files for the card; can be repeated.", "--results")] = None,
) -> None:
    """Write one HTML file about a run: settings, curves, samples, best and worst pairs, verdict."""
    from i2i.report import write_report
    if results and not data_card:
        raise RequestError(f"--results {results[0]} is for --data-card")
    written = write_report(run, out, data_card=data_card, results=results or ())
    for problem in written.problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(f"{location_of(written.path)} ({written.size / 1e6:.1f} MB)"
          + (f", {location_of(written.path.with_name('data-card.md'))}" if data_card else ""))
    if written.problems:
        count = len(written.problems)
        raise JobError(f"{written.path} is written, but {count} {'item' if count == 1 else 'items'} in the "
                       "run folder could not be read")
