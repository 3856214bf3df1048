"""Where training stands, and everything that follows from it: seeds and rates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from i2i.errors import require
from i2i.registry import register


@dataclass(frozen=True)
class Progress:
    """Position in a run.  Time is counted in images; one step shows `batch` images, all ranks together."""

    step: int
    batch_size: int
    total: int  # Images in the whole run.

    @property
    def images(self) -> int:
        """Images seen before this step."""
        return self.step * self.batch_size

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.images / self.total)

    def every(self, steps: int) -> bool:
        """Whether this step is one of every `steps` steps."""
        return self.step % steps == 0

    def passes(self, interval: int) -> bool:
        """Whether a multiple of `interval` images lies within this step."""
        return (self.images + self.batch_size) // interval > self.images // interval


def stable_seed(*key: int) -> int:
    """A 63-bit seed that depends on nothing but its key, in every process and on every platform."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_step(seed: int, rank: int, step: int) -> None:
    """Make all that follows in this step a function of (seed, rank, step): no random state needs to be
    saved."""
    value = stable_seed(seed, rank, step)
    if _has_accelerator():
        torch.manual_seed(value)
    # `torch.manual_seed` notes a stack trace for GPUs that might appear: 0.1 ms and some memory each time.
    else:
        torch.default_generator.manual_seed(value)


@functools.cache
def _has_accelerator() -> bool:
    return torch.accelerator.is_available()


Schedule = Callable[[Progress], float]


@register("schedule", "constant")
def constant() -> Schedule:
    """The rate never changes."""
    return lambda progress: 1.0


@register("schedule", "linear")
def linear(*, start: float = 0.5) -> Schedule:
    """Constant until `start` (a share of the run), then linearly to zero.  Isola et al. 2017 and Zhu et al.
    2017: 100 + 100 epochs."""
    require(0 <= start < 1, "schedule.start", start, "0 or more and less than 1")
    return lambda progress: min(1.0, (1.0 - progress.fraction) / (1.0 - start))
