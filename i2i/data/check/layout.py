"""How the files lie, what each of them is for, and the line that trains on them."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from i2i.data.check.survey import Survey
from i2i.data.file_list import FileList
from i2i.data.labeled import ImageDataset
from i2i.data.layouts import SPLITS, Pairing, pair_names, stem
from i2i.data.paired import PairedDataset
from i2i.data.sources import Source
from i2i.data.unpaired import UnpairedDataset
from i2i.errors import RequestError
from i2i.images.format import Array
from i2i.registry import Spec, build

FoundFiles = Mapping[str, PairedDataset | UnpairedDataset | ImageDataset]
KINDS = ("paired", "unpaired", "images")
# What a kind of data set is most often wanted for;
RECIPES = {"paired": "pix2pix", "unpaired": "cyclegan", "images": "dcgan"}
CONDITIONAL = "cgan"                                                            # and where there are classes.
WIDE = 1.9          # Width over height from which a picture may be an A|B strip: two squares make 2.
MOSTLY = 0.9        # Share of the pictures that must be.
MEANT = 0.5         # Share of the smaller side that has partners, from which on pairs were meant.


@dataclass(frozen=True)
class Layout:
    """What kind of data set it is.  `broken`: why it is not quite; `alone`: files without a partner; `splits`
    is empty where no sense can be made."""

    kind: str
    words: str
    splits: FoundFiles
    broken: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    # Split -> names of both sides, in one order.
    partners: Mapping[str, tuple[Sequence[str], Sequence[str]]] = field(default_factory=dict)

    @property
    def strips(self) -> bool:
        """Whether A and B of each pair lie in one file."""
        return self.kind == "paired" and bool(self.splits) and not self.partners

    def counted(self) -> str:
        """1,167 train, 96 val, 208 test pairs."""
        units = ["pairs" if isinstance(split, PairedDataset) else "images" for split in self.splits.values()]
        each = [f"{_count(split)} {name}" for name, split in self.splits.items()]
        if len(set(units)) == 1:
            return ", ".join(each) + f" {units[0]}"
        return ", ".join(f"{word} {unit}" for word, unit in zip(each, units, strict=True))

    def classes(self) -> dict[str, int]:
        """How many pictures to train on each class has."""
        train = self.splits.get("train")
        if not isinstance(train, ImageDataset) or train.labels is None:
            return {}
        return dict(zip(train.classes,
                        np.bincount(np.asarray(train.labels), minlength=len(train.classes)).tolist(),
                        strict=True))

    def lines(self, where: str) -> list[str]:
        """The commands that train on it."""
        if not self.splits or "train" not in self.splits:
            return []
        train = self.splits["train"]
        names = [RECIPES[self.kind]] + ([CONDITIONAL] if isinstance(train, ImageDataset) and train.classes
                                        else [])
        return [f"i2i train {name} --data {shlex.quote(where)}" for name in names]


def _count(split: PairedDataset | UnpairedDataset | ImageDataset) -> str:
    return f"{len(split.a):,} + {len(split.b):,}" if isinstance(split, UnpairedDataset) else f"{len(split):,}"


def detect_layout(source: Source, survey: Survey) -> Layout:
    """The layout that fits best."""
    told: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for kind in KINDS:
        try:
            told[kind] = build("dataset", Spec(kind), source)
        except RequestError as error:
            problems[kind] = str(error)
    strips = "paired" in told and all(split.strips for split in told["paired"].values())
    if "paired" in told and not strips:
        return _layout("paired", told["paired"])
    if not strips and "unpaired" in told:
        return _two_sided(told["unpaired"], problems["paired"])
    labeled = "images" in told and any(split.classes for split in told["images"].values())
    if strips and _are_strips(survey) and not labeled:
        return _layout("paired", told["paired"])
    if "images" in told:
        return _layout("images", told["images"])
    # Strips could always be read: what is wrong then is wrong with the labels.
    kind = "images" if strips else "paired"
    return Layout(kind, "not clear", {}, (problems[kind],))


def _layout(kind: str, splits: FoundFiles) -> Layout:
    partners = {name: (split.a, split.b) for name,
                split in splits.items() if isinstance(split, PairedDataset) and not split.strips}
    return Layout(kind, next(iter(splits.values())).layout, splits, partners=partners)


def _are_strips(survey: Survey) -> bool:
    width, height = survey.column("width"), survey.column("height")
    return len(survey) > 0 and float(np.mean((width >= WIDE * height) & (width % 2 == 0))) >= MOSTLY


def _two_sided(splits: Mapping[str, PairedDataset | UnpairedDataset], problem: str) -> Layout:
    """Unpaired, or pairs of which some have lost their partner."""
    train = splits.get("train") or next(iter(splits.values()))
    if train.from_manifest:
        return _layout("unpaired", splits)
    sides = {name: (FileList.of(split.a), FileList.of(split.b)) for name, split in splits.items()}
    met = {name: pair_names(*map(_inside, both)) for name, both in sides.items()}
    if _shared(met[train.split], sides[train.split]) < MEANT * min(len(train.a), len(train.b)):
        return _layout("unpaired", splits)
    partners = {name: (sides[name][0].take(each.a), sides[name][1].take(each.b)) for name,
                each in met.items()}
    alone = tuple(sides[name][side][place] for name, each in met.items() if not each.duplicate for side,
                  place in each.unmatched)
    return Layout("paired", "two folders paired by name", splits,
                  (problem,) if any(each.duplicate for each in met.values()) else (), alone, partners)


def _shared(met: Pairing, sides: tuple[FileList, FileList]) -> int:
    """How many names both sides have."""
    if met.duplicate is None:
        return len(met.a)
    # Where a name comes twice no partners are told.
    a, b = ({stem(name) for name in _inside(side)} for side in sides)
    return len(a & b)


def _inside(names: FileList) -> FileList:
    """Sorted names without the folder that all of them lie in."""
    folder = posixpath.commonpath([posixpath.dirname(names[place]) for place in (0, len(names) - 1)])
    return names.within(f"{folder}/") if folder else names


# ---------------------------------------------------------------------------------------------- what each
# picture is for

@dataclass(frozen=True)
class Roles:
    """Of each row of a survey: its split and side (A or the only one 0, B 1), -1 if it has none; and rows of
    partners."""

    split: Array
    side: Array
    pairs: Array        # P x 2


def roles(layout: Layout, survey: Survey) -> Roles:
    """What the pictures of a survey are for."""
    rows = survey.rows()
    split, side = np.full(len(survey), -1, np.int8), np.full(len(survey), -1, np.int8)
    for name, part in layout.splits.items():
        columns: Iterable[tuple[int, Sequence[str]]] = ((0, part.names),) if isinstance(part,
                                                                                        ImageDataset) else ((1, part.b), (0, part.a))
        for number, names in columns:
            at = [rows[each] for each in names if each in rows]
            split[at], side[at] = SPLITS.index(name), number
    pairs = [(rows[a], rows[b]) for each in layout.partners.values() for a,
             b in zip(*each, strict=True) if a in rows and b in rows]
    return Roles(split, side, np.array(pairs, np.int64).reshape(-1, 2))
