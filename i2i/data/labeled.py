"""Pictures of one side, with classes where there are any: those of a manifest, of a `dataset.json` (the
format of Karras et al. 2020a's tool), or class folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from i2i.data.dataset_root import LABELS, find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import has_two_sides, locate_splits
from i2i.data.manifest import Labels, Manifest
from i2i.data.paired import fingerprint
from i2i.data.sources import Source, load_image
from i2i.errors import RequestError
from i2i.images.formats import DecodedImage
from i2i.registry import register

MAX_CLASSES = 100_000      # Without names.  ImageNet-21k has 21,841.


@dataclass(frozen=True)
class ImageDataset:
    """One split of pictures.  `labels[i]` is the class of `names[i]`, a place in `classes`; None, and no
    classes, where there are no labels."""

    enlarged: ClassVar[float] = 1.0     # Pictures to be generated are shown whole,
    square: ClassVar[bool] = True       # in their own proportions.
    source: Source
    split: str
    names: Sequence[str]
    labels: Labels | None = field(default=None, compare=False)
    classes: tuple[str, ...] = ()
    layout: str = "one folder"          # How the files lie, in words.

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """The file of picture `index`."""
        return self.names[index]

    def __getitem__(self, index: int) -> tuple[DecodedImage, int | None]:
        """One picture as stored, and its class."""
        return load_image(self.source,
                          self.names[index]), None if self.labels is None else int(self.labels[index])

    @property
    def counted(self) -> str:
        """How much there is, in words."""
        return f"{len(self)} images" + (f" of {len(self.classes)} classes" if self.classes else "")

    def fingerprint(self) -> str:
        """Changes when files are added, removed or renamed, or get another class."""
        return fingerprint(self.split, self.names,
                           (*self.classes, "", *(() if self.labels is None else map(str, self.labels))))


@register("dataset", "images")
def find_images(source: Source, direction: str = "ab") -> dict[str, ImageDataset]:
    """The splits of a set of pictures: the rows of a manifest, of columns a and b the latter; `train/ val/
    test/`, or all of it for training. Classes are those of the manifest; or of `dataset.json` in the root;
    else its folders, if every picture lies in one of two or more folders that lie side by side; other folders
    mean nothing.

    There is one side only, so `direction` changes nothing.
    """
    source, told, names = find_root(source)
    if told:
        return {split: _from_manifest(source, split, told) for split in told.splits}
    if sides := has_two_sides(names):
        raise RequestError(f"{source.root} has two sides ({', '.join(sides)}) and pictures of one are "
                           f"needed, such as {source.root}/{sides[-1]}")
    labels = _labels(source)
    splits: dict[str, ImageDataset] = {}
    for split, (root,) in locate_splits(names, 1).items():
        known = splits["train"].classes if "train" in splits else None
        splits[split] = _described(source, split, names.under(root),
                                   *labels) if labels else _from_folders(source, split, names.under(root),
                                                                         root, known)
    return splits


def _from_manifest(source: Source, split: str, told: Manifest) -> ImageDataset:
    rows = told.splits[split]
    there = rows.b.filled()
    if not len(there):
        raise RequestError(f"{told.where} names no images of side b for {split}")
    return ImageDataset(source, split, rows.b.take(there),
                        None if rows.labels is None else rows.labels[there], told.classes,
                  "rows of a manifest" + ("" if told.single else ", side b"))


def _from_folders(source: Source, split: str, names: FileList, root: str,
                  known: tuple[str, ...] | None) -> ImageDataset:
    inside = names.within(root)
    classes = tuple(inside.folders())
    if known == () or (known is None and len(classes) < 2) or any(name.count("/") != 1 for name in inside):
        return ImageDataset(source, split, names, layout="sub-folders" if classes else "one folder")
    known = known or classes
    if strange := sorted(set(classes) - set(known)):
        raise RequestError(f"{source.root}: {root}{strange[0]} is a class that train/ does not have "
                           f"({', '.join(known)})")
    number = {name: place for place, name in enumerate(known)}
    labels = np.repeat([number[name] for name in classes],
                       [len(inside.under(f"{name}/")) for name in classes])
    return ImageDataset(source, split, names, labels.astype(np.int64), known, "class folders")


def _labels(source: Source) -> tuple[dict[str, int], tuple[str, ...]] | None:
    """Class of each file and names of the classes from `dataset.json`; None if it is not there or knows no
    labels."""
    where = f"{source.root}/{LABELS}"
    file = source.beside(LABELS)
    if file is None:
        return None
    try:
        with file:
            told = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{where} cannot be read: {error}") from None
    if not isinstance(told, dict) or told.get("labels") is None:
        return None
    labels, classes = told["labels"], told.get("classes")
    if not (classes is None
            or (isinstance(classes, list) and all(isinstance(name, str) for name in classes))):
        raise RequestError(f"{where}: the classes are {json.dumps(classes)[:60]}; accepted: a list of names")
    table: dict[str, int] = {}
    for name, label in _rows(labels, where):
        if not isinstance(label, int) or isinstance(label,
                                                    bool) or not 0 <= label < (MAX_CLASSES if classes is None
                                                                               else len(classes)):
            raise RequestError(f"{where}: the label of {name} is {str(label)[:40]}; accepted: a whole number "
                               "from 0 to "
                               f"{(MAX_CLASSES if classes is None else len(classes)) - 1}")
        table[name] = label
    if not table:
        return None
    return table, tuple(map(str, range(max(table.values()) + 1) if classes is None else classes))


def _rows(labels: Any, where: str) -> Iterator[tuple[str, Any]]:
    rows = labels.items() if isinstance(labels, dict) else labels if isinstance(labels, list) else [labels]
    for row in rows:
        if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], str):
            raise RequestError(f'{where}: {json.dumps(row)} among the labels; accepted: {{"labels": '
                               '[["path/of.png", 3], …]}}')
        yield row[0], row[1]


def _described(source: Source, split: str, names: FileList, labels: dict[str, int],
               classes: tuple[str, ...]) -> ImageDataset:
    alone = next((name for name in names if name not in labels), None)
    if alone is not None:
        raise RequestError(f"{source.root}/{LABELS} has no label for {alone}")
    return ImageDataset(source, split, names,
                        np.fromiter((labels[name] for name in names), np.int64, len(names)), classes,
                        f"labels of {LABELS}")
