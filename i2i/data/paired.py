"""Datasets of two sides; paired ones: A|B strips, two folders paired by name, or the rows of a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from i2i.data.dataset import Dataset, fingerprint
from i2i.data.dataset_root import find_root
from i2i.data.file_list import FileList
from i2i.data.layouts import SPLITS, locate_splits, pair_all, side_folders
from i2i.data.manifest import Manifest
from i2i.data.sources import Source, Unreadable, load_image
from i2i.errors import RequestError
from i2i.images.format import Array, DecodedImage
from i2i.registry import register

MIN_STRIP_ASPECT = 1.9      # Width over height from which an image looks like a strip: two squares make 2.
STRIP_TOLERANCE = 0.1       # Of width over height, from the 2 of two squares.
SHAPE_TOLERANCE = 0.01      # Relative; partners of small images differ in proportions by rounding.


@dataclass(frozen=True)
class TwoSidedDataset(Dataset):
    """A split with two sides, A and B."""

    a: Sequence[str]                # File names.
    b: Sequence[str]                # The same as `a` for strips.
    direction: str = "ab"           # "ba" makes B the images "a" of a sample.
    manifest: str = ""              # Where the files lie, in words, if a manifest lists them.

    @cached_property
    def strips(self) -> bool:
        """Whether one file holds A and B side by side."""
        return self.a == self.b

    def fingerprint(self) -> str:
        return fingerprint(self.split, self.a, self.b)

    def load_strip(self, name: str) -> tuple[DecodedImage, DecodedImage]:
        """The halves of an A|B strip.  Raises Unreadable."""
        strip = load_image(self.source, name)
        try:
            a, b = split_strip(strip.array, strip.name)
        except Unreadable as error:
            raise Unreadable(error.name, f"{error.reason}; or A and B lie in two folders, such as trainA and "
                                         "trainB") from None
        return replace(strip, array=a), replace(strip, array=b)


def split_strip(strip: Array, name: str) -> tuple[Array, Array]:
    """The left and the right half of an A|B strip, HW or HWC.  Raises Unreadable if it is not one."""
    height, width = strip.shape[:2]
    if width % 2 or width <= height:
        raise Unreadable(name, f"is {width}x{height}; an A|B strip is wider than high and of even width")
    return strip[:, : width // 2], strip[:, width // 2:]


def strip_note(width: int, height: int, split: str = "train") -> str:
    """A note if an A|B strip has the proportions of an ordinary photograph; "" else."""
    if width >= MIN_STRIP_ASPECT * height:
        return ""
    return (f"{width}x{height} is taken for an A|B strip and cut into halves of {width // 2}x{height}; "
            f"images of one side each go into two folders, such as {split}A and {split}B")


@dataclass(frozen=True)
class PairedDataset(TwoSidedDataset):
    """One split of a paired dataset; `dataset[index]` is a source and its target."""

    @property
    def description(self) -> str:
        return f"{len(self)} pairs"

    @property
    def layout(self) -> str:
        """Where the files lie, in words."""
        if self.strips:
            return "A|B strips"
        return self.manifest or "two folders paired by name"

    @property
    def stream_sizes(self) -> dict[str, int]:
        return {"ab": len(self.a)}

    def files(self, keys: str, index: int) -> tuple[str, ...]:
        return (self.a[index],) if self.strips else (self.a[index], self.b[index])

    def decode(self, keys: str, index: int) -> tuple[DecodedImage, DecodedImage]:
        if self.strips:
            a, b = self.load_strip(self.a[index])
        else:
            a, b = load_image(self.source, self.a[index]), load_image(self.source, self.b[index])
            if not same_shape(a.array.shape[:2], b.array.shape[:2]):
                one, other = (f"{image.array.shape[1]}x{image.array.shape[0]}" for image in (a, b))
                raise Unreadable(a.name, f"is {one} but its partner {self.b[index]} is {other}; a pair must "
                                         "have one size, or two of the same proportions")
        return (a, b) if self.direction == "ab" else (b, a)


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two (height, width) are equal, or have the same proportions within 1% or a pixel."""
    small, large = sorted((one, other))
    height, width = large[0] * small[1] / large[1], large[1] * small[0] / large[0]
    return (abs(height - small[0]) <= max(1, SHAPE_TOLERANCE * small[0])
            or abs(width - small[1]) <= max(1, SHAPE_TOLERANCE * small[1]))


@register("dataset", "paired")
def find_paired(source: Source, direction: str = "ab") -> dict[str, PairedDataset]:
    """Find the splits of a paired dataset.

    Accepts a manifest with columns a and b, or file for strips; strips in `train/ val/ test/`, or in the root
    (all for training); two folders `trainA trainB [valA valB testA testB]`, `train/A train/B`,
    `A/train B/train` or `A B`, paired by name without extension.
    """
    source, manifest, names = find_root(source)
    if manifest:
        return pairs_from_manifest(source, manifest, direction)
    return pairs_from_folders(source, names, direction)


def pairs_from_manifest(source: Source, manifest: Manifest, direction: str) -> dict[str, PairedDataset]:
    """The pairs of a manifest.  RequestError if a row has only one side."""
    if manifest.one_sided_line is not None:
        raise RequestError(f"{manifest.path}, line {manifest.one_sided_line}: only one side is named; a pair "
                           "has both")
    return {split: PairedDataset(source, split, rows.a, rows.b, direction, manifest.layout)
            for split, rows in manifest.splits.items()}


def pairs_from_folders(source: Source, names: FileList, direction: str) -> dict[str, PairedDataset]:
    """The pairs among the images of a source, in two folders or as strips."""
    two, one = locate_splits(names, 2), locate_splits(names, 1)
    if one.get("train") == ("",) and side_folders(names):
        if not two:
            raise RequestError(f"{source.root} has only one side ({', '.join(sorted(names.folders()))}); "
                               "both are needed, such as trainA and trainB")
        del one["train"]
    splits: dict[str, PairedDataset] = {}
    for split in (split for split in SPLITS if split in one | two):
        if split in two:
            a, b = map(names.under, two[split])
            left, right = pair_all(list(map(names.within, two[split])),
                                   [f"{source.root}/{folder[:-1]}" for folder in two[split]])
            splits[split] = PairedDataset(source, split, a.take(left), b.take(right), direction)
        else:
            strips = names.under(one[split][0])
            if not one[split][0]:       # The files of the root itself, or all files if it has none.
                strips = FileList.of(name for name in names if "/" not in name) or names
            splits[split] = PairedDataset(source, split, strips, strips, direction)
    return splits
