"""All files, or a sample of them, examined by several threads and kept as columns: about half a kilobyte for
each."""

from __future__ import annotations

import os
import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from i2i.data.check.file_facts import CHROMA, LUMA, Fault, FileFacts, examine_file
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Source, Unreadable, load_image
from i2i.images.format import Array

AHEAD = 64          # Files that wait for a thread.
MANY = 20_000       # Files from which on a sample is taken unless all are asked for.
TIMED, ENOUGH = 64, 3.0     # Files that are timed, and seconds after which no more are.
NUMBERS = {"bytes": "q", "width": "I", "height": "I", "channels": "I", "low": "d", "high": "d", "depth": "B",
           "digest": "q", "border": "f"}
FLAGS = ("alpha", "flat", "binary", "twins", "turned", "animated")
TAGS = ("format", "mode", "dtype", "kind", "labeled")

Log = Callable[[int, int], None]


class Tags:
    """A column of few different words."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.codes = array("H")

    def add(self, word: str) -> None:
        """One more row."""
        self.codes.append(self.known.setdefault(word, len(self.known)))

    def counts(self) -> Counter[str]:
        """How often each word comes, the most frequent first."""
        numbers = np.bincount(np.asarray(self.codes), minlength=len(self.known)).tolist()
        return Counter(dict(sorted(zip(self.known, numbers, strict=True), key=lambda item: -item[1])))

    def rows(self, word: str) -> Array:
        """The rows that have a word."""
        return np.flatnonzero(np.asarray(self.codes) == self.known.get(word, -1))


@dataclass
class Survey:
    """What was found.  Row r of the columns is the picture `names[places[r]]`; what could not be read is in
    `faults`, by place."""

    names: Sequence[str]
    total: int                                              # Files there are, examined or not.
    faults: dict[int, Fault] = field(default_factory=dict)
    places: array[int] = field(default_factory=lambda: array("q"))
    numbers: dict[str,
                  array[float]] = field(default_factory=lambda: {key: array(code) for key,
                                                                 code in NUMBERS.items()})
    flags: dict[str, array[int]] = field(default_factory=lambda: {key: array("B") for key in FLAGS})
    words: dict[str, Tags] = field(default_factory=lambda: {key: Tags() for key in TAGS})
    notes: dict[str, list[int]] = field(default_factory=dict)      # Note -> rows.
    thumbs: bytearray = field(default_factory=bytearray)

    def add(self, place: int, seen: FileFacts) -> None:
        """One more picture."""
        for note in seen.notes:
            self.notes.setdefault(note, []).append(len(self.places))
        self.places.append(place)
        for key, column in self.numbers.items():
            column.append(getattr(seen, key))
        for key, flags in self.flags.items():
            flags.append(getattr(seen, key))
        for key, words in self.words.items():
            words.add(getattr(seen, key))
        self.thumbs += seen.thumb.tobytes()

    def __len__(self) -> int:
        return len(self.places)

    def column(self, key: str) -> Array:
        """A column of numbers or of flags."""
        return np.asarray(self.numbers[key]) if key in self.numbers else np.asarray(self.flags[key], bool)

    def name(self, row: int) -> str:
        """The file of a row."""
        return self.names[self.places[row]]

    def small(self) -> Array:
        """The thumbnails.  -> N x 384 uint8"""
        return np.frombuffer(self.thumbs, np.uint8).reshape(len(self), LUMA * LUMA + 2 * CHROMA * CHROMA)

    def rows(self) -> dict[str, int]:
        """File -> row."""
        return {self.names[place]: row for row, place in enumerate(self.places)}


def sample_positions(names: Sequence[str], most: int) -> Sequence[str]:
    """About `most` of the names, by a hash of their file name without its extension: partners of one name are
    taken together."""
    if len(names) <= most:
        return names
    limit = most / len(names) * 2**32
    return [name for name in names if zlib.crc32(_stem(name).encode("utf-8", "surrogateescape")) < limit]


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def survey(source: Source, names: Sequence[str], *, most: int, tell: Log) -> Survey:
    """Examine the chosen files.  `tell` hears how many are done, of how many."""
    picked = sample_positions(names, most)
    found = Survey(picked, len(names))
    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        waiting: deque[tuple[int, Future[FileFacts | Fault]]] = deque()
        for place, name in enumerate(picked):
            waiting.append((place, pool.submit(examine_file, source, name)))
            if len(waiting) >= AHEAD:
                _read_some(found, waiting)
                tell(place, len(picked))
        while waiting:
            _read_some(found, waiting)
    tell(len(picked), len(picked))
    return found


def _read_some(found: Survey, waiting: deque[tuple[int, Future[FileFacts | Fault]]]) -> None:
    place, future = waiting.popleft()
    seen = future.result()
    if isinstance(seen, Fault):
        found.faults[place] = seen
    else:
        found.add(place, seen)


def speed(source: Source, names: Sequence[str]) -> float:
    """Seconds that one core takes to read and decode a file, the mean over some that are spread over all; 0
    if none can be read."""
    spent, count = 0.0, 0
    for place in evenly_spaced(len(names), TIMED):
        began = time.perf_counter()
        try:
            load_image(source, names[place])
        except Unreadable:
            continue
        spent, count = spent + time.perf_counter() - began, count + 1
        if spent > ENOUGH:
            break
    return spent / count if count else 0.0
