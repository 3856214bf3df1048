"""An index kept beside the data, where the user allows it: the names found, as they are in memory, in a file
that is mapped instead of read. It holds as long as the zip, or every folder that was listed, has the time and
size it had then."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np

from i2i.data.file_list import FileList, Positions
from i2i.errors import RequestError

MAGIC = b"i2i-index 1\n"
SUFFIX = ".i2i-index"       # photos/ has its index in photos.i2i-index, photos.zip in photos.zip.i2i-index.
FolderTimes = list[tuple[str, int, int]]


def index_path(path: Path) -> Path:
    """Where the index of a folder or zip is kept.  Not inside a folder: writing it would change the folder's
    time."""
    whole = path.resolve()
    return whole.with_name(whole.name + SUFFIX)


def folder_times(path: Path, inner: str = "") -> tuple[str, int, int]:
    """What changes when files are added, removed or renamed: a folder's or a zip's time of change and
    size."""
    found = os.stat(path / inner)
    return inner, found.st_mtime_ns, found.st_size


def load_index(path: Path, sort: Sequence[str]) -> tuple[FileList, Positions] | None:
    """The names of a folder or zip, and a number for each, from its index; None if there is none that holds.

    `sort`: what was listed, such as the extensions of images; an index of something else does not hold.
    """
    try:
        with index_path(path).open("rb") as file:
            if file.readline() != MAGIC:
                return None
            head = json.loads(file.readline())
            if head["sort"] != list(sort) or any(folder_times(path, was[0]) != tuple(was)
                                                 for was in head["marks"]):
                return None
            mapped, count, at = mmap(file.fileno(), 0,
                                     access=ACCESS_READ), head["count"], -(-file.tell() // 8) * 8
            places, starts = np.frombuffer(mapped, np.int64, count, at), np.frombuffer(mapped, np.int64,
                                                                                       count, at + 8 * count)
            names = FileList(mapped, starts, np.frombuffer(mapped, np.uint32, count, at + 16 * count))
            whole = count == 0 or int(starts[-1]) + len(names[count - 1].encode("utf-8",
                                                                                "surrogatepass")) == len(mapped) == head["size"]
            return (names, places) if whole else None
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def save_index(path: Path, sort: Sequence[str], marks: FolderTimes, names: FileList,
               places: Positions | None = None) -> None:
    """Write the index whole or not at all.  RequestError if that fails: it was asked for"""
    target = index_path(path)
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    lengths = np.fromiter((len(name.encode("utf-8", "surrogatepass")) for name in names), np.uint32,
                          len(names))
    head: dict[str, Any] = {"sort": list(sort), "count": len(names), "size": 0, "marks": marks}
    room = len(MAGIC) + len(json.dumps(head)) + 20      # The size has at most 20 digits.
    text = -(-room // 8) * 8 + 20 * len(names)
    head["size"] = text + int(lengths.sum(dtype=np.int64))
    starts = np.cumsum(lengths, dtype=np.int64) - lengths + text
    try:
        with part.open("wb") as file:
            file.write(MAGIC + json.dumps(head).ljust(-(-room // 8) * 8 - len(MAGIC) - 1).encode() + b"\n")
            for block in (np.zeros(len(names), np.int64) if places is None else places, starts, lengths):
                file.write(block.tobytes())
            for name in names:
                file.write(name.encode("utf-8", "surrogatepass"))
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RequestError(f"data.index=true: {target} cannot be written: {error.strerror or error}") from None
