"""Paired data sets: A|B strips, or two folders paired by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

import numpy as np

from i2i.data.files import Source, Unreadable, load_image
from i2i.errors import RequestError
from i2i.images import Array, Kind, as_channels
from i2i.spec import register, require

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read and how it is varied.  Sizes 0 follow the images; `size` is HEIGHT,WIDTH or one number."""

    direction: Literal["ab", "ba"] = "ab"
    size: tuple[int, ...] = (0,)            # Training crop.
    load_size: tuple[int, ...] = (0,)       # Images are resized to this before the crop: 286 for 256 (Isola et al. 2017, section 6.2).
    flip: bool = True                       # Mirror half of the pairs.
    on_error: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        for key in ("size", "load_size"):
            value = getattr(self, key)
            require(len(value) in (1, 2) and all(side == 0 or side >= 16 for side in value), f"data.{key}",
                    ",".join(map(str, value)), "one side or height,width from 16 up; 0 follows the images")


@dataclass(frozen=True)
class Pairs:
    """One split of a paired data set.  `a` and `b` are names in the source; equal names mean one strip that holds both."""

    source: Source
    split: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    direction: str = "ab"

    def __len__(self) -> int:
        return len(self.a)

    @property
    def strips(self) -> bool:
        """Whether one file holds A and B side by side."""
        return self.a == self.b

    def name(self, index: int) -> str:
        """The file that pair `index` takes its name from."""
        return self.a[index]

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Source and target of one pair, as stored.  -> uint8 HW or HWC, twice"""
        if self.strips:
            a, b = halves(load_image(self.source, self.a[index]), f"{self.source.root}/{self.a[index]}")
        else:
            a, b = load_image(self.source, self.a[index]), load_image(self.source, self.b[index])
            if a.shape[:2] != b.shape[:2]:
                raise Unreadable(f"{self.source.root}/{self.a[index]}",
                                 f"is {_size(a)} but its partner {self.b[index]} is {_size(b)}; a pair must have one size")
        return (a, b) if self.direction == "ab" else (b, a)

    @property
    def counted(self) -> str:
        """How much there is, in words."""
        return f"{len(self)} pairs"

    @property
    def layout(self) -> str:
        """How the files lie, in words."""
        return "A|B strips" if self.strips else "two folders paired by name"

    def fingerprint(self) -> str:
        """Changes when files are added, removed or renamed."""
        return fingerprint(self.split, self.a, self.b)


def fingerprint(split: str, a: Iterable[str], b: Iterable[str]) -> str:
    """16 hexadecimal digits that name these files in this order."""
    return hashlib.sha256("\n".join((split, *a, "", *b)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _size(array: Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def halves(strip: Array, name: str) -> tuple[Array, Array]:
    """The left and right half of an A|B strip.  HW or H(W)C -> twice H(W/2) or H(W/2)C"""
    height, width = strip.shape[:2]
    if width % 2 or width <= height:
        raise Unreadable(name, f"is {width}x{height}; an A|B strip is wider than high and of even width")
    return strip[:, : width // 2], strip[:, width // 2:]


def folders(split: str) -> tuple[tuple[str, str], ...]:
    """Where the two sides of a split may lie."""
    return ((f"{split}A/", f"{split}B/"), (f"{split}/A/", f"{split}/B/"), (f"A/{split}/", f"B/{split}/"))


@register("dataset", "paired")
def find_pairs(source: Source, direction: str = "ab") -> dict[str, Pairs]:
    """The splits of a paired data set, by its layout:

    strips in `train/ val/ test/`, or directly in the root (then all are training images);
    two folders `trainA trainB [valA valB testA testB]`, `train/A train/B`, `A/train B/train` or `A B`, paired by name without extension.
    """
    names = source.names()
    if not names:
        raise RequestError(f"{source.root} holds no images (.png .jpg .webp .bmp .tif)")
    first = {PurePosixPath(name).parts[0] for name in names if "/" in name}
    splits = {split: pairs for split in SPLITS if (pairs := _split(source, names, split, direction))}
    if not splits:
        whole = _two_sided(source, names, "train", ("A/", "B/"), direction)
        if whole:
            splits = {"train": whole}
        else:
            strips = tuple(name for name in names if "/" not in name) or tuple(names)
            if first & {f"{split}{side}" for split in SPLITS for side in "AB"} | first & {"A", "B"}:
                raise RequestError(f"{source.root} has only one side ({', '.join(sorted(first))}); both are needed, such as trainA and trainB")
            splits = {"train": Pairs(source, "train", strips, strips, direction)}
    return splits


def _split(source: Source, names: list[str], split: str, direction: str) -> Pairs | None:
    for sides in folders(split):
        pairs = _two_sided(source, names, split, sides, direction)
        if pairs:
            return pairs
    strips = tuple(name for name in names if name.startswith(f"{split}/"))
    return Pairs(source, split, strips, strips, direction) if strips else None


def _two_sided(source: Source, names: list[str], split: str, sides: tuple[str, str], direction: str) -> Pairs | None:
    keyed = []
    for side in sides:
        keys: dict[str, str] = {}
        for name in names:
            if name.startswith(side):
                key = name[len(side):].rsplit(".", 1)[0]
                if key in keys:
                    raise RequestError(f"{source.root}: {keys[key]} and {name} have the same name but for the extension; one must go")
                keys[key] = name
        keyed.append(keys)
    a, b = keyed
    if not a or not b:
        return None
    alone = sorted([a[key] for key in a.keys() - b.keys()] + [b[key] for key in b.keys() - a.keys()])
    if alone:
        raise RequestError(f"{source.root}: {len(alone)} of {len(a) + len(b)} files in {sides[0]} and {sides[1]} have no partner of the same name, "
                           f"such as {', '.join(alone[:3])}")
    both = sorted(a)
    return Pairs(source, split, tuple(a[key] for key in both), tuple(b[key] for key in both), direction)


class Indexed(Protocol):
    """Images of both sides by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """One image of each side; Unreadable if that fails."""
        ...


@dataclass(frozen=True)
class Facts:
    """What the first images of a data set tell: the smallest height and width and the kinds of both sides."""

    height: int
    width: int
    a: Kind
    b: Kind


def look(pairs: Indexed, *, on_error: str = "stop", count: int = 16) -> Facts:
    """Decode up to `count` pairs spread over the split; colour as soon as one image has it."""
    seen: list[tuple[Array, Array]] = []
    error: Unreadable | None = None
    for index in np.unique(np.linspace(0, len(pairs) - 1, count).astype(int)):
        try:
            seen.append(pairs[int(index)])
        except Unreadable as problem:
            if on_error == "stop":
                raise RequestError(str(problem)) from None
            error = problem
    if not seen:
        raise RequestError(f"no image could be read; the last: {error}")
    return Facts(min(image.shape[0] for pair in seen for image in pair), min(image.shape[1] for pair in seen for image in pair),
                 _kind(a for a, _ in seen), _kind(b for _, b in seen))


def _kind(arrays: Iterable[Array]) -> Kind:
    return Kind(max(1 if array.ndim == 2 else array.shape[2] for array in arrays))


def training_sizes(config: DataConfig, facts: Facts) -> tuple[tuple[int, int], tuple[int, int]]:
    """(crop, load) as (height, width).  By default the crop is the images' size rounded down to a multiple of 32, at most 256,
    and images are loaded 286/256 larger than it."""

    def whole(value: tuple[int, ...], default: Callable[[int], int]) -> tuple[int, int]:
        pair = value if len(value) == 2 else (value[0], value[0])
        return (pair[0] or default(0), pair[1] or default(1))

    seen = (facts.height, facts.width)
    crop = whole(config.size, lambda i: min(256, seen[i] // 32 * 32 or seen[i] // 16 * 16))
    if min(crop) < 16:
        raise RequestError(f"the images are {facts.width}x{facts.height} pixels; training needs 16x16 or more")
    if config.size == (0,) and min(seen) >= 256:
        crop = (256, 256)
    load = whole(config.load_size, lambda i: round(crop[i] * 286 / 256))
    require(load[0] >= crop[0] and load[1] >= crop[1], "data.load_size", f"{load[0]},{load[1]}", f"at least data.size ({crop[0]},{crop[1]})")
    return crop, load


def with_channels(pair: tuple[Array, Array], kinds: tuple[Kind, Kind]) -> tuple[Array, Array]:
    """Both images with the channels that their side has."""
    return as_channels(pair[0], kinds[0].channels), as_channels(pair[1], kinds[1].channels)
