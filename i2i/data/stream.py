"""An endless, seekable stream of batches: what comes at position p is a function of (seed, p) alone,
so neither the number of loader workers nor an interruption changes what is learnt."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sized
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from i2i.clock import stable_seed
from i2i.data.datasets import Pairs, with_channels
from i2i.data.files import Unreadable
from i2i.data.transforms import Jitter, jitter, jitter_apart
from i2i.data.unpaired import Sides
from i2i.errors import JobError
from i2i.images import Array, Kind, to_tensor

Sample = dict[str, Tensor] | Unreadable


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


class TrainingPairs(Dataset[Sample]):
    """Jittered pairs as {"a", "b"} tensors.  An unreadable image is handed on as such, never raised in a worker;
    with `skip` the next readable pair takes its place."""

    def __init__(self, pairs: Pairs, jitter: Jitter, kinds: tuple[Kind, Kind], *, seed: int, on_error: str) -> None:
        self.pairs, self.jitter, self.kinds, self.seed, self.on_error = pairs, jitter, kinds, seed, on_error

    def positions(self, **share: int) -> Positions:
        """What comes at each position."""
        return Positions(self.pairs, **share)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        index, position = at
        for offset in range(len(self.pairs) if self.on_error == "skip" else 1):
            try:
                a, b = with_channels(self.pairs[(index + offset) % len(self.pairs)], self.kinds)
            except Unreadable as error:
                problem = error
                continue
            a, b = self.jitter(a, b, stable_seed(self.seed, position))
            return {"a": to_tensor(a), "b": to_tensor(b)}
        return problem


class TrainingSides(Dataset[Sample]):
    """One jittered image of each side as {"a", "b"} tensors, unpaired; what cannot be read is treated as in `TrainingPairs`, side by side."""

    def __init__(self, sides: Sides, jitter: Jitter, kinds: tuple[Kind, Kind], *, seed: int, on_error: str) -> None:
        self.sides, self.jitter, self.kinds, self.seed, self.on_error = sides, jitter, kinds, seed, on_error

    def positions(self, **share: int) -> PositionsApart:
        """What comes at each position."""
        return PositionsApart(self.sides.sizes, **share)

    def _read(self, side: int, index: int) -> Array | Unreadable:
        for offset in range(self.sides.sizes[side] if self.on_error == "skip" else 1):
            try:
                return self.sides.read(side, index + offset)
            except Unreadable as error:
                problem = error
        return problem

    def __getitem__(self, at: tuple[tuple[int, int], int]) -> Sample:
        indices, position = at
        a, b = (self._read(side, index) for side, index in enumerate(indices))
        if isinstance(a, Unreadable) or isinstance(b, Unreadable):
            return a if isinstance(a, Unreadable) else b  # type: ignore[return-value]
        a, b = self.jitter(*with_channels((a, b), self.kinds), stable_seed(self.seed, position))
        return {"a": to_tensor(a), "b": to_tensor(b)}


Training = TrainingPairs | TrainingSides


def training(split: Pairs | Sides, crop: tuple[int, int], load: tuple[int, int], kinds: tuple[Kind, Kind], *, flip: bool, seed: int,
             on_error: str) -> Training:
    """The training images of a split: pairs are varied together, the images of two sides each by themselves."""
    if isinstance(split, Sides):
        return TrainingSides(split, jitter_apart(crop, load, flip=flip), kinds, seed=seed, on_error=on_error)
    return TrainingPairs(split, jitter(crop, load, flip=flip), kinds, seed=seed, on_error=on_error)


def collate(samples: list[Sample]) -> Sample:
    """Samples as one batch, or the first that could not be read."""
    batch: dict[str, list[Tensor]] = {}
    for sample in samples:
        if isinstance(sample, Unreadable):
            return sample
        for key, value in sample.items():
            batch.setdefault(key, []).append(value)
    return {key: torch.stack(values) for key, values in batch.items()}


def _ignore_interrupt(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # Ctrl-C reaches the whole group; the trainer decides when to stop.


def batches(data: Training, *, seed: int, start: int, batch: int, rank: int = 0, world: int = 1, workers: int = 0,
            pin: bool = False) -> Iterator[dict[str, Tensor]]:
    """Batches from position `start` on, without end.  JobError names an image that cannot be read."""
    loader: DataLoader[Any] = DataLoader(
        data, batch // world, sampler=data.positions(seed=seed, start=start, rank=rank, world=world),
        num_workers=workers, collate_fn=collate, pin_memory=pin, worker_init_fn=_ignore_interrupt)
    try:
        for item in loader:
            if isinstance(item, Unreadable):
                raise JobError(f"{item}; remove it, or train with data.on_error=skip")
            yield item
    except RuntimeError as error:
        if isinstance(error, JobError) or "DataLoader worker" not in str(error):
            raise
        raise JobError(f"a loader process ended: {str(error).splitlines()[0]}") from None
