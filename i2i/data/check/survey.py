"""Examine the files of a data set with several threads, and keep the facts as columns (0.5 KB a file)."""

from __future__ import annotations

import os
import time
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from i2i.data.check.file_facts import CHROMA, LUMA, Fault, FileFacts, examine_file
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Source, Unreadable, load_image
from i2i.images.format import Array

PENDING_FILES = 64          # Files that wait for a thread.
MAX_FILES = 20_000          # Files examined unless all are asked for.
TIMED_FILES, TIMING_SECONDS = 64, 3.0
NUMBERS = {"bytes": "q", "width": "I", "height": "I", "channels": "I", "low": "d", "high": "d", "depth": "B",
           "digest": "q", "border": "f"}
FLAGS = ("alpha", "flat", "binary", "twins", "turned", "animated")
LABELS = ("format", "mode", "dtype", "kind", "expected_extension")

Progress = Callable[[int, int], None]


class LabelColumn:
    """A column of few different texts."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.codes = array("H")

    def add(self, label: str) -> None:
        """Append a row."""
        self.codes.append(self.known.setdefault(label, len(self.known)))

    def counts(self) -> Counter[str]:
        """How often each label occurs, the most frequent first."""
        numbers = np.bincount(np.asarray(self.codes), minlength=len(self.known)).tolist()
        return Counter(dict(sorted(zip(self.known, numbers, strict=True), key=lambda item: -item[1])))

    def rows(self, label: str) -> Array:
        """The rows with a label."""
        return np.flatnonzero(np.asarray(self.codes) == self.known.get(label, -1))


class Survey:
    """The facts of many files, as columns.

    Row r is the image `names[positions[r]]`; files that cannot be read are in `faults`, by position.

    Args:
        names: the files to examine.
        total: the number of files there are, examined or not.
    """

    def __init__(self, names: Sequence[str], total: int) -> None:
        self.names, self.total = names, total
        self.faults: dict[int, Fault] = {}
        self.positions = array("q")
        self.numbers: dict[str, array[float]] = {key: array(code) for key, code in NUMBERS.items()}
        self.flags: dict[str, array[int]] = {key: array("B") for key in FLAGS}
        self.labels = {key: LabelColumn() for key in LABELS}
        self.notes: dict[str, list[int]] = {}       # Note -> rows.
        self._thumbnails = bytearray()

    def add(self, position: int, facts: FileFacts | Fault) -> None:
        """Append a file."""
        if isinstance(facts, Fault):
            self.faults[position] = facts
            return
        for note in facts.notes:
            self.notes.setdefault(note, []).append(len(self.positions))
        self.positions.append(position)
        for key, column in self.numbers.items():
            column.append(getattr(facts, key))
        for key, flags in self.flags.items():
            flags.append(getattr(facts, key))
        for key, labels in self.labels.items():
            labels.add(getattr(facts, key))
        self._thumbnails += facts.thumbnail.tobytes()

    def __len__(self) -> int:
        return len(self.positions)

    def column(self, key: str) -> Array:
        """A column of numbers or flags."""
        return np.asarray(self.numbers[key]) if key in self.numbers else np.asarray(self.flags[key], bool)

    def name(self, row: int) -> str:
        """The file of a row."""
        return self.names[self.positions[row]]

    def thumbnails(self) -> Array:
        """(N, 384) uint8"""
        return np.frombuffer(self._thumbnails, np.uint8).reshape(len(self), LUMA * LUMA + 2 * CHROMA * CHROMA)

    def rows(self) -> dict[str, int]:
        """File -> row."""
        return {self.names[position]: row for row, position in enumerate(self.positions)}


def sample_names(names: Sequence[str], count: int) -> Sequence[str]:
    """About `count` names, by a hash of the name without extension, so that partners stay together."""
    if len(names) <= count:
        return names
    limit = count / len(names) * 2**32
    stems = (name.rsplit("/", 1)[-1].rsplit(".", 1)[0] for name in names)
    return [name for name, stem in zip(names, stems, strict=True)
            if zlib.crc32(stem.encode("utf-8", "surrogateescape")) < limit]


def survey(source: Source, names: Sequence[str], *, most: int, progress: Progress) -> Survey:
    """Examine about `most` files with several threads."""
    chosen = sample_names(names, most)
    result = Survey(chosen, len(names))
    pending: deque[tuple[int, Future[FileFacts | Fault]]] = deque()

    def collect() -> None:
        position, future = pending.popleft()
        result.add(position, future.result())

    with ThreadPoolExecutor(max(1, os.cpu_count() or 1)) as pool:
        for position, name in enumerate(chosen):
            pending.append((position, pool.submit(examine_file, source, name)))
            if len(pending) >= PENDING_FILES:
                collect()
                progress(position, len(chosen))
        while pending:
            collect()
    progress(len(chosen), len(chosen))
    return result


def decode_seconds(source: Source, names: Sequence[str]) -> float:
    """Mean seconds to read and decode a file on one core, over evenly spaced files; 0 if none is readable."""
    total, count = 0.0, 0
    for position in evenly_spaced(len(names), TIMED_FILES) if len(names) else ():
        start = time.perf_counter()
        try:
            load_image(source, names[position])
        except Unreadable:
            continue
        total, count = total + time.perf_counter() - start, count + 1
        if total > TIMING_SECONDS:
            break
    return total / count if count else 0.0
