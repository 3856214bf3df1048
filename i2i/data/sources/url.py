"""Files behind URLs (s3://, gs://, https://, memory://, file:// …), read with fsspec."""

import functools
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from i2i.data.file_list import FileList
from i2i.errors import RequestError
from i2i.files import atomic_path, cache_folder, folder_of_process, locked

RETRY_DELAYS = (0.5, 2.0, 8.0)      # Seconds before a failed request is repeated.
VERSION_KEYS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "created")
PERMANENT_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError,
                    NotImplementedError)


def is_url(where: object) -> bool:
    """Whether this is a URL rather than a path."""
    return re.match(r"([A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://", str(where)) is not None


def check_local(option: str, where: object) -> None:
    """Raise RequestError if an output option that must be local is a URL."""
    if is_url(where):
        raise RequestError(f"{option} {where} is a URL, and this needs a local folder, which can be copied "
                           "there at the end")


def failure_reason(error: Exception) -> str:
    """The message of an error in one line."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class Location:
    """A URL.  No file is kept open, and each process has its own file system, so loader workers may fork."""

    url: str

    def _request(self, method: str, name: str = "", *first: str, **options: Any) -> Any:
        """Call a method of the file system for this file or one below it.  OSError after several attempts."""
        files, path = _file_system(self.url, os.getpid())
        path = f"{path.rstrip('/')}/{name}" if name else path
        for delay in (*RETRY_DELAYS, None):
            try:
                return getattr(files, method)(*first, path, **options)
            except Exception as error:      # Each file system has its own errors.
                if delay is None or isinstance(error, PERMANENT_ERRORS):
                    raise OSError(failure_reason(error)) from None
                time.sleep(delay)

    def read(self, name: str = "", start: int | None = None, end: int | None = None) -> bytes:
        """Read this file or one below it, or a range of bytes.  Raises OSError."""
        return bytes(self._request("cat_file", name, start=start, end=end))

    def write(self, file: Path, name: str = "") -> None:
        """Make a local file this file or one below it: whole, or not at all in object stores.  OSError."""
        self._request("put_file", name, str(file))

    def delete(self, name: str) -> None:
        """Delete a file below this folder.  Raises OSError."""
        self._request("rm_file", name)

    def list_files(self) -> FileList:
        """All files below this folder, sorted."""
        files, path = _file_system(self.url, os.getpid())
        prefix = path.rstrip("/") + "/"
        try:
            found = self._request("find")
        except OSError as error:
            raise RequestError(f"{self.url} cannot be listed: {error}") from None
        files.invalidate_cache()        # It may hold the full listing.
        return FileList.of(sorted(name[len(prefix):] for name in found if name.startswith(prefix)))

    def kind(self) -> str:
        """"file", "directory", or "" if neither exists."""
        try:
            if self._request("isfile"):
                return "file"
            return "directory" if self._request("isdir") else ""
        except OSError as error:
            raise RequestError(f"{self.url} cannot be read: {error}") from None

    def size(self) -> int:
        """The size of this file in bytes."""
        return int(self._request("info")["size"])

    def identity(self, name: str = "") -> str:
        """One line that changes when this file, or one below it, changes.  OSError if the file system reports
        neither a time nor a hash."""
        info = self._request("info", name)
        if not (version := _version(info)):
            raise OSError("the file system does not report when it changed")
        return f"{self.url} {name!r} {info.get('size')} {version}"

    @property
    def local(self) -> Path | None:
        """The path, if the URL is one of this machine."""
        files, path = _file_system(self.url, os.getpid())
        protocols = files.protocol if isinstance(files.protocol, tuple) else (files.protocol,)
        return Path(path) if "file" in protocols else None

    def parents(self) -> "Iterator[tuple[Location, str]]":
        """This location and each folder above it, with the rest of the path."""
        head, separator, path = self.url.rpartition("://")
        parts = PurePosixPath(path).parts
        for count in range(len(parts), min(len(parts), 1) - 1, -1):
            outer = str(PurePosixPath(*parts[:count])) if count else ""
            yield Location(f"{head}{separator}{outer}"), "/".join(parts[count:])


class RangeReader(io.RawIOBase):
    """A remote file of which ranges are requested as they are read."""

    def __init__(self, location: Location, size: int, offset: int = 0) -> None:
        self.location, self.size, self.offset = location, size, offset

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.offset = offset + (0, self.offset, self.size)[whence]
        return self.offset

    def readinto(self, buffer: Any) -> int:
        end = min(self.size, self.offset + len(buffer))
        data = self.location.read(start=self.offset, end=end) if end > self.offset else b""
        buffer[:len(data)] = data
        self.offset += len(data)
        return len(data)


def _version(info: Mapping[str, Any]) -> dict[str, str]:
    """What changes when a file changes, of what its file system reports."""
    return {key: str(info[key]) for key in VERSION_KEYS if info.get(key)}


def fetched(url: str) -> Path:
    """A local copy of a file, which is in the cache until the file changes.  RequestError if it cannot be
    read whole."""
    location = Location(url)
    if location.local:
        return location.local
    try:
        info = location._request("info")
        version, size = _version(info), int(info.get("size") or 0)
        key = hashlib.sha256(f"{url} {size} {version}".encode()).hexdigest()[:32]
        folder = (cache_folder() / "fetched" if version else _uncached()) / key
        file = folder / url.rpartition("/")[2]
        if file.exists():
            return file
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            if file.exists():       # Another process has fetched it.
                return file
            if size > (free := shutil.disk_usage(folder).free):
                raise OSError(f"it has {size / 1e9:.1f} GB, and {folder} {free / 1e9:.1f} GB of free space; "
                              "I2I_CACHE=DIR names another folder")
            with atomic_path(file) as part:
                location._request("get_file", lpath=str(part))
                if size and part.stat().st_size != size:
                    raise OSError(f"only {part.stat().st_size:,} of {size:,} bytes came")
    except OSError as error:
        raise RequestError(f"{url} cannot be read: {failure_reason(error)}") from None
    return file


_uncached = functools.cache(folder_of_process)      # For files that may change without notice.


@functools.lru_cache(maxsize=64)
def _file_system(url: str, process: int) -> tuple[Any, str]:
    """The fsspec file system of a URL in this process, and the path in it."""
    if re.search(r"://[^/@]*:[^/@]*@", url):
        raise RequestError("a URL with a password would be written into run folders and models; accepted: "
                           "the URL without it, and the password in fsspec's configuration or the "
                           "environment (docs/data.md)")
    protocol = re.split("::|://", url)[0]
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]
        files, path = url_to_fs(url)
    except ImportError as error:
        ours = protocol in ("s3", "s3a") or "fsspec" in str(error)
        hint = "pip install 'i2i-toolkit[remote]'" if ours else "install it with pip beside i2i"
        raise RequestError(f"{url} cannot be read: {failure_reason(error)}; {hint}") from None
    except Exception as error:      # ValueError for an unknown protocol, and whatever its file system raises.
        raise RequestError(f"{url} cannot be read by {protocol}: {failure_reason(error)}") from None
    return files, path
