"""Outputs on URLs: written to a temporary folder, and uploaded under their names when they are whole."""

import errno
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from i2i.data.sharding import map_in_threads
from i2i.data.sources.url import Location, is_url
from i2i.errors import JobError, RequestError
from i2i.files import Upload, cache_folder, upload_from

PROBE = ".i2i-write-test"
UPLOADS = 8         # Files of a set that are uploaded at once.


def output_folder(option: str, where: str) -> Path:
    """The local folder to write an output to; what is written there atomically goes to the URL, if it is one.

    RequestError if nothing can be written to the URL.
    """
    if not is_url(where):
        return Path(where)
    location = Location(where.rstrip("/"))
    if location.local:
        return location.local

    def send(file: Path, name: str) -> None:
        try:
            location.write(file, name)
        except OSError as error:        # After all attempts, so that other files would fail alike.
            raise OSError(errno.EROFS, str(error)) from None

    folder = upload_from(Upload(location.url, send, cache(lambda: frozenset(location.list_files()))))
    _check_writable(option, location)
    return folder


def _check_writable(option: str, location: Location) -> None:
    """RequestError if nothing can be written below a URL."""
    with NamedTemporaryFile(prefix="i2i-") as empty:
        try:
            location.write(Path(empty.name), PROBE)
        except OSError as error:
            raise RequestError(f"{option} {location.url} cannot be written: {error}") from None
    with suppress(OSError):     # Those who may write may not be allowed to delete.
        location.delete(PROBE)


def output_file(option: str, where: str) -> Path:
    """As `output_folder`, for one file."""
    folder, _, name = where.rpartition("/")
    if is_url(where) and (not name or not is_url(folder)):
        raise RequestError(f"{option} {where} names no file; accepted: {where.rstrip('/')}/NAME")
    return output_folder(option, folder) / name if is_url(where) else Path(where)


@contextmanager
def uploaded_when_done(option: str, where: str, *, rank: int = 0) -> Iterator[Path]:
    """The local path of an output of many files, or of one, which is uploaded after the block if it is a URL.

    It is kept in the cache until then, so that the same command continues an interrupted one.  RequestError
    if there is something at the URL, or nothing can be written to it; JobError if uploading fails.
    """
    location = Location(where.rstrip("/"))
    if not is_url(where) or location.local:
        yield (is_url(where) and location.local) or Path(where)
        return
    kept = cache_folder() / "outputs" / hashlib.sha256(location.url.encode()).hexdigest()[:32]
    local = kept / location.url.rpartition("/")[2]
    if not rank and not local.exists():
        if location.kind():
            raise RequestError(f"{option} {where} is there already; accepted: a new folder or file")
        _check_writable(option, Location(location.url.rpartition("/")[0]))
        kept.mkdir(parents=True, exist_ok=True)
    yield local
    if rank:
        return
    single = local.is_file()
    files = [local] if single else [file for file in local.rglob("*") if file.is_file()]
    files.sort(key=lambda file: (file.parent == local, str(file)))      # What describes the set is the last.

    def send(file: Path) -> None:
        location.write(file, "" if single else file.relative_to(local).as_posix())

    try:
        list(map_in_threads(send, files, threads=UPLOADS))
    except OSError as error:
        raise JobError(f"{where} could not be written: {error}; the set is in {local}, and the same command "
                       "uploads it") from None
    shutil.rmtree(kept)
