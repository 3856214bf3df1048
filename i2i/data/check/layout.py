"""Detect the layout of a data set, the role of each file, and the command to train on it."""

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from i2i.data.check.file_scan import FileScan
from i2i.data.file_list import FileList
from i2i.data.labeled import ImageDataset
from i2i.data.layouts import pair_names, stem
from i2i.data.paired import MIN_STRIP_ASPECT, PairedDataset
from i2i.data.sources import Source
from i2i.data.unpaired import UnpairedDataset
from i2i.errors import RequestError
from i2i.registry import Spec, build

Splits = Mapping[str, PairedDataset | UnpairedDataset | ImageDataset]
KINDS = ("paired", "unpaired", "images")
# Suggested recipes for each kind of data set, and for images with classes.
RECIPES = {"paired": "pix2pix", "unpaired": "cyclegan", "images": "dcgan"}
CONDITIONAL = "cgan"
MIN_STRIP_SHARE = 0.9   # Share of the images that must be.
MIN_PAIRED_SHARE = 0.5  # Share of the smaller side with partners from which on pairs were intended.


@dataclass(frozen=True)
class Layout:
    """The kind of a data set and its splits."""

    kind: str                           # A key of RECIPES.
    description: str                    # For people.
    splits: Splits                      # By name; empty if the layout is not recognized.
    problems: tuple[str, ...] = ()      # Why the data set cannot be read as it is.
    unmatched: tuple[str, ...] = ()     # Files without a partner.
    # The names of A and of B of each split, in one order.
    partners: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)

    @property
    def strips(self) -> bool:
        """Whether A and B of each pair are in one file."""
        return self.kind == "paired" and bool(self.splits) and not self.partners

    def summary(self) -> str:
        """Such as "1,167 train, 96 val, 208 test pairs"."""
        units = ["pairs" if isinstance(split, PairedDataset) else "images" for split in self.splits.values()]
        each = [(f"{len(split.a):,} + {len(split.b):,}" if isinstance(split, UnpairedDataset)
                 else f"{len(split):,}") + f" {name}" for name, split in self.splits.items()]
        if len(set(units)) == 1:
            return ", ".join(each) + f" {units[0]}"
        return ", ".join(f"{count} {unit}" for count, unit in zip(each, units, strict=True))

    def classes(self) -> dict[str, int]:
        """The number of training images of each class."""
        train = self.splits.get("train")
        if not isinstance(train, ImageDataset) or train.labels is None:
            return {}
        counts = np.bincount(train.labels, minlength=len(train.classes)).tolist()
        return dict(zip(train.classes, counts, strict=True))

    def commands(self, where: str) -> list[str]:
        """The commands to train on it; of strips in both directions, as many have the source on the right."""
        if "train" not in self.splits:
            return []
        recipes = [RECIPES[self.kind], *([CONDITIONAL] if self.classes() else [])]
        commands = [f"i2i train {recipe} --data {shlex.quote(where)}" for recipe in recipes]
        return [*commands, *(f"{command} data.direction=ba" for command in commands if self.strips)]


def detect_layout(source: Source, scan: FileScan) -> Layout:
    """Find the layout that fits best."""
    found: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for kind in KINDS:
        try:
            found[kind] = build("dataset", Spec(kind), source)
        except RequestError as error:
            problems[kind] = str(error)
    strips = "paired" in found and all(split.strips for split in found["paired"].values())
    if "paired" in found and not strips:
        return _layout("paired", found["paired"])
    if not strips and "unpaired" in found:
        return _two_sided(found["unpaired"], problems["paired"])
    labeled = "images" in found and any(split.classes for split in found["images"].values())
    wide = scan.where(lambda image: image.width >= MIN_STRIP_ASPECT * image.height and image.width % 2 == 0)
    if strips and len(wide) >= max(1, MIN_STRIP_SHARE * len(scan.images)) and not labeled:
        return _layout("paired", found["paired"])
    if "images" in found:
        return _layout("images", found["images"])
    # Strips can always be read, so the problem is one of the labels.
    kind = "images" if strips else "paired"
    return Layout(kind, "not recognized", {}, (problems[kind],))


def _layout(kind: str, splits: Splits) -> Layout:
    partners = {name: (split.a, split.b) for name, split in splits.items()
                if isinstance(split, PairedDataset) and not split.strips}
    return Layout(kind, next(iter(splits.values())).layout, splits, partners=partners)


def _two_sided(splits: Mapping[str, PairedDataset | UnpairedDataset], problem: str) -> Layout:
    """Unpaired data, or pairs of which some lack their partner."""
    train = splits.get("train") or next(iter(splits.values()))
    if train.manifest:
        return _layout("unpaired", splits)
    sides = {name: (FileList.of(split.a), FileList.of(split.b)) for name, split in splits.items()}
    a, b = ({stem(name) for name in _inside(names)} for names in sides[train.split])
    if len(a & b) < MIN_PAIRED_SHARE * min(len(train.a), len(train.b)):
        return _layout("unpaired", splits)
    pairings = {name: pair_names(*map(_inside, both)) for name, both in sides.items()}
    partners = {name: (sides[name][0].take(pairing.a), sides[name][1].take(pairing.b))
                for name, pairing in pairings.items()}
    unmatched = tuple(sides[name][side][position] for name, pairing in pairings.items()
                      for side, position in pairing.unmatched)
    problems = (problem,) if any(pairing.duplicate for pairing in pairings.values()) else ()
    return Layout("paired", "two folders paired by name", splits, problems, unmatched, partners)


def _inside(names: FileList) -> FileList:
    """Sorted names relative to their common folder."""
    folder = posixpath.commonpath([posixpath.dirname(names[position]) for position in (0, len(names) - 1)])
    return names.within(f"{folder}/") if folder else names


@dataclass(frozen=True)
class Roles:
    """What the examined images are used for."""

    splits: Mapping[str, str]               # Image -> split.
    sides: tuple[list[str], list[str]]      # The images of A, or of the only side, and those of B.
    pairs: list[tuple[str, str]]            # Partners.


def assign_roles(layout: Layout, scan: FileScan) -> Roles:
    """Assign splits, sides and partners to the examined images."""
    splits: dict[str, str] = {}
    a, b = set[str](), set[str]()
    for split, part in layout.splits.items():
        sides = [part.names] if isinstance(part, ImageDataset) else [part.a, part.b]
        for side, names in zip((a, b), sides, strict=False):
            side.update(names)
            splits |= dict.fromkeys(names, split)
    b -= a              # Strips are in both.
    images = scan.images
    return Roles({name: splits[name] for name in images if name in splits},
                 ([name for name in images if name in a], [name for name in images if name in b]),
                 [(one, other) for both in layout.partners.values() for one, other in zip(*both, strict=True)
                  if one in images and other in images])
