"""Folders, zip files and single files behind URLs."""

import io
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from i2i.data.file_list import FileList
from i2i.data.sources.base import Source, Unreadable, is_image
from i2i.data.sources.url import Location, RangeReader
from i2i.data.sources.zip_file import Zip

LISTING_BUFFER = 1 << 17    # Bytes read at once from the end of a zip, where its directory is.
EXTRA_FIELDS = 512          # Bytes allowed for the extra fields of a zip member, to read it with one request.


class RemoteFolder(Source):
    """Files below a URL, listed once."""

    def __init__(self, location: Location, root: str | None = None, *, manifest_name: str = "") -> None:
        self.location, self.root, self.manifest_name = location, root or location.url, manifest_name
        self.local = location.local

    @cached_property
    def files(self) -> FileList:
        """All files below, sorted."""
        return self.location.list_files()

    def list_images(self) -> FileList:
        return FileList.of(name for name in self.files if is_image(name))

    def read(self, name: str, size: int | None = None) -> bytes:
        try:
            return self.location.read(name, end=size)
        except OSError as error:
            raise Unreadable(name, str(error)) from None

    def has(self, name: str) -> bool:
        return self.files.find(name) >= 0

    def identity(self, name: str) -> str:
        return self.location.identity(name)

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        return (name for name in self.files if not is_image(name))


class RemoteFile(RemoteFolder):
    """One image file behind a URL.  Metadata beside it describes other files too and is ignored."""

    def __init__(self, folder: Location, name: str) -> None:
        super().__init__(folder, f"{folder.url}/{name}")
        self.files = FileList.of([name])

    def path_of(self, name: str) -> str:
        return self.root


class RemoteZip(Zip):
    """A zip file behind a URL, or a folder inside one; each member is read with one request."""

    def __init__(self, location: Location, inside: str = "", *, manifest_name: str = "") -> None:
        self.location, self.manifest_name = location, manifest_name
        self.inside = inside + "/" if inside else ""
        self.path = Path(PurePosixPath(location.url).name)
        self.root = "/".join(filter(None, (location.url, inside, manifest_name)))
        self._list(location.url, self._open_directory)

    def _open_directory(self) -> BinaryIO:
        self.size = self.location.size()
        return io.BufferedReader(RangeReader(self.location, self.size), LISTING_BUFFER)

    def _open_at(self, offset: int, length: int) -> BinaryIO:
        reader = RangeReader(self.location, self.size, offset)
        return io.BufferedReader(reader, min(self.size, length + EXTRA_FIELDS))

    def identity(self, name: str) -> str:
        return f"{self.location.identity()} {self.inside + name!r}"
