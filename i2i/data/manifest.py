"""Manifests: CSV, TSV or JSON-lines files that list images, with the columns a,b or file, and optionally also
split and label."""

import codecs
import csv
import io
import json
import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, zip_longest

import numpy as np
from numpy.typing import NDArray

from i2i.data.file_list import FileList
from i2i.data.layouts import SPLIT_SYNONYMS, SPLITS
from i2i.data.sampler import evenly_spaced
from i2i.errors import RequestError
from i2i.registry import suggest

SUFFIXES = (".csv", ".tsv", ".jsonl")
MANIFESTS = tuple(f"manifest{suffix}" for suffix in SUFFIXES)   # Looked for in the root of a source.
COLUMNS = ("a", "b", "file", "split", "label")
DELIMITERS = ",;\t|"        # Of CSV; spreadsheets write semicolons where the comma is the decimal sign.
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
    unused: tuple[str, ...] = ()            # Columns that are not read.

    @property
    def layout(self) -> str:
        """Where the files lie, in words."""
        return "rows of a manifest" + (f" (not used: {', '.join(self.unused)})" if self.unused else "")

    def files(self) -> Iterator[str]:
        """All names in it."""
        for rows in self.splits.values():
            yield from filter(None, rows.a)
            yield from () if self.single else filter(None, rows.b)


def read(data: bytes, path: str, *, has: Callable[[str], bool], is_image: Callable[[str], bool]) -> Manifest:
    """Parse a manifest.  RequestError names the line that is wrong.

    `has` says whether a file exists, `is_image` whether a name has the extension of an image.
    """
    encodings = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", b"\0": "utf-16-be"}
    encoding = next((name for start, name in encodings.items() if data.startswith(start)),
                    "utf-16-le" if data[1:2] == b"\0" else "utf-8-sig")
    text = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    rows: dict[str, list[tuple[int, str, str, str]]] = {}       # Split -> line, a, b and label.
    columns: tuple[str, ...] = ()
    unused: dict[str, None] = {}
    one_sided_line = None
    for line, cells in _decoded(data, encoding, path, (
            _json_rows if path.lower().endswith(".jsonl") else _csv_rows)(text, path)):
        row = {key: cell for key, cell in cells.items() if key in COLUMNS}
        unused |= dict.fromkeys(key for key in cells if key not in row and key)
        columns = columns or tuple(row)
        if ("file" in row, "label" in row) != ("file" in columns, "label" in columns):
            raise RequestError(f"{path}, line {line}: it has {_listed(row)} where the first row has others")
        a, b, split = _check_row(row, f"{path}, line {line}", has, is_image)
        if one_sided_line is None and not (a and b):
            one_sided_line = line
        label = unicodedata.normalize("NFC", row.get("label", "").strip())
        rows.setdefault(split, []).append((line, a, b, label))
    if not rows:
        raise RequestError(f"{path} names no images")
    names = dict.fromkeys(label for part in rows.values() for *_, label in part) if "label" in columns else {}
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
        b_names = a_names if "file" in columns else FileList.of(b for _, _, b, _ in rows[split])
        labels = np.array([numbers[label] for *_, label in rows[split]], np.int64) if classes else None
        splits[split] = SplitRows(a_names, b_names, labels)
    return Manifest(path, "file" in columns, splits, classes, one_sided_line, tuple(unused))


def _decoded(data: bytes, encoding: str, path: str,
             rows: Iterator[tuple[int, Row]]) -> Iterator[tuple[int, Row]]:
    """The rows.  RequestError names the line of a byte that the encoding does not have.

    The encoding cannot be guessed: that of Windows depends on the country.
    """
    try:
        yield from rows
    except UnicodeDecodeError as part:
        error = part
        try:
            data.decode(encoding)       # The whole file, for the position of the byte in it.
        except UnicodeDecodeError as whole:
            error = whole
        before = error.object[:error.start].decode(encoding, "replace")
        line = 1 + before.replace("\r\n", "\n").replace("\r", "\n").count("\n")
        raise RequestError(f"{path}, line {line}: it cannot be decoded as {error.encoding}; save it as UTF-8 "
                           "(in Excel: CSV UTF-8)") from None


def _check_row(row: Row, where: str, has: Callable[[str], bool],
               is_image: Callable[[str], bool]) -> tuple[str, str, str]:
    """The names of both sides, "" for an empty one, and the split of a row."""
    a, b = (_existing(row[key], has) for key in (("file", "file") if "file" in row else ("a", "b")))
    split = row.get("split", "").strip().lower() or "train"
    split = SPLIT_SYNONYMS.get(split, split)
    for name in (a, b):
        if name and not is_image(name):
            raise RequestError(f"{where}: {name} does not end like an image")
    if not a and not b:
        raise RequestError(f"{where}: no image is named")
    if split not in SPLITS:
        raise RequestError(f"{where}: split {split!r} is not known; accepted: {', '.join(SPLITS)}")
    if not row.get("label", "?").strip():
        raise RequestError(f"{where}: the label is empty; all rows have one, or there is no such column")
    return a, b, split


def _existing(name: str, has: Callable[[str], bool]) -> str:
    """A name as its file is called, where the manifest has blanks around it, the separators of Windows, or
    accents in the other Unicode form, or the file a name in the older encoding of Western Europe."""
    if name.isascii() and "\\" not in name and not name.startswith("./") and name == name.strip():
        return name
    slashed = posixpath.normpath(name.strip().replace("\\", "/")) if name.strip() else ""
    variants = [unicodedata.normalize(form, each) for each in (name.strip(), slashed)
                for form in ("NFC", "NFD")]
    variants += [each.encode("cp1252", "replace").decode("utf-8", "surrogateescape") for each in variants[:1]]
    return next(filter(has, [name, *variants]), name.strip())


def _check_columns(columns: Iterable[str], where: str) -> tuple[str, ...]:
    """The columns in lower case.  RequestError if the known ones are not those of a manifest."""
    columns = tuple(name.strip().lower() for name in columns)
    known = [name for name in columns if name in COLUMNS]
    for name in columns:
        if name not in COLUMNS and "did you mean" in (hint := suggest(name, COLUMNS)):
            raise RequestError(f"{where}: no column is called {name!r}; {hint}")
    if len(set(known)) < len(known) or {"a", "b", "file"} & set(known) not in ({"a", "b"}, {"file"}):
        raise RequestError(f"{where}: it has {_listed(columns)}; accepted: a,b or file, and split, label")
    return columns


def _csv_rows(text: io.TextIOBase, path: str) -> Iterator[tuple[int, Row]]:
    """The rows of a CSV file with their lines; its first line names the columns and shows the delimiter."""
    line, delimiters = 0, DELIMITERS
    try:
        for header in text:
            line += 1
            if header.lower().startswith("sep=") and len(header.strip()) == 5:      # Excel says it so.
                delimiters = header[4]
            elif header.strip():
                break
        else:
            return
        first = line
        headers = [next(csv.reader([header], delimiter=each, skipinitialspace=True)) for each in delimiters]
        delimiter, names = max(zip(delimiters, headers, strict=True), key=lambda pair: len(pair[1]))
        columns = _check_columns(names, f"{path}, line {line}")
        reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
        for cells in reader:
            line = first + reader.line_num
            if not any(map(str.strip, cells)):
                continue
            # The first column without a name may number the rows, as pandas does.
            start = not columns[0] and cells[0].strip().isdecimal()
            unnamed = [cell for column, cell in islice(zip_longest(columns, cells, fillvalue=""), start, None)
                       if not column and cell.strip()]
            if unnamed or len(cells) < len(columns):
                raise RequestError(f"{path}, line {line}: it has {len(cells)} cells, the first line "
                                   f"{len(columns)}" + (f" and no column of {unnamed[0]}" if unnamed else ""))
            yield line, dict(zip(columns, cells, strict=False))
    except csv.Error as error:
        raise RequestError(f"{path}, line {line + 1}: {error}") from None


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
            columns = _check_columns(row, f"{path}, line {line}")
            cells = {key: "" if value is None else str(value) if key == "label" and type(value) is int
                     else value for key, value in zip(columns, row.values(), strict=True)}
            if not all(isinstance(cell, str) for key, cell in cells.items() if key in COLUMNS):
                raise RequestError(f"{path}, line {line}: {data.strip()[:60]} holds what is neither text "
                                   "nor, as a label, a whole number")
            yield line, cells
    except (RequestError, UnicodeDecodeError):
        raise
    except (ValueError, RecursionError) as error:       # Of JSON, of numbers with thousands of digits.
        raise RequestError(f"{path}, line {line}: is no JSON object in one line ({error})") from None


def _listed(columns: Iterable[str]) -> str:
    return "columns " + ", ".join(columns) if columns else "no columns"
