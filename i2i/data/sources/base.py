"""The base class of sources, and reading one image from a source."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from i2i.data import manifest as manifests
from i2i.data.file_list import FileList
from i2i.data.manifest import MANIFESTS, Manifest
from i2i.errors import RequestError
from i2i.images.convert import convert_to
from i2i.images.decode import decode_file
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.memory import LARGE, MORE_MEMORY, available_host_memory
from i2i.images.pil import MAX_PIXELS, extensions


class Unreadable(Exception):
    """An image that cannot be read: its `name`, and the `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)      # Both, so that the error can be pickled in a loader worker.
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Source(ABC):
    """Image files under one root.  Names are relative to it, with forward slashes.

    Attributes:
        root: the root as the user wrote it, for messages.
        local: the folder on this machine that the names are relative to, if there is one.
        manifest_name: the manifest in the root that the source was opened from, or "".
        max_pixels: images with more are refused.
    """

    root: str
    local: Path | None = None
    manifest_name: str = ""
    max_pixels: int = MAX_PIXELS

    @abstractmethod
    def list_images(self) -> FileList:
        """All image names below the root, sorted."""

    @abstractmethod
    def read(self, name: str, size: int | None = None) -> bytes:
        """Read a file, or its first `size` bytes.  Raises Unreadable."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def identity(self, name: str) -> str:
        """One line that changes when the file changes: its location, size and times.  Raises OSError."""

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        """Files that are not listed as images; `on_error` gets a message for each unreadable folder."""
        return iter(())

    def names(self) -> FileList:
        """Image names, sorted: those in the manifest the source was opened from, or all below the root."""
        if not self.manifest_name:
            return self.list_images()
        manifest = self.manifest()
        return FileList.of(sorted(set(manifest.files())) if manifest else ())

    def manifest(self) -> Manifest | None:
        """The manifest that the source was opened from, or the one in the root, if any."""
        found = [self.manifest_name] if self.manifest_name else self._manifests()
        if len(found) > 1:
            raise RequestError(f"{self.root} has both {' and '.join(found)}; remove one")
        data = self.read_metadata(found[0]) if found else None
        if data is None:
            return None
        return manifests.read(data, self.path_of(found[0]), has=self.has, is_image=has_image_extension)

    def _manifests(self) -> list[str]:
        """The manifests in the root: of each kind the first, as some disks ignore upper and lower case."""
        # A server is asked once for each.
        local = self.local or "://" not in self.root
        spellings = (str.lower, str.capitalize, str.upper) if local else (str.lower,)
        found = (next(filter(self.has, (spell(name) for spell in spellings)), "") for name in MANIFESTS)
        return [name for name in found if name]

    def read_metadata(self, name: str) -> bytes | None:
        """Read a file in the root that describes the images, such as dataset.json; None if there is none."""
        try:
            return self.read(name) if self.has(name) else None
        except Unreadable as error:
            raise RequestError(f"{self.path_of(name)} cannot be read: {error.reason}") from None

    def path_of(self, name: str) -> str:
        """The path of a file, for messages."""
        folder = self.root.removesuffix(self.manifest_name)
        return f"{folder.rstrip('/')}/{name}" if folder else name


def check_file_size(name: str, size: int) -> None:
    """Raise Unreadable for a file that is larger than the memory that is available."""
    if size > LARGE and size > (free := available_host_memory()):
        raise Unreadable(name, f"the file has {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are "
                               f"free; {MORE_MEMORY}")


def is_hidden(part: str) -> bool:
    """Whether a file or folder name is skipped: it starts with a dot, or macOS adds it to zip files."""
    return (part.startswith(".") and part not in (".", "..")) or part == "__MACOSX"


def has_image_extension(name: str) -> bool:
    """Whether a name has the extension of a format that can be read."""
    return os.path.splitext(name)[1].lower() in extensions()


def is_image(name: str) -> bool:
    """Whether a name has the extension of an image and no part of it is hidden."""
    return has_image_extension(name) and not any(map(is_hidden, name.split("/")))


def decode_bytes(name: str, data: bytes, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode an image file, upright (EXIF orientation applied).  Raises Unreadable."""
    try:
        return replace(decode_file(data, max_pixels), name=name)
    except Exception as error:      # OSError, SyntaxError, ValueError, struct.error, zlib.error, cv2.error …
        raise Unreadable(name, error_reason(error)) from None


def error_reason(error: Exception) -> str:
    """A library's error about an image that cannot be used, in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "OutOfMemoryError" in text:        # The latter is OpenCV's.
        return f"does not fit in memory; {MORE_MEMORY}"
    return text or type(error).__name__


def load_image(source: Source, name: str) -> DecodedImage:
    """Read and decode an image; its name and that of errors are its path."""
    try:
        return decode_bytes(source.path_of(name), source.read(name), source.max_pixels)
    except Unreadable as error:
        raise Unreadable(source.path_of(name), error.reason) from None
    except MemoryError as error:
        raise Unreadable(source.path_of(name), error_reason(error)) from None


def convert_or_unreadable(image: DecodedImage, format: ImageFormat) -> Array:
    """`convert_to`, with Unreadable for an image that cannot be converted."""
    try:
        return convert_to(image, format)
    except ValueError as error:
        raise Unreadable(image.name, str(error)) from None
