"""Looks a data set over before anything is trained on it: `inspect(where)` tells the layout, the command, the
counts and what is wrong."""

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
from i2i.data.check.survey import MANY, Log, Survey, speed, survey
from i2i.data.dataset_root import find_root
from i2i.data.sources import open_source
from i2i.errors import RequestError


@dataclass(frozen=True)
class SizeRange:
    """Of many values the smallest, the middle one, the largest, and how many are different."""

    low: float
    median: float
    high: float
    different: int


@dataclass(frozen=True)
class CheckReport:
    """What is known of a data set.  `files` of which `examined` were opened and `readable` decoded; per-1,000
    figures are of one core."""

    where: str
    layout: str
    counts: str
    commands: tuple[str, ...]
    files: int
    examined: int
    readable: int
    width: SizeRange
    height: SizeRange
    sizes: Mapping[str, int]        # The most frequent.
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
        """Whether a training would be stopped or spoilt."""
        return any(each.severity == "error" for each in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**vars(self), "width": vars(self.width), "height": vars(self.height),
                "findings": [each.as_dict() for each in self.findings]}


def check_dataset(where: str | Path, *, most: int = MANY, tell: Log | None = None) -> CheckReport:
    """Examine about `most` files of a data set, chosen by their names, and all names.  RequestError if there
    is nothing to look at.

    `tell` hears how many files are done, of how many.
    """
    whole = open_source(where)
    every = whole.names()
    if not len(every):
        hidden = "".join(f"; {each.text}, such as {each.examples[0]}" for each in inspect_names(whole, every))
        raise RequestError(f"{where} holds no images{hidden}")
    source, told, names = find_root(whole)
    found = survey(source, source.names() if told else names, most=most, tell=tell or (lambda done, of: None))
    layout = detect_layout(source, found)
    return _report(str(where), layout, found, (*_run_rules(layout, found), *inspect_names(whole, every)),
                   speed(source, found.names))


def _run_rules(layout: Layout, found: Survey) -> list[Finding]:
    part = roles(layout, found)
    return [*rules.faults(found), *rules.laid_out(layout, found), *rules.unused(layout, found, part),
            *rules.alone(found), *rules.mixed(found, part),
            *rules.pairs(layout, found, part), *rules.duplicates(found, part)]


def _report(where: str, layout: Layout, found: Survey, findings: Sequence[Finding],
            seconds: float) -> CheckReport:
    width, height = found.column("width"), found.column("height")
    whole = np.maximum(1, found.column("channels")) * width.astype(np.int64) * height * _bytes(found)
    sizes, counts = np.unique(np.stack([width, height], 1), axis=0, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:8]
    formats, kinds, modes = (found.words[key].counts() for key in ("format", "kind", "mode"))
    return CheckReport(
        where, layout.words, layout.counted() if layout.splits else "", tuple(layout.lines(where)),
        found.total, len(found.names), len(found),
        _spread(width), _spread(height), {f"{sizes[i][0]} x {sizes[i][1]}": int(counts[i]) for i in often},
        formats, kinds, modes,
        (float(found.column("low").min()), float(found.column("high").max())) if len(found) else (0.0, 0.0),
        layout.classes(),
        1000 * seconds, 1000 * _mean(found.column("bytes")), 1000 * _mean(whole), tuple(ordered(findings)))


def _bytes(found: Survey) -> Any:
    """Of one value of each picture."""
    words = found.words["dtype"]
    sizes = np.array([np.dtype(word).itemsize for word in words.known] or [1])
    return sizes[np.asarray(words.codes, np.int64)]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _spread(values: Any) -> SizeRange:
    if not len(values):
        return SizeRange(0, 0, 0, 0)
    return SizeRange(float(values.min()), float(np.median(values)), float(values.max()),
                     len(np.unique(values)))
