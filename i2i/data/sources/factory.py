"""Open a source by its path, URL or name."""

import os
from pathlib import Path, PurePosixPath

from i2i.data.manifest import SUFFIXES
from i2i.data.sources.array_file import ArrayFile, is_array
from i2i.data.sources.base import Source, is_image
from i2i.data.sources.folder import Folder, SingleFile
from i2i.data.sources.left_out import ACCEPTED
from i2i.data.sources.remote import RemoteFile, RemoteFolder, RemoteZip
from i2i.data.sources.shards import open_shards
from i2i.data.sources.url import Location, is_url
from i2i.data.sources.zip_file import Zip
from i2i.errors import RequestError
from i2i.files import bundled_folder
from i2i.images.pil import MAX_PIXELS
from i2i.registry import suggest

ACCEPTED_URLS = f"a zip, a manifest ({', '.join(SUFFIXES)}) or an image ({ACCEPTED})"
ACCEPTED_FILES = f"a shard (.tar, .parquet), an array of images (.npy, .npz), {ACCEPTED_URLS}"


def bundled_datasets() -> dict[str, Path]:
    """The data sets included in the package: name -> zip file."""
    return {path.stem: path for path in sorted(bundled_folder("datasets").glob("*.zip"))}


def absolute_location(where: str | Path) -> str:
    """A location that means the same in every working folder: a path, URL or the name of a bundled set."""
    bundled = str(where).partition("/")[0] in bundled_datasets() and not Path(where).exists()
    return str(where) if bundled or is_url(str(where)) else str(Path(where).absolute())


def same_location(one: str | Path, other: str | Path) -> bool:
    """Whether two locations are one, also through links, and of a bundled set by name and by path."""
    def resolve(where: str | Path) -> str:
        name, _, rest = absolute_location(where).partition("/")
        return str(where) if is_url(str(where)) else os.path.realpath(
            bundled_datasets()[name] / rest if name else where)

    return resolve(one) == resolve(other)


def open_source(where: str | Path, *, max_pixels: int | None = None) -> Source:
    """Open a folder, a zip, a folder in one (`some.zip/folder`), a manifest, an image, a URL of these, or a
    bundled data set by name.

    Images of more than `max_pixels`, by default Pillow's limit, will be refused when they are read.
    """
    source = _open_url(str(where)) if is_url(where) else _open_path(where)
    source.max_pixels = max_pixels or MAX_PIXELS
    return source


def _open_path(where: str | Path) -> Source:
    if not str(where):
        raise RequestError(f"the path of the images is empty; accepted: a folder, {ACCEPTED_FILES}")
    path = Path(where)
    bundled = bundled_datasets()
    name, _, rest = str(where).partition("/")
    if not path.exists() and name in bundled:
        path = bundled[name] / rest
    if path.is_dir():
        if not os.access(path, os.R_OK | os.X_OK):
            raise RequestError(f"{where} cannot be read: permission denied")
        return open_shards(path) or Folder(path)
    manifest_name = path.name if path.suffix.lower() in SUFFIXES else ""
    for outer in (path, *path.parents):
        if outer.is_file() and outer.suffix.lower() == ".zip":
            inner = path.parent if manifest_name else path
            inside = inner.relative_to(outer).as_posix().strip(".") if path != outer else ""
            return Zip(outer, inside, manifest_name=manifest_name)
    if path.is_file() and manifest_name:
        return Folder(path.parent, str(path), manifest_name=manifest_name)
    if path.is_file() and (shards := open_shards(path)):
        return shards
    if path.is_file() and is_array(path):
        return ArrayFile(path)
    if path.is_file() and is_image(path.name):
        return SingleFile(path)
    if path.exists():
        raise RequestError(f"{where} is not a folder, {ACCEPTED_FILES}")
    raise RequestError(f"{where} does not exist; accepted: a folder, a zip, a manifest, an image or a "
                       f"bundled data set ({suggest(name, bundled)})")


def _open_url(url: str) -> Source:
    (location, _), *parents = Location(url).parents()
    name = PurePosixPath(location.url).name
    manifest_name = name if PurePosixPath(name).suffix.lower() in SUFFIXES else ""
    for outer, inside in ((location, ""), *parents):
        if outer.url.lower().endswith(".zip") and outer.kind() == "file":
            inside = inside.removesuffix(manifest_name).rstrip("/")
            return RemoteZip(outer, inside, manifest_name=manifest_name)
    kind = location.kind()
    if kind == "directory":
        return RemoteFolder(location)
    if kind == "file" and manifest_name:
        return RemoteFolder(parents[0][0], location.url, manifest_name=manifest_name)
    if kind == "file" and is_image(name):
        return RemoteFile(parents[0][0], name)
    if kind:
        raise RequestError(f"{url} is not a folder, {ACCEPTED_URLS}")
    raise RequestError(f"{url} does not exist; accepted: a folder, a zip, a manifest or an image")
