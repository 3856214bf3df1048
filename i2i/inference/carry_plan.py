"""Sorting the files of a data set into images to translate and what travels with them."""

import hashlib
import math
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from i2i.data.annotations import OF_ONE_IMAGE, split_masks
from i2i.data.dataset_root import find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import locate_splits
from i2i.data.sources import Folder, SingleFile, Source, image_names, is_hidden, is_image
from i2i.data.sources.array_file import ArrayFile
from i2i.data.sources.folder import walk
from i2i.data.sources.remote import RemoteFile
from i2i.data.sources.shards import Shards
from i2i.errors import RequestError, require
from i2i.inference.carry import PROVENANCE, LabeledDataset

LETTER_FOLDER = re.compile(r"(^|/)[C-Z]/")      # Of classes called by letters, of which A and B are no sides.


class Selection(Source):
    """Some of the images of a source."""

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self.source, self.root, self.local = source, source.root, source.local
        self.manifest_name, self.max_pixels = source.manifest_name, source.max_pixels
        self.selected = FileList.of(names)

    def list_images(self) -> FileList:
        return self.selected

    def names(self) -> FileList:
        return self.selected

    def read(self, name: str, size: int | None = None) -> bytes:
        return self.source.read(name, size)

    def has(self, name: str) -> bool:
        return self.source.has(name)

    def identity(self, name: str) -> str:
        return self.source.identity(name)

    def other_files(self, on_error: Callable[[str], None]) -> Iterator[str]:
        return self.source.other_files(on_error)

    def path_of(self, name: str) -> str:
        return self.source.path_of(name)


def plan_carry(source: Source, out: Path, *, direction: str = "ab", suffix: str = "",
                 mask_folders: str = "", mix: float | None = None, seed: int = 0) -> LabeledDataset:
    """Sort the files of a data set.

    Args:
        out: where the result goes.
        direction: of two sides, the first of it is translated and the other copied.
        suffix: format of translated images (".png"); "" for that of each.
        mask_folders: names of folders with masks, divided by commas; "" for those of LABEL_FOLDER.
        mix: the share of the images that is translated; None for all.
        seed: with the names, decides which.

    Raises:
        RequestError: if nothing is to be translated, the result would lie within the data set, or results
            would overwrite one another.
    """
    if isinstance(source, SingleFile | RemoteFile | ArrayFile | Shards):
        raise RequestError(f"--labels carry takes a data set of files, and {source.root} is an image, an "
                           "array or shards; accepted: a folder, a zip or a manifest")
    target = Path(os.path.realpath(out))
    if source.local and Path(os.path.realpath(source.local)) in (target, *target.parents):
        raise RequestError(f"--out {out} lies in {source.root}, all of which --labels carry copies; "
                           "choose a folder beside it")
    listed = tuple(filter(None, (name.strip(" /") for name in mask_folders.split(","))))
    images, masks = split_masks(image_names(source), listed)
    other, problems = _other_side(source, direction)
    files, hidden = _files(source, images)
    chosen = [name for name in images if name not in other]
    real = [name for name in images if name in other]
    notes = [f"masks are copied: {len(masks):,}, such as {masks[0]}; --masks NAME,NAME names other folders "
             "of masks"] if masks else []
    notes += [f"images of the other side are copied: {len(real):,}, such as {real[0]}"] if real else []
    notes += [f"hidden files are left out, such as {hidden}"] if hidden else []
    if mix is not None:
        require(0 < mix <= 1, "--mix", mix, "above 0, up to 1")
        translated = set(choose(chosen, mix, seed))
        real += [name for name in chosen if name not in translated]
        chosen = [name for name in chosen if name in translated]
        if PROVENANCE in files:
            files.remove(PROVENANCE)
            notes.append(f"{PROVENANCE} of the data set is replaced")
    if not chosen:
        raise RequestError(f"{source.root}: no image would be translated: {len(masks):,} are masks by their "
                           f"names (--masks NAME,NAME names others), {len(real):,} are copied")
    dataset = LabeledDataset(source, out, suffix, FileList.of(chosen), real, masks, files, tuple(notes),
                             problems)
    dataset.check_names()
    return dataset


def choose(names: Sequence[str], share: float, seed: int) -> list[str]:
    """A share of the names, rounded down, and of each folder its share to within one image: evenly spaced in
    an order by folder, then by a hash of seed and name."""
    def order(name: str) -> tuple[str, bytes]:
        text = f"{seed} {name}".encode("utf-8", "surrogateescape")
        return posixpath.dirname(name), hashlib.sha256(text).digest()

    counts = [math.floor(i * share + 1e-9) for i in range(len(names) + 1)]
    return [name for name, before, after in zip(sorted(names, key=order), counts[:-1], counts[1:],
                                                strict=True) if after > before]


def _other_side(source: Source, direction: str) -> tuple[set[str], tuple[str, ...]]:
    """The images of the side that is not translated, if there are two; and why a manifest cannot be read."""
    problems = tuple[str, ...]()
    try:
        root, manifest, names = find_root(source)
    except RequestError as error:       # Of a manifest, which is copied as it is.
        root, manifest, names, problems = source, None, image_names(source), (str(error),)
    sides = list[tuple[FileList, FileList]]()
    if manifest and not manifest.single:
        sides = [(rows.a, rows.b) for rows in manifest.splits.values()]
    elif not manifest and not any(map(LETTER_FOLDER.search, names)):
        sides = [(names.under(a), names.under(b)) for a, b in locate_splits(names, 2).values()]
    inner = root.root[len(source.root):].lstrip("/")
    prefix = f"{inner}/" if inner else ""
    ours, other = ({prefix + name for side in sides for name in side[number] if name}
                   for number in ((0, 1) if direction[0] == "a" else (1, 0)))
    return other - ours, problems


def _files(source: Source, images: Sequence[str]) -> tuple[list[str], str]:
    """What is copied beside images, and the first of the hidden files, which are not."""
    if source.manifest_name:        # What lies beside it may be anything.
        beside = (stem + suffix for stem in dict.fromkeys(posixpath.splitext(name)[0] for name in images)
                  for suffix in OF_ONE_IMAGE)
        return [source.manifest_name, *filter(source.has, beside)], ""
    found = walk(str(source.path), lambda name: True) if isinstance(source, Folder) else (
        source.other_files(lambda problem: None))
    files, hidden = list[str](), list[str]()
    for name in found:
        if any(map(is_hidden, name.split("/"))):
            hidden.append(name)
        elif not is_image(name):
            files.append(name)
    return sorted(files), min(hidden, default="")
