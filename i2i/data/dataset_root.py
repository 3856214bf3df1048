"""Where a dataset begins: at the root of its source, or in the one folder that holds all of it, which is how
zips of a folder look."""

from i2i.data.file_list import FileList
from i2i.data.layouts import SIDE_FOLDERS, SPLITS
from i2i.data.manifest import Manifest
from i2i.data.sources import Source, Unreadable, image_names

LABELS = "dataset.json"


class SubfolderSource(Source):
    """A folder of a source as a source of its own."""

    def __init__(self, outer: Source, folder: str) -> None:
        self.outer, self.folder, self.root = outer, f"{folder}/", f"{outer.root}/{folder}"
        self.max_pixels = outer.max_pixels

    def list_images(self) -> FileList:
        return self.outer.names().within(self.folder)

    def read(self, name: str, size: int | None = None) -> bytes:
        try:
            return self.outer.read(self.folder + name, size)
        except Unreadable as error:
            raise Unreadable(name, error.reason) from None

    def identity(self, name: str) -> str:
        return self.outer.identity(self.folder + name)

    def has(self, name: str) -> bool:
        return self.outer.has(self.folder + name)


def find_root(source: Source) -> tuple[Source, Manifest | None, FileList]:
    """Find the root of a dataset.

    Where all images lie in one folder that is neither a split nor a side, and nothing beside it describes
    them, that folder is the root.

    Returns:
        The source at the root, and its manifest, or else the sorted names of all its images.
    """
    manifest = source.manifest()
    names = FileList.of(()) if manifest else image_names(source)
    while not manifest and not source.has(LABELS):
        folder, separator, _ = names[0].partition("/")
        inside = names.within(f"{folder}/")
        if not separator or folder in {*SIDE_FOLDERS, *SPLITS} or len(inside) < len(names):
            break
        source, names = SubfolderSource(source, folder), inside
        manifest = source.manifest()
    return source, manifest, names
