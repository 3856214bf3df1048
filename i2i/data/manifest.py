"""Manifests: a CSV or JSON-lines file that names the images, one row each: columns a,b or file, and split and
label where wanted."""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from i2i.data.file_list import FileList, FileListBuilder
from i2i.data.layouts import SPLITS
from i2i.errors import RequestError
from i2i.registry import suggest

MANIFESTS = ("manifest.csv", "manifest.jsonl")      # Looked for in the root of a folder or zip.
SUFFIXES = (".csv", ".jsonl")
COLUMNS = ("a", "b", "file", "split", "label")
LOOKED = 1000               # Rows, spread over a split, whose files are looked for before training.
Labels = NDArray[np.int64]
Lines = Iterator[tuple[int, Sequence[str], Sequence[str]]]      # Line, columns, cells.


@dataclass(frozen=True)
class Rows:
    """The rows of one split: two columns of names, which are one where the manifest has the column `file`; ""
    where a cell is empty."""

    a: FileList
    b: FileList
    labels: Labels | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.  `where` is its path, `single` whether it has the column `file`; `alone` the
    first line that has only one side."""

    where: str
    single: bool
    splits: dict[str, Rows]
    classes: tuple[str, ...] = ()
    alone: int | None = None

    def files(self) -> Iterator[str]:
        """All names in it."""
        for rows in self.splits.values():
            yield from (name for name in rows.a if name)
            yield from () if self.single else (name for name in rows.b if name)


class _Part:
    """The rows of one split while they are read, as text and numbers."""

    def __init__(self) -> None:
        self.a, self.b, self.labels, self.lines, self.hashes = FileListBuilder(), FileListBuilder(), array("q"), array("q"), array("q")

    def add(self, line: int, a: str, b: str, label: int) -> None:
        self.a.add(a)
        self.b.add(b)
        self.labels.append(label)
        self.lines.append(line)
        key = f"{a}\0{b}".encode("utf-8", "surrogatepass")
        self.hashes.append(int.from_bytes(blake2b(key, digest_size=8).digest(), "little", signed=True))

    def repeated(self) -> tuple[int, int] | None:
        """The lines of two equal rows."""
        hashes = np.array(self.hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        twice = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        return (self.lines[order[twice[0]]], self.lines[order[twice[0] + 1]]) if len(twice) else None


def read(file: BinaryIO, where: str, *, has: Callable[[str], bool],
         is_image: Callable[[str], bool]) -> Manifest:
    """A manifest from an open file.  RequestError names the line that is wrong.

    `has` tells whether a file is there, `is_image` whether a name ends like an image's.
    """
    parts: dict[str, _Part] = {}
    numbers: dict[str, int] = {}        # Label -> its number, in the order of first appearance.
    first: tuple[bool, bool] | None = None
    alone = None
    for line, columns, cells in (_csv if where.lower().endswith(".csv")
                                 else _json)(io.TextIOWrapper(file, "utf-8-sig", newline=""), where):
        row, at = dict(zip(columns, cells, strict=True)), f"{where}, line {line}"
        first = first or ("file" in row, "label" in row)
        if first != ("file" in row, "label" in row):
            raise RequestError(f"{at}: it has {_entries(columns)} where the first row has others")
        a, b, split = _checked(row, at, is_image)
        alone = line if alone is None and not (a and b) else alone
        parts.setdefault(split, _Part()).add(line, a, b,
                                             numbers.setdefault(row["label"], len(numbers)) if first[1]
                                             else 0)
    if first is None:
        raise RequestError(f"{where} names no images")
    classes = sorted(numbers, key=int if all(map(_whole, numbers)) else str)
    # Number of first appearance -> place among the classes.
    place = np.argsort(np.array([numbers[name] for name in classes], np.int64))
    splits = {}
    for split in (split for split in SPLITS if split in parts):
        splits[split] = _rows(parts[split], first[0], place if first[1] else None)
        _sniff(parts[split], splits[split], where, has)
    return Manifest(where, first[0], splits, tuple(classes), alone)


def _checked(row: dict[str, str], at: str, is_image: Callable[[str], bool]) -> tuple[str, str, str]:
    """The names of both sides and the split of a row; "" where one side is left empty."""
    a, b = (row["file"], row["file"]) if "file" in row else (row["a"], row["b"])
    split = row.get("split") or "train"
    for name in (a, b):
        if name and not is_image(name):
            raise RequestError(f"{at}: {name} does not end like an image")
    if not a and not b:
        raise RequestError(f"{at}: no image is named")
    if split not in SPLITS:
        raise RequestError(f"{at}: split {split!r} is not known; accepted: {', '.join(SPLITS)}")
    if row.get("label") == "":
        raise RequestError(f"{at}: the label is empty; all rows have one, or there is no such column")
    return a, b, split


def _rows(part: _Part, single: bool, place: Labels | None) -> Rows:
    a = part.a.names()
    return Rows(a, a if single else part.b.names(),
                None if place is None else place[np.array(part.labels, np.int64)])


def _sniff(part: _Part, rows: Rows, where: str, has: Callable[[str], bool]) -> None:
    if lines := part.repeated():
        raise RequestError(f"{where}: line {lines[1]} repeats line {lines[0]}")
    for index in np.unique(np.linspace(0, len(rows.a) - 1, LOOKED).astype(int)).tolist():
        for name in (rows.a[index], rows.b[index]):
            if name and not has(name):
                raise RequestError(f"{where}, line {part.lines[index]}: there is no file {name}")


def _whole(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _entries(columns: Sequence[str]) -> str:
    return "columns " + ", ".join(columns) if columns else "no columns"


# ---------------------------------------------------------------------------------------------- CSV and
# JSON lines

def _columns(columns: Sequence[str], where: str, line: int) -> Sequence[str]:
    """The columns, if they are such as a manifest has."""
    at = f"{where}, line {line}"
    for name in columns:
        if name not in COLUMNS:
            raise RequestError(f"{at}: no column is called {name!r}; {suggest(name, COLUMNS)}")
    if len(set(columns)) < len(columns) or {"a", "b", "file"} & set(columns) not in ({"a", "b"}, {"file"}):
        raise RequestError(f"{at}: it has {_entries(columns)}; accepted: a,b or file, and split, label")
    return columns


def _csv(text: io.TextIOBase, where: str) -> Lines:
    reader = csv.reader(text)
    columns: Sequence[str] = ()
    try:
        for cells in reader:
            if not cells:
                continue
            if not columns:
                columns = _columns([cell.strip() for cell in cells], where, reader.line_num)
                continue
            if len(cells) != len(columns):
                raise RequestError(f"{where}, line {reader.line_num}: it has {len(cells)} cells, the first "
                                   f"line {len(columns)}")
            yield reader.line_num, columns, cells
    except (csv.Error, UnicodeDecodeError) as error:
        raise RequestError(f"{where}, line {reader.line_num + 1}: {error}") from None


def _json(text: io.TextIOBase, where: str) -> Lines:
    known: dict[tuple[str, ...], Sequence[str]] = {}
    line = 0
    try:
        for line, data in enumerate(text, 1):
            if not data.strip():
                continue
            row = json.loads(data)
            if not isinstance(row, dict):
                raise RequestError(f"{where}, line {line}: {data.strip()[:60]} is no object such as {{\"a\": "
                                   "\"x.png\", \"b\": \"y.png\"}}")
            columns = tuple(row)
            known[columns] = known.get(columns) or _columns(columns, where, line)
            cells = ["" if value is None else str(value) if key == "label" and type(value) is int else value
                     for key, value in row.items()]
            if not all(isinstance(cell, str) for cell in cells):
                raise RequestError(f"{where}, line {line}: {data.strip()[:60]} holds what is neither text "
                                   "nor, as a label, a whole number")
            yield line, columns, cells
    except RequestError:
        raise
    # Of JSON, of bytes that are no text, of numbers with thousands of digits.
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}, line {line + isinstance(error, UnicodeDecodeError)}: {error}") from None
