"""Where images come from: a folder tree, a zip, a folder inside a zip, or one file.  Names are relative, with
forward slashes."""

from __future__ import annotations

import importlib.resources
import io
import os
import stat
import zipfile
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

import numpy as np

from i2i.data import file_list_cache as indexing
from i2i.data import manifest as manifests
from i2i.data.file_list import FileList, hidden, walk
from i2i.data.manifest import MANIFESTS, Manifest
from i2i.data.remote import RemoteArchive, RemoteLocation, is_url
from i2i.data.zip_reader import ZipDirectory
from i2i.errors import RequestError
from i2i.images.decode import decode_file
from i2i.images.formats import Array, DecodedImage, ImageFormat, convert_to
from i2i.registry import suggest

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".npy", ".gif")


class Unreadable(Exception):
    """One image that cannot be read; `name` is which, the message is why."""

    def __init__(self, name: str, reason: str) -> None:
        # Both, so that the error survives the way from a loader's process.
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Source(Protocol):
    """Images under one root."""

    root: str

    @property
    def local(self) -> Path | None:
        """The folder of this machine that the names are in, if they are in one."""
        ...

    def names(self) -> FileList:
        """All image names below the root, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def identity(self, name: str) -> str:
        """One line that is another when the file is another: where it lies, its size and times.  OSError if
        it is not there."""
        ...

    def beside(self, name: str) -> BinaryIO | None:
        """A file in the root that describes the images, such as dataset.json; None if there is none."""
        ...

    def manifest(self) -> Manifest | None:
        """The manifest that names the images: the one this was opened from, or the one in the root; None if
        there is none."""
        ...


def is_image(name: str) -> bool:
    """Whether the name ends like an image and is not a hidden file."""
    return name.lower().endswith(EXTENSIONS) and not (any(map(hidden, name.split("/"))) if "/" in name
                                                      else hidden(name))


class Description(ABC):
    """What a folder and a zip have in common: both may hold a manifest, or be opened from one (`listed`)."""

    root: str
    listed: str = ""
    local: Path | None = None

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    @abstractmethod
    def identity(self, name: str) -> str:
        """One line that is another when the file is another.  OSError if it is not there."""

    @abstractmethod
    def beside(self, name: str) -> BinaryIO | None:
        """A file in the root that describes the images, such as dataset.json; None if there is none."""

    def manifest(self) -> Manifest | None:
        """The manifest that names the images: the one this was opened from, or the one in the root; None if
        there is none."""
        there = [self.listed] if self.listed else [name for name in MANIFESTS if self.has(name)]
        if len(there) > 1:
            raise RequestError(f"{self.root} has {' and '.join(there)}; one must go")
        file = self.beside(there[0]) if there else None
        if file is None:
            return None
        with file:
            where = self.root if self.listed else f"{self.root}/{there[0]}"
            return manifests.read(file, where, has=self.has,
                                  is_image=lambda name: name.lower().endswith(EXTENSIONS))

    def _named(self) -> FileList:
        told = self.manifest()
        return FileList.of(sorted(set(told.files()))) if told else FileList.of(())


class Folder(Description):
    """A folder tree; links to folders are followed once.  `listed`: the manifest in it that names the images;
    `index`: keep an index beside it."""

    def __init__(self, path: Path, root: str | None = None, *, listed: str = "", index: bool = False) -> None:
        self.path, self.root, self.listed, self.index, self.local = path, root or str(path), listed, index, path

    def names(self) -> FileList:
        """All image names below the root, sorted."""
        if self.listed:
            return self._named()
        stored = indexing.load_index(self.path, EXTENSIONS) if self.index else None
        if stored:
            return stored[0]
        marks: indexing.FolderTimes = []
        names = FileList.of(walk(str(self.path), is_image,
                                 lambda inner: marks.append(indexing.folder_times(self.path,
                                                                                  inner)))).sorted()
        if self.index:
            indexing.save_index(self.path, EXTENSIONS, marks, names)
        return names

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        path = os.path.join(self.path, name)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):     # A named pipe would never end.
                raise Unreadable(name, "is no regular file")
            with open(path, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:      # ValueError: a zero byte in the name.
            raise Unreadable(name, getattr(error, "strerror", None) or str(error)) from None

    def identity(self, name: str) -> str:
        """One line that is another when the file is another."""
        return _identity(os.path.join(self.path, name))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(os.path.join(self.path, name))

    def beside(self, name: str) -> BinaryIO | None:
        """A file in the root that describes the images, such as dataset.json; None if there is none."""
        try:
            return (self.path / name).open("rb")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RequestError(f"{self.path / name} cannot be read: {error.strerror or error}") from None


class SingleFile(Folder):
    """One image file, as a source of one.  What lies beside it describes other files too, and is not looked
    at."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, str(path))
        self.file = path.name

    def names(self) -> FileList:
        """The one name."""
        return FileList.of([self.file])

    def beside(self, name: str) -> BinaryIO | None:
        """Nothing."""
        return None

    def manifest(self) -> Manifest | None:
        """Nothing."""
        return None


class Zip(Description):
    """A zip file or a folder inside one; nothing is kept open, so loaders may fork.  `listed`, `index` as for
    a folder."""

    def __init__(self, path: Path, inside: str = "", *, listed: str = "", index: bool = False) -> None:
        self.path, self.inside, self.listed = path, inside + "/" if inside else "", listed
        self.root = str(path / inside / listed)
        try:
            stored = indexing.load_index(path, ()) if index else None
            mark = indexing.folder_times(path)
            self.archive = ZipDirectory(path, stored)
        except (OSError, zipfile.BadZipFile, UnicodeError, ValueError) as error:
            raise RequestError(f"{path} cannot be read as a zip: {error}") from None
        if index and not stored:
            indexing.save_index(path, (), [mark], self.archive.names, self.archive.places)

    def names(self) -> FileList:
        """All image names below the root, sorted; names that would leave it are kept and refused by whoever
        writes."""
        if self.listed:
            return self._named()
        inner = self.archive.names.within(self.inside)
        images = np.fromiter((place for place, name in enumerate(inner) if is_image(name)), np.int64)
        return inner if len(images) == len(inner) else inner.take(images)

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        try:
            return self.archive.read(self.inside + name)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError,
                ValueError) as error:
            raise Unreadable(name, f"cannot be read from {self.path.name}: {error}") from None
        except Exception as error:  # zlib.error has no common base with the others.
            raise Unreadable(name, f"damaged in {self.path.name}: {error}") from None

    def identity(self, name: str) -> str:
        """One line that is another when the zip is another."""
        return f"{_identity(self.path)} {self.inside + name!r}"

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.archive.names.find(self.inside + name) >= 0

    def beside(self, name: str) -> BinaryIO | None:
        """A file in the root that describes the images, such as dataset.json; None if there is none."""
        try:
            return io.BytesIO(self.read(name)) if self.has(name) else None
        except Unreadable as error:
            raise RequestError(f"{self.root}: {error}") from None


class RemoteFolder(Description):
    """Files below a URL, listed once.  `listed`: the manifest in it that names the images."""

    def __init__(self, place: RemoteLocation, root: str | None = None, *, listed: str = "") -> None:
        self.place, self.root, self.listed, self.local = place, root or place.url, listed, place.local

    @cached_property
    def all(self) -> FileList:
        """Every name below, images or not, sorted."""
        return self.place.names()

    def names(self) -> FileList:
        """All image names below the root, sorted."""
        return self._named() if self.listed else FileList.of(name for name in self.all if is_image(name))

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        try:
            return self.place.read(name)
        except OSError as error:
            raise Unreadable(name, str(error)) from None

    def identity(self, name: str) -> str:
        """One line that is another when the file is another."""
        return self.place.identity(name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.all.find(name) >= 0

    def beside(self, name: str) -> BinaryIO | None:
        """A file in the root that describes the images, such as dataset.json; None if there is none."""
        try:
            return io.BytesIO(self.read(name)) if self.has(name) else None
        except Unreadable as error:
            raise RequestError(f"{self.root}/{error}") from None


class RemoteFile(RemoteFolder):
    """One image file behind a URL, as a source of one."""

    def __init__(self, place: RemoteLocation, name: str) -> None:
        super().__init__(place)
        self.root, self.file = f"{place.url}/{name}", name

    @cached_property
    def all(self) -> FileList:
        """The one name; what lies beside it describes other files too, and is not looked at."""
        return FileList.of([self.file])


class RemoteZip(Zip):
    """A zip file behind a URL, or a folder inside one."""

    def __init__(self, place: RemoteLocation, inside: str = "", *, listed: str = "") -> None:
        self.place, self.inside, self.listed = place, inside + "/" if inside else "", listed
        self.root = "/".join(filter(None, (place.url, inside, listed)))
        try:
            self.archive: ZipDirectory = RemoteArchive(place)
        except (OSError, zipfile.BadZipFile, UnicodeError, ValueError) as error:
            raise RequestError(f"{place.url} cannot be read as a zip: {error}") from None
        self.path = self.archive.path

    def identity(self, name: str) -> str:
        """One line that is another when the zip is another."""
        return f"{self.place.identity()} {self.inside + name!r}"


def _identity(path: str | os.PathLike[str]) -> str:
    """Place, size, and when content and attributes changed: a copy may keep the first of these times, not the
    second."""
    told = os.stat(path)
    return f"{os.path.abspath(path)!r} {told.st_size} {told.st_mtime_ns} {told.st_ctime_ns}"


def bundled_dataset() -> dict[str, Path]:
    """Data sets that come with the package: name -> zip."""
    packaged = Path(str(importlib.resources.files("i2i"))) / "datasets"
    folder = packaged if packaged.is_dir() else packaged.parents[1] / "datasets"
    return {path.stem: path for path in sorted(folder.glob("*.zip"))}


def open_source(where: str | Path, *, index: bool = False) -> Source:
    """A source of images from a folder, a zip, `some.zip/folder`, a manifest, one image file, a URL of these
    or the name of a bundled data set.

    With `index`, the names found are kept in a file beside the folder or zip, and looked up there the next
    time.
    """
    if is_url(where):
        return _remote_source(str(where), index)
    path = Path(where)
    named = bundled_dataset()
    head, _, rest = str(where).partition("/")
    if not path.exists() and head in named:
        path, index = named[head] / rest, False
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise RequestError(f"{where} cannot be read: permission denied")
        return Folder(path, index=index)
    listed = path.name if path.suffix.lower() in manifests.SUFFIXES else ""
    for outer in (path, *path.parents):
        if outer.is_file() and outer.suffix.lower() == ".zip":
            inner = (path.parent if listed
                     else path).relative_to(outer).as_posix().strip(".") if path != outer else ""
            return Zip(outer, inner, listed=listed, index=index)
    if path.is_file() and listed:
        return Folder(path.parent, str(path), listed=listed)
    if path.is_file() and is_image(path.name):
        return SingleFile(path)
    if path.exists():
        raise RequestError(f"{where} is neither a folder, a zip, a manifest "
                           f"({', '.join(manifests.SUFFIXES)}) nor an image ({', '.join(EXTENSIONS)})")
    raise RequestError(f"{where} does not exist; accepted: a folder, a zip, a manifest or a bundled data set "
                       f"({suggest(head, named)})")


def _remote_source(url: str, index: bool) -> Source:
    """A source of images from the URL of a folder, a zip, a folder in one, a manifest or an image."""
    if index:
        raise RequestError(f"data.index=true keeps what was listed beside the images, and {url} is a URL; "
                           "accepted: false")
    (whole, _), *above = RemoteLocation(url).above()
    name = PurePosixPath(whole.url).name
    listed = name if PurePosixPath(name).suffix.lower() in manifests.SUFFIXES else ""
    for place, inside in ((whole, ""), *above):
        if place.url.lower().endswith(".zip") and place.kind() == "file":
            return RemoteZip(place, inside.removesuffix(listed).rstrip("/"), listed=listed)
    kind = whole.kind()
    if kind == "directory":
        return RemoteFolder(whole)
    if kind == "file" and listed:
        return RemoteFolder(above[0][0], whole.url, listed=listed)
    if kind == "file" and is_image(name):
        return RemoteFile(above[0][0], name)
    if kind:
        raise RequestError(f"{url} is neither a folder, a zip, a manifest ({', '.join(manifests.SUFFIXES)}) "
                           f"nor an image ({', '.join(EXTENSIONS)})")
    raise RequestError(f"{url} does not exist; accepted: a folder, a zip, a manifest or an image")


def decode_bytes(name: str, data: bytes) -> DecodedImage:
    """An encoded picture as stored, upright (EXIF orientation applied).  Unreadable names the file and the
    reason."""
    try:
        return replace(decode_file(data), name=name)
    # Decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, cv2.error ...
    except Exception as error:
        raise Unreadable(name, " ".join(str(error).split()) or type(error).__name__) from None


def load_image(source: Source, name: str) -> DecodedImage:
    """Read and decode one image; Unreadable names it with its root."""
    try:
        picture = decode_bytes(name, source.read(name))
    except Unreadable as error:
        raise Unreadable(f"{source.root}/{name}", error.reason) from None
    return replace(picture, name=f"{source.root}/{name}")


def convert_or_unreadable(picture: DecodedImage, kind: ImageFormat) -> Array:
    """A picture as its side has them; Unreadable names one of another kind that cannot be brought to it."""
    try:
        return convert_to(picture, kind)
    except ValueError as error:
        raise Unreadable(picture.name, str(error)) from None
