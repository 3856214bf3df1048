"""Two of the tests: mixtures of normal distributions in the plane.  Points are images of one pixel and two
channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2i.benchmarks.scoring import Score, nearest_modes, score
from i2i.recipes.base import DataInfo


@dataclass(frozen=True)
class Points:
    """Equally likely modes at `means`, each N(mean, std^2 I).  Coordinates are those of the papers."""

    means: NDArray[np.float64]      # M2
    std: float
    reach: float                    # Half the side of the square that plots show, as in the papers' figures.
    pictures: str = ""

    @property
    def info(self) -> DataInfo:
        """What networks have to know."""
        return DataInfo((1, 1), 2, 2)

    @property
    def modes(self) -> int:
        """How many there are."""
        return len(self.means)

    def batches(self, seed: int, batch: int) -> Iterator[Mapping[str, Tensor]]:
        """Points without end, all new; the PacGAN code draws them from 100,000 kept ones.  -> {"b": N211}"""
        g = torch.Generator().manual_seed(seed)
        means = torch.tensor(self.means, dtype=torch.float32)
        while True:
            chosen = torch.randint(self.modes, (batch,), generator=g)
            yield {"b": (means[chosen] + self.std * torch.randn(batch, 2, generator=g))[:, :, None, None]}

    def judge(self, samples: Tensor) -> tuple[Score, list[int]]:
        """Its score, and the high-quality samples of each mode.  N211 -> score, counts"""
        counts = nearest_modes(samples.flatten(1).double().numpy(), self.means, self.std)
        return score(counts, len(samples)), counts.tolist()


def ring() -> Points:
    """Eight on a circle of radius 1, standard deviation 0.01: the code of Lin et al. 2018."""
    angles = 2 * math.pi * np.arange(8) / 8
    return Points(np.stack([np.cos(angles), np.sin(angles)], 1), 0.01, 2.0)


def grid() -> Points:
    """Twenty-five on a grid of spacing 2, standard deviation 0.05: the code of Lin et al. 2018."""
    return Points(np.array(list(itertools.product(range(-4, 5, 2), repeat=2)), np.float64), 0.05, 6.0)
