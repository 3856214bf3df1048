"""Files behind a URL (s3://, gs://, https://, memory://, file:// …), read by fsspec: each file or range when
it is asked for, nothing ahead."""

from __future__ import annotations

import functools
import io
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from i2i.data.file_list import FileList
from i2i.data.zip_reader import COMMENT, ZipDirectory
from i2i.errors import RequestError

# Seconds before a request that failed is made again.  A file system may have tried more often by itself.
RETRY_DELAYS = (0.5, 2.0, 8.0)
SLACK = 512                 # Bytes for a member's header but for its name; how long it is stands in it.
LONGEST = 46 + 3 * 0xFFFF   # Bytes that a record of a zip's directory can have.
# By which file systems tell one version
MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "created")
FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
T = TypeVar("T")


def is_url(where: object) -> bool:
    """Whether this is a URL and no path."""
    return re.match(r"([A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://", str(where)) is not None


def check_local(option: str, where: object) -> None:
    """RequestError for a URL where only a path will do."""
    if is_url(where):
        raise RequestError(f"{option} {where} is a URL: images can be read from there, results are written "
                           "to folders of this machine")


def failure_reason(error: Exception) -> str:
    """What went wrong, in a line."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class RemoteLocation:
    """A URL.  Nothing is kept open: each process has a file system of its own, so loaders may fork and
    threads may read at once."""

    url: str

    def read(self, name: str = "", start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of this file or of one below, or some of them.  OSError, after several tries"""
        files, path = _open(self.url, os.getpid())
        try:
            return bytes(_with_retries(lambda: files.cat_file(f"{path.rstrip('/')}/{name}" if name else path,
                                                              start=start, end=end)))
        except Exception as error:      # Each file system has errors of its own.
            raise OSError(failure_reason(error)) from None

    def names(self) -> FileList:
        """All files below, sorted.  RequestError if they cannot be listed."""
        files, path = _open(self.url, os.getpid())
        prefix = path.rstrip("/") + "/"
        try:
            found = _with_retries(lambda: files.find(path))
            files.invalidate_cache()        # Which may hold all that the listing said of each file.
        except Exception as error:
            raise RequestError(f"{self.url} cannot be listed: {failure_reason(error)}") from None
        return FileList.of(name[len(prefix):] for name in found if name.startswith(prefix)).sorted()

    def kind(self) -> str:
        """"file", "directory", or nothing where there is neither.  RequestError if that cannot be found
        out."""
        files, path = _open(self.url, os.getpid())
        try:
            return "file" if _with_retries(lambda: files.isfile(path)) else "directory" if _with_retries(lambda: files.isdir(path)) else ""
        except Exception as error:
            raise RequestError(f"{self.url} cannot be read: {failure_reason(error)}") from None

    def size(self) -> int:
        """Bytes of this file."""
        files, path = _open(self.url, os.getpid())
        return int(_with_retries(lambda: files.info(path))["size"])

    def identity(self, name: str = "") -> str:
        """One line that is another when this file, or one below, is another.  OSError where its system does
        not tell when it changed."""
        files, path = _open(self.url, os.getpid())
        try:
            told = _with_retries(lambda: files.info(f"{path.rstrip('/')}/{name}" if name else path))
        except Exception as error:
            raise OSError(failure_reason(error)) from None
        marks = {key: str(told[key]) for key in MARKS if told.get(key)}
        if not marks:
            raise OSError("nothing tells when it changed")
        return f"{self.url} {name!r} {told.get('size')} {marks}"

    @property
    def local(self) -> Path | None:
        """Where this is if it is on this machine."""
        files, path = _open(self.url, os.getpid())
        return Path(path) if "file" in (files.protocol if isinstance(files.protocol, tuple)
                                        else (files.protocol,)) else None

    def above(self) -> Iterator[tuple[RemoteLocation, str]]:
        """This and each folder above it, with what is left of the path below."""
        head, mark, path = self.url.rpartition("://")
        parts = PurePosixPath(path).parts
        for count in range(len(parts), min(len(parts), 1) - 1, -1):
            yield RemoteLocation(f"{head}{mark}{PurePosixPath(*parts[:count]) if count else ''}"), "/".join(parts[count:])


@functools.lru_cache(maxsize=64)
def _open(url: str, process: int) -> tuple[Any, str]:
    """The file system of a URL in this process, and the path in it.  RequestError says what is missing."""
    if re.search(r"://[^/@]*:[^/@]*@", url):
        raise RequestError("a URL with a password in it would be written into run folders and models; "
                           "accepted: the URL without it, and the "
                           "password in fsspec's configuration or the environment (docs/data.md)")
    protocol = re.split("::|://", url)[0]
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        files, path = url_to_fs(url)
    except ImportError as error:
        ours = "pip install 'i2i-toolkit[remote]'" if protocol in ("s3",
                                                                   "s3a") or "fsspec" in str(error) else "install it with pip beside i2i"
        raise RequestError(f"{url} cannot be read: {failure_reason(error)}; {ours}") from None
    # ValueError where a protocol is unknown; whatever its file system raises where it cannot begin.
    except Exception as error:
        raise RequestError(f"{url} cannot be read by {protocol}: {failure_reason(error)}") from None
    return files, path


def _with_retries(do: Callable[[], T]) -> T:
    for wait in RETRY_DELAYS:
        try:
            return do()
        except FINAL:
            raise
        except Exception:
            time.sleep(wait)
    return do()


class Ranges(io.RawIOBase):
    """A file of which parts are asked for as they are read."""

    def __init__(self, place: RemoteLocation, size: int, at: int = 0) -> None:
        self.place, self.size, self.at = place, size, at

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset from the beginning, from here or from the end."""
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        """Where it is."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, less at the end."""
        end = min(self.size, self.at + len(buffer))
        data = self.place.read(start=self.at, end=end) if end > self.at else b""
        buffer[:len(data)] = data
        self.at += len(data)
        return len(data)


class RemoteArchive(ZipDirectory):
    """The members of a zip behind a URL: its directory is read once and kept, each member is one request."""

    def __init__(self, place: RemoteLocation) -> None:
        self.place, self.size, self._kept = place, place.size(), b""
        super().__init__(Path(PurePosixPath(place.url).name))

    def _open(self, at: int = 0) -> BinaryIO:
        if self._kept:
            return io.BytesIO(self._kept[at - self._directory:at - self._directory + LONGEST])
        return io.BufferedReader(Ranges(self.place, self.size), 2 * COMMENT)

    def _records(self, file: BinaryIO) -> Iterator[tuple[int, str]]:
        self._kept = self.place.read(start=self._directory, end=self._end)
        return self._parsed(self._kept, self._directory)

    def _member(self, file: BinaryIO, info: zipfile.ZipInfo) -> BinaryIO:
        length = len(info.filename.encode("utf-8", "surrogateescape")) + SLACK + info.compress_size
        return io.BufferedReader(Ranges(self.place, self.size, info.header_offset), min(self.size, length))
