"""Unpaired data sets: images of two sides that have nothing to do with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from i2i.data.dataset_root import find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import SPLITS, locate_splits, pair_names
from i2i.data.manifest import Manifest
from i2i.data.paired import (
    LOAD_SCALE,
    PairedDataset,
    fingerprint,
    pairs_from_folders,
    pairs_from_manifest,
    split_strip_size,
)
from i2i.data.sources import Source, load_image
from i2i.errors import RequestError
from i2i.images.formats import DecodedImage
from i2i.registry import register


@dataclass(frozen=True)
class UnpairedDataset:
    """One split of an unpaired data set.  `a` and `b` are names in the source, in any numbers and sizes; if
    they are the same names, these are A|B strips of which each side has its half."""

    enlarged: ClassVar[float] = LOAD_SCALE
    square: ClassVar[bool] = False
    source: Source
    split: str
    a: Sequence[str]
    b: Sequence[str]
    direction: str = "ab"
    listed: bool = False            # By a manifest.

    def __len__(self) -> int:
        """An epoch: the number of images of the larger side."""
        return max(self.sizes)

    @property
    def swapped(self) -> bool:
        """Whether a batch's "a" is B."""
        return self.direction == "ba"

    @cached_property
    def strips(self) -> bool:
        """Whether one file holds A and B side by side."""
        return self.a == self.b

    @property
    def sizes(self) -> tuple[int, int]:
        """How many images the source side and the target side have."""
        return (len(self.b), len(self.a)) if self.swapped else (len(self.a), len(self.b))

    @property
    def counted(self) -> str:
        """How much there is, in words."""
        return f"{len(self.a)} + {len(self.b)} images"

    @property
    def layout(self) -> str:
        """How the files lie, in words."""
        return "A|B strips, taken apart" if self.strips else "two folders, unpaired" if not self.listed else "rows of a manifest, unpaired"

    def name(self, index: int) -> str:
        """The file that number `index` of the source side takes its name from."""
        return self.name_of(0, index)

    def name_of(self, side: int, index: int) -> str:
        """The file of image `index`, counted around, of the source (0) or target (1) side."""
        names = (self.a, self.b)[1 - side if self.swapped else side]
        return names[index % len(names)]

    def read(self, side: int, index: int) -> DecodedImage:
        """Image `index`, counted around, of the source (0) or target (1) side, as stored."""
        which = 1 - side if self.swapped else side
        image = load_image(self.source, self.name_of(side, index))
        return split_strip_size(image)[which] if self.strips else image

    def __getitem__(self, index: int) -> tuple[DecodedImage, DecodedImage]:
        """Number `index` of each side, counted around the smaller one."""
        return self.read(0, index), self.read(1, index)

    def fingerprint(self) -> str:
        """Changes when files are added, removed or renamed."""
        return fingerprint(self.split, self.a, self.b)


def unpair(split: PairedDataset | UnpairedDataset) -> UnpairedDataset:
    """The images of a split without their pairing, so that partners may differ in size."""
    return UnpairedDataset(split.source, split.split, split.a, split.b, split.direction, split.listed)


@register("dataset", "unpaired")
def find_unpaired(source: Source, direction: str = "ab") -> dict[str, PairedDataset | UnpairedDataset]:
    """The splits of an unpaired data set: `trainA trainB [valA valB testA testB]`, `train/A train/B`,
    `A/train B/train` or `A B`, of any numbers and names, or the columns a and b of a manifest, where cells
    may be empty; or a paired one, whose training pairs are taken apart. Held-out sides of equal names stay
    pairs: they can be compared.
    """
    source, told, names = find_root(source)
    splits = _from_manifest(source, told, direction) if told else _among(source, names, direction)
    if "train" in splits:
        splits["train"] = unpair(splits["train"])
    return {split: splits[split] for split in SPLITS if split in splits}


def _among(source: Source, names: FileList, direction: str) -> dict[str, PairedDataset | UnpairedDataset]:
    splits = {split: _sides(source, names, split, where, direction) for split,
              where in locate_splits(names, 2).items()}
    # Strips, or one line that says what is missing.
    return splits if "train" in splits else {**pairs_from_folders(source, names, direction), **splits}


def _sides(source: Source, names: FileList, split: str, where: tuple[str, ...],
           direction: str) -> PairedDataset | UnpairedDataset:
    """As pairs, if both sides have the same names but for the extension."""
    a, b = (names.under(folder) for folder in where)
    met = pair_names(names.within(where[0]), names.within(where[1]))
    if met.alone or met.twice:
        return UnpairedDataset(source, split, a, b, direction)
    order = np.argsort(met.a)
    return PairedDataset(source, split, a.take(met.a[order]), b.take(met.b[order]), direction)


def _from_manifest(source: Source, told: Manifest, direction: str) -> dict[str,
                                                                           PairedDataset | UnpairedDataset]:
    if told.alone is None:
        return dict(pairs_from_manifest(source, told, direction))
    splits: dict[str, PairedDataset | UnpairedDataset] = {}
    for split, rows in told.splits.items():
        a, b = rows.a.take(rows.a.filled()), rows.b.take(rows.b.filled())
        if not len(a) or not len(b):
            raise RequestError(f"{told.where} names {len(a)} images of side a and {len(b)} of side b for "
                               f"{split}; both are needed")
        splits[split] = UnpairedDataset(source, split, a, b, direction, listed=True)
    return splits
