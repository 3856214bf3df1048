"""Check a data set before training: its layout, the command to train on it, statistics and problems."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from i2i.data.check.file_facts import FileFacts
from i2i.data.check.file_scan import MAX_FILES, FileScan, Progress, decode_seconds, scan_files
from i2i.data.check.findings import (
    SEVERITIES,
    Finding,
    check_duplicates,
    check_files,
    check_layout,
    check_pairs,
    check_sides,
)
from i2i.data.check.layout import Layout, assign_roles, detect_layout
from i2i.data.check.names import inspect_names
from i2i.data.dataset_root import find_root
from i2i.data.sources import image_names, open_source


@dataclass(frozen=True)
class SizeRange:
    """Smallest, median and largest value, and the number of different values."""

    low: float
    median: float
    high: float
    different: int


@dataclass(frozen=True)
class CheckReport:
    """The result of a check."""

    where: str
    layout: str
    counts: str
    commands: tuple[str, ...]
    files: int
    examined: int                   # Of them.
    readable: int
    width: SizeRange
    height: SizeRange
    sizes: Mapping[str, int]        # The most frequent ones.
    formats: Mapping[str, int]
    kinds: Mapping[str, int]
    modes: Mapping[str, int]
    values: tuple[float, float]
    classes: Mapping[str, int]
    seconds_per_1000: float         # Of one core.
    disk_per_1000: float            # Bytes.
    memory_per_1000: float          # Bytes, decoded.
    findings: tuple[Finding, ...]

    @property
    def serious(self) -> bool:
        """Whether a finding would stop or spoil training."""
        return any(each.severity == "error" for each in self.findings)


def check_dataset(where: str | Path, *, most: int = MAX_FILES, max_pixels: int | None = None,
                  progress: Progress | None = None) -> CheckReport:
    """Check a data set.

    Args:
        where: a path, URL or name of a bundled data set.
        most: examine about so many files, chosen by a hash of their names; all names are checked.
        max_pixels: images with more are refused.
        progress: called with the number of files examined so far, and of all to be examined.

    Raises:
        RequestError: if there are no images.
    """
    whole = open_source(where, max_pixels=max_pixels)
    every = image_names(whole, where)
    source, manifest, names = find_root(whole)
    found = scan_files(source, source.names() if manifest else names, most=most,
                       progress=progress or (lambda done, total: None))
    layout = detect_layout(source, found)
    roles = assign_roles(layout, found)
    findings = [*check_files(found), *check_layout(layout, found, roles),
                *check_sides(found, roles), *check_pairs(layout, found, roles),
                *check_duplicates(found, roles), *inspect_names(whole, every)]
    findings.sort(key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.kind))
    return _report(str(where), layout, found, findings, decode_seconds(source, list(found.images)))


def _report(where: str, layout: Layout, found: FileScan, findings: Sequence[Finding],
            seconds: float) -> CheckReport:
    images = list(found.images.values())

    def count(label: Callable[[FileFacts], str], most: int | None = None) -> dict[str, int]:
        return dict(Counter(map(label, images)).most_common(most))

    decoded = [each.width * each.height * each.channels * np.dtype(each.dtype).itemsize for each in images]
    return CheckReport(
        where, layout.description, layout.summary() if layout.splits else "", tuple(layout.commands(where)),
        found.total, len(images) + len(found.faults), len(images),
        _size_range([each.width for each in images]), _size_range([each.height for each in images]),
        count(lambda each: f"{each.width} x {each.height}", 8), count(lambda each: each.format),
        count(lambda each: each.kind), count(lambda each: each.mode),
        (min((each.low for each in images), default=0.0), max((each.high for each in images), default=0.0)),
        layout.classes(), 1000 * seconds, 1000 * sum(each.bytes for each in images) / max(1, len(images)),
        1000 * sum(decoded) / max(1, len(images)), tuple(findings))


def _size_range(values: Sequence[int]) -> SizeRange:
    known = values or [0]
    return SizeRange(min(known), median(known), max(known), len(set(values)))
