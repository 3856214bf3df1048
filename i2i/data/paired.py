"""Paired data sets: A|B strips, two folders paired by name, or the rows of a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from i2i.data.dataset_root import find_root
from i2i.data.file_list import CHUNK, FileList
from i2i.data.format_detection import detect_format, parse_range
from i2i.data.layouts import SPLITS, has_two_sides, locate_splits, pair_names, top_level_files
from i2i.data.manifest import Manifest
from i2i.data.sources import Source, Unreadable, convert_or_unreadable, load_image
from i2i.errors import RequestError, require
from i2i.images.formats import Array, DecodedImage, ImageFormat
from i2i.registry import register

# How much the proportions of two partners may differ: what rounding makes of a small picture.
SHAPE = 0.01
MAX_SIDE = 2**15 - 1         # Pixels of a side, as OpenCV's resizing has it.
# Images are loaded this much larger than the crop: Isola et al. 2017, section 6.2.
LOAD_SCALE = 286 / 256


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read and how it is varied.  Sizes 0 follow the images; `size` is HEIGHT,WIDTH or one number."""

    # Which side is the source of pairs; of two sides, which is called a.
    direction: Literal["ab", "ba"] = "ab"
    size: tuple[int, ...] = (0,)            # Training crop: one side or height,width; 0 follows the images.
    # Images are resized to this before the crop; 0: the crop, for pairs and sides by 286 / 256 larger.
    load_size: tuple[int, ...] = (0,)
    flip: bool = True                       # Mirror half of the pairs.
    # Transparent pictures are laid over the background, or keep alpha as their last channel.
    alpha: Literal["drop", "keep"] = "drop"
    background: tuple[int, ...] = (255,)    # One level of 0 … 255, or red,green,blue.
    # Values of A that become -1 and 1: auto (bit depth, or floats seen), full (of the type) or LOW,HIGH;
    a_range: str = "auto"
    b_range: str = "auto"                   # and of B.
    # Contrast is equalized with this clip limit (CLAHE, Zuiderveld 1994); 0: not.
    clahe: float = 0.0
    clahe_tiles: int = 8                    # Of CLAHE, on each side of a picture.
    clahe_sides: Literal["both", "a", "b"] = "both"     # Of the data, whatever the direction.
    on_error: Literal["stop", "skip"] = "stop"      # At an image that cannot be read (--on-error).
    # Keep the names found in a file beside the data, and look them up there the next time.
    index: bool = False
    # Where decoded training images are kept; auto: in memory, if all of them fit well.
    cache: Literal["auto", "off", "memory", "disk"] = "auto"
    cache_folder: str = ""                  # Of cache=disk, which runs may share; without one RUN/decoded.

    def __post_init__(self) -> None:
        require(len(self.background) in (1, 3) and all(0 <= level <= 255 for level in self.background),
                "data.background",
                ",".join(map(str, self.background)), "one level or red,green,blue of 0 to 255")
        for key in ("a_range", "b_range"):
            parse_range(f"data.{key}", getattr(self, key))       # Refused if it is none.
        require(self.clahe == 0 or 1 <= self.clahe < float("inf"), "data.clahe", self.clahe,
                "0 (off), or a clip limit of 1 or more, such as 2")
        require(1 <= self.clahe_tiles <= 64, "data.clahe_tiles", self.clahe_tiles, "1 to 64")
        for key in ("size", "load_size"):
            value = getattr(self, key)
            require(len(value) in (1, 2) and all(side == 0 or 16 <= side <= MAX_SIDE for side in value),
                    f"data.{key}",
                    ",".join(map(str, value)),
                    f"one side or height,width from 16 to {MAX_SIDE}; 0 follows the images")

    def contrast(self, side: str) -> dict[str, Any]:
        """What the kind of a side of the data has to say of its contrast."""
        return {"clahe": self.clahe,
                "clahe_tiles": self.clahe_tiles} if self.clahe and self.clahe_sides in ("both", side) else {}


@dataclass(frozen=True)
class PairedDataset:
    """One split of a paired data set.  `a` and `b` are names in the source; equal names mean one strip that
    holds both."""

    enlarged: ClassVar[float] = LOAD_SCALE
    square: ClassVar[bool] = False
    source: Source
    split: str
    a: Sequence[str]
    b: Sequence[str]
    direction: str = "ab"
    listed: bool = False            # By a manifest.

    def __len__(self) -> int:
        return len(self.a)

    @cached_property
    def strips(self) -> bool:
        """Whether one file holds A and B side by side."""
        return self.a == self.b

    def name(self, index: int) -> str:
        """The file that pair `index` takes its name from."""
        return self.a[index]

    def __getitem__(self, index: int) -> tuple[DecodedImage, DecodedImage]:
        """Source and target of one pair, as stored: of one size or, but for rounding, of one shape."""
        if self.strips:
            a, b = split_strip_size(load_image(self.source, self.a[index]))
        else:
            a, b = load_image(self.source, self.a[index]), load_image(self.source, self.b[index])
            if not same_shape(a.array.shape[:2], b.array.shape[:2]):
                raise Unreadable(a.name,
                                 f"is {_size(a.array)} but its partner {self.b[index]} is {_size(b.array)}; "
                                 "a pair must have one size, or two of the same proportions")
        return (a, b) if self.direction == "ab" else (b, a)

    @property
    def counted(self) -> str:
        """How much there is, in words."""
        return f"{len(self)} pairs"

    @property
    def layout(self) -> str:
        """How the files lie, in words."""
        return "A|B strips" if self.strips else "two folders paired by name" if not self.listed else "rows of a manifest"

    def fingerprint(self) -> str:
        """Changes when files are added, removed or renamed."""
        return fingerprint(self.split, self.a, self.b)


def fingerprint(split: str, a: Iterable[str], b: Iterable[str]) -> str:
    """16 hexadecimal digits that name these files in this order."""
    digest = hashlib.sha256(split.encode())
    lines = (f"\n{name}" for name in chain(a, ("",), b))
    while part := "".join(islice(lines, CHUNK)):
        digest.update(part.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures have one size, or the same proportions within 1% or a pixel.  (H, W) twice"""
    small, large = sorted((one, other))
    # One side of the smaller by the proportions of the larger.
    height, width = large[0] * small[1] / large[1], large[1] * small[0] / large[0]
    return abs(height - small[0]) <= max(1, SHAPE * small[0]) or abs(width - small[1]) <= max(1,
                                                                                              SHAPE * small[1])


def _size(array: Array) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"


def split_strip(strip: Array, name: str) -> tuple[Array, Array]:
    """The left and right half of an A|B strip.  HW or H(W)C -> twice H(W/2) or H(W/2)C"""
    height, width = strip.shape[:2]
    if width % 2 or width <= height:
        raise Unreadable(name, f"is {width}x{height}; an A|B strip is wider than high and of even width")
    return strip[:, : width // 2], strip[:, width // 2:]


def split_strip_size(strip: DecodedImage) -> tuple[DecodedImage, DecodedImage]:
    """The left and right half of an A|B strip."""
    try:
        a, b = split_strip(strip.array, strip.name)
    except Unreadable as error:
        raise Unreadable(error.name,
                         f"{error.reason}; or A and B lie in two folders, such as trainA and trainB") from None
    return replace(strip, array=a), replace(strip, array=b)


# ---------------------------------------------------------------------------------------------- finding them

@register("dataset", "paired")
def find_paired(source: Source, direction: str = "ab") -> dict[str, PairedDataset]:
    """The splits of a paired data set, by its layout:

    the rows of a manifest, with columns a and b, or file for strips; strips in `train/ val/ test/`, or
    directly in the root (then all are training images); two folders `trainA trainB [valA valB testA testB]`,
    `train/A train/B`, `A/train B/train` or `A B`, paired by name without extension.
    """
    source, told, names = find_root(source)
    return pairs_from_manifest(source, told, direction) if told else pairs_from_folders(source, names,
                                                                                        direction)


def pairs_from_manifest(source: Source, told: Manifest, direction: str) -> dict[str, PairedDataset]:
    """The pairs of a manifest.  RequestError if a row has only one side."""
    if told.alone is not None:
        raise RequestError(f"{told.where}, line {told.alone}: only one side is named; a pair has both")
    return {split: PairedDataset(source, split, rows.a, rows.b, direction, listed=True) for split,
            rows in told.splits.items()}


def pairs_from_folders(source: Source, names: FileList, direction: str) -> dict[str, PairedDataset]:
    """The pairs among the images of a source."""
    two, one = locate_splits(names, 2), locate_splits(names, 1)
    if one.get("train") == ("",) and has_two_sides(names):
        if not two:
            raise RequestError(f"{source.root} has only one side ({', '.join(sorted(names.folders()))}); "
                               "both are needed, such as trainA and trainB")
        del one["train"]
    splits: dict[str, PairedDataset] = {}
    for split in (split for split in SPLITS if split in one | two):
        if split in two:
            splits[split] = _two_sided(source, names, split, two[split], direction)
        else:
            strips = names.under(one[split][0]) if one[split][0] else top_level_files(names)
            splits[split] = PairedDataset(source, split, strips, strips, direction)
    return splits


def _two_sided(source: Source, names: FileList, split: str, sides: tuple[str, ...],
               direction: str) -> PairedDataset:
    a, b = (names.under(side) for side in sides)
    met = pair_names(names.within(sides[0]), names.within(sides[1]))
    if met.twice:
        side, *places = met.twice
        one, other = ((a, b)[side][place] for place in places)
        raise RequestError(f"{source.root}: {one} and {other} have the same name but for the extension; one "
                           "must go")
    if met.alone:
        alone = sorted((a, b)[side][place] for side, place in met.alone)
        raise RequestError(f"{source.root}: {len(alone)} of {len(a) + len(b)} files in {sides[0]} and "
                           f"{sides[1]} have no partner of the same name, "
                           f"such as {', '.join(alone[:3])}")
    return PairedDataset(source, split, a.take(met.a), b.take(met.b), direction)


class PairSequence(Protocol):
    """Images of both sides by number."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> tuple[DecodedImage, DecodedImage]:
        """One image of each side; Unreadable if that fails."""
        ...


class InspectableDataset(Protocol):
    """Images by number, of one side or both."""

    enlarged: ClassVar[float]       # How much larger than the crop they are loaded by default.
    # Whether the crop is a square by default, of a size that generators from noise can make.
    square: ClassVar[bool]

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int) -> tuple[DecodedImage, Any]:
        """An image and its partner or label; Unreadable if that fails."""
        ...


@dataclass(frozen=True)
class DatasetFacts:
    """What the first images of a data set tell: the smallest height and width and the kinds of both sides,
    which are one where there is one side. `notes`: what of the files is not in the pictures, each with an
    example."""

    height: int
    width: int
    a: ImageFormat
    b: ImageFormat
    enlarged: float = LOAD_SCALE
    square: bool = False
    notes: tuple[str, ...] = ()


def inspect_dataset(split: InspectableDataset, config: DataConfig | None = None, *,
                    count: int = 16) -> DatasetFacts:
    """Decode up to `count` images or pairs spread over the split.  RequestError if one cannot be read, or a
    side is of several kinds.

    A side is color as soon as one image has it, of 16 bits as soon as one has them, and keeps alpha, if it is
    to be kept, as soon as one has it.
    """
    config = config or DataConfig()
    seen: list[tuple[DecodedImage, DecodedImage]] = []
    error: Unreadable | None = None
    for index in np.unique(np.linspace(0, len(split) - 1, count).astype(int)):
        try:
            image, other = split[int(index)]
            paired = isinstance(other, DecodedImage)
            seen.append((image, other if paired else image))
        except Unreadable as problem:
            if config.on_error == "stop":
                raise RequestError(str(problem)) from None
            error = problem
    if not seen:
        raise RequestError(f"no image could be read; the last: {error}")
    if config.clahe and config.clahe_sides == "a" and not paired:
        raise RequestError("data.clahe_sides=a cannot be used: images that are made from noise are learned "
                           "from b; accepted: b or both")
    texts = {"data.a_range": config.a_range, "data.b_range": config.b_range}
    keys = ("data.a_range", "data.b_range") if paired and config.direction == "ab" else ("data.b_range",
                                                                                         "data.a_range"
                                                                                         if paired
                                                                                         else "data.b_range")
    a, b = (replace(detect_format(side, config.alpha == "keep", config.background, key, texts[key]),
                    **config.contrast(key[len("data.")]))
            for side, key in zip(zip(*seen, strict=True), keys, strict=True))
    notes = {note: picture.name for pair in seen for picture in pair for note in picture.notes}
    shapes = [picture.array.shape for pair in seen for picture in pair]
    return DatasetFacts(min(shape[0] for shape in shapes), min(shape[1] for shape in shapes), a, b,
                        split.enlarged, split.square,
                 tuple(f"{name}: {note}" for note, name in notes.items()))


def training_sizes(config: DataConfig, facts: DatasetFacts) -> tuple[tuple[int, int], tuple[int, int]]:
    """(crop, load) as (height, width).  By default the crop is the images' size rounded down to a multiple of
    32, at most 256, or the largest square of 28 or a power of two; and images are loaded larger than it by
    what their kind of data set asks for."""

    def whole(value: tuple[int, ...], default: Callable[[int], int]) -> tuple[int, int]:
        pair = value if len(value) == 2 else (value[0], value[0])
        return (pair[0] or default(0), pair[1] or default(1))

    seen = (facts.height, facts.width)
    side = min(256, *seen)
    square = 28 if 28 <= side < 32 else 2 ** int(np.log2(max(1, side)))
    crop = whole(config.size,
                 lambda i: square if facts.square else min(256, seen[i] // 32 * 32 or seen[i] // 16 * 16))
    if min(crop) < 16:
        raise RequestError(f"the images are {facts.width}x{facts.height} pixels; training needs 16x16 or more")
    if config.size == (0,) and min(seen) >= 256:
        crop = (256, 256)
    load = whole(config.load_size, lambda i: round(crop[i] * facts.enlarged))
    require(load[0] >= crop[0] and load[1] >= crop[1], "data.load_size", f"{load[0]},{load[1]}",
            f"at least data.size ({crop[0]},{crop[1]})")
    return crop, load


def convert_pair(pair: tuple[DecodedImage, DecodedImage],
                 kinds: tuple[ImageFormat, ImageFormat]) -> tuple[Array, Array]:
    """Both images as their sides have them; Unreadable names one that cannot be brought to its side's
    kind."""
    return convert_or_unreadable(pair[0], kinds[0]), convert_or_unreadable(pair[1], kinds[1])
