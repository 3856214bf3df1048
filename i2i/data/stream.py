"""An endless, seekable stream of batches: what comes at position p is a function of (seed, p) alone,
so neither the number of loader workers nor an interruption changes what is learnt."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from i2i.clock import stable_seed
from i2i.data.datasets import Pairs, with_channels
from i2i.data.files import Unreadable
from i2i.data.transforms import Jitter
from i2i.errors import JobError
from i2i.images import Kind, to_tensor

Sample = dict[str, Tensor] | Unreadable


class Positions(Sampler[tuple[int, int]]):
    """(index, position) without end; each epoch is a permutation from (seed, epoch), and rank r of w takes positions r, r + w, …"""

    def __init__(self, data: Sized, *, seed: int, start: int, rank: int = 0, world: int = 1) -> None:
        self.size, self.seed, self.start, self.rank, self.world = len(data), seed, start, rank, world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        position, epoch, order = self.start + self.rank, -1, np.empty(0, int)
        while True:
            if epoch != position // self.size:
                epoch = position // self.size
                order = np.random.default_rng(stable_seed(self.seed, epoch)).permutation(self.size)
            yield int(order[position % self.size]), position
            position += self.world


class TrainingPairs(Dataset[Sample]):
    """Jittered pairs as {"a", "b"} tensors.  An unreadable image is handed on as such, never raised in a worker;
    with `skip` the next readable pair takes its place."""

    def __init__(self, pairs: Pairs, jitter: Jitter, kinds: tuple[Kind, Kind], *, seed: int, on_error: str) -> None:
        self.pairs, self.jitter, self.kinds, self.seed, self.on_error = pairs, jitter, kinds, seed, on_error

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


def batches(data: TrainingPairs, *, seed: int, start: int, batch: int, rank: int = 0, world: int = 1, workers: int = 0,
            pin: bool = False) -> Iterator[dict[str, Tensor]]:
    """Batches from position `start` on, without end.  JobError names an image that cannot be read."""
    loader: DataLoader[Any] = DataLoader(
        data, batch // world, sampler=Positions(data.pairs, seed=seed, start=start, rank=rank, world=world),
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
