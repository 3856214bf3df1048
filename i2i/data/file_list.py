"""A compact sequence of file names."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


class FileList(Sequence[str]):
    """File names as one UTF-8 byte string with the start and end of each.

    Reading an element of a `list[str]` changes its reference count, so each forked loader worker would end up
    with a copy of all names; this text they share (docs/decisions/2026-11-28-file-lists.md).  Slices and the
    results of `take`, `under` and `within` are views.
    """

    def __init__(self, text: bytes, starts: Positions, ends: Positions) -> None:
        self._text, self._starts, self._ends = text, starts, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> "FileList":
        """Pack names, keeping their order.  Undecodable bytes of names on disk (PEP 383) are preserved."""
        if isinstance(names, FileList):
            return names
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        return cls(b"".join(encoded), bounds[:-1], bounds[1:])

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "FileList": ...
    def __getitem__(self, index: int | slice) -> "str | FileList":
        if isinstance(index, slice):
            return FileList(self._text, self._starts[index], self._ends[index])
        return self._text[self._starts[index]:self._ends[index]].decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True):
            yield self._text[start:end].decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FileList | tuple | list):
            return NotImplemented
        return self is other or (len(self) == len(other) and all(map(str.__eq__, self, other)))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FileList({list(self[:3])!r}{' …' if len(self) > 3 else ''}, {len(self)})"

    def take(self, positions: Positions) -> "FileList":
        """The names at these positions."""
        return FileList(self._text, self._starts[positions], self._ends[positions])

    def non_empty(self) -> Positions:
        """The positions of the names that are not empty."""
        return np.flatnonzero(self._ends > self._starts)

    # The methods below expect sorted names.

    def under(self, prefix: str) -> "FileList":
        """The names that start with a prefix."""
        first = bisect_left(self, prefix)
        return self[first:bisect_right(self, prefix, first, key=lambda name: name[:len(prefix)])]

    def within(self, folder: str) -> "FileList":
        """The names below a folder (ending in "/"), relative to it."""
        names = self.under(folder)
        return FileList(self._text, names._starts + len(folder.encode("utf-8", "surrogatepass")), names._ends)

    def find(self, name: str) -> int:
        """The position of a name, or -1."""
        position = bisect_left(self, name)
        return position if position < len(self) and self[position] == name else -1

    def folders(self) -> list[str]:
        """The top-level folders, in the order of the names."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self if "/" in name))
