"""Manifests: CSV or JSON-lines files that list images, with the columns a,b or file, and optionally split and
label."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

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
    """What a manifest lists."""

    path: str
    single: bool                            # Whether it has the column `file` instead of a and b.
    splits: dict[str, SplitRows]
    classes: tuple[str, ...] = ()           # The labels, numbers by value, others alphabetically.
    one_sided_line: int | None = None       # The first line that names only one side.

    def files(self) -> Iterator[str]:
        """All names in it."""
        for rows in self.splits.values():
            yield from filter(None, rows.a)
            yield from () if self.single else filter(None, rows.b)


def read(data: bytes, path: str, *, has: Callable[[str], bool], is_image: Callable[[str], bool]) -> Manifest:
    """Parse a manifest.  RequestError names the line that is wrong.

    `has` says whether a file exists, `is_image` whether a name has the extension of an image.
    """
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")
    rows: dict[str, list[tuple[int, str, str, str]]] = {}       # Split -> line, a, b and label.
    single = labeled = False
    one_sided_line = None
    for line, row in (_csv_rows if path.lower().endswith(".csv") else _json_rows)(text, path):
        if not rows:
            single, labeled = "file" in row, "label" in row
        elif (single, labeled) != ("file" in row, "label" in row):
            raise RequestError(f"{path}, line {line}: it has {_listed(row)} where the first row has others")
        a, b, split = _check_row(row, f"{path}, line {line}", is_image)
        if one_sided_line is None and not (a and b):
            one_sided_line = line
        rows.setdefault(split, []).append((line, a, b, row.get("label", "")))
    if not rows:
        raise RequestError(f"{path} names no images")
    names = dict.fromkeys(label for part in rows.values() for *_, label in part) if labeled else {}
    integers = all(name.removeprefix("-").isdecimal() for name in names)
    classes = tuple(sorted(names, key=int if integers else str))
    numbers = {name: number for number, name in enumerate(classes)}
    splits = {}
    for split in (split for split in SPLITS if split in rows):
        first_lines: dict[tuple[str, str], int] = {}
        for line, a, b, _ in rows[split]:
            if (first := first_lines.setdefault((a, b), line)) != line:
                raise RequestError(f"{path}: line {line} repeats line {first}")
        for index in evenly_spaced(len(rows[split]), CHECKED_ROWS):
            line, a, b, _ = rows[split][index]
            if missing := [name for name in (a, b) if name and not has(name)]:
                raise RequestError(f"{path}, line {line}: there is no file {missing[0]}")
        a_names = FileList.of(a for _, a, _, _ in rows[split])
        b_names = a_names if single else FileList.of(b for _, _, b, _ in rows[split])
        labels = np.array([numbers[label] for *_, label in rows[split]], np.int64) if labeled else None
        splits[split] = SplitRows(a_names, b_names, labels)
    return Manifest(path, single, splits, classes, one_sided_line)


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
    line = 0
    try:
        for line, data in enumerate(text, 1):
            if not data.strip():
                continue
            row = json.loads(data)
            if not isinstance(row, dict):
                raise RequestError(f"{path}, line {line}: {data.strip()[:60]} is no object such as {{\"a\": "
                                   "\"x.png\", \"b\": \"y.png\"}}")
            _check_columns(row, f"{path}, line {line}")
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


def _listed(columns: Iterable[str]) -> str:
    return "columns " + ", ".join(columns) if columns else "no columns"
