"""Tar shards of WebDataset and Parquet files of Hugging Face datasets, indexed once and read at random."""

import functools
import json
import re
import tarfile
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from i2i.data import manifest as manifests
from i2i.data.file_list import FileList
from i2i.data.layouts import SPLIT_SYNONYMS, SPLITS
from i2i.data.manifest import Manifest
from i2i.data.sources.base import (
    Source,
    Unreadable,
    check_file_size,
    error_reason,
    has_image_extension,
    is_hidden,
    is_image,
)
from i2i.data.sources.folder import file_identity, walk
from i2i.errors import RequestError
from i2i.images.pil import identify

IMAGE = np.dtype([("shard", "i4"), ("start", "i8"), ("size", "i8")])
BLOCK = 512         # Of a tar; one of zeros, at least, is its end.
SUFFIX = {"JPEG": ".jpg", "TIFF": ".tif"}       # Of formats that are not called as their files are.
CACHED_GROUPS = 2       # Row groups of a Parquet file in memory, for reading in order.


class Image(NamedTuple):
    """Where an image is: in a tar, its first byte and size; in Parquet, its row group, and its row in it."""

    name: str
    start: int
    size: int


class Sample(NamedTuple):
    """The images of a sample, either `{"file": …}` or `{"a": …, "b": …}`, and its label."""

    images: dict[str, Image]
    label: str | None


class Shard(NamedTuple):
    """A shard: its name below the root, the file, and what messages call it."""

    name: str
    file: Path
    where: str


class Shards(Source):
    """Images in shards, as the rows of a manifest: pairs if samples hold a and b, labels if all have one.

    The split is the first of train, val and test, or their synonyms, in the name of a shard; else train.
    """

    def __init__(self, root: str, shards: Sequence[Shard]) -> None:
        self.root, self.shards = root, shards
        rows = list[dict[str, str]]()
        found = dict[str, tuple[int, int, int]]()
        for number, shard in enumerate(shards):
            folder = PurePosixPath(shard.name).with_suffix("")
            split = _split_of(folder)
            for images, label in self._index(shard):
                row = {side: f"{folder.as_posix()}/{image.name}" for side, image in images.items()}
                for side, image in images.items():
                    found[row[side]] = number, image.start, image.size
                rows.append(row | {"split": split} | ({} if label is None else {"label": label}))
        if not all("label" in row for row in rows):
            rows = [{key: row[key] for key in row if key != "label"} for row in rows]
        if not found:
            raise RequestError(f"{root} holds no images")
        self.files = FileList.of(sorted(found))
        self.table = np.array([found[name] for name in self.files], IMAGE)
        lines = "\n".join(map(json.dumps, rows)).encode()
        self._manifest = manifests.read(lines, f"{root}/index.jsonl", has=self.has,
                                        is_image=has_image_extension)

    @abstractmethod
    def _index(self, shard: Shard) -> Iterator[Sample]:
        """The samples of a shard.  RequestError if it is damaged."""

    def list_images(self) -> FileList:
        return self.files

    def manifest(self) -> Manifest | None:
        return self._manifest

    def has(self, name: str) -> bool:
        return self.files.find(name) >= 0

    def _find(self, name: str) -> tuple[Shard, int, int]:
        position = self.files.find(name)
        if position < 0:
            raise Unreadable(name, "there is no such image")
        shard, start, size = self.table[position].tolist()
        return self.shards[shard], start, size

    def identity(self, name: str) -> str:
        return f"{file_identity(self._find(name)[0].file)} {name!r}"


class TarShards(Shards):
    """Tar files; adjacent members that share their name up to its first dot are a sample."""

    def _index(self, shard: Shard) -> Iterator[Sample]:
        try:
            with tarfile.open(shard.file, "r:") as archive:
                members = _members(archive, shard.file)
                for key, group in groupby(members, lambda member: _key(member.name)[0]):
                    yield from _sample(archive, key, list(group), shard.where)
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            raise RequestError(f"{shard.where} cannot be read as a tar: {error_reason(error)}") from None

    def read(self, name: str, size: int | None = None) -> bytes:
        shard, start, length = self._find(name)
        try:
            check_file_size(name, length)
            with open(shard.file, "rb") as file:
                file.seek(start)
                data = file.read(length if size is None else min(size, length))
        except OSError as error:
            raise Unreadable(name, f"cannot be read from {shard.name}: {error.strerror or error}") from None
        if size is None and len(data) < length:
            raise Unreadable(name, f"{shard.name} was cut short")
        return data


def _members(archive: tarfile.TarFile, shard: Path) -> Iterator[tarfile.TarInfo]:
    """The files in a tar.  ReadError if its end is missing."""
    total = shard.stat().st_size
    while (member := archive.next()) is not None:
        archive.members.clear()     # type: ignore[attr-defined]   # Else they are all kept.
        if member.offset_data + member.size > total:
            raise tarfile.ReadError(f"it is cut short within {member.name}")
        if member.isreg() and not any(map(is_hidden, member.name.split("/"))):
            yield member
    with open(shard, "rb") as file:
        file.seek(archive.offset)   # type: ignore[attr-defined]
        if file.read(BLOCK) != bytes(BLOCK):
            raise tarfile.ReadError("it is cut short")


def _key(name: str) -> tuple[str, str]:
    """The key of a sample, and what a member is of it: photos/1, a.png."""
    folder, slash, file = name.rpartition("/")
    key, _, field = file.partition(".")
    return folder + slash + key, field.lower()


def _sample(archive: tarfile.TarFile, key: str, members: list[tarfile.TarInfo],
            where: str) -> Iterator[Sample]:
    """The sample that some members are; none without images."""
    images, label = dict[str, Image](), None
    for member in members:
        field = _key(member.name)[1]
        if field == "cls":
            content = archive.extractfile(member)
            label = content.read().decode().strip() if content else None
        elif is_image(member.name):
            images[field.rpartition(".")[0]] = Image(member.name, member.offset_data, member.size)
    if images:
        yield Sample(_sides(images, f"{where}, sample {key}"), label)


def _sides(images: dict[str, Any], where: str) -> dict[str, Any]:
    """The images by the columns of a manifest.  RequestError if it is not known what they are."""
    if images.keys() == {"a", "b"}:
        return images
    if len(images) == 1:
        return {"file": next(iter(images.values()))}
    raise RequestError(f"{where}: {len(images)} images ({', '.join(images)}); accepted: one, or two called a "
                       "and b")


class ParquetShards(Shards):
    """Parquet files with a column of images, or two, a and b, and perhaps one of labels."""

    def _index(self, shard: Shard) -> Iterator[Sample]:
        try:
            with import_pyarrow().parquet.ParquetFile(shard.file, memory_map=True) as file:
                schema = file.schema_arrow
                columns = _sides({field.name: field.name for field in schema if _holds_images(field.type)},
                                 f"{shard.where}, columns {', '.join(schema.names)}")
                labels = _labels(file)
                groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            suffixes = {side: _suffix(shard.file, column) for side, column in columns.items()}
        except (OSError, ValueError) as error:      # Those of pyarrow are ValueErrors, too.
            raise RequestError(f"{shard.where} cannot be read as Parquet: {error_reason(error)}") from None
        self.columns = {"a": "a", "b": "b"} | columns
        places = ((group, row) for group, rows in enumerate(groups) for row in range(rows))
        for number, place in enumerate(places):
            end = {side: ("" if side == "file" else f".{side}") + suffix for side, suffix in suffixes.items()}
            yield Sample({side: Image(f"{number:08}{end[side]}", *place) for side in columns},
                         None if labels is None else labels[number])

    def read(self, name: str, size: int | None = None) -> bytes:
        shard, group, row = self._find(name)
        side = PurePosixPath(name).suffixes[-2:-1]
        try:
            data = _row_group(shard.file, group, self.columns[side[0][1:] if side else "file"])[row].as_py()
        except (OSError, ValueError) as error:
            raise Unreadable(name, f"cannot be read from {shard.name}: {error_reason(error)}") from None
        if data is None:
            raise Unreadable(name, f"{shard.name} holds no bytes in this row")
        return data[:size]


def import_pyarrow() -> Any:
    """The module pyarrow, with its `parquet`.  RequestError if it is not installed."""
    try:
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise RequestError("Parquet needs pyarrow: pip install 'i2i-toolkit[parquet]'") from None
    return pyarrow


def _holds_images(kind: Any) -> bool:
    """Whether a column may hold image files: bytes, or `datasets`' struct of bytes and path."""
    import pyarrow.types as types  # type: ignore[import-untyped]
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _labels(file: Any) -> list[str] | None:
    """The labels of all rows: by the names of `datasets`' ClassLabel, if there are any."""
    column = next((name for name in ("label", "labels") if name in file.schema_arrow.names), None)
    if column is None:
        return None
    info = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    names = info.get("features", {}).get(column, {}).get("names")
    values = file.read(columns=[column], use_threads=False).column(0).to_pylist()
    if any(value is None or isinstance(value, float | list | dict) for value in values):
        return None
    return [str(names[value] if names else value) for value in values]


@functools.lru_cache(CACHED_GROUPS)
def _row_group(shard: Path, group: int, column: str) -> Any:
    """The image files in a row group, as an array of pyarrow."""
    with import_pyarrow().parquet.ParquetFile(shard, memory_map=True) as file:
        values = file.read_row_group(group, columns=[column], use_threads=False).column(0).combine_chunks()
    return values.field("bytes") if hasattr(values, "field") else values


def _suffix(shard: Path, column: str) -> str:
    """The extension of images in a column, by the content of the first."""
    data = next((each.as_py() for each in _row_group(shard, 0, column) if each.is_valid), b"")
    name = identify(data[:32]) or "PNG"
    return SUFFIX.get(name, f".{name.lower()}")


KINDS: dict[str, type[Shards]] = {".tar": TarShards, ".parquet": ParquetShards}


def is_shard(name: str) -> bool:
    """Whether a name is that of a shard."""
    return name.lower().endswith(tuple(KINDS)) and not is_hidden(PurePosixPath(name).name)


def open_shards(root: str, shards: Sequence[Shard]) -> Shards:
    """Shards as a source.  RequestError if they are of two kinds."""
    kind, *others = {PurePosixPath(shard.name).suffix.lower() for shard in shards}
    if others:
        raise RequestError(f"{root} holds shards of two kinds; accepted: a folder of one")
    return KINDS[kind](root, shards)


def local_shards(path: Path) -> list[Shard]:
    """A shard, or those of a folder without images; none in anything else."""
    if path.is_file():
        return [Shard(path.name, path, str(path))] if is_shard(path.name) else []
    if next(iter(walk(str(path), is_image)), None):
        return []
    return [Shard(name, path / name, str(path / name)) for name in sorted(walk(str(path), is_shard))]


def _split_of(shard: PurePosixPath) -> str:
    """The split that the name of a shard, or of a folder that it is in, begins with."""
    for part in (shard.name, *reversed(shard.parts[:-1])):
        for word in re.split(r"[^a-z]+", part.lower()):
            if (split := SPLIT_SYNONYMS.get(word, word)) in SPLITS:
                return split
    return "train"
