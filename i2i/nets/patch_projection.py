"""Projection of patches of feature maps to unit vectors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from i2i.nets.blocks import init_weights
from i2i.nets.precision import fp32_island, to_float32

EPS = 1e-7              # Added to lengths, as in the reference code of CUT.


class PatchProjection(nn.Module):
    """For each feature map a perceptron with one hidden layer, H_l.  Park et al. 2020, section 3.2.

    Args:
        channels: those of each feature map.
        width: length of the vectors; 0: no perceptron, the vectors are the features.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width)) if width else nn.Identity()
            for c in channels)
        init_weights(self)

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Vectors of length 1 at some places of each map.

        [(N, c, h, w)], [(P), indices of pixels in rows] -> [(N, P, width)]
        """
        return [unit_length(head(x.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, index)))
                for head, x, index in zip(self.heads, features, places, strict=True)]


def unit_length(x: Tensor) -> Tensor:
    """Divide vectors by their length, in float32.  (..., C) -> (..., C)"""
    with fp32_island(x):
        x = to_float32(x)
        return x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + EPS)


def draw_places(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """For each feature map (N, c, h, w) up to `count` places, no two alike, that its images share."""
    return [torch.randperm(x.shape[2] * x.shape[3], device=x.device)[:count] for x in features]


def mirror_places(features: Sequence[Tensor], places: Sequence[Tensor], mirrored: Tensor) -> list[Tensor]:
    """The same places where the images of the feature maps are mirrored, `()` bool; else `places`."""
    return [torch.where(mirrored, index + x.shape[3] - 1 - 2 * (index % x.shape[3]), index)
            for x, index in zip(features, places, strict=True)]
