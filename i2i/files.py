"""Atomic writes, locks between processes, JSON and JSON lines."""

import atexit
import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from i2i.errors import JobError, RequestError

DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EDQUOT)     # All other files would fail alike.
STALE_AGE = 86_400      # Seconds after which a temporary file to which nothing was written is a leftover.
MAX_NAME = 100      # Bytes of a name that is used with a suffix; encrypted disks take no more than 143.
# Called with the name of each failpoint that is reached; tests set it to end the process there.
on_failpoint: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """A named place at which a test can end the process; does nothing otherwise."""
    if on_failpoint:
        on_failpoint(name)


@dataclass(frozen=True)
class Upload:
    """Where the files of a temporary folder go as soon as they are whole."""

    url: str
    send: Callable[[Path, str], None]           # A file, and its name below the URL.  Raises OSError.
    names: Callable[[], Container[str]]         # Of the files below the URL, which is listed once.


_uploads: dict[Path, Upload] = {}       # By temporary folder.


def folder_of_process() -> Path:
    """A new temporary folder, which is removed at the end of the process."""
    folder = Path(tempfile.mkdtemp(prefix="i2i-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def upload_from(upload: Upload) -> Path:
    """A temporary folder that stands for a URL: what is written into it atomically is uploaded, then removed.
    """
    known = (folder for folder, other in _uploads.items() if other.url == upload.url)
    folder = next(known, None) or folder_of_process()
    _uploads[folder] = upload       # A new one, which lists the URL anew.
    return folder


def _upload_of(path: Path) -> tuple[Upload, str] | None:
    """Where a file is uploaded to, and its name there."""
    for folder in (path, *path.parents):
        if folder in _uploads:
            return _uploads[folder], path.relative_to(folder).as_posix()
    return None


def location_of(path: Path) -> str:
    """The path, or the URL that it stands for, for messages."""
    found = _upload_of(path)
    return f"{found[0].url}/{found[1]}".removesuffix("/.") if found else str(path)


def is_written(path: Path) -> bool:
    """Whether an output file exists, also behind a URL."""
    found = _upload_of(path)
    return found[1] in found[0].names() if found else path.exists()


def publish(path: Path) -> None:
    """Upload a file that is whole, and remove it, if its path stands for a URL.  OSError if that fails."""
    if found := _upload_of(path):
        try:
            found[0].send(path, found[1])
        finally:
            path.unlink()


def part_path(target: Path, suffix: str = ".part") -> Path:
    """The hidden path beside a file that it is written to.

    File systems take names of 255 bytes, so long ones are cut and end in a hash.
    """
    name, encoded = target.name, os.fsencode(target.name)
    if len(encoded) > MAX_NAME:
        start = encoded[:MAX_NAME - 20].decode(sys.getfilesystemencoding(), "ignore")
        name = start + hashlib.sha256(encoded).hexdigest()[:16]
    return target.with_name(f".{name}{suffix}")


def bundled_folder(name: str) -> Path:
    """A folder of files that come with i2i: within the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / name if (package / name).is_dir() else package.parent / name


def cache_folder() -> Path:
    """The user's cache: I2I_CACHE, or i2i below XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("I2I_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "i2i"
    except RuntimeError:        # A user without a home, as in containers: nothing is found or kept.
        return Path(os.devnull)


def is_device(path: Path) -> bool:
    """Whether a path is that of a device or a pipe, such as /dev/stdout, which is written into."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.parent == Path("/dev"))


@contextlib.contextmanager
def atomic_path(target: Path, *, sync: bool = False, unique: bool = False) -> Iterator[Path]:
    """Replace `target` by what the block writes to the path it gets: readers see the old or the new file.

    Args:
        sync: whether the new file must survive a power failure.
        unique: whether several processes or threads may write the same target at once; `remove_stale` with
            the pattern ".*.part" removes what they leave behind if they are killed.
    """
    if is_device(target):
        with tempfile.TemporaryDirectory(prefix="i2i-") as folder:
            yield Path(folder, target.name)
            target.write_bytes(Path(folder, target.name).read_bytes())
        return
    writer = f".{os.getpid()}.{threading.get_ident()}" if unique else ""
    part = part_path(target, f"{writer}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.unlink(missing_ok=True)
        part.touch()
        mode = part.stat().st_mode
        failpoint("before-write")
        yield part
        part.chmod(mode & 0o777)        # safetensors makes files that only their owner can read.
        failpoint("before-sync")
        if sync:
            _sync(part, os.O_RDWR)
        failpoint("before-rename")
        os.replace(part, target)
        if sync and hasattr(os, "O_DIRECTORY"):
            _sync(target.parent, os.O_RDONLY)
        failpoint("after-rename")
        publish(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove temporary files and folders in a shared folder that killed processes left behind."""
    def age(path: Path) -> float:
        return time.time() - max(each.stat().st_mtime for each in (path, *path.rglob("*")))

    with contextlib.suppress(OSError):      # Another process has removed it meanwhile.
        for path in [each for each in folder.glob(pattern) if age(each) > STALE_AGE]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is removed after the block.  JobError if it or its files cannot be written."""
    folder = Path()
    try:
        folder = Path(tempfile.mkdtemp(prefix="i2i-"))
        yield folder
    except OSError as error:
        if folder.name and error.errno not in DISK_ERRORS:
            raise
        where = f"temporary files in {folder.parent}" if folder.name else "temporary files"
        raise JobError(f"{where} could not be written ({error.strerror or error}); TMPDIR=DIR names another "
                       "folder") from None
    finally:
        if folder.name:
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary path that then replaces `path`, synced.  JobError if that fails."""
    try:
        with atomic_path(path, sync=True) as part:
            write(part)
    except OSError as error:
        raise JobError(f"{location_of(path)} could not be written: {error.strerror or error}") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.  JobError if that fails."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def to_json(data: Any) -> str:
    """Strict JSON: NaN and infinity become null."""
    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [finite(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    text = json.dumps(finite(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace").decode()      # File names may not be valid text.


def check_file(flag: str, file: str | None) -> None:
    """RequestError if an output file cannot be written, before the work whose result it is for."""
    if file is not None:
        if "://" in file:
            raise RequestError(f"{flag} {file} is a URL; accepted: a local file")
        if is_device(Path(file)) and os.access(file, os.W_OK):
            return
        folder = next(folder for folder in Path(file).absolute().parents if os.path.lexists(folder))
        if os.path.isdir(file) or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            raise RequestError(f"{flag} {file} cannot be written; accepted: a file in a folder that can be "
                               "written")


def try_lock(path: Path) -> FileLock | None:
    """Lock a file until `release` or the end of the process; None if another process has.  OSError if it
    cannot be made.

    Child processes do not inherit the lock: loader processes may outlive a killed trainer for a moment.
    """
    path.touch()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def locked(path: Path) -> AbstractContextManager[object]:
    """Lock a file for a block, after waiting for other processes."""
    return FileLock(path)


def append_json_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Append an entry as one line, after ending a line that a crash cut off.  JobError if that fails."""
    failpoint("before-append")
    try:
        with open(path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
            cut_off = file.read(1) not in (b"", b"\n")
            file.write(b"\n" * cut_off + json.dumps(entry).encode() + b"\n")
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror}") from None


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All valid entries; lines that a crash cut off or a disk damaged are left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(entry := json.loads(line), dict):
                entries.append(entry)
    return entries
