"""Position in a training run, and random numbers that depend only on a seed and a position."""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_has_accelerator = functools.cache(torch.accelerator.is_available)


@dataclass(frozen=True)
class Progress:
    """Position in a training run, counted in images.

    Attributes:
        step: number of finished steps.
        batch_size: images per step, over all processes.
        total: images in the whole run.
    """

    step: int
    batch_size: int
    total: int

    @property
    def images(self) -> int:
        """Images seen before this step."""
        return self.step * self.batch_size

    @property
    def fraction(self) -> float:
        """Finished share of the run, in [0, 1]."""
        return min(1.0, self.images / self.total)

    def every(self, steps: int) -> bool:
        """Whether this is one of every `steps` steps, the first included."""
        return self.step % steps == 0

    def passes(self, interval: int) -> bool:
        """Whether the image count passes a multiple of `interval` in this step."""
        return (self.images + self.batch_size) // interval > self.images // interval


def stable_seed(*key: int) -> int:
    """A 63-bit seed that is a function of the key alone, in every process and on every platform."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_step(seed: int, rank: int, step: int) -> None:
    """Seed torch's default generators with a function of (seed, rank, step).

    Called before each step, so that no random state needs to be saved.
    """
    value = stable_seed(seed, rank, step)
    if _has_accelerator():
        torch.manual_seed(value)
    else:       # `torch.manual_seed` records a stack trace for GPUs that might appear, in 0.1 ms.
        torch.default_generator.manual_seed(value)


def noise_for(seed: int, index: int, noise_dim: int) -> Tensor:
    """Standard normal noise of generated image `index` of a seed, (noise_dim); the same in every batch and on
    every device."""
    return torch.randn(noise_dim, generator=torch.Generator().manual_seed(stable_seed(seed, index)))
