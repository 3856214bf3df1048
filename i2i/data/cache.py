"""Caches of decoded and resized images, in memory or on disk, so that later epochs need not decode again.

A cache holds exactly what decoding gives, so training does not depend on it.  Nothing is evicted: every epoch
needs all images in a new order, and whatever was thrown out would be missed before its replacement is used.
"""

import contextlib
import errno
import hashlib
import math
import mmap
import multiprocessing
import multiprocessing.reduction
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import tifffile

from i2i.data.sources import Source
from i2i.files import atomic_path, remove_stale
from i2i.images.format import DTYPES, Array

VERSION = 2                         # Of what is cached: raise it when the same file is decoded differently.
MIN_FREE_DISK = 2 * 2**30           # Bytes to leave free: checkpoints have to fit, too.
ARRAY_OVERHEAD = 48                 # Upper bound on the bytes beside an image's values.
DECODERS = {"pillow": PIL.__version__, "opencv": cv2.__version__, "tifffile": tifffile.__version__,
            "numpy": np.__version__}
_COUNT, _SHAPE, _CHECKSUM = map(struct.Struct, ("<Q", "<4I", "<Q"))

Decode = Callable[[], Sequence[Array]]


class Cache:
    """The base of caches, which caches nothing; `warning` is a message to log once, or empty."""

    warning = ""

    def __call__(self, entry: int, keys: str, files: Sequence[str], decode: Decode) -> Sequence[Array]:
        """The images `keys` ("a", "b" or both) of an entry, cached or read from the files by `decode`."""
        return decode()


def array_bytes(height: int, width: int, channels: int, dtype: str) -> int:
    """Upper bound on the memory of a cached image."""
    return height * width * channels * np.dtype(dtype).itemsize + ARRAY_OVERHEAD


# ---------------------------------------------------------------------------------------------- serialization

def pack(arrays: Sequence[Array]) -> bytes:
    """HW or HWC arrays as bytes: their number, type and shape of each, values."""
    headers = [_SHAPE.pack(DTYPES.index(array.dtype.name), *array.shape, *(0,) * (3 - array.ndim))
               for array in arrays]
    return b"".join([_COUNT.pack(len(arrays)), *headers,
                     *(array.tobytes() + bytes(-array.nbytes % 8) for array in arrays)])


def unpack(data: Any, start: int = 0) -> list[Array]:
    """The arrays that `pack` wrote at `start`, as views of the data."""
    (count,) = _COUNT.unpack_from(data, start)
    header, arrays = start + _COUNT.size, list[Array]()
    at = header + count * _SHAPE.size
    for offset in range(header, at, _SHAPE.size):
        dtype, *sides = _SHAPE.unpack_from(data, offset)
        shape = tuple(sides if sides[2] else sides[:2])
        array = np.frombuffer(data, DTYPES[dtype], math.prod(shape), at).reshape(shape)
        arrays.append(array)
        at += array.nbytes + -array.nbytes % 8
    return arrays


# ---------------------------------------------------------------------------------------------- in memory

class MemoryCache(Cache):
    """A cache of `capacity` bytes in memory that forked and spawned loader processes share.

    The memory is a table of where each entry begins, 0 if it is absent, and the entries one after the other.
    Pages that were never written take no memory.  A killed process keeps the lock, for which the others wait
    `lock_timeout` seconds.
    """

    lock_timeout = 1.0

    def __init__(self, entries: int, capacity: int, lock: Any = None, file: Any = None) -> None:
        self.entries, self.capacity = entries, capacity
        self.size = (entries + 1) * 8 + capacity
        self._lock = lock or multiprocessing.Lock()
        if file:
            self._file = file.detach()
        elif hasattr(os, "memfd_create"):
            self._file = os.memfd_create("i2i-decoded")
        else:
            with tempfile.TemporaryFile() as on_disk:
                self._file = os.dup(on_disk.fileno())
        os.ftruncate(self._file, self.size)
        self._bytes = mmap.mmap(self._file, self.size)
        table = np.frombuffer(self._bytes, np.int64, entries + 1)
        self._used, self._starts = table[:1], table[1:]

    def __reduce__(self) -> tuple[Any, ...]:
        if not hasattr(multiprocessing.reduction, "DupFd"):
            return Cache, ()        # On Windows, loader processes cannot share it.
        return MemoryCache, (self.entries, self.capacity, self._lock,
                             multiprocessing.reduction.DupFd(self._file))

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):      # At exit Python may be half gone.
            os.close(self._file)

    @property
    def used(self) -> int:
        """Bytes of the entries."""
        return int(self._used[0])

    def __call__(self, entry: int, keys: str, files: Sequence[str], decode: Decode) -> Sequence[Array]:
        if start := int(self._starts[entry]):
            return unpack(self._bytes, start)
        arrays = decode()
        data = pack(arrays)
        if self._lock.acquire(timeout=self.lock_timeout):
            try:
                start = (self.entries + 1) * 8 + self.used
                if start + len(data) <= self.size:
                    self._bytes[start:start + len(data)] = data
                    self._used[0] += len(data)
                    self._starts[entry] = start     # Last, so that other processes see the data first.
            finally:
                self._lock.release()
        return arrays


# ---------------------------------------------------------------------------------------------- on disk

class DiskCache(Cache):
    """A cache with one file for each entry in a folder that runs and processes may share.

    Files are written atomically and found by a hash of all that decides their content: identity of the files
    that were decoded, `settings` and decoder versions.  Damaged ones are written again.
    """

    def __init__(self, folder: Path, source: Source, settings: str) -> None:
        self.folder, self.source, self.settings = folder, source, settings
        self._full = False
        self._cleaned: set[Path] = set()

    def __call__(self, entry: int, keys: str, files: Sequence[str], decode: Decode) -> Sequence[Array]:
        try:
            text = "\n".join([str(VERSION), self.settings, keys, repr(sorted(DECODERS.items())),
                              *map(self.source.identity, files)])
        except OSError:
            return decode()         # Which reports what is wrong with the file.
        name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        path = self.folder / name[:2] / name[2:40]
        with contextlib.suppress(OSError, struct.error):        # Absent or damaged.
            data = path.read_bytes()
            if _CHECKSUM.unpack_from(data) == (zlib.crc32(memoryview(data)[_CHECKSUM.size:]),):
                return unpack(data, _CHECKSUM.size)
        arrays = decode()
        if not self._full:
            self._write(path, pack(arrays))
        return arrays

    def _write(self, path: Path, data: bytes) -> None:
        if path.parent not in self._cleaned:
            self._cleaned.add(path.parent)
            remove_stale(path.parent, ".*.part")
        try:
            with atomic_path(path, unique=True) as part:
                if shutil.disk_usage(path.parent).free < MIN_FREE_DISK:
                    raise OSError(errno.ENOSPC, f"less than {MIN_FREE_DISK / 2**30:g} GB would be left free")
                part.write_bytes(_CHECKSUM.pack(zlib.crc32(data)) + data)
        except OSError as error:
            self._full = True
            self.warning = (f"decoded images are no longer cached in {self.folder} "
                            f"({error.strerror or error}); the others are decoded in every epoch, which "
                            "takes longer and changes nothing else")
