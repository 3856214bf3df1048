"""Position in a training run, and random numbers that depend only on a seed and a position."""

import functools
import zlib
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
        growth: images over which networks grow and noise fades; 0: the whole run.
    """

    step: int
    batch_size: int
    total: int
    growth: int = 0

    @property
    def images(self) -> int:
        """Images seen before this step."""
        return self.step * self.batch_size

    @property
    def fraction(self) -> float:
        """Finished share of the run, in [0, 1]."""
        return min(1.0, self.images / self.total)

    @property
    def growth_fraction(self) -> float:
        """How far networks have grown and noise has faded, in [0, 1]."""
        return min(1.0, self.images / (self.growth or self.total))

    def every(self, steps: int) -> bool:
        """Whether this is one of every `steps` steps, the first included."""
        return self.step % steps == 0

    def passes(self, interval: int) -> bool:
        """Whether the image count passes a multiple of `interval` in this step."""
        return (self.images + self.batch_size) // interval > self.images // interval


def stable_seed(*key: int) -> int:
    """A 63-bit seed that is a function of the key alone, in every process and on every platform."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def seed_for_name(seed: int | None, name: str) -> int | None:
    """The seed of a file in a job of a seed."""
    return None if seed is None else seed * 2**32 + zlib.crc32(name.encode("utf-8", "surrogateescape"))


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


class ImageNoise:
    """Standard normal noise for each image of a batch, drawn as often as needed.

    The noise of an image is a function of `seed` and of its own row of `keys`, whatever else is in the batch.

    Args:
        keys: (N, ...), such as the noise that images start from, or their sources.
        shape: of the noise of one image.
    """

    def __init__(self, keys: Tensor, shape: tuple[int, ...], seed: int = 0) -> None:
        self.device, self.shape, self.generators = keys.device, (len(keys), *shape), list[torch.Generator]()
        for key in () if keys.is_meta else keys.detach().float().cpu():
            digest = zlib.crc32(key.contiguous().numpy().tobytes())
            self.generators.append(torch.Generator().manual_seed(stable_seed(seed, digest)))

    def __call__(self) -> Tensor:
        """The next noise, (N, *shape), on the device of the keys."""
        if self.device.type == "meta":
            return torch.empty(self.shape, device="meta")
        return torch.stack([torch.randn(self.shape[1:], generator=generator)
                            for generator in self.generators]).to(self.device)
