"""Images that have been decoded and resized are kept, in memory or on disk, so that later epochs do not do it
again.  What is kept is what decoding gives, so no number of a training depends on it.  Nothing that was kept
is given up for something else: an epoch comes back to every image in a new order, so whatever is thrown out
is missed as soon as what takes its place is used."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import multiprocessing
import multiprocessing.reduction
import os
import shutil
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import PIL
import tifffile

from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset
from i2i.data.sources import Source
from i2i.data.transforms import resize_to_cover
from i2i.data.unpaired import UnpairedDataset
from i2i.images.formats import DTYPES, Array, ImageFormat

# A number more where what is kept of a file changes: what this code made of it before is then of no use.
MAGIC = b"i2i decoded 1\n\0\0"
# Bytes that are left free on a disk: states of the run have to fit there too.
SPARE = 2 * 2**30
AUTO, MOST = 0.25, 0.5              # Shares of the memory that is free.
# Times what was reckoned, for pictures of other proportions than those looked at.
MARGIN = 1.5
HEAD = 48                           # Bytes beside the values of an image, at most.
UNKNOWN = 1 << 60                   # Bytes of memory, where the system does not tell how many are free.
# Seconds that a process waits for another to have taken its place in memory; one that was killed keeps the
# lock.
PATIENCE = 1.0
DECODERS = {"pillow": PIL.__version__, "opencv": cv2.__version__, "tifffile": tifffile.__version__,
            "numpy": np.__version__}
_COUNT, _SHAPE, _CHECK = struct.Struct("<Q"), struct.Struct("<4I"), struct.Struct("<IIQ")

Decoder = Callable[[], Sequence[Array]]


class Cache(Protocol):
    """Where arrays are kept.  `warning` is one line to be told, once; empty if there is none."""

    warning: str

    def __call__(self, place: int, role: str, files: Sequence[str], make: Decoder) -> Sequence[Array]:
        """What was kept of these files in this role, else what `make` makes of them now.  `place` is the
        number of the entry."""
        ...


class Uncached:
    """Keeps nothing."""

    warning = ""

    def __call__(self, place: int, role: str, files: Sequence[str], make: Decoder) -> Sequence[Array]:
        """What `make` makes."""
        return make()


# ---------------------------------------------------------------------------------------------- arrays as
# bytes

def pack(arrays: Sequence[Array]) -> bytes:
    """Arrays of the types that images have, HW or HWC, as bytes: how many, type and shape of each, values."""
    heads = [_SHAPE.pack(DTYPES.index(array.dtype.name), *array.shape, *(0,) * (3 - array.ndim))
             for array in arrays]
    return b"".join([_COUNT.pack(len(arrays)), *heads,
                     *(array.tobytes() + bytes(-array.nbytes % 8) for array in arrays)])


def unpack(data: Any, start: int = 0) -> list[Array]:
    """The arrays whose bytes begin at `start`, without copying them."""
    (count,) = _COUNT.unpack_from(data, start)
    at, arrays = start + _COUNT.size + count * _SHAPE.size, []
    for i in range(count):
        kind, *sides = _SHAPE.unpack_from(data, start + _COUNT.size + i * _SHAPE.size)
        shape = tuple(sides if sides[2] else sides[:2])
        array = np.frombuffer(data, DTYPES[kind], int(np.prod(shape)), at).reshape(shape)
        arrays.append(array)
        at += array.nbytes + -array.nbytes % 8
    return arrays


# ---------------------------------------------------------------------------------------------- in memory

class MemoryCache:
    """Memory that the processes of a loader share, forked or spawned, filled from the front until `room`
    bytes are full.

    It takes what is in it, not what it could take: pages that were never written do not exist.
    """

    def __init__(self, entries: int, room: int) -> None:
        self.warning = ""
        self.entries, self.size = entries, (entries + 1) * 8 + room
        self._lock = multiprocessing.Lock()
        self._file = _anonymous()
        os.ftruncate(self._file, self.size)
        self._map()

    def _map(self) -> None:
        self._bytes = mmap.mmap(self._file, self.size)
        table = np.frombuffer(self._bytes, np.int64, self.entries + 1)
        # Bytes used behind the table; where each entry is, 0 if it is not there.
        self._used, self._starts = table[:1], table[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {"entries": self.entries, "size": self.size, "lock": self._lock,
                "file": multiprocessing.reduction.DupFd(self._file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.warning, self.entries, self.size, self._lock, self._file = "", state["entries"], state["size"], state["lock"], state["file"].detach()
        self._map()

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):      # Python may be half gone.
            os.close(self._file)

    @property
    def used(self) -> int:
        """Bytes that are kept."""
        return int(self._used[0])

    def __call__(self, place: int, role: str, files: Sequence[str], make: Decoder) -> Sequence[Array]:
        """What was kept, else what `make` makes of the files now."""
        if start := int(self._starts[place]):
            return unpack(self._bytes, start)
        arrays = make()
        data = pack(arrays)
        start = self._take(len(data))
        if start:
            self._bytes[start:start + len(data)] = data
            with self._turn():              # All is written before anyone can see it.
                self._starts[place] = start
        return arrays

    def _take(self, length: int) -> int:
        """Where so many bytes may be written; 0 if nowhere."""
        first = (self.entries + 1) * 8
        with self._turn() as mine:
            used = self.used
            if not mine or first + used + length > self.size:
                return 0
            self._used[0] = used + length
            return first + used

    @contextlib.contextmanager
    def _turn(self) -> Any:
        mine = self._lock.acquire(timeout=PATIENCE)
        try:
            yield mine
        finally:
            if mine:
                self._lock.release()


def _anonymous() -> int:
    """A file that is nowhere, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("i2i-decoded")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


# ---------------------------------------------------------------------------------------------- on disk

class DiskCache:
    """A file for each entry in a folder that runs and processes may share, written whole or not at all, and
    found by what decides its content: place, size and times of the files it was made of, `settings`, and the
    decoders.  What is damaged is made again."""

    def __init__(self, folder: Path, source: Source, settings: str) -> None:
        self.warning = ""
        self.folder, self.source, self.settings = folder, source, settings
        self._full = False

    def __call__(self, place: int, role: str, files: Sequence[str], make: Decoder) -> Sequence[Array]:
        """What was kept, else what `make` makes of the files now."""
        try:
            path = self._path(role, files)
        except OSError:
            return make()       # Which says what is the matter with them.
        try:
            return _checked(path.read_bytes())
        except (OSError, ValueError, struct.error, IndexError):
            arrays = make()
        if not self._full:
            self._keep(path, pack(arrays))
        return arrays

    def _path(self, role: str, files: Sequence[str]) -> Path:
        key = "\n".join([self.settings, role, repr(sorted(DECODERS.items())),
                         *map(self.source.identity, files)])
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / name[:2] / name[2:40]

    def _keep(self, path: Path, data: bytes) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(path.parent).free < SPARE:
                raise OSError(errno.ENOSPC, f"less than {SPARE / 2**30:g} GB would be left free")
            part.write_bytes(MAGIC + _CHECK.pack(zlib.crc32(data), 0, len(data)) + data)
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self._full = True
            self.warning = (f"decoded images are no longer kept in {self.folder} "
                            f"({error.strerror or error}); what is not there is decoded in each "
                            "epoch, which changes nothing but time")


def _checked(data: bytes) -> list[Array]:
    """The arrays of a file; ValueError if it is damaged, or none of ours."""
    head = len(MAGIC) + _CHECK.size
    if not data.startswith(MAGIC) or len(data) < head:
        raise ValueError("not what was written")
    crc, _, length = _CHECK.unpack_from(data, len(MAGIC))
    if len(data) != head + length or zlib.crc32(memoryview(data)[head:]) != crc:
        raise ValueError("damaged")
    return unpack(data, head)


# ---------------------------------------------------------------------------------------------- which

@dataclass(frozen=True)
class CacheRequest:
    """What is to be kept, and where there is room for it."""

    how: str                        # data.cache
    load: tuple[int, int]
    kinds: tuple[ImageFormat, ImageFormat]
    size: tuple[int, int]           # Height and width of a picture as stored.
    room: int                       # Bytes of memory that are free for this process.
    folder: Path | None             # Of cache=disk.


def cache_for(split: PairedDataset | UnpairedDataset | ImageDataset, wanted: CacheRequest) -> Cache:
    """Where decoded images of a split are kept.

    `auto` keeps all of them in memory, or none where they would take more than a quarter of what is free: the
    rest is for training, and for the system's own cache of files.  `memory` keeps as many as half of it
    holds.
    """
    if wanted.how == "disk" and wanted.folder:
        settings = repr((type(split).__name__, getattr(split, "direction", ""),
                         getattr(split, "strips", False), wanted.load, wanted.kinds))
        return DiskCache(wanted.folder, split.source, settings)
    share = {"auto": AUTO, "memory": MOST}.get(wanted.how,
                                               0.0) * wanted.room if wanted.room < UNKNOWN else 0.0
    needed = decode_for_cache(split, wanted)
    if not share or (wanted.how == "auto" and needed > share):
        return Uncached()
    return MemoryCache(cache_entries(split), int(min(share, MARGIN * needed)))


def cache_entries(split: PairedDataset | UnpairedDataset | ImageDataset) -> int:
    """How many things are decoded one by one."""
    return sum(split.sizes) if isinstance(split, UnpairedDataset) else len(split)


def decode_for_cache(split: PairedDataset | UnpairedDataset | ImageDataset, wanted: CacheRequest) -> int:
    """Bytes of all images as they are loaded; nearly, where that depends on the proportions of each."""
    size = resize_to_cover(wanted.size, wanted.load) if isinstance(split, ImageDataset) else wanted.load
    a, b = (size[0] * size[1] * kind.channels * np.dtype(kind.dtype).itemsize + HEAD for kind in wanted.kinds)
    if isinstance(split, ImageDataset):
        return len(split) * b
    return split.sizes[0] * a + split.sizes[1] * b if isinstance(split,
                                                                 UnpairedDataset) else len(split) * (a + b)
