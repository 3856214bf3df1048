"""i2i data check, i2i data list."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2i.data.check import inspect as checking
from i2i.data.check.finding import SEVERITIES, Finding
from i2i.data.check.layout import RECIPES
from i2i.data.check.survey import MANY
from i2i.data.sources import bundled_datasets
from i2i.errors import RequestError, printable
from i2i.runs.folder import check_file, write_atomically
from i2i.training.job import DEFAULT_DATA
from i2i.training.memory import format_bytes

# As the texts beside the data sets name them.
LICENSES = ("CC BY-SA 4.0", "CC BY 4.0", "Apache License 2.0", "MIT License")
MOST = 6            # Sizes, formats and classes that are listed.


def check(where: str, *, full: bool, sample: int | None, json_file: str | None) -> None:
    """Look a data set over and tell what was found; exit code 1 if a training would be stopped or spoilt."""
    if full and sample is not None:
        raise RequestError(f"--full and --sample {sample} cannot be given together")
    check_file("--json", json_file)
    with Progress(BarColumn(None), MofNCompleteColumn(), TextColumn("files"), TimeRemainingColumn(),
                  console=Console(stderr=True),
                  disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("", total=None)
        report = checking.check_dataset(where, most=sys.maxsize if full else sample or MANY,
                                  tell=lambda done, of: progress.update(task, completed=done, total=of))
    print("\n".join([*_facts(report), "", *_findings(report)]))
    if json_file:
        text = json.dumps({"format": 1, **report.as_dict()}, indent=1) + "\n"
        write_atomically(Path(json_file), lambda path: _write(path, text))
    if report.serious:
        raise typer.Exit(1)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _facts(report: checking.CheckReport) -> list[str]:
    facts = {"data": report.where, "layout": report.layout + (f": {report.counts}" if report.counts else ""),
             "train with": report.commands or "",
             "files": _files(report)}
    if report.readable:
        width, height = report.width, report.height
        facts |= {
            "sizes": _counted(report.sizes) if len(report.sizes) <= 2 else
            f"{width.low:g} x {height.low:g} to {width.high:g} x {height.high:g}, median {width.median:g} x "
            f"{height.median:g}; most often "
            + _counted(dict(list(report.sizes.items())[:3])),
            "kinds": _counted(report.kinds), "formats": _counted(report.formats),
            "values": f"{report.values[0]:g} … {report.values[1]:g}"}
        if len(report.modes) > 1:
            facts["modes"] = _counted({mode or "other": count for mode, count in report.modes.items()})
        if report.classes:
            facts["classes"] = _classes(report.classes)
        facts["per 1,000"] = (f"{report.seconds_per_1000:.2g} s to read and decode on one core, "
                              f"{format_bytes(report.disk_per_1000)} on disk, "
                              f"{format_bytes(report.memory_per_1000)} decoded")
    wide = max(map(len, facts))
    lines = []
    for name, value in facts.items():
        for place, line in enumerate([value] if isinstance(value, str) else value):
            if line:
                lines.append(f"{'' if place else name:<{wide}}  {printable(line)}")
    return lines


def _files(report: checking.CheckReport) -> str:
    words = f"{report.files:,} images" if report.files > 1 else "1 image"
    if report.examined < report.files:
        words += f", {report.examined:,} of them examined (--full for all)"
    return words + (f", {report.examined - report.readable:,} not readable"
                    if report.readable < report.examined else "")


def _classes(counts: Mapping[str, int]) -> str:
    told = sorted(counts.items(), key=lambda item: -item[1])
    return _counted(dict(told)) if len(told) <= MOST else f"{len(told)}, from {told[0][0]} ({told[0][1]:,}) to {told[-1][0]} ({told[-1][1]:,})"


def _counted(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    listed = [f"{name} ({count:,})" for name, count in counts.items()]
    return ", ".join(listed[:MOST]) + (f" and {len(listed) - MOST} more" if len(listed) > MOST else "")


def _findings(report: checking.CheckReport) -> list[str]:
    lines = []
    for each in report.findings:
        lines.append(f"{each.severity:<9}{each.text}")
        lines += [f"{'':9}{'such as ' if each.count > 1 else ''}{printable(example)}"
                  for example in each.examples[:1]]
    return [*lines, *([""] if lines else []), _verdict(report.findings)]


def _verdict(findings: tuple[Finding, ...]) -> str:
    counts = [(sum(each.severity == severity for each in findings), severity) for severity in SEVERITIES]
    told = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for count, severity in counts if count)
    return told if told else "nothing wrong was found"


# ---------------------------------------------------------------------------------------------- what there is

def list_bundled() -> None:
    """The data sets that come with the package."""
    rows = [("name", "images", "size", "layout", "license", "default of")]
    for name, path in bundled_datasets().items():
        report = checking.check_dataset(name, most=MOST)
        told = path.with_name(f"LICENSE-{name}.txt").read_text(encoding="utf-8")
        license = ", ".join(word.removesuffix(" License") for word in LICENSES if word in told)
        kinds = [RECIPES[kind] for kind, data in DEFAULT_DATA.items() if data == name]
        rows.append((name, report.counts, next(iter(report.sizes)), report.layout, license, ", ".join(kinds)))
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip())
