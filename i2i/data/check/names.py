"""Names: those that get in each other's way, and files that hold images and are not taken for such."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from i2i.data.check.finding import Finding, finding
from i2i.data.dataset_root import LABELS
from i2i.data.file_list import hidden
from i2i.data.manifest import MANIFESTS
from i2i.data.sources import Folder, RemoteFolder, RemoteZip, SingleFile, Source, Unreadable, Zip, is_image
from i2i.errors import printable

LOOKED = 20_000     # Other files whose first bytes are looked at.
START = 32          # Bytes that tell a format.
DESCRIPTIONS = (LABELS, *MANIFESTS)
MAGIC = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP"), (0, b"II*\0"),
         (0, b"MM\0*"), (0, b"\x93NUMPY"),
         (4, b"ftypavif"), (4, b"ftypheic"), (4, b"ftypmif1"), (0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL "),
         (0, b"\0\0\0\x0cjP  "))
SPLIT_LIKE = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "eval": "val",
              "testing": "test"}


def inspect_names(source: Source, names: Sequence[str]) -> list[Finding]:
    """What is wrong with the names, and with what lies beside the images."""
    found = finding("warning", "case", _clashes(names),
                    "two names differ only by case, which is one file on many disks",
                    "{n} names differ from another only by case, which is one file on many disks")
    found += finding("warning", "control-characters",
                     (printable(name) for name in names if not name.isprintable()),
                     "one name has characters that cannot be printed",
                     "{n} names have characters that cannot be printed")
    found += finding("warning", "split-name", _nearly_splits(names),
                     "a folder is not taken for a split, though it may be meant as one",
                     "{n} folders are not taken for splits, though they may be meant as such")
    return found + _ignored(source)


def _clashes(names: Sequence[str]) -> Iterator[str]:
    before: dict[str, str] = {}
    for name in names:
        other = before.setdefault(name.casefold(), name)
        if other != name:
            yield f"{other} and {name}"


def _nearly_splits(names: Sequence[str]) -> Iterator[str]:
    # An absolute path, in a manifest, has none.
    for folder in sorted({name.split("/")[0] for name in names if "/" in name} - {""}):
        side = folder[-1] if folder[-1] in "AB" and folder.lower() not in SPLIT_LIKE else ""
        word = folder.removesuffix(side)
        meant = SPLIT_LIKE.get(word.lower(), word.lower() if word.lower() in ("train", "val", "test") else "")
        if meant and meant != word:
            yield f"{folder}/, which would be {meant}{side}/"


def _ignored(source: Source) -> list[Finding]:
    closed: list[str] = []
    secret, otherwise = list[str](), list[str]()
    for name, read in islice(others(source, closed.append), LOOKED):
        try:
            data = read()
        except (OSError, Unreadable, zipfile.BadZipFile, RuntimeError, NotImplementedError):
            continue
        if any(data[place:].startswith(start) for place, start in MAGIC):
            (secret if any(map(hidden, name.split("/"))) else otherwise).append(name)
    return [*finding("error", "closed-folder", closed,
                     "a folder cannot be listed, and what is in it is missing",
                     "{n} folders cannot be listed, and what is in them is missing"),
            *finding("warning", "ending", otherwise,
                     "a file holds an image and is not taken for one, as it ends differently",
                     "{n} files hold images and are not taken for such, as they end differently"),
            *finding("note", "hidden", secret, "a hidden file holds an image and is passed over",
                     "{n} hidden files hold images and are passed over")]


def others(source: Source, closed: Callable[[str], None]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Files that are not taken for images, and what gives the first bytes of each; `closed` hears of folders
    that cannot be listed."""
    if isinstance(source, RemoteFolder):
        for name in (name for name in source.all if not is_image(name) and name not in DESCRIPTIONS):
            yield name, lambda name=name: source.place.read(name, 0, START)  # type: ignore[misc]
    elif isinstance(source, RemoteZip):
        for name in source.archive.names.within(source.inside):
            if not is_image(name) and name not in DESCRIPTIONS:
                yield name, lambda name=name: source.read(name)[:START]  # type: ignore[misc]
    elif isinstance(source, Zip):
        names = [name for name in source.archive.names.within(source.inside) if not is_image(name)
                 and name not in DESCRIPTIONS]
        if names:
            with zipfile.ZipFile(source.path) as archive:
                for name in names:
                    yield name, lambda name=name: archive.open(source.inside
                                                               + name).read(START)  # type: ignore[misc]
    elif isinstance(source, Folder) and not isinstance(source, SingleFile):
        for folder, inside, files in os.walk(source.path,
                                             onerror=lambda error: closed(f"{error.filename}: "
                                                                          f"{error.strerror}")):
            inside.sort()
            for file in sorted(files):
                path = Path(folder, file)
                name = path.relative_to(source.path).as_posix()
                if not is_image(name) and name not in DESCRIPTIONS and path.is_file():
                    yield name, lambda path=path: _start(path)  # type: ignore[misc]


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(START)
