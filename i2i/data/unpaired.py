"""Unpaired datasets: images of two sides that do not correspond to each other."""

from dataclasses import dataclass

import numpy as np

from i2i.data.dataset_root import find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import SPLITS, locate_splits, pair_names
from i2i.data.manifest import Manifest
from i2i.data.paired import (
    PairedDataset,
    TwoSidedDataset,
    pairs_from_folders,
    pairs_from_manifest,
    split_strip_image,
)
from i2i.data.sources import Source, load_image
from i2i.data.transforms import SeparateCropFlip
from i2i.errors import RequestError
from i2i.images.format import DecodedImage
from i2i.registry import register

HeldOutSplits = dict[str, "PairedDataset | UnpairedDataset"]


@dataclass(frozen=True)
class UnpairedDataset(TwoSidedDataset):
    """One split of an unpaired dataset, with sides of any numbers and sizes.

    Each side goes through permutations of its own, so that all its images come equally often and meet others
    in every epoch.  `dataset[index]` is number `index` of each side, modulo its size.
    """

    crop_flip = SeparateCropFlip

    @property
    def description(self) -> str:
        return f"{len(self.a)} + {len(self.b)} images"

    @property
    def layout(self) -> str:
        """Where the files lie, in words."""
        if self.strips:
            return "A|B strips, taken apart"
        return "rows of a manifest, unpaired" if self.from_manifest else "two folders, unpaired"

    @property
    def stream_sizes(self) -> dict[str, int]:
        return {key: len((self.a, self.b)[self._column(key)]) for key in "ab"}

    def files(self, keys: str, index: int) -> tuple[str, ...]:
        names = (self.a, self.b)[self._column(keys)]
        return (names[index % len(names)],)

    def decode(self, keys: str, index: int) -> tuple[DecodedImage]:
        image = load_image(self.source, *self.files(keys, index))
        return (split_strip_image(image)[self._column(keys)] if self.strips else image,)

    def _column(self, key: str) -> int:
        """0 if the images `key` of a sample are side A, 1 if they are side B."""
        return self.direction.index(key)


def unpair(split: PairedDataset | UnpairedDataset) -> UnpairedDataset:
    """The images of a split without their pairing, so that partners may differ in size."""
    return UnpairedDataset(split.source, split.split, split.a, split.b, split.direction, split.from_manifest)


@register("dataset", "unpaired")
def find_unpaired(source: Source, direction: str = "ab") -> HeldOutSplits:
    """Find the splits of an unpaired dataset.

    Accepts `trainA trainB [valA valB testA testB]`, `train/A train/B`, `A/train B/train` or `A B`, of any
    numbers and names; a manifest with columns a and b, where cells may be empty; or a paired dataset, whose
    training pairs are taken apart.  Other splits whose names correspond stay pairs, which can be compared.
    """
    source, manifest, names = find_root(source)
    splits = (_from_manifest(source, manifest, direction) if manifest
              else _from_folders(source, names, direction))
    if "train" in splits:
        splits["train"] = unpair(splits["train"])
    return {split: splits[split] for split in SPLITS if split in splits}


def _from_folders(source: Source, names: FileList, direction: str) -> HeldOutSplits:
    splits = {split: _two_folders(source, names, split, folders, direction)
              for split, folders in locate_splits(names, 2).items()}
    # Without sides, strips; or a message about what is missing.
    return splits if "train" in splits else {**pairs_from_folders(source, names, direction), **splits}


def _two_folders(source: Source, names: FileList, split: str, folders: tuple[str, ...],
                 direction: str) -> PairedDataset | UnpairedDataset:
    """Pairs in the order of A, if both folders have the same names but for the extension."""
    a, b = (names.under(folder) for folder in folders)
    pairing = pair_names(names.within(folders[0]), names.within(folders[1]))
    if pairing.unmatched or pairing.duplicate:
        return UnpairedDataset(source, split, a, b, direction)
    order = np.argsort(pairing.a)
    return PairedDataset(source, split, a.take(pairing.a[order]), b.take(pairing.b[order]), direction)


def _from_manifest(source: Source, manifest: Manifest, direction: str) -> HeldOutSplits:
    if manifest.one_sided_line is None:
        return dict(pairs_from_manifest(source, manifest, direction))
    splits: HeldOutSplits = {}
    for split, rows in manifest.splits.items():
        a, b = rows.a.take(rows.a.non_empty()), rows.b.take(rows.b.non_empty())
        if not len(a) or not len(b):
            raise RequestError(f"{manifest.path} names {len(a)} images of side a and {len(b)} of side b for "
                               f"{split}; both are needed")
        splits[split] = UnpairedDataset(source, split, a, b, direction, from_manifest=True)
    return splits
