"""Examine the files of a data set with several threads."""

import os
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from i2i.data.check.file_facts import Fault, FileFacts, examine_file
from i2i.data.layouts import stem
from i2i.data.sampler import evenly_spaced
from i2i.data.sharding import map_in_threads
from i2i.data.sources import Source, Unreadable, load_image

MAX_FILES = 20_000          # Files examined by default.
TIMED_FILES, TIMING_SECONDS = 64, 3.0

Progress = Callable[[int, int], None]


@dataclass
class FileScan:
    """The facts of the examined files of a data set by their names, 1 KB each."""

    total: int                  # How many files there are, examined or not.
    images: dict[str, FileFacts] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)      # Of files that cannot be read.

    def where(self, condition: Callable[[FileFacts], bool]) -> list[str]:
        """The images that meet a condition."""
        return [name for name, facts in self.images.items() if condition(facts)]


def scan_files(source: Source, names: Sequence[str], *, most: int, progress: Progress) -> FileScan:
    """Examine about `most` files with several threads; a hash of the name without extension chooses them, so
    that partners stay together."""
    limit = most / max(1, len(names)) * 2**32
    chosen = names if len(names) <= most else [
        name for name in names
        if zlib.crc32(stem(name.rsplit("/", 1)[-1]).encode("utf-8", "surrogateescape")) < limit]
    result = FileScan(len(names))
    examined = map_in_threads(partial(examine_file, source), chosen, threads=os.cpu_count() or 1)
    for position, (name, facts) in enumerate(zip(chosen, examined, strict=True), 1):
        if isinstance(facts, Fault):
            result.faults[name] = facts
        else:
            result.images[name] = facts
        progress(position, len(chosen))
    return result


def decode_seconds(source: Source, names: Sequence[str]) -> float:
    """Mean seconds to read and decode a file on one core, over evenly spaced files; 0 if none is readable."""
    seconds = list[float]()
    for position in evenly_spaced(len(names), TIMED_FILES):
        if sum(seconds) <= TIMING_SECONDS:
            with suppress(Unreadable):
                start = time.perf_counter()
                load_image(source, names[position])
                seconds.append(time.perf_counter() - start)
    return sum(seconds) / max(1, len(seconds))
