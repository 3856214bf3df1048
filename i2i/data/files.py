"""Where images come from: a folder tree, a zip, a folder inside a zip, or one file.  Names are relative, with forward slashes."""

from __future__ import annotations

import importlib.resources
import io
import os
import warnings
import zipfile
from pathlib import Path, PurePosixPath
from typing import Protocol

from PIL import Image, ImageOps, UnidentifiedImageError

from i2i.errors import RequestError
from i2i.images import Array, from_pil
from i2i.spec import nearest

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Unreadable(Exception):
    """One image that cannot be read; `name` is which, the message is why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)      # Both, so that the error survives the way from a loader's process.
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class Source(Protocol):
    """Images under one root."""

    root: str

    def names(self) -> list[str]:
        """All image names below the root, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        ...


def is_image(name: str) -> bool:
    """Whether the name ends like an image and is not a hidden file."""
    path = PurePosixPath(name)
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden


class Folder:
    """A folder tree; links to folders are followed once."""

    def __init__(self, path: Path, root: str | None = None) -> None:
        self.path, self.root = path, root or str(path)

    def names(self) -> list[str]:
        """All image names below the root, sorted."""
        found, seen = [], set()
        for folder, inside, files in os.walk(self.path, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                inside.clear()
                continue
            seen.add(real)
            inner = Path(folder).relative_to(self.path)
            found += [(inner / file).as_posix() for file in files if is_image(file)]
            inside[:] = [name for name in inside if not name.startswith(".")]
        return sorted(found)

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise Unreadable(name, error.strerror or str(error)) from None


class SingleFile(Folder):
    """One image file, as a source of one."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, str(path))
        self.file = path.name

    def names(self) -> list[str]:
        """The one name."""
        return [self.file]


class Zip:
    """A zip file or a folder inside one; opened anew in every process, so loaders may fork."""

    def __init__(self, path: Path, inside: str = "") -> None:
        self.path, self.inside = path, inside + "/" if inside else ""
        self.root = str(path / inside)
        self._open: tuple[int, zipfile.ZipFile] | None = None
        self._zip()

    def _zip(self) -> zipfile.ZipFile:
        if self._open is None or self._open[0] != os.getpid():
            try:
                self._open = os.getpid(), zipfile.ZipFile(self.path)
            except (OSError, zipfile.BadZipFile) as error:
                raise RequestError(f"{self.path} cannot be read as a zip: {error}") from None
        return self._open[1]

    def names(self) -> list[str]:
        """All image names below the root, sorted; names that would leave it are kept and refused by whoever writes."""
        cut = len(self.inside)
        return sorted(name[cut:] for name in self._zip().namelist() if name.startswith(self.inside) and is_image(name[cut:]))

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        try:
            return self._zip().read(self.inside + name)
        except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise Unreadable(name, f"cannot be read from {self.path.name}: {error}") from None
        except Exception as error:  # zlib.error has no common base with the others.
            raise Unreadable(name, f"damaged in {self.path.name}: {error}") from None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": None}


def bundled() -> dict[str, Path]:
    """Data sets that come with the package: name -> zip."""
    packaged = Path(str(importlib.resources.files("i2i"))) / "datasets"
    folder = packaged if packaged.is_dir() else packaged.parents[1] / "datasets"
    return {path.stem: path for path in sorted(folder.glob("*.zip"))}


def open_source(where: str | Path) -> Source:
    """A source of images from a folder, a zip, `some.zip/folder`, one image file or the name of a bundled data set."""
    path = Path(where)
    named = bundled()
    head, _, rest = str(where).partition("/")
    if not path.exists() and head in named:
        path = named[head] / rest
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise RequestError(f"{where} cannot be read: permission denied")
        return Folder(path)
    for outer in (path, *path.parents):
        if outer.is_file() and outer.suffix.lower() == ".zip":
            return Zip(outer, path.relative_to(outer).as_posix().strip(".") if path != outer else "")
    if path.is_file() and is_image(path.name):
        return SingleFile(path)
    if path.exists():
        raise RequestError(f"{where} is neither a folder, a zip nor an image ({', '.join(EXTENSIONS)})")
    raise RequestError(f"{where} does not exist; accepted: a folder, a zip or a bundled data set ({nearest(head, named)})")


def decode(name: str, data: bytes) -> Array:
    """An encoded picture as uint8 HW or HWC, upright (EXIF orientation applied).  Unreadable names the file and the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return from_pil(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unreadable(name, f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb") from None
    except UnidentifiedImageError:
        raise Unreadable(name, "empty file" if not data else "not an image, or of an unknown format") from None
    except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error ...
        raise Unreadable(name, str(error) or type(error).__name__) from None


def load_image(source: Source, name: str) -> Array:
    """Read and decode one image; Unreadable names it with its root."""
    try:
        return decode(name, source.read(name))
    except Unreadable as error:
        raise Unreadable(f"{source.root}/{name}", error.reason) from None
