"""Folders and single files."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from i2i.data.file_list import FileList
from i2i.data.sources.base import Source, Unreadable, is_hidden, is_image


class Folder(Source):
    """A folder tree; symbolic links to folders are followed once."""

    def __init__(self, path: Path, root: str | None = None, *, manifest_name: str = "") -> None:
        self.path, self.root, self.manifest_name, self.local = path, root or str(path), manifest_name, path

    def list_images(self) -> FileList:
        return FileList.of(sorted(walk(str(self.path), is_image)))

    def read(self, name: str, size: int | None = None) -> bytes:
        path = os.path.join(self.path, name)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):     # Reading a named pipe would block.
                raise Unreadable(name, "is not a regular file")
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
    """The files of a tree whose own name is accepted, relative to the root with forward slashes, in no order.

    Only the names and types of files are read.  A symbolic link to a folder is followed once, and not at all
    if it leads to a folder that is listed anyway; folders that cannot be read are skipped.
    """
    top = os.path.realpath(root)
    reached = {top}
    pending = [("", top)]
    while pending:
        inner, real = pending.pop()
        folders = []
        try:
            with os.scandir(os.path.join(root, inner)) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append(entry)
                    elif accept(entry.name):
                        yield inner + entry.name
        except OSError:
            continue
        subfolders = []
        for entry in sorted(folders, key=lambda entry: entry.name):
            if is_hidden(entry.name):
                continue
            target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
            if target in reached or (entry.is_symlink() and _is_inside(target, reached)):
                continue
            if entry.is_symlink():
                reached.add(target)
            subfolders.append((f"{inner}{entry.name}/", target))
        pending += reversed(subfolders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:         # For example, a link to itself.
        return False


def _is_inside(target: str, folders: Iterable[str]) -> bool:
    """Whether walking one of these folders reaches the target; hidden folders are not walked."""
    return any(target.startswith(folder.rstrip(os.sep) + os.sep)
               and not any(map(is_hidden, target[len(folder):].split(os.sep))) for folder in folders)
