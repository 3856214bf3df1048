"""Ring and grid: normal mixtures in the plane.  A point is an image of one pixel and two channels."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2i.benchmarks.scores import Score, nearest_modes, score_counts
from i2i.recipes.base import DataInfo


@dataclass(frozen=True)
class Mixture:
    """Equally likely modes, each N(mean, std^2 I), in the coordinates of the papers."""

    means: NDArray[np.float64]      # (M, 2)
    std: float
    extent: float                   # Half the side of the square that plots show, as in the papers' figures.
    info: ClassVar[DataInfo] = DataInfo((1, 1), 2, 2)
    images: ClassVar[str] = ""

    @property
    def modes(self) -> int:
        return len(self.means)

    def batches(self, seed: int, batch_size: int) -> Iterator[Mapping[str, Tensor]]:
        """Endless batches of new points.  -> {"b": (N, 2, 1, 1)}"""
        g = torch.Generator().manual_seed(seed)
        means = torch.tensor(self.means, dtype=torch.float32)
        while True:
            mode = torch.randint(self.modes, (batch_size,), generator=g)
            yield {"b": (means[mode] + self.std * torch.randn(batch_size, 2, generator=g))[:, :, None, None]}

    def score(self, samples: Tensor) -> tuple[Score, list[int]]:
        """Score of samples `(N, 2, 1, 1)`, and the number of high-quality ones of each mode."""
        counts = nearest_modes(samples.flatten(1).double().numpy(), self.means, self.std)
        return score_counts(counts, len(samples)), counts.tolist()


def ring() -> Mixture:
    """Eight modes on a circle of radius 1, standard deviation 0.01: the code of Lin et al. 2018."""
    angles = 2 * math.pi * np.arange(8) / 8
    return Mixture(np.stack([np.cos(angles), np.sin(angles)], 1), 0.01, 2.0)


def grid() -> Mixture:
    """Twenty-five modes on a grid of spacing 2, standard deviation 0.05: the code of Lin et al. 2018."""
    return Mixture(np.array(list(itertools.product(range(-4, 5, 2), repeat=2)), np.float64), 0.05, 6.0)
