"""From lines to tables: JSON for programs, Markdown for people, and both put into a page between its
marks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2i.benchmarks import plots, trials
from i2i.benchmarks.points import Points
from i2i.benchmarks.remedies import ROWS
from i2i.benchmarks.runner import Order, put
from i2i.benchmarks.running import samples_file
from i2i.benchmarks.scoring import interval
from i2i.benchmarks.trials import Benchmark, Target
from i2i.errors import RequestError
from i2i.runs.folder import write_atomically


@dataclass(frozen=True)
class Row:
    """One remedy on one test.  Each figure is a mean over seeds and half of its 95 % interval."""

    remedy: str
    seeds: int
    modes: tuple[float, float | None]
    worst: int                              # Fewest modes of any seed.
    high_quality: tuple[float, float | None] | None
    reverse_kl: tuple[float, float | None]
    stopped: int                            # Runs that ended with gradients that were not finite.
    cost: tuple[float, float, float] | None     # Median, lowest, highest ratio to the plain GAN.


def row(remedy: str, runs: Sequence[Mapping[str, Any]], cost: Mapping[str, Any] | None, modes: int) -> Row:
    """From the lines of its runs.  A generator without any sample of high quality counts as the worst reverse
    KL there is, log M."""
    shares = [line["high_quality"] for line in runs if line["high_quality"] is not None]
    kl = [math.log(modes) if line["reverse_kl"] is None else line["reverse_kl"] for line in runs]
    return Row(remedy, len(runs), interval([line["modes"] for line in runs]),
               min(line["modes"] for line in runs),
               interval(shares) if shares else None, interval(kl), sum("stopped" in line for line in runs),
               (cost["ratio"], cost["low"], cost["high"]) if cost else None)


def rows(order: Order, trial: Benchmark, lines: Iterable[Mapping[str, Any]], target: Target) -> list[Row]:
    """A row for each remedy that has been run under these settings."""
    kept = {(line["kind"], line["key"]): line for line in lines}
    by_remedy: dict[str, list[Mapping[str, Any]]] = {}
    for task in order.tasks(trial, pictures=target.pictures):
        if (line := kept.get(("run", task.key))) is not None:
            by_remedy.setdefault(task.remedy, []).append(line)
    first = {task.remedy: task for task in order.tasks(trial, 1, target.pictures)}
    return [row(remedy, runs, kept.get(("cost", first[remedy].key)), target.modes) for remedy,
            runs in by_remedy.items()]


# ---------------------------------------------------------------------------------------------- Markdown

def figure(value: tuple[float, float | None], digits: int, factor: float = 1.0, unit: str = "") -> str:
    """7.9 ± 0.1"""
    mean, half = value
    return f"{mean * factor:.{digits}f}" + (f" ± {half * factor:.{digits}f}" if half is not None
                                            else "") + unit


def markdown(trial: Benchmark, found: Sequence[Row], modes: int) -> str:
    """Our rows, then those of the papers."""
    share = any(each.high_quality for each in found)
    heads = ["remedy", f"modes of {modes:,}", "worst seed", *(["high quality"] if share else []),
             "reverse KL", "cost", "seeds"]
    out = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for each in found:
        cost = "–" if each.cost is None else f"{each.cost[0]:.2f} ({each.cost[1]:.2f}–{each.cost[2]:.2f})"
        cells = [f"`{each.remedy}`", figure(each.modes, 1), str(each.worst),
                 *([figure(each.high_quality, 1, 100, " %") if each.high_quality else "–"] if share else []),
                 figure(each.reverse_kl, 2), cost,
                 str(each.seeds) + (f" ({each.stopped} stopped)" if each.stopped else "")]
        out.append("| " + " | ".join(cells) + " |")
    out += ["", "Published, ± a standard error where there is one:", "",
            "| | modes | high quality | reverse KL | source |", "|---|---|---|---|---|"]
    out += [f"| {each.what} | {each.modes} | {each.high_quality} | {each.kl} | {each.source} |"
            for each in trial.published]
    return "\n".join(out)


def words_table() -> str:
    """What each remedy is in words of the command line."""
    out = ["| remedy | words | source |", "|---|---|---|"]
    for each in ROWS.values():
        words = " ".join(f"`{word}`" for word in each.words)
        out.append(f"| `{each.name}` | {words or '–'} | {each.source} |")
    return "\n".join(out)


# ---------------------------------------------------------------------------------------------- files

def scatter(order: Order, trial: Benchmark, found: Sequence[Row], folder: Path,
            target: Target) -> Image.Image | None:
    """What the generators of the first seed make, remedy by remedy; None where nothing was kept."""
    panels = []
    for task in order.tasks(trial, 1, target.pictures):
        file = samples_file(folder, task)
        done = next((each for each in found if each.remedy == task.remedy), None)
        if done is not None and file.exists():
            samples = np.load(file)
            panel = plots.points_panel(samples.reshape(len(samples), -1), target) if isinstance(target,
                                                                                                Points) else plots.pictures_panel(samples)
            panels.append((task.remedy, panel))
    return plots.sheet(panels) if panels else None


def write(order: Order, folder: Path, lines: Sequence[Mapping[str, Any]], docs: Path | None) -> list[str]:
    """FOLDER/table.md, table.json and a plot for each test; the same into a page, between its marks.  -> the
    tables"""
    texts, data = {"remedies": words_table()}, {}
    for trial in order.trials:
        target = trials.target(trial, order.mnist, folder)
        found = rows(order, trial, lines, target)
        if not found:
            continue
        texts[trial.name] = markdown(trial, found, target.modes)
        accuracy = getattr(target, "accuracy", None)
        data[trial.name] = {"steps": order.steps or trial.steps, "batch": trial.batch,
                            "samples": trial.samples,
                            "words": [*trial.words, *order.extra],
                            **({"pictures": target.pictures, "accuracy": accuracy} if accuracy else {}),
                            "rows": [asdict(each) for each in found],
                            "published": [asdict(each) for each in trial.published]}
        for place in (folder, *([docs.parent] if docs else [])):
            if (plot := scatter(order, trial, found, folder, target)) is not None:
                write_atomically(place / f"modes-{trial.name}.png",
                                 partial(plot.save, format="png", optimize=True))
    titles = [f"## {trial.title}\n\n{texts[trial.name]}\n" for trial in order.trials if trial.name in texts]
    put(folder / "table.md", "\n".join(titles))
    put(folder / "table.json", json.dumps(data, indent=1) + "\n")
    if docs:
        fill(docs, texts)
    return titles


def fill(page: Path, texts: Mapping[str, str]) -> None:
    """Put each text between `<!-- NAME -->` and `<!-- /NAME -->`.  RequestError if the page is not there or
    has none of the marks."""
    try:
        old = new = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--docs {page} cannot be read: {error.strerror}") from None
    found = 0
    for name, text in texts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opening, rest = new.partition(start)
        _, closing, after = rest.partition(end)
        if opening and closing:
            new, found = before + start + text + "\n" + end + after, found + 1
    if not found:
        raise RequestError(f"--docs {page} has no marks such as <!-- ring --> and <!-- /ring -->")
    if new != old:
        put(page, new)
