"""Unpaired data sets: images of two sides that have nothing to do with each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from i2i.data.datasets import SPLITS, Pairs, find_pairs, fingerprint, folders, halves
from i2i.data.files import Source, load_image
from i2i.images import Array
from i2i.spec import register


@dataclass(frozen=True)
class Sides:
    """One split of an unpaired data set.  `a` and `b` are names in the source, in any numbers and sizes; if they are the same names,
    these are A|B strips of which each side has its half."""

    source: Source
    split: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    direction: str = "ab"

    def __len__(self) -> int:
        """An epoch: the number of images of the larger side."""
        return max(self.sizes)

    @property
    def swapped(self) -> bool:
        """Whether a batch's "a" is B."""
        return self.direction == "ba"

    @property
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
        return "A|B strips, taken apart" if self.strips else "two folders, unpaired"

    def name(self, index: int) -> str:
        """The file that number `index` of the source side takes its name from."""
        names = self.b if self.swapped else self.a
        return names[index % len(names)]

    def read(self, side: int, index: int) -> Array:
        """Image `index`, counted around, of the source (0) or target (1) side.  -> uint8 HW or HWC"""
        which = 1 - side if self.swapped else side
        names = (self.a, self.b)[which]
        name = names[index % len(names)]
        image = load_image(self.source, name)
        return halves(image, f"{self.source.root}/{name}")[which] if self.strips else image

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Number `index` of each side, counted around the smaller one.  -> uint8 HW or HWC, twice"""
        return self.read(0, index), self.read(1, index)

    def fingerprint(self) -> str:
        """Changes when files are added, removed or renamed."""
        return fingerprint(self.split, self.a, self.b)


def apart(split: Pairs | Sides) -> Sides:
    """The images of a split without their pairing, so that partners may differ in size."""
    return Sides(split.source, split.split, split.a, split.b, split.direction)


@register("dataset", "unpaired")
def find_sides(source: Source, direction: str = "ab") -> dict[str, Pairs | Sides]:
    """The splits of an unpaired data set: `trainA trainB [valA valB testA testB]`, `train/A train/B`, `A/train B/train` or `A B`, of any numbers
    and names; or a paired one, whose training pairs are taken apart.  Held-out sides of equal names stay pairs: they can be compared.
    """
    names = source.names()
    splits: dict[str, Pairs | Sides] = {}
    for split in SPLITS:
        for where in folders(split) + ((("A/", "B/"),) if split == "train" else ()):
            a, b = (tuple(name for name in names if name.startswith(side)) for side in where)
            if a and b:
                splits[split] = _paired(Sides(source, split, a, b, direction), where)
                break
    if "train" not in splits:
        splits = {**find_pairs(source, direction), **splits}        # Strips, or one line that says what is missing.
    if "train" in splits:
        splits["train"] = apart(splits["train"])
    return {split: splits[split] for split in SPLITS if split in splits}


def _paired(sides: Sides, where: tuple[str, str]) -> Pairs | Sides:
    """As pairs, if both sides have the same names but for the extension."""
    a, b = ({str(PurePosixPath(name[len(folder):]).with_suffix("")): name for name in each}
            for each, folder in zip((sides.a, sides.b), where, strict=True))
    if a.keys() != b.keys() or len(a) != len(sides.a) or len(b) != len(sides.b):
        return sides
    return Pairs(sides.source, sides.split, tuple(a.values()), tuple(b[key] for key in a), sides.direction)
