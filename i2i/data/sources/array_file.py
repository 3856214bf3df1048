"""Arrays of images in one file: (N, H, W, C) uint8 as .npy, or as one of the arrays of a .npz."""

import functools
import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from i2i.data.file_list import FileList
from i2i.data.sources.base import Source, Unreadable, error_reason
from i2i.data.sources.folder import file_identity
from i2i.errors import RequestError
from i2i.images.format import Array


class ArrayFile(Source):
    """The images of an array, each as a .npy file of its number.

    A .npy is read image by image; a .npz, which may be compressed, as a whole once in each process.
    """

    def __init__(self, path: Path, root: str | None = None) -> None:
        self.path, self.root = path, root or str(path)
        try:
            array = self._open()
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
            raise RequestError(f"{self.root} cannot be read as an array: {error_reason(error)}") from None
        if array.ndim != 4 or array.dtype != np.uint8 or 0 in array.shape:
            raise RequestError(f"{self.root} is an array {array.shape} of {array.dtype}; accepted: images x "
                               "height x width x channels, uint8")
        self.count = len(array)

    def _open(self) -> Array:
        single = self.path.suffix.lower() == ".npy"
        return np.load(self.path, mmap_mode="r") if single else _only_images(self.path)

    def list_images(self) -> FileList:
        return FileList.of(f"{index:08}.npy" for index in range(self.count))

    def read(self, name: str, size: int | None = None) -> bytes:
        if not self.has(name):
            raise Unreadable(name, "there is no such image")
        file = io.BytesIO()
        try:
            np.save(file, self._open()[int(name.removesuffix(".npy"))])
        except (OSError, ValueError, IndexError) as error:      # The file was replaced meanwhile.
            raise Unreadable(name, error_reason(error)) from None
        return file.getvalue()[:size]

    def has(self, name: str) -> bool:
        number = name.removesuffix(".npy")
        return number.isdecimal() and name == f"{int(number):08}.npy" and int(number) < self.count

    def identity(self, name: str) -> str:
        return f"{file_identity(self.path)} {name!r}"


@functools.lru_cache(maxsize=2)
def _only_images(path: Path) -> Array:
    """The only array of a .npz with four dimensions."""
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    found = [array for array in arrays.values() if array.ndim == 4]
    if len(found) != 1:
        held = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        raise ValueError(f"it holds {held or 'none'}; accepted: one of images x height x width x channels")
    return found[0]


def is_array(path: Path) -> bool:
    """Whether a file is an archive of arrays, or an array of more dimensions than an image has."""
    if path.suffix.lower() == ".npz":
        return True
    try:
        return path.suffix.lower() == ".npy" and np.load(path, mmap_mode="r").ndim > 3
    except (OSError, ValueError, EOFError):
        return False        # An image, whose reader says what is wrong with it.
