"""Folders and single files."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from i2i.data.file_list import FileList
from i2i.data.sources.base import Source, Unreadable, check_file_size, is_hidden, is_image


class Folder(Source):
    """A folder tree; symbolic links to folders are followed once."""

    def __init__(self, path: Path, root: str | None = None, *, manifest_name: str = "") -> None:
        self.path, self.root, self.manifest_name, self.local = path, root or str(path), manifest_name, path

    def list_images(self) -> FileList:
        return FileList.of(sorted(walk(str(self.path), is_image)))

    def read(self, name: str, size: int | None = None) -> bytes:
        path = os.path.join(self.path, name)
        try:
            found = os.stat(path)
            if not stat.S_ISREG(found.st_mode):     # Reading a named pipe would block.
                raise Unreadable(name, "is not a regular file")
            if size is None:
                check_file_size(name, found.st_size)
            with open(path, "rb") as file:
                return file.read(size)
        except (OSError, ValueError) as error:      # ValueError: a zero byte in the name.
            raise Unreadable(name, getattr(error, "strerror", None) or str(error)) from None

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.path, name))

    def identity(self, name: str) -> str:
        return file_identity(os.path.join(self.path, name))

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        tree = os.walk(self.path, onerror=lambda error: on_error(f"{error.filename}: {error.strerror}"))
        for folder, subfolders, files in tree:
            subfolders.sort()
            inner = Path(folder).relative_to(self.path)
            names = ((inner / file).as_posix() for file in sorted(files))
            yield from (name for name in names if not is_image(name))


class SingleFile(Folder):
    """One image file.  Metadata beside it describes other files too and is ignored."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, str(path))
        self.file = path.name

    def path_of(self, name: str) -> str:
        return self.root

    def list_images(self) -> FileList:
        return FileList.of([self.file])

    def has(self, name: str) -> bool:
        return name == self.file and super().has(name)

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        return iter(())


def file_identity(path: str | os.PathLike[str]) -> str:
    """The location, size and times of a file.  A copy may keep the modification time, not the change time."""
    found = os.stat(path)
    return f"{os.path.abspath(path)!r} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def walk(root: str, accept: Callable[[str], bool]) -> Iterator[str]:
    """The files of a tree with accepted names, relative to the root with forward slashes, in no order.

    Only the names and types of files are read.  A symbolic link to a folder is followed once, and not at all
    if it leads to a folder that is listed anyway; folders that cannot be read are skipped.
    """
    reached = {os.path.realpath(root)}

    def is_new(path: str) -> bool:
        target = os.path.realpath(path)
        if target in reached:
            return False
        if os.path.islink(path):
            for folder in reached:          # Whose subfolders are listed, unless they are hidden.
                inner = target.removeprefix(folder.rstrip(os.sep) + os.sep)
                if inner != target and not any(map(is_hidden, inner.split(os.sep))):
                    return False
            reached.add(target)
        return True

    for folder, subfolders, files in os.walk(root, followlinks=True):
        inner = folder[len(root):].replace(os.sep, "/").strip("/")
        yield from ((f"{inner}/{file}" if inner else file) for file in files if accept(file))
        subfolders[:] = [name for name in sorted(subfolders)
                         if not is_hidden(name) and is_new(os.path.join(folder, name))]
