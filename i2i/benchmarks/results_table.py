"""Tables of results: JSON, Markdown, plots, and all of them inserted into a page."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2i.benchmarks import plots
from i2i.benchmarks.benchmark import Benchmark, Target, build_target
from i2i.benchmarks.methods import METHODS
from i2i.benchmarks.mixtures import Mixture
from i2i.benchmarks.schedule import Schedule
from i2i.benchmarks.scores import mean_and_interval
from i2i.errors import RequestError
from i2i.files import to_json, write_atomically, write_text

PUBLISHED = Path(__file__).with_name("published.csv")       # Rows of the papers' tables.
Interval = tuple[float, float | None]       # Mean over seeds, half of its 95 % interval.


@dataclass(frozen=True)
class Row:
    """One method on one benchmark."""

    method: str
    seeds: int
    modes: Interval
    worst: int                              # Fewest modes of any seed.
    high_quality: Interval | None
    reverse_kl: Interval
    stopped: int                            # Runs stopped by gradients that were not finite.
    cost: tuple[float, float, float] | None     # Median, lowest and highest ratio to the baseline.


def summarize(method: str, runs: Sequence[Mapping[str, Any]], cost: Mapping[str, Any] | None,
              modes: int) -> Row:
    """The row of a method from its result lines.  Reverse KL is log M, the worst, if no mode is hit."""
    high_quality = [line["high_quality"] for line in runs if line["high_quality"] is not None]
    kl = [math.log(modes) if line["reverse_kl"] is None else line["reverse_kl"] for line in runs]
    found = [line["modes"] for line in runs]
    return Row(method, len(runs), mean_and_interval(found), min(found),
               mean_and_interval(high_quality) if high_quality else None, mean_and_interval(kl),
               sum("stopped" in line for line in runs),
               (cost["ratio"], cost["low"], cost["high"]) if cost else None)


def summarize_all(schedule: Schedule, benchmark: Benchmark, lines: Iterable[Mapping[str, Any]],
                  target: Target) -> list[Row]:
    """A row for each method with a result under the settings of the schedule."""
    by_key = {(line["kind"], line["key"]): line for line in lines}
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for task in schedule.tasks(benchmark, target.images):
        if line := by_key.get(("run", task.key)):
            runs.setdefault(task.method, []).append(line)
    return [summarize(task.method, runs[task.method], by_key.get(("cost", task.key)), target.modes)
            for task in schedule.tasks(benchmark, target.images, seeds=1) if task.method in runs]


def format_interval(value: Interval | None, digits: int, factor: float = 1.0, unit: str = "") -> str:
    """For example "7.9 ± 0.1"."""
    if value is None:
        return "–"
    return " ± ".join(f"{each * factor:.{digits}f}" for each in value if each is not None) + unit


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header),
            *(f"| {' | '.join(cells)} |" for cells in rows)]


def results_markdown(benchmark: Benchmark, rows: Sequence[Row], modes: int) -> str:
    """Our results, then the published ones."""
    has_quality = any(row.high_quality for row in rows)
    header = ["method", f"modes of {modes:,}", "worst seed", *(["high quality"] if has_quality else []),
              "reverse KL", "cost", "seeds"]
    cells = [[f"`{row.method}`", format_interval(row.modes, 1), str(row.worst),
              *([format_interval(row.high_quality, 1, 100, " %")] if has_quality else []),
              format_interval(row.reverse_kl, 2),
              "–" if row.cost is None else "{:.2f} ({:.2f}–{:.2f})".format(*row.cost),
              f"{row.seeds} ({row.stopped} stopped)" if row.stopped else str(row.seeds)] for row in rows]
    published = [[value for key, value in row.items() if key != "benchmark"]
                 for row in published_results(benchmark)]
    return "\n".join([
        *_table(header, cells), "", "Published, ± the standard error where there is one:", "",
        *_table(["method", "modes", "high quality", "reverse KL", "source"], published)])


def published_results(benchmark: Benchmark) -> list[dict[str, str]]:
    """What papers report for a benchmark."""
    with open(PUBLISHED, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["benchmark"] == benchmark.name]


def samples_plot(schedule: Schedule, benchmark: Benchmark, methods: Sequence[str], folder: Path,
                 target: Target) -> Image.Image | None:
    """Samples of each method's first seed; None if none are stored."""
    files = {task.method: task.samples_file(folder)
             for task in schedule.tasks(benchmark, target.images, seeds=1) if task.method in methods}
    samples = {method: np.load(file) for method, file in files.items() if file.exists()}
    return plots.arrange([(method, plots.points_panel(each.reshape(len(each), -1), target)
                           if isinstance(target, Mixture) else plots.images_panel(each))
                          for method, each in samples.items()]) if samples else None


def write(schedule: Schedule, folder: Path, lines: Sequence[Mapping[str, Any]],
          page: Path | None) -> tuple[list[str], dict[str, Any]]:
    """Write table.md, table.json and plots to the folder, insert the tables into a page, and return both."""
    data: dict[str, Any] = {}
    methods = ([f"`{method.name}`", " ".join(f"`{setting}`" for setting in (
        *([] if method.recipe == "gan" else [f"recipe {method.recipe}:"]), *method.settings)) or "–",
                method.source] for method in METHODS.values())
    tables = {"methods": "\n".join(_table(["method", "settings", "source"], methods))}
    for benchmark in schedule.benchmarks:
        target = build_target(benchmark, schedule.mnist, folder)
        rows = summarize_all(schedule, benchmark, lines, target)
        if not rows:
            continue
        tables[benchmark.name] = results_markdown(benchmark, rows, target.modes)
        accuracy = getattr(target, "accuracy", None)
        data[benchmark.name] = {
            "steps": schedule.steps or benchmark.steps, "batch_size": benchmark.batch_size,
            "samples": benchmark.samples, "settings": [*benchmark.settings, *schedule.extra],
            **({"images": target.images, "accuracy": accuracy} if accuracy else {}),
            "rows": [asdict(row) for row in rows], "published": published_results(benchmark)}
        if plot := samples_plot(schedule, benchmark, [row.method for row in rows], folder, target):
            for destination in (folder, page.parent) if page else (folder,):
                write_atomically(destination / f"modes-{benchmark.name}.png",
                                 partial(plot.save, format="png", optimize=True))
    sections = [f"## {benchmark.title}\n\n{tables[benchmark.name]}\n" for benchmark in schedule.benchmarks
                if benchmark.name in tables]
    write_text(folder / "table.md", "\n".join(sections))
    write_text(folder / "table.json", to_json(data))
    if page:
        insert_tables(page, tables)
    return sections, data


def insert_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Replace the text between `<!-- NAME -->` and `<!-- /NAME -->`.  RequestError if the page has none."""
    try:
        old = new = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--docs {page} cannot be read: {error.strerror}") from None
    inserted = 0
    for name, text in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opening, rest = new.partition(start)
        _, closing, after = rest.partition(end)
        if opening and closing:
            new, inserted = f"{before}{start}{text}\n{end}{after}", inserted + 1
    if not inserted:
        raise RequestError(f"--docs {page} has no markers such as <!-- ring --> and <!-- /ring -->")
    if new != old:
        write_text(page, new)
