"""Sets of images for generators from noise, with classes from a manifest, from `dataset.json` (the format of
Karras et al. 2020a) or from class folders."""

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from i2i.data.dataset import Dataset, fingerprint
from i2i.data.dataset_root import LABELS, find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import canonical, locate_splits, only_divide, side_folders
from i2i.data.manifest import Labels, Manifest
from i2i.data.sources import Source, load_image
from i2i.data.transforms import CoveringCropFlip
from i2i.errors import RequestError
from i2i.images.format import DecodedImage
from i2i.registry import register

MAX_CLASSES = 100_000      # Without names; ImageNet-21k has 21,841.
MAX_LISTED = 5             # Names of empty classes.


@dataclass(frozen=True)
class ImageDataset(Dataset):
    """One split of a set of images; samples have the image "b" and, where there are labels, the class "c"."""

    crop_flip = CoveringCropFlip
    load_scale = 1.0            # Images to be generated are shown whole.
    square_crop = True
    names: Sequence[str]
    labels: Labels | None = field(default=None, compare=False)      # The class of each image.
    classes: tuple[str, ...] = ()                                   # The names of the classes.
    layout: str = "one folder"                                      # Where the files lie, in words.
    note: str = ""                                                  # What should be known of the classes.

    @property
    def description(self) -> str:
        return f"{len(self)} images" + (f" of {len(self.classes)} classes" if self.classes else "")

    def fingerprint(self) -> str:
        return fingerprint(self.split, self.names, self.classes,
                           [] if self.labels is None else map(str, self.labels))

    @property
    def stream_sizes(self) -> dict[str, int]:
        return {"b": len(self.names)}

    def files(self, keys: str, index: int) -> tuple[str, ...]:
        return (self.names[index],)

    def decode(self, keys: str, index: int) -> tuple[DecodedImage]:
        return (load_image(self.source, self.names[index]),)

    @property
    def empty_classes(self) -> list[int]:
        """The numbers of the classes without images in this split."""
        found = set() if self.labels is None else set(self.labels.tolist())
        return [number for number in range(len(self.classes)) if number not in found]

    @property
    def learned_classes(self) -> tuple[str, ...]:
        """The names of the classes with images in this split."""
        return tuple(name for i, name in enumerate(self.classes) if i not in self.empty_classes)

    def label(self, index: int) -> dict[str, int]:
        return {} if self.labels is None else {"c": int(self.labels[index])}


@register("dataset", "images")
def find_images(source: Source, direction: str = "ab") -> dict[str, ImageDataset]:
    """Find the splits of a set of images.

    Accepts a manifest (of the columns a and b, b); `train/ val/ test/`; or any other folder, all of it for
    training.  Classes come from the manifest, from `dataset.json` in the root, or from the folders if every
    image lies in one of two or more side by side; other folders mean nothing.

    There is only one side, so `direction` changes nothing.
    """
    source, manifest, names = find_root(source)
    if manifest:
        return _described({split: _from_manifest(source, split, manifest) for split in manifest.splits})
    if sides := side_folders(names):
        raise RequestError(f"{source.root} has two sides ({', '.join(sides)}) and images of one are "
                           f"needed, such as {source.root}/{sides[-1]}")
    labels = _read_labels(source)
    splits: dict[str, ImageDataset] = {}
    for split, (root,) in locate_splits(names, 1).items():
        inside = names.under(root)
        if labels and not labels[0]:        # Its folders are none: StyleGAN's tool packs images in thousands.
            splits[split] = ImageDataset(source, split, inside, layout=f"no labels in {LABELS}")
        elif labels:
            of_file, classes, _ = labels
            if unlabeled := [name for name in inside if canonical(name) not in of_file]:
                raise RequestError(f"{source.root}/{LABELS} has no label for {unlabeled[0]}")
            numbers = np.array([of_file[canonical(name)] for name in inside], np.int64)
            splits[split] = ImageDataset(source, split, inside, numbers, classes, f"labels of {LABELS}")
        else:
            splits[split] = _from_folders(source, split, inside, root,
                                          splits["train"].classes if "train" in splits else None)
    return _described(splits, gaps=labels is not None and labels[2])


def _described(splits: dict[str, ImageDataset], *, gaps: bool = False) -> dict[str, ImageDataset]:
    """The splits, whose layout names the classes without training images.

    Gaps in the numbers of a dataset.json that names no classes are no classes; others keep their numbers.
    """
    labels = [split.labels for split in splits.values() if split.labels is not None]
    train = splits.get("train")
    if train is None or train.labels is None or not labels:
        return splits
    if gaps:
        kept, numbers = np.unique(np.concatenate(labels), return_inverse=True)
        parts = np.split(numbers, np.cumsum([len(each) for each in labels])[:-1])
        classes = tuple(train.classes[number] for number in kept)
        splits = {name: replace(split, labels=part, classes=classes)
                  for (name, split), part in zip(splits.items(), parts, strict=True)}
    learned = {train.classes[number] for number in np.unique(train.labels)}
    empty = [name for name in train.classes if name not in learned]
    shown = ", ".join(empty[:MAX_LISTED]) + f" and {len(empty) - MAX_LISTED} more" * (len(empty) > MAX_LISTED)
    if not empty:
        return splits
    note = f"no images of class {shown}"
    return {name: replace(split, layout=f"{train.layout} ({note})", note=note)
            for name, split in splits.items()}


def _from_manifest(source: Source, split: str, manifest: Manifest) -> ImageDataset:
    rows = manifest.splits[split]
    filled = rows.b.non_empty()
    if not len(filled):
        raise RequestError(f"{manifest.path} names no images of side b for {split}")
    return ImageDataset(source, split, rows.b.take(filled),
                        None if rows.labels is None else rows.labels[filled], manifest.classes,
                        manifest.layout + ("" if manifest.single else ", side b"))


def _from_folders(source: Source, split: str, names: FileList, root: str,
                  train_classes: tuple[str, ...] | None) -> ImageDataset:
    """A split with its folders as classes, those of train/ if that was found before."""
    inner = names.within(root)
    folders = tuple(inner.folders())
    unlabeled = train_classes == () or (train_classes is None and len(folders) < 2)
    if unlabeled or any(name.count("/") != 1 for name in inner):
        return ImageDataset(source, split, names, layout="sub-folders" if folders else "one folder")
    if train_classes is None and only_divide(inner, folders):
        return ImageDataset(source, split, names, layout="numbered folders that only divide the files",
                            note=f"the folders {folders[0]} … {folders[-1]} only divide the files, as "
                                 "their names show, and are no classes; a dataset.json with labels can name "
                                 "classes")
    named = list(map(canonical, folders))
    classes = train_classes or tuple(dict.fromkeys(named))
    if unknown := sorted(set(named) - set(classes)):
        raise RequestError(f"{source.root}: {root}{unknown[0]} is a class that train/ does not have "
                           f"({', '.join(classes)})")
    number = {name: i for i, name in enumerate(classes)}
    labels = np.repeat([number[name] for name in named], [len(inner.under(f"{name}/")) for name in folders])
    return ImageDataset(source, split, names, labels.astype(np.int64), classes, "class folders")


def _read_labels(source: Source) -> tuple[dict[str, int], tuple[str, ...], bool] | None:
    """The class of each file and the names of the classes from dataset.json, and whether these are numbers.

    Both are empty if it says that there are none; None if it says nothing.
    """
    where = f"{source.root}/{LABELS}"
    data = source.read_metadata(LABELS)
    if data is None:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} cannot be read: {error}") from None
    if not isinstance(content, dict) or "labels" not in content:
        return None
    if not content["labels"] and not isinstance(content["labels"], int | float | str):
        return {}, (), False
    classes = content.get("classes")
    if classes is not None and not (isinstance(classes, list) and {type(name) for name in classes} <= {str}):
        raise RequestError(f"{where}: the classes are {json.dumps(classes)[:60]}; accepted: a list of names")
    count = MAX_CLASSES if classes is None else len(classes)
    labels: dict[str, int] = {}
    rows = content["labels"].items() if isinstance(content["labels"], dict) else content["labels"]
    for row in rows if not isinstance(rows, str | int | float) else [rows]:
        if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], str):
            raise RequestError(f'{where}: {json.dumps(row)} among the labels; accepted: {{"labels": '
                               '[["path/of.png", 3], …]}}')
        name, label = row
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < count:
            raise RequestError(f"{where}: the label of {name} is {json.dumps(label)[:40]}; accepted: a whole "
                               f"number from 0 to {count - 1}")
        if labels.setdefault(file := posixpath.normpath(canonical(name)), label) != label:
            raise RequestError(f"{where}: {name} has two labels, {labels[file]} and {label}")
    names = tuple(map(str, range(max(labels.values()) + 1) if classes is None else classes))
    return labels, names, classes is None
