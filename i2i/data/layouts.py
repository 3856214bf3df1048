"""Where the images of each split lie: one table for every kind of data set."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from i2i.data.file_list import FileList, Positions

SPLITS = ("train", "val", "test")
# The folders of both sides, or of one; without a split they hold training images.
LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("{split}A/", "{split}B/"),
    ("{split}/A/", "{split}/B/"),
    ("A/{split}/", "B/{split}/"),
    ("A/", "B/"),
    ("{split}/",),
    ("",),
)
# Folders of a root that hold one side of two.
SIDED = {*(split + side for split in SPLITS for side in "AB"), "A", "B"}


def locate_splits(names: FileList, sides: int) -> dict[str, tuple[str, ...]]:
    """The folders of one or both sides of each split that is there, by the first layout that has images in
    all of them.

    A layout without splits is asked last, and only where its folders hold no splits.
    """
    found: dict[str, tuple[str, ...]] = {}
    for layout in (layout for layout in LAYOUTS if len(layout) == sides):
        whole = layout == tuple(folder.format(split="") for folder in layout)
        for split in SPLITS[:1] if whole else SPLITS:
            folders = tuple(folder.format(split=split) for folder in layout)
            taken = whole and any(other.startswith(folder) for others in found.values() for other,
                                  folder in zip(others, folders, strict=True))
            if split not in found and not taken and all(len(names.under(folder)) for folder in folders):
                found[split] = folders
    return {split: found[split] for split in SPLITS if split in found}


def has_two_sides(names: FileList) -> list[str]:
    """The folders of the root that hold one side of two."""
    return sorted(SIDED.intersection(names.folders()))


def top_level_files(names: FileList) -> FileList:
    """Those that lie in the root itself, or all if none does."""
    return FileList.of(name for name in names if "/" not in name) or names


# ---------------------------------------------------------------------------------------------- partners

@dataclass(frozen=True)
class Pairing:
    """Places in two sorted lists of names: partners, in the order of what they have in common, and what went
    wrong."""

    a: Positions
    b: Positions
    alone: list[tuple[int, int]]                    # Side and place of each that has no partner.
    twice: tuple[int, int, int] | None = None       # Side and places of two that would have the same one.


def stem(name: str) -> str:
    """A name without its extension."""
    return name.rsplit(".", 1)[0]


def pair_names(a: FileList, b: FileList) -> Pairing:
    """Pair names that differ at most in their extension; both lists are gone through once, side by side."""

    def keyed(side: int, names: FileList) -> Iterator[tuple[str, int, int]]:
        return ((key, side, place) for key, place in names.keyed(names.order(stem), stem))

    left, right, alone, twice = array("q"), array("q"), list[tuple[int, int]](), None
    before, waits = ("", -1, -1), False
    for item in heapq.merge(keyed(0, a), keyed(1, b)):
        if item[:2] == before[:2]:
            twice = (item[1], before[2], item[2])
            break
        if waits and item[0] == before[0]:
            left.append(before[2])
            right.append(item[2])
            waits = False
        else:
            if waits:
                alone.append(before[1:])
            waits = True
        before = item
    if waits:
        alone.append(before[1:])
    return Pairing(np.array(left, np.int64), np.array(right, np.int64), alone, twice)
