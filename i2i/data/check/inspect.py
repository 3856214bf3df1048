"""Check a data set before training: its layout, the command to train on it, statistics and problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from i2i.data.check import rules
from i2i.data.check.finding import Finding, ordered
from i2i.data.check.layout import Layout, detect_layout, roles
from i2i.data.check.names import inspect_names
from i2i.data.check.survey import MAX_FILES, Progress, Survey, decode_seconds, survey
from i2i.data.dataset_root import find_root
from i2i.data.sources import open_source
from i2i.errors import RequestError


@dataclass(frozen=True)
class SizeRange:
    """Smallest, median and largest value, and the number of different values."""

    low: float
    median: float
    high: float
    different: int


@dataclass(frozen=True)
class CheckReport:
    """The result of a check.

    Of `files`, `examined` were opened and `readable` decoded; seconds are those of one core.
    """

    where: str
    layout: str
    counts: str
    commands: tuple[str, ...]
    files: int
    examined: int
    readable: int
    width: SizeRange
    height: SizeRange
    sizes: Mapping[str, int]        # The most frequent ones.
    formats: Mapping[str, int]
    kinds: Mapping[str, int]
    modes: Mapping[str, int]
    values: tuple[float, float]
    classes: Mapping[str, int]
    seconds_per_1000: float
    disk_per_1000: float            # Bytes.
    memory_per_1000: float          # Bytes, decoded.
    findings: tuple[Finding, ...]

    @property
    def serious(self) -> bool:
        """Whether a finding would stop or spoil training."""
        return any(each.severity == "error" for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**vars(self), "width": vars(self.width), "height": vars(self.height),
                "findings": [each.as_dict() for each in self.findings]}


def check_dataset(where: str | Path, *, most: int = MAX_FILES,
                  progress: Progress | None = None) -> CheckReport:
    """Check a data set.

    Args:
        where: a path, URL or name of a bundled data set.
        most: examine about so many files, chosen by a hash of their names; all names are checked.
        progress: called with the number of files examined so far, and of all to be examined.

    Raises:
        RequestError: if there are no images.
    """
    whole = open_source(where)
    every = whole.names()
    if not len(every):
        hidden = "".join(f"; {each.text}, such as {each.examples[0]}" for each in inspect_names(whole, every))
        raise RequestError(f"{where} holds no images{hidden}")
    source, manifest, names = find_root(whole)
    found = survey(source, source.names() if manifest else names, most=most,
                   progress=progress or (lambda done, total: None))
    layout = detect_layout(source, found)
    return _report(str(where), layout, found, (*_run_rules(layout, found), *inspect_names(whole, every)),
                   decode_seconds(source, found.names))


def _run_rules(layout: Layout, found: Survey) -> list[Finding]:
    part = roles(layout, found)
    return [*rules.check_faults(found), *rules.check_layout(layout, found, part), *rules.check_images(found),
            *rules.check_sides(found, part), *rules.check_pairs(layout, found, part),
            *rules.check_duplicates(found, part)]


def _report(where: str, layout: Layout, found: Survey, findings: Sequence[Finding],
            seconds: float) -> CheckReport:
    width, height = found.column("width"), found.column("height")
    decoded = np.maximum(1, found.column("channels")) * width.astype(np.int64) * height * _bytes(found)
    sizes, counts = np.unique(np.stack([width, height], 1), axis=0, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:8]
    formats, kinds, modes = (found.labels[key].counts() for key in ("format", "kind", "mode"))
    return CheckReport(
        where, layout.description, layout.summary() if layout.splits else "", tuple(layout.commands(where)),
        found.total, len(found.names), len(found),
        _size_range(width), _size_range(height),
        {f"{sizes[i][0]} x {sizes[i][1]}": int(counts[i]) for i in often},
        formats, kinds, modes,
        (float(found.column("low").min()), float(found.column("high").max())) if len(found) else (0.0, 0.0),
        layout.classes(),
        1000 * seconds, 1000 * _mean(found.column("bytes")), 1000 * _mean(decoded), tuple(ordered(findings)))


def _bytes(found: Survey) -> Any:
    """The size of a value of each image."""
    column = found.labels["dtype"]
    sizes = np.array([np.dtype(dtype).itemsize for dtype in column.known] or [1])
    return sizes[np.asarray(column.codes, np.int64)]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _size_range(values: Any) -> SizeRange:
    if not len(values):
        return SizeRange(0, 0, 0, 0)
    return SizeRange(float(values.min()), float(np.median(values)), float(values.max()),
                     len(np.unique(values)))
