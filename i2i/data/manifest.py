"""Manifests: CSV or JSON-lines files that list images, with the columns a,b or file, and optionally split and
label."""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from i2i.data.file_list import FileList
from i2i.data.layouts import SPLITS
from i2i.data.sampler import evenly_spaced
from i2i.errors import RequestError
from i2i.registry import suggest

MANIFESTS = ("manifest.csv", "manifest.jsonl")      # Names that are looked for in the root of a source.
SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("a", "b", "file", "split", "label")
CHECKED_ROWS = 1000         # Rows of a split whose files must exist, evenly spaced.
Labels = NDArray[np.int64]
Row = dict[str, str]


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split: names of both sides, "" in empty cells; one list if the column is `file`."""

    a: FileList
    b: FileList
    labels: Labels | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Manifest:
    """What a manifest lists.

    Args:
        path: of the manifest.
        single: whether it has the column `file` instead of a and b.
        splits: the rows of each split.
        classes: the labels in order: numbers by value, others alphabetically.
        one_sided_line: the first line with only one side.
    """

    path: str
    single: bool
    splits: dict[str, SplitRows]
    classes: tuple[str, ...] = ()
    one_sided_line: int | None = None

    def files(self) -> Iterator[str]:
        """All names in it."""
        for rows in self.splits.values():
            yield from filter(None, rows.a)
            yield from () if self.single else filter(None, rows.b)


class _SplitBuilder:
    """The rows of one split while they are read, without an object for each."""

    def __init__(self) -> None:
        self.a, self.b = list[str](), list[str]()
        self.labels, self.lines, self.hashes = array("q"), array("q"), array("q")

    def add(self, line: int, a: str, b: str, label: int) -> None:
        self.a.append(a)
        self.b.append(b)
        self.labels.append(label)
        self.lines.append(line)
        self.hashes.append(hash((a, b)))

    def build(self, single: bool, label_order: Labels | None) -> SplitRows:
        a = FileList.of(self.a)
        labels = None if label_order is None else label_order[np.array(self.labels, np.int64)]
        return SplitRows(a, a if single else FileList.of(self.b), labels)

    def check(self, rows: SplitRows, path: str, has: Callable[[str], bool]) -> None:
        """Raise RequestError for repeated rows and missing files."""
        hashes = np.array(self.hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        repeated = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if len(repeated):
            first, second = (self.lines[order[repeated[0] + i]] for i in (0, 1))
            raise RequestError(f"{path}: line {second} repeats line {first}")
        for index in evenly_spaced(len(rows.a), CHECKED_ROWS):
            for name in (rows.a[index], rows.b[index]):
                if name and not has(name):
                    raise RequestError(f"{path}, line {self.lines[index]}: there is no file {name}")


def read(file: BinaryIO, path: str, *, has: Callable[[str], bool],
         is_image: Callable[[str], bool]) -> Manifest:
    """Read a manifest.

    Args:
        file: the open manifest.
        path: its path, for messages.
        has: whether a file exists.
        is_image: whether a name has the extension of an image.

    Raises:
        RequestError: names the line that is wrong.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    splits: dict[str, _SplitBuilder] = {}
    numbers: dict[str, int] = {}        # Of each label, in the order of first appearance.
    single = labeled = False
    one_sided_line = None
    for line, row in (_csv_rows if path.lower().endswith(".csv") else _json_rows)(text, path):
        if not splits:
            single, labeled = "file" in row, "label" in row
        elif (single, labeled) != ("file" in row, "label" in row):
            raise RequestError(f"{path}, line {line}: it has {_listed(row)} where the first row has others")
        a, b, split = _check_row(row, f"{path}, line {line}", is_image)
        if one_sided_line is None and not (a and b):
            one_sided_line = line
        label = numbers.setdefault(row["label"], len(numbers)) if labeled else 0
        splits.setdefault(split, _SplitBuilder()).add(line, a, b, label)
    if not splits:
        raise RequestError(f"{path} names no images")
    classes = sorted(numbers, key=int if all(map(_is_integer, numbers)) else str)
    label_order = np.argsort(np.array([numbers[name] for name in classes], np.int64)) if labeled else None
    built = {split: splits[split].build(single, label_order) for split in SPLITS if split in splits}
    for split, rows in built.items():
        splits[split].check(rows, path, has)
    return Manifest(path, single, built, tuple(classes), one_sided_line)


def _check_row(row: Row, where: str, is_image: Callable[[str], bool]) -> tuple[str, str, str]:
    """The names of both sides, "" for an empty one, and the split of a row."""
    a, b = (row["file"], row["file"]) if "file" in row else (row["a"], row["b"])
    split = row.get("split") or "train"
    for name in (a, b):
        if name and not is_image(name):
            raise RequestError(f"{where}: {name} does not end like an image")
    if not a and not b:
        raise RequestError(f"{where}: no image is named")
    if split not in SPLITS:
        raise RequestError(f"{where}: split {split!r} is not known; accepted: {', '.join(SPLITS)}")
    if row.get("label") == "":
        raise RequestError(f"{where}: the label is empty; all rows have one, or there is no such column")
    return a, b, split


def _check_columns(columns: Iterable[str], where: str) -> tuple[str, ...]:
    columns = tuple(columns)
    for name in columns:
        if name not in COLUMNS:
            raise RequestError(f"{where}: no column is called {name!r}; {suggest(name, COLUMNS)}")
    if len(set(columns)) < len(columns) or {"a", "b", "file"} & set(columns) not in ({"a", "b"}, {"file"}):
        raise RequestError(f"{where}: it has {_listed(columns)}; accepted: a,b or file, and split, label")
    return columns


def _csv_rows(text: io.TextIOBase, path: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(text)
    columns: tuple[str, ...] = ()
    try:
        for cells in filter(None, reader):
            if not columns:
                columns = _check_columns((cell.strip() for cell in cells), f"{path}, line {reader.line_num}")
            elif len(cells) != len(columns):
                raise RequestError(f"{path}, line {reader.line_num}: it has {len(cells)} cells, the first "
                                   f"line {len(columns)}")
            else:
                yield reader.line_num, dict(zip(columns, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(f"{path}, line {reader.line_num + 1}: {error}") from None


def _json_rows(text: io.TextIOBase, path: str) -> Iterator[tuple[int, Row]]:
    known: set[tuple[str, ...]] = set()     # Columns that were checked.
    line = 0
    try:
        for line, data in enumerate(text, 1):
            if not data.strip():
                continue
            row = json.loads(data)
            if not isinstance(row, dict):
                raise RequestError(f"{path}, line {line}: {data.strip()[:60]} is no object such as {{\"a\": "
                                   "\"x.png\", \"b\": \"y.png\"}}")
            if tuple(row) not in known:
                known.add(_check_columns(row, f"{path}, line {line}"))
            cells = {key: "" if value is None else str(value) if key == "label" and type(value) is int
                     else value for key, value in row.items()}
            if not all(isinstance(cell, str) for cell in cells.values()):
                raise RequestError(f"{path}, line {line}: {data.strip()[:60]} holds what is neither text "
                                   "nor, as a label, a whole number")
            yield line, cells
    except RequestError:
        raise
    # Of JSON, of bytes that are no text, of numbers with thousands of digits.
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}, line {line + isinstance(error, UnicodeDecodeError)}: {error}") from None


def _is_integer(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _listed(columns: Iterable[str]) -> str:
    return "columns " + ", ".join(columns) if columns else "no columns"
