"""Unpaired datasets: images of two sides that do not correspond to each other."""

from dataclasses import dataclass

import numpy as np

from i2i.data.dataset_root import find_root
from i2i.data.layouts import SPLITS, locate_splits, pair_names
from i2i.data.manifest import Manifest
from i2i.data.paired import PairedDataset, TwoSidedDataset, pairs_from_folders, pairs_from_manifest
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
        return f"{self.manifest or 'two folders'}, unpaired"

    @property
    def stream_sizes(self) -> dict[str, int]:
        return {key: len((self.a, self.b)[self._column(key)]) for key in "ab"}

    def files(self, keys: str, index: int) -> tuple[str, ...]:
        names = (self.a, self.b)[self._column(keys)]
        return (names[index % len(names)],)

    def decode(self, keys: str, index: int) -> tuple[DecodedImage]:
        (name,) = self.files(keys, index)
        return (self.load_strip(name)[self._column(keys)] if self.strips else load_image(self.source, name),)

    def _column(self, key: str) -> int:
        """0 if the images `key` of a sample are side A, 1 if they are side B."""
        return self.direction.index(key)


def unpair(split: PairedDataset | UnpairedDataset) -> UnpairedDataset:
    """The images of a split without their pairing, so that partners may differ in size."""
    return UnpairedDataset(split.source, split.split, split.a, split.b, split.direction, split.manifest)


@register("dataset", "unpaired")
def find_unpaired(source: Source, direction: str = "ab") -> HeldOutSplits:
    """Find the splits of an unpaired dataset.

    Accepts the folders of `find_paired`, of any numbers and names; a manifest with columns a and b, where
    cells may be empty; or a paired dataset, whose training pairs are taken apart.  Other splits whose names
    correspond stay pairs, which can be compared.
    """
    source, manifest, names = find_root(source)
    if manifest:
        splits = _from_manifest(source, manifest, direction)
    else:
        splits = {}
        for split, folders in locate_splits(names, 2).items():
            a, b = map(names.under, folders)
            pairing = pair_names(*map(names.within, folders))
            order = np.argsort(pairing.a)       # Pairs come in the order of A.
            splits[split] = (UnpairedDataset(source, split, a, b, direction)
                             if pairing.unmatched or pairing.duplicate else
                             PairedDataset(source, split, a.take(pairing.a[order]),
                                           b.take(pairing.b[order]), direction))
        if "train" not in splits:       # Without sides, strips; or a message about what is missing.
            splits = {**pairs_from_folders(source, names, direction), **splits}
    if "train" in splits:
        splits["train"] = unpair(splits["train"])
    return {split: splits[split] for split in SPLITS if split in splits}


def _from_manifest(source: Source, manifest: Manifest, direction: str) -> HeldOutSplits:
    if manifest.one_sided_line is None:
        return dict(pairs_from_manifest(source, manifest, direction))
    splits: HeldOutSplits = {}
    for split, rows in manifest.splits.items():
        a, b = rows.a.take(rows.a.non_empty()), rows.b.take(rows.b.non_empty())
        if not len(a) or not len(b):
            raise RequestError(f"{manifest.path} names {len(a)} images of side a and {len(b)} of side b for "
                               f"{split}; both are needed")
        splits[split] = UnpairedDataset(source, split, a, b, direction, manifest.layout)
    return splits
