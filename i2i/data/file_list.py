"""The names of a million files: one run of text and where each begins, instead of a million objects; and the
tree they are found in."""

from __future__ import annotations

import heapq
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import mmap
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
RUN = 1 << 16       # Names that are objects at once while they are sorted.
CHUNK = 1 << 12     # And while they are read in order.


class FileList(Sequence[str]):
    """File names in 12 bytes each beside their text (a list of str takes about 60 beside it), which processes
    that are forked share and which may lie in a mapped file.  Slices and what `under` and `take` give are
    views of the same text."""

    __slots__ = ("_lengths", "_starts", "_text")

    def __init__(self, text: bytes | bytearray | mmap, starts: Positions,
                 lengths: NDArray[np.uint32]) -> None:
        self._text, self._starts, self._lengths = text, starts, lengths

    @classmethod
    def of(cls, names: Iterable[str]) -> FileList:
        """These names in this order."""
        if isinstance(names, FileList):
            return names
        gathered = FileListBuilder()
        for name in names:
            gathered.add(name)
        return gathered.names()

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> FileList: ...
    def __getitem__(self, index: int | slice) -> str | FileList:
        """One name, or a view of some."""
        if isinstance(index, slice):
            return FileList(self._text, self._starts[index], self._lengths[index])
        start = int(self._starts[index])
        return self._text[start:start + int(self._lengths[index])].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        text = self._text
        for first in range(0, len(self), CHUNK):
            part = slice(first, first + CHUNK)
            for start, length in zip(self._starts[part].tolist(), self._lengths[part].tolist(), strict=True):
                yield text[start:start + length].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, FileList | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one,
                                               another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Names({list(self[:3])!r}{' …' if len(self) > 3 else ''}, {len(self)})"

    def __getstate__(self) -> dict[str, Any]:
        # A mapping ends with its process.
        text = self._text[:] if isinstance(self._text, mmap) else self._text
        return {"text": text, "starts": self._starts, "lengths": self._lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._text, self._starts, self._lengths = state["text"], state["starts"], state["lengths"]

    # ------------------------------------------------------------------------------------------ order

    def order(self, key: Callable[[str], str] = str) -> Positions:
        """The places of the names in the order of `key`, equal ones as they stand: runs are sorted, and
        merged if they overlap."""
        runs, ends = [np.empty(0, np.int64)], list[str]()
        for first in range(0, len(self), RUN):
            keys = [key(name) for name in self[first:first + RUN]]
            run = sorted(range(len(keys)), key=keys.__getitem__)
            runs.append(np.array(run, np.int64) + first)
            ends += keys[run[0]], keys[run[-1]]
        if all(last <= following for last, following in zip(ends[1::2], ends[2::2], strict=False)):
            return np.concatenate(runs)
        merged = heapq.merge(*(self.keyed(run, key) for run in runs))
        return np.fromiter((place for _, place in merged), np.int64, len(self))

    def keyed(self, places: Positions, key: Callable[[str], str] = str) -> Iterator[tuple[str, int]]:
        """The key of each name at these places, and its place."""
        for first in range(0, len(places), CHUNK):
            for place in places[first:first + CHUNK].tolist():
                yield key(self[place]), place

    def filled(self) -> Positions:
        """The places of names that are not empty."""
        return np.flatnonzero(self._lengths)

    def take(self, places: Positions) -> FileList:
        """The names at these places."""
        return FileList(self._text, self._starts[places], self._lengths[places])

    def sorted(self) -> FileList:
        """The names in the order of their code points, which is what `sorted` makes of a list."""
        return self.take(self.order())

    # ------------------------------------------------------------------------------------------ of sorted
    # names

    def _range(self, prefix: str) -> slice:
        first = bisect_left(self, prefix)
        return slice(first, bisect_right(self, prefix, first, key=lambda name: name[:len(prefix)]))

    def under(self, prefix: str) -> FileList:
        """Those of the sorted names that begin so."""
        return self[self._range(prefix)] if prefix else self

    def within(self, prefix: str) -> FileList:
        """As `under`, and what they begin with is cut off."""
        cut, inside = len(prefix.encode("utf-8", "surrogatepass")), self.under(prefix)
        return FileList(inside._text, inside._starts + cut,
                        inside._lengths - np.uint32(cut)) if cut else inside

    def find(self, name: str) -> int:
        """The place of a name among the sorted names, -1 if it is not there."""
        place = bisect_left(self, name)
        return place if place < len(self) and self[place] == name else -1

    def folders(self) -> list[str]:
        """The folders that the sorted names begin with; whole folders are leapt over."""
        found, place = [], 0
        while place < len(self):
            if "/" in self[place]:
                found.append(self[place].partition("/")[0])
                place = self._range(found[-1] + "/").stop
            else:
                place += next((step for step, name in enumerate(self[place:]) if "/" in name),
                              len(self) - place)
        return found


class FileListBuilder:
    """Names while they are collected.  What no UTF-8 can say of a name on disk (PEP 383) is kept."""

    def __init__(self) -> None:
        self._text, self._lengths = bytearray(), array("I")

    def add(self, name: str) -> None:
        """One more."""
        data = name.encode("utf-8", "surrogatepass")
        self._text += data
        self._lengths.append(len(data))

    def names(self) -> FileList:
        """All of them."""
        lengths = np.array(self._lengths, np.uint32)
        starts = np.cumsum(lengths, dtype=np.int64)
        starts -= lengths
        return FileList(self._text, starts, lengths)


# ---------------------------------------------------------------------------------------------- the tree

def hidden(part: str) -> bool:
    """Whether a file or folder of this name is passed over: it begins with a dot, or is what a Mac adds to
    its zips."""
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def walk(root: str, accept: Callable[[str], bool],
         seen: Callable[[str], None] = lambda folder: None) -> Iterator[str]:
    """The files of a tree whose own name is accepted, relative to the root with forward slashes, in no order;
    `seen` hears of each folder before it is read.  No file is asked for more than its name and type.

    A link to a folder is followed once, and not at all where it leads to what is listed anyway; folders that
    cannot be read are left out.
    """
    top = os.path.realpath(root)
    reached = {top}
    waiting = [("", top)]
    while waiting:
        inner, real = waiting.pop()
        folders = []
        try:
            seen(inner)
            with os.scandir(os.path.join(root, inner)) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(entry)
                    elif accept(entry.name):
                        yield inner + entry.name
        except OSError:
            continue
        further = []
        for entry in sorted(folders, key=lambda entry: entry.name):
            if hidden(entry.name):
                continue
            there = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            if there in reached or (entry.is_symlink() and _is_inside(there, reached)):
                continue
            if entry.is_symlink():
                reached.add(there)
            further.append((f"{inner}{entry.name}/", there))
        waiting += reversed(further)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:         # A link to itself, for one.
        return False


def _is_inside(there: str, folders: Iterable[str]) -> bool:
    """Whether a walk through one of these folders comes by: hidden folders are not walked through."""
    return any(there.startswith(folder.rstrip(os.sep) + os.sep)
               and not any(map(hidden, there[len(folder):].split(os.sep))) for folder in folders)
