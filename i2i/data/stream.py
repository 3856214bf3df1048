"""An endless, seekable stream of batches: what comes at position p is a function of (seed, p) alone,
so neither the number of loader workers nor an interruption changes what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from i2i.clock import stable_seed
from i2i.data.datasets import Pairs, with_kinds
from i2i.data.files import Unreadable, conformed
from i2i.data.labelled import Images
from i2i.data.transforms import Jitter, JitterAlone, jitter, jitter_apart, jitter_covering
from i2i.data.unpaired import Sides
from i2i.images import Array, Kind, to_tensor

T = TypeVar("T")
Take = Callable[[str], None]        # Told the name of a file before it is read.


@dataclass(frozen=True)
class Sample:
    """What comes at a position: tensors, or None where nothing could be read; and what was left out on the way, at last the reason for None."""

    tensors: dict[str, Tensor] | None
    left_out: tuple[Unreadable, ...] = ()


class Order:
    """Which image comes at a position: each epoch is a permutation from (seed, epoch, side)."""

    def __init__(self, size: int, seed: int, *side: int) -> None:
        self.size, self.seed, self.side = size, seed, side
        self._epoch, self._order = -1, np.empty(0, int)

    def __call__(self, position: int) -> int:
        """The image's number.  Cheap where positions follow each other."""
        if self._epoch != position // self.size:
            self._epoch = position // self.size
            self._order = np.random.default_rng(stable_seed(self.seed, self._epoch, *self.side)).permutation(self.size)
        return int(self._order[position % self.size])


class Positions(Sampler[tuple[int, int]]):
    """(index, position) without end; rank r of w takes positions r, r + w, …"""

    def __init__(self, data: Sized, *, seed: int, start: int, rank: int = 0, world: int = 1) -> None:
        self.order, self.start, self.world = Order(len(data), seed), start + rank, world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for position in count(self.start, self.world):
            yield self.order(position), position


class PositionsApart(Sampler[tuple[tuple[int, int], int]]):
    """((index of a, index of b), position) without end: each side goes through its own permutations at its own pace,
    so every image of either side is shown equally often and meets others in every epoch."""

    def __init__(self, sizes: tuple[int, int], *, seed: int, start: int, rank: int = 0, world: int = 1) -> None:
        self.a, self.b = Order(sizes[0], seed, 1), Order(sizes[1], seed, 2)     # Not 0: (seed, epoch, 0) seeds as (seed, epoch).
        self.start, self.world = start + rank, world

    def __iter__(self) -> Iterator[tuple[tuple[int, int], int]]:
        for position in count(self.start, self.world):
            yield (self.a(position), self.b(position)), position


def first_readable(tries: int, name: Callable[[int], str], read: Callable[[int], T], take: Take) -> tuple[T | None, tuple[Unreadable, ...]]:
    """The first of so many that can be read, and what could not be read before it.  Nothing that reading raises is left to end a loader process."""
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


class TrainingPairs:
    """Jittered pairs as {"a", "b"} tensors; with `skip` the next readable pair takes the place of an unreadable one."""

    def __init__(self, pairs: Pairs, jitter: Jitter, kinds: tuple[Kind, Kind], *, seed: int, on_error: str) -> None:
        self.pairs, self.jitter, self.kinds, self.seed = pairs, jitter, kinds, seed
        self.tries = len(pairs) if on_error == "skip" else 1

    def positions(self, **share: int) -> Positions:
        """What comes at each position."""
        return Positions(self.pairs, **share)

    def sample(self, at: tuple[int, int], take: Take) -> Sample:
        """The pair at (index, position)."""
        index, position = at

        def name(offset: int) -> str:
            pair = (index + offset) % len(self.pairs)
            return f"{self.pairs.source.root}/{self.pairs.name(pair)}" + ("" if self.pairs.strips else f" or its partner {self.pairs.b[pair]}")

        def read(offset: int) -> dict[str, Tensor]:
            a, b = with_kinds(self.pairs[(index + offset) % len(self.pairs)], self.kinds)
            a, b = self.jitter(a, b, stable_seed(self.seed, position))
            return {"a": to_tensor(a, self.kinds[0]), "b": to_tensor(b, self.kinds[1])}

        return Sample(*first_readable(self.tries, name, read, take))


class TrainingSides:
    """One jittered image of each side as {"a", "b"} tensors, unpaired; what cannot be read is treated as in `TrainingPairs`, side by side."""

    def __init__(self, sides: Sides, jitter: Jitter, kinds: tuple[Kind, Kind], *, seed: int, on_error: str) -> None:
        self.sides, self.jitter, self.kinds, self.seed = sides, jitter, kinds, seed
        self.tries = sides.sizes if on_error == "skip" else (1, 1)

    def positions(self, **share: int) -> PositionsApart:
        """What comes at each position."""
        return PositionsApart(self.sides.sizes, **share)

    def _read(self, side: int, index: int, take: Take) -> tuple[Array | None, tuple[Unreadable, ...]]:
        return first_readable(self.tries[side], lambda offset: f"{self.sides.source.root}/{self.sides.name_of(side, index + offset)}",
                              lambda offset: conformed(self.sides.read(side, index + offset), self.kinds[side]), take)

    def sample(self, at: tuple[tuple[int, int], int], take: Take) -> Sample:
        """The images at ((index of a, index of b), position)."""
        indices, position = at
        a, problems = self._read(0, indices[0], take)
        b, others = self._read(1, indices[1], take)
        if a is None or b is None:
            return Sample(None, others + problems if a is None else problems + others)
        a, b = self.jitter(a, b, stable_seed(self.seed, position))
        return Sample({"a": to_tensor(a, self.kinds[0]), "b": to_tensor(b, self.kinds[1])}, problems + others)


class TrainingImages:
    """One jittered image as {"b"}, and its class as "c" where there are labels; what cannot be read is treated as in `TrainingPairs`."""

    def __init__(self, images: Images, jitter: JitterAlone, kind: Kind, *, seed: int, on_error: str) -> None:
        self.images, self.jitter, self.kind, self.seed = images, jitter, kind, seed
        self.tries = len(images) if on_error == "skip" else 1

    def positions(self, **share: int) -> Positions:
        """What comes at each position."""
        return Positions(self.images, **share)

    def sample(self, at: tuple[int, int], take: Take) -> Sample:
        """The image at (index, position)."""
        index, position = at

        def read(offset: int) -> dict[str, Tensor]:
            picture, label = self.images[(index + offset) % len(self.images)]
            image = self.jitter(conformed(picture, self.kind), stable_seed(self.seed, position))
            return {"b": to_tensor(image, self.kind)} | ({} if label is None else {"c": torch.tensor(label)})

        def name(offset: int) -> str:
            return f"{self.images.source.root}/{self.images.name((index + offset) % len(self.images))}"

        return Sample(*first_readable(self.tries, name, read, take))


Training = TrainingPairs | TrainingSides | TrainingImages


def training(split: Pairs | Sides | Images, crop: tuple[int, int], load: tuple[int, int], kinds: tuple[Kind, Kind], *, flip: bool, seed: int,
             on_error: str) -> Training:
    """The training images of a split: pairs are varied together, the images of two sides each by themselves."""
    if isinstance(split, Images):
        return TrainingImages(split, jitter_covering(crop, load, flip=flip), kinds[1], seed=seed, on_error=on_error)
    if isinstance(split, Sides):
        return TrainingSides(split, jitter_apart(crop, load, flip=flip), kinds, seed=seed, on_error=on_error)
    return TrainingPairs(split, jitter(crop, load, flip=flip), kinds, seed=seed, on_error=on_error)
