"""Where a data set begins: at the root of its source, or in the one folder that holds all of it, as zips of a
folder have it."""

from __future__ import annotations

from typing import BinaryIO

from i2i.data.file_list import FileList
from i2i.data.layouts import SIDED, SPLITS
from i2i.data.manifest import Manifest
from i2i.data.sources import EXTENSIONS, Description, Source, Unreadable
from i2i.errors import RequestError

LABELS = "dataset.json"


class SubfolderSource(Description):
    """A folder of a source, as if it were the root."""

    def __init__(self, outer: Source, folder: str) -> None:
        self.outer, self.folder, self.root = outer, f"{folder}/", f"{outer.root}/{folder}"

    def names(self) -> FileList:
        """All image names below the folder, sorted."""
        return self.outer.names().within(self.folder)

    def read(self, name: str) -> bytes:
        """The bytes of one file; Unreadable if that fails."""
        try:
            return self.outer.read(self.folder + name)
        except Unreadable as error:
            raise Unreadable(name, error.reason) from None

    def identity(self, name: str) -> str:
        """What tells this version of a file from others."""
        return self.outer.identity(self.folder + name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self.outer.has(self.folder + name)

    def beside(self, name: str) -> BinaryIO | None:
        """A file in the folder that describes the images, such as dataset.json; None if there is none."""
        return self.outer.beside(self.folder + name)


def find_root(source: Source) -> tuple[Source, Manifest | None, FileList]:
    """The root of a data set, and its manifest or else all its images, sorted.  RequestError if there are
    none.

    Where all images lie in one folder that is neither a split nor a side, and nothing beside it describes
    them, that folder is the root.
    """
    told = source.manifest()
    names = FileList.of(()) if told else source.names()
    if not told and not len(names):
        raise RequestError(f"{source.root} holds no images ({', '.join(EXTENSIONS)})")
    while not told and (folder := _siblings(source, names)):
        source, names = SubfolderSource(source, folder), names.within(f"{folder}/")
        told = source.manifest()
    return source, told, names


def _siblings(source: Source, names: FileList) -> str:
    """The folder around everything, "" if there is none."""
    folder, inside, _ = names[0].partition("/")
    if not inside or folder in SIDED or folder in SPLITS or len(names.under(f"{folder}/")) < len(names) or source.has(LABELS):
        return ""
    return folder
