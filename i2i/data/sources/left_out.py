"""Files that hold images, or may, and are not listed as images."""

from dataclasses import dataclass, field
from itertools import islice

from i2i.data.file_list import FileList
from i2i.data.manifest import MANIFESTS, SUFFIXES
from i2i.data.sources.base import Source, Unreadable, is_hidden
from i2i.data.sources.url import is_url
from i2i.errors import RequestError
from i2i.images.pil import HINTS, identify

MAX_FILES = 20_000      # Files that are not listed as images, of which the first bytes are read.
MAX_REQUESTS = 64       # The same, where each is a request to a server.
START = 32              # Bytes that identify a format.
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
ACCEPTED = "PNG, JPEG, TIFF, WebP, NPY and what else Pillow reads, known by their extensions"


@dataclass(frozen=True)
class LeftOut:
    """Files that are not listed though they hold images or name them, and messages on folders that cannot be
    listed."""

    misnamed: list[tuple[str, str]] = field(default_factory=list)       # Name and format.
    hidden: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)                   # Files, whatever they hold.
    manifests: list[str] = field(default_factory=list)                  # Of formats that are not read.

    def note(self) -> str:
        """What a user should know, in one line; "" if nothing is left out."""
        parts = []
        if self.misnamed:
            name, format = self.misnamed[0]
            files = "1 file holds an image and is" if len(self.misnamed) == 1 else \
                f"{len(self.misnamed):,} files hold images and are"
            hint = f"{format}: {HINTS[format]}" if format in HINTS else f"{format}, but not by its extension"
            parts.append(f"{files} left out, such as {name} ({hint})")
        if self.archives:
            archives = "1 archive within it is" if len(self.archives) == 1 else \
                f"{len(self.archives):,} archives within it are"
            parts.append(f"{archives} not opened, such as {self.archives[0]}")
        if self.manifests:
            parts.append(f"{self.manifests[0]} is not read; accepted: {', '.join(MANIFESTS)}")
        if self.closed:
            folders = "1 folder" if len(self.closed) == 1 else f"{len(self.closed):,} folders"
            parts.append(f"{folders} cannot be listed, such as {self.closed[0]}")
        return "; ".join(parts)


def find_left_out(source: Source) -> LeftOut:
    """Look for images among the files of a source that are not listed as such; none if a manifest lists them.
    """
    found = LeftOut()
    if source.manifest_name:
        return found
    most = MAX_REQUESTS if is_url(source.root) and source.local is None else MAX_FILES
    for name in islice(source.other_files(found.closed.append), most):
        if name.lower().endswith(ARCHIVES) and not any(map(is_hidden, name.split("/"))):
            found.archives.append(name)
        if name.lower().startswith("manifest.") and not name.lower().endswith(SUFFIXES) and "/" not in name:
            found.manifests.append(name)
        try:
            format = identify(source.read(name, START))
        except Unreadable:
            continue
        if format and any(map(is_hidden, name.split("/"))):
            found.hidden.append(name)
        elif format:
            found.misnamed.append((name, format))
    return found


def image_names(source: Source, where: object = None) -> FileList:
    """The names of the images of a source.  RequestError if it (`where` in the message) holds none."""
    names = source.names()
    if not len(names):
        note = find_left_out(source).note()
        raise RequestError(f"{where or source.root} holds no images{f'; {note}' if note else ''}; accepted: "
                           f"{ACCEPTED}")
    return names
