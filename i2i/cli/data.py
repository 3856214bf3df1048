"""i2i data: check, export, list."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from i2i.cli.application import command_group
from i2i.cli.options import NO_JSON, Json, MaxPixels, argument, option, writable_folder
from i2i.cli.progress import ProgressBars
from i2i.errors import RequestError, printable

if TYPE_CHECKING:
    from i2i.data.check.check_dataset import CheckReport
    from i2i.data.check.findings import Finding

app = command_group("Datasets: check one before training; list and export those that come with the package.")

# As the texts beside the datasets name them.
LICENSES = ("CC BY-SA 4.0", "CC BY 4.0", "CC0 1.0", "Apache License 2.0", "MIT License")
MAX_LISTED = 6            # Sizes, formats and classes on a line.


@app.command()
def check(
    data: Annotated[str, argument("DIR|ZIP|NAME|MANIFEST", "A dataset.")],
    full: Annotated[bool, option(None, "Open every file, however many there are.", "--full")] = False,
    sample: Annotated[int | None, option("N", "Open about so many files; by default 20,000.", min=1)] = None,
    max_pixels: MaxPixels = None, json_output: Json = NO_JSON,
) -> None:
    """Report layout, training command, counts and problems; exit code 1 if training would suffer."""
    from dataclasses import asdict

    from i2i.data.check.check_dataset import check_dataset
    from i2i.data.check.file_scan import MAX_FILES
    if full and sample is not None:
        raise RequestError(f"--full and --sample {sample} cannot be given together")
    with ProgressBars() as bars:
        report = check_dataset(data, most=sys.maxsize if full else sample or MAX_FILES, max_pixels=max_pixels,
                               progress=lambda done, total: bars.update("files", done, total))
    print("\n".join([*_format_facts(_facts(report)), "", *_format_findings(report.findings)]))
    json_output.write({"format": 1, **asdict(report)})
    if report.serious:
        raise typer.Exit(1)


def _facts(report: CheckReport) -> dict[str, str | Sequence[str]]:
    from i2i.training.memory import format_bytes
    facts: dict[str, str | Sequence[str]] = {
        "data": report.where, "layout": report.layout + (f": {report.counts}" if report.counts else ""),
        "train with": [command + "    # right half to left half" * command.endswith("=ba") for command in
                       report.commands], "files": _file_counts(report)}
    if not report.readable:
        return facts
    width, height = report.width, report.height
    frequent = dict(list(report.sizes.items())[:3])
    facts["sizes"] = _format_counts(report.sizes) if len(report.sizes) <= 2 else (
        f"{width.low:g} x {height.low:g} to {width.high:g} x {height.high:g}, median {width.median:g} x "
        f"{height.median:g}; most often {_format_counts(frequent)}")
    facts |= {"kinds": _format_counts(report.kinds), "formats": _format_counts(report.formats),
              "values": f"{report.values[0]:g} … {report.values[1]:g}"}
    if len(report.modes) > 1:
        facts["modes"] = _format_counts({mode or "other": count for mode, count in report.modes.items()})
    if report.classes:
        facts["classes"] = _format_classes(report.classes)
    facts["per 1,000"] = (f"{report.seconds_per_1000:.2g} s to read and decode on one core, "
                          f"{format_bytes(report.disk_per_1000)} on disk, "
                          f"{format_bytes(report.memory_per_1000)} decoded")
    return facts


def _format_facts(facts: Mapping[str, str | Sequence[str]]) -> list[str]:
    width, lines = max(map(len, facts)), []
    for name, value in facts.items():
        for i, line in enumerate([value] if isinstance(value, str) else value):
            if line:
                lines.append(f"{'' if i else name:<{width}}  {printable(line)}")
    return lines


def _file_counts(report: CheckReport) -> str:
    text = f"{report.files:,} images" if report.files > 1 else "1 image"
    if report.examined < report.files:
        text += f", {report.examined:,} of them examined (--full for all)"
    if report.readable < report.examined:
        text += f", {report.examined - report.readable:,} not readable"
    return text


def _format_classes(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) <= MAX_LISTED:
        return _format_counts(dict(ordered))
    (most, high), (least, low) = ordered[0], ordered[-1]
    return f"{len(ordered)}, from {most} ({high:,}) to {least} ({low:,})"


def _format_counts(counts: Mapping[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    listed = [f"{name} ({count:,})" for name, count in counts.items()]
    more = f" and {len(listed) - MAX_LISTED} more" if len(listed) > MAX_LISTED else ""
    return ", ".join(listed[:MAX_LISTED]) + more


def _format_findings(findings: Sequence[Finding]) -> list[str]:
    from i2i.data.check.findings import SEVERITIES
    lines = []
    for finding in findings:
        lines.append(f"{finding.severity:<9}{finding.text}")
        lines += [f"{'':9}{'such as ' if finding.count > 1 else ''}{printable(example)}"
                  for example in finding.examples[:1]]
    counts = Counter(finding.severity for finding in findings)
    summary = ", ".join(f"{counts[severity]} {severity}{'s' * (counts[severity] != 1)}"
                        for severity in SEVERITIES if counts[severity])
    return [*lines, *([""] if lines else []), summary or "nothing wrong was found"]


@app.command()
def export(
    name: Annotated[str, argument("NAME", "A dataset of i2i data list.")],
    folder: Annotated[str, argument("DIR", "The folder to write, which must not exist yet.")],
) -> None:
    """Write a dataset that comes with the package as a folder of images, with its license."""
    import shutil
    from tempfile import TemporaryDirectory
    from zipfile import ZipFile

    from i2i.data.sources import bundled_datasets, open_source
    datasets, out = bundled_datasets(), Path(folder)
    if out.exists():
        raise RequestError(f"{folder} exists already; accepted: a new folder")
    if name not in datasets:
        raise RequestError(f"there is no dataset {name}; accepted: {', '.join(datasets)}")
    writable_folder("DIR", str(out.parent))
    source = datasets[name]
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as unfinished, ZipFile(source) as archive:
        archive.extractall(f"{unfinished}/all")
        shutil.copy(source.with_name(f"LICENSE-{name}.txt"), f"{unfinished}/all/LICENSE.txt")
        Path(unfinished, "all").rename(out)
    images = len(open_source(out).list_images())
    print(f"{folder}: {images:,} images; look at them with: i2i data check {folder}")


@app.command("list")
def list_datasets(json_output: Json = NO_JSON) -> None:
    """List the datasets that come with the package."""
    from i2i.data.check.check_dataset import check_dataset
    from i2i.data.check.layout import RECIPES
    from i2i.data.sources import bundled_datasets
    from i2i.training.job import DEFAULT_DATA
    rows = []
    for name, path in bundled_datasets().items():
        report = check_dataset(name, most=6)
        text = path.with_name(f"LICENSE-{name}.txt").read_text(encoding="utf-8")
        licenses = ", ".join(license.removesuffix(" License") for license in LICENSES if license in text)
        recipes = ", ".join(RECIPES[kind] for kind, default in DEFAULT_DATA.items() if default == name)
        rows.append({"name": name, "images": report.counts, "size": next(iter(report.sizes)),
                     "layout": report.layout, "license": licenses, "default of": recipes})
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    for row in [dict(zip(widths, widths, strict=True)), *rows]:
        print("  ".join(row[key].ljust(width) for key, width in widths.items()).rstrip())
    json_output.write({"datasets": rows})
