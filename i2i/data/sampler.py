"""An endless, seekable stream of batches: what comes at position p is a function of (seed, p) alone,
so neither the number of loader workers nor an interruption changes what is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from i2i.data.cache import Cache, Uncached
from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset, convert_pair
from i2i.data.sources import Unreadable, convert_or_unreadable
from i2i.data.transforms import CoveringCropFlip, JointCropFlip, SeparateCropFlip
from i2i.data.unpaired import UnpairedDataset
from i2i.images.formats import Array, ImageFormat, to_tensors
from i2i.seeding import stable_seed

T = TypeVar("T")
Take = Callable[[str], None]        # Told the name of a file before it is read.


@dataclass(frozen=True)
class Sample:
    """What comes at a position: images, and a class where there are classes, or None where nothing could be
    read; what was left out on the way, at last the reason for None; and a line to be told."""

    values: dict[str, Array | int] | None
    left_out: tuple[Unreadable, ...] = ()
    warning: str = ""


class Order:
    """Which image comes at a position: each epoch is a permutation from (seed, epoch, side)."""

    def __init__(self, size: int, seed: int, *side: int) -> None:
        self.size, self.seed, self.side = size, seed, side
        self._epoch, self._order = -1, np.empty(0, int)

    def __call__(self, position: int) -> int:
        """The image's number.  Cheap where positions follow each other."""
        if self._epoch != position // self.size:
            self._epoch = position // self.size
            self._order = np.random.default_rng(stable_seed(self.seed, self._epoch,
                                                            *self.side)).permutation(self.size)
        return int(self._order[position % self.size])


class SharedPositions(Sampler[tuple[int, int]]):
    """(index, position) without end; rank r of w takes positions r, r + w, …"""

    def __init__(self, data: Sized, *, seed: int, start: int, rank: int = 0, world_size: int = 1) -> None:
        self.order, self.start, self.world_size = Order(len(data), seed), start + rank, world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for position in count(self.start, self.world_size):
            yield self.order(position), position


class SeparatePositions(Sampler[tuple[tuple[int, int], int]]):
    """((index of a, index of b), position) without end: each side goes through its own permutations at its
    own pace, so every image of either side is shown equally often and meets others in every epoch."""

    def __init__(self, sizes: tuple[int, int], *, seed: int, start: int, rank: int = 0,
                 world_size: int = 1) -> None:
        # Not 0: (seed, epoch, 0) seeds as (seed, epoch).
        self.a, self.b = Order(sizes[0], seed, 1), Order(sizes[1], seed, 2)
        self.start, self.world_size = start + rank, world_size

    def __iter__(self) -> Iterator[tuple[tuple[int, int], int]]:
        for position in count(self.start, self.world_size):
            yield (self.a(position), self.b(position)), position


def first_readable(tries: int, name: Callable[[int], str], read: Callable[[int], T],
                   take: Take) -> tuple[T | None, tuple[Unreadable, ...]]:
    """The first of so many that can be read, and what could not be read before it.  Nothing that reading
    raises is left to end a loader process."""
    problems: list[Unreadable] = []
    for offset in range(tries):
        take(name(offset))
        try:
            return read(offset), tuple(problems)
        except Unreadable as problem:
            problems.append(problem)
        except Exception as error:
            problems.append(Unreadable(name(offset), f"{type(error).__name__}: {error}"))
    return None, tuple(problems)


def stack_samples(samples: Sequence[Mapping[str, Array | int]],
                  kinds: Mapping[str, ImageFormat]) -> dict[str, Tensor]:
    """Samples as one batch: images in [-1, 1], NCHW, converted all at once; classes, N."""
    batch: dict[str, Tensor] = {}
    for key in samples[0]:
        values: list[Any] = [sample[key] for sample in samples]
        batch[key] = to_tensors(values, kinds[key]) if key in kinds else torch.tensor(values)
    return batch


class PairedTraining:
    """Jittered pairs as {"a", "b"}; with `skip` the next readable pair takes the place of an unreadable
    one."""

    def __init__(self, pairs: PairedDataset, jitter: JointCropFlip, kinds: tuple[ImageFormat, ImageFormat],
                 *, seed: int, on_error: str, cache: Cache | None = None) -> None:
        self.pairs, self.jitter, self.kinds, self.seed, self.cache = pairs, jitter, {"a": kinds[0],
                                                                                     "b": kinds[1]}, seed, cache or Uncached()
        self.tries = len(pairs) if on_error == "skip" else 1

    def positions(self, **share: int) -> SharedPositions:
        """What comes at each position."""
        return SharedPositions(self.pairs, **share)

    def sample(self, at: tuple[int, int], take: Take) -> Sample:
        """The pair at (index, position)."""
        index, position = at

        def name(offset: int) -> str:
            pair = (index + offset) % len(self.pairs)
            return f"{self.pairs.source.root}/{self.pairs.name(pair)}" + ("" if self.pairs.strips
                                                                          else f" or its partner "
                                                                               f"{self.pairs.b[pair]}")

        def read(offset: int) -> dict[str, Array | int]:
            pair = (index + offset) % len(self.pairs)
            files = (self.pairs.a[pair],) if self.pairs.strips else (self.pairs.a[pair], self.pairs.b[pair])
            kinds = self.kinds["a"], self.kinds["b"]
            sized = self.cache(pair, "ab", files,
                               lambda: [self.jitter.sized(image)
                                        for image in convert_pair(self.pairs[pair], kinds)])
            a, b = self.jitter.varied(sized, stable_seed(self.seed, position))
            return {"a": a, "b": b}

        return Sample(*first_readable(self.tries, name, read, take))


class UnpairedTraining:
    """One jittered image of each side as {"a", "b"}, unpaired; what cannot be read is treated as in
    `TrainingPairs`, side by side."""

    def __init__(self, sides: UnpairedDataset, jitter: JointCropFlip, kinds: tuple[ImageFormat, ImageFormat],
                 *, seed: int, on_error: str, cache: Cache | None = None) -> None:
        self.sides, self.jitter, self.kinds, self.seed, self.cache = sides, jitter, {"a": kinds[0],
                                                                                     "b": kinds[1]}, seed, cache or Uncached()
        self.tries = sides.sizes if on_error == "skip" else (1, 1)

    def positions(self, **share: int) -> SeparatePositions:
        """What comes at each position."""
        return SeparatePositions(self.sides.sizes, **share)

    def _read(self, side: int, index: int, take: Take) -> tuple[Array | None, tuple[Unreadable, ...]]:
        role, first, size = "ab"[side], side * self.sides.sizes[0], self.sides.sizes[side]

        def read(offset: int) -> Array:
            at = (index + offset) % size
            return self.cache(first + at, role, (self.sides.name_of(side, at),),
                              lambda: [self.jitter.sized(convert_or_unreadable(self.sides.read(side, at),
                                                                               self.kinds[role]))])[0]

        return first_readable(self.tries[side],
                              lambda offset: f"{self.sides.source.root}/{self.sides.name_of(side, index + offset)}", read, take)

    def sample(self, at: tuple[tuple[int, int], int], take: Take) -> Sample:
        """The images at ((index of a, index of b), position)."""
        indices, position = at
        a, problems = self._read(0, indices[0], take)
        b, others = self._read(1, indices[1], take)
        if a is None or b is None:
            return Sample(None, others + problems if a is None else problems + others)
        a, b = self.jitter.varied([a, b], stable_seed(self.seed, position))
        return Sample({"a": a, "b": b}, problems + others)


class ImageTraining:
    """One jittered image as {"b"}, and its class as "c" where there are labels; what cannot be read is
    treated as in `TrainingPairs`."""

    def __init__(self, images: ImageDataset, jitter: JointCropFlip, kind: ImageFormat, *, seed: int,
                 on_error: str, cache: Cache | None = None) -> None:
        self.images, self.jitter, self.kinds, self.seed, self.cache = images, jitter, {"b": kind}, seed, cache or Uncached()
        self.tries = len(images) if on_error == "skip" else 1

    def positions(self, **share: int) -> SharedPositions:
        """What comes at each position."""
        return SharedPositions(self.images, **share)

    def sample(self, at: tuple[int, int], take: Take) -> Sample:
        """The image at (index, position)."""
        index, position = at

        def read(offset: int) -> dict[str, Array | int]:
            at = (index + offset) % len(self.images)
            sized = self.cache(at, "b", (self.images.names[at],),
                               lambda: [self.jitter.sized(convert_or_unreadable(self.images[at][0],
                                                                                self.kinds["b"]))])
            image, = self.jitter.varied(sized, stable_seed(self.seed, position))
            return {"b": image} | ({} if self.images.labels is None else {"c": int(self.images.labels[at])})

        def name(offset: int) -> str:
            return f"{self.images.source.root}/{self.images.name((index + offset) % len(self.images))}"

        return Sample(*first_readable(self.tries, name, read, take))


TrainingDataset = PairedTraining | UnpairedTraining | ImageTraining


def training_dataset(split: PairedDataset | UnpairedDataset | ImageDataset, crop: tuple[int, int],
                     load: tuple[int, int], kinds: tuple[ImageFormat, ImageFormat], *, flip: bool, seed: int,
             on_error: str, cache: Cache | None = None) -> TrainingDataset:
    """The training images of a split: pairs are varied together, the images of two sides each by
    themselves."""
    if isinstance(split, ImageDataset):
        return ImageTraining(split, CoveringCropFlip(crop, load, flip), kinds[1], seed=seed,
                             on_error=on_error, cache=cache)
    if isinstance(split, UnpairedDataset):
        return UnpairedTraining(split, SeparateCropFlip(crop, load, flip), kinds, seed=seed,
                                on_error=on_error, cache=cache)
    return PairedTraining(split, JointCropFlip(crop, load, flip), kinds, seed=seed, on_error=on_error,
                          cache=cache)
