"""i2i bench."""

from __future__ import annotations

from pathlib import Path

from i2i.benchmarks import remedies, runner, table, trials
from i2i.config import parse
from i2i.errors import RequestError, require


def modes(names: list[str], *, only: str | None, seeds: int, out: str, steps: str | None, extra: list[str],
          mnist: str | None, jobs: int,
          docs: str | None, costs: bool, run: bool) -> None:
    """Run what is not run yet, and write tables and plots."""
    length = None if steps is None else parse("--steps", steps, int)
    require(length is None or length >= 1, "--steps", length, "1 or more")
    order = runner.Order(tuple(trials.select_benchmarks(names)),
                         tuple(remedy.name for remedy in remedies.select_rows(only)), seeds, length,
                         tuple(extra),
                        Path(mnist) if mnist else None, jobs)
    if mnist and "stacked-mnist" not in [trial.name for trial in order.trials]:
        raise RequestError(f"--mnist {mnist} is for stacked-mnist, which is not among the tests")
    if docs and not Path(docs).is_file():
        raise RequestError(f"--docs {docs} is no file; accepted: a page with marks such as <!-- ring --> and "
                           "<!-- /ring -->")
    path = Path(out)
    folder = runner.open_folder(path)
    try:
        if run:
            runner.run(order, path, costs=costs, tell=lambda line: print(line, flush=True))
        for text in table.write(order, path, runner.results(path), Path(docs) if docs else None):
            print("\n" + text, end="")
        print(f"\n{path}/table.md, table.json" + (f"; {docs}" if docs else ""))
    finally:
        folder.unlock()
