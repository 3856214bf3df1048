"""Open a source by its path, URL or name."""

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from i2i.data.manifest import SUFFIXES
from i2i.data.sharding import map_in_threads
from i2i.data.sources.array_file import ArrayFile, is_array
from i2i.data.sources.base import Source, is_image
from i2i.data.sources.folder import Folder, SingleFile
from i2i.data.sources.left_out import ACCEPTED
from i2i.data.sources.remote import RemoteFile, RemoteFolder, RemoteZip
from i2i.data.sources.shards import Shard, Shards, is_shard, local_shards, open_shards
from i2i.data.sources.url import Location, fetched, is_url
from i2i.data.sources.zip_file import Zip
from i2i.errors import RequestError
from i2i.files import bundled_folder
from i2i.images.pil import MAX_PIXELS
from i2i.registry import suggest

ACCEPTED_FILES = (f"a shard (.tar, .parquet), an array of images (.npy, .npz), a zip, a manifest "
                  f"({', '.join(SUFFIXES)}) or an image ({ACCEPTED})")
DOWNLOADS = 8       # Shards that are copied into the cache at once.


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
    source = _open_numbered(str(where)) or (_open_url(str(where)) if is_url(where) else _open_path(where))
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
        return open_shards(str(path), found) if (found := local_shards(path)) else Folder(path)
    manifest_name = path.name if path.suffix.lower() in SUFFIXES else ""
    for outer in (path, *path.parents):
        if outer.is_file() and outer.suffix.lower() == ".zip":
            inner = path.parent if manifest_name else path
            inside = inner.relative_to(outer).as_posix().strip(".") if path != outer else ""
            return Zip(outer, inside, manifest_name=manifest_name)
    if path.is_file() and manifest_name:
        return Folder(path.parent, str(path), manifest_name=manifest_name)
    if path.is_file() and is_shard(path.name):
        return open_shards(str(path), local_shards(path))
    if path.is_file() and is_array(path):
        return ArrayFile(path)
    if path.is_file() and is_image(path.name):
        return SingleFile(path)
    if path.exists():
        raise RequestError(f"{where} is not a folder, {ACCEPTED_FILES}")
    raise RequestError(f"{where} does not exist; accepted: a folder, a zip, a manifest, an image or a "
                       f"bundled data set ({suggest(name, bundled)})")


def _open_numbered(where: str) -> Shards | None:
    """The shards that `train-{000..003}.tar` means."""
    if not (found := re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}([^/]*)", where)):
        return None
    head, first, last, tail = found.groups()
    names = [f"{head}{number:0{len(first)}}{tail}" for number in range(int(first), int(last) + 1)]
    if not names or not is_shard(where):
        raise RequestError(f"{where} are no shards; accepted: such as train-{{000..003}}.tar")
    if is_url(where):
        folder, _, _ = head.rpartition("/")
        return open_shards(where, _remote_shards(folder, [name[len(folder) + 1:] for name in names]))
    for name in names:
        if not Path(name).is_file():
            raise RequestError(f"{name} does not exist, which {where} means")
    return open_shards(where, [shard for name in names for shard in local_shards(Path(name))])


def _remote_shards(folder: str, names: Sequence[str]) -> list[Shard]:
    """Shards below a URL, of which copies are in the cache."""
    urls = [f"{folder.rstrip('/')}/{name}" for name in names]
    return list(map(Shard, names, map_in_threads(fetched, urls, threads=DOWNLOADS), urls))


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
        folder = RemoteFolder(location)
        shards = [] if any(map(is_image, folder.files)) else list(filter(is_shard, folder.files))
        return open_shards(url, _remote_shards(location.url, shards)) if shards else folder
    if kind == "file" and manifest_name:
        return RemoteFolder(parents[0][0], location.url, manifest_name=manifest_name)
    if kind == "file" and is_shard(name):
        return open_shards(url, _remote_shards(parents[0][0].url, [name]))
    if kind == "file" and name.lower().endswith((".npy", ".npz")) and is_array(array := fetched(url)):
        return ArrayFile(array, url)
    if kind == "file" and is_image(name):
        return RemoteFile(parents[0][0], name)
    if kind:
        raise RequestError(f"{url} is not a folder, {ACCEPTED_FILES}")
    raise RequestError(f"{url} does not exist; accepted: a folder, a zip, a manifest or an image")
