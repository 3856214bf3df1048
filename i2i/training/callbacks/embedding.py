"""Embeddings of images that distances are measured in: a feature network, or thumbnails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.images.convert import to_array, to_rgb
from i2i.images.format import ImageFormat
from i2i.metrics.feature_networks import efficientnet_lite0

Matrix = NDArray[Any]
SHIFT_GRID = 32         # Images are shifted by one of this many parts of their side.
QUICK_SIZE = 8          # Side of the thumbnails of quick checks,
THUMBNAIL_SIZE = 16     # and of those that replace missing feature networks.


@dataclass(frozen=True)
class Embedding:
    """A map from images (N, C, H, W) in [-1, 1] to points.

    Args:
        name: for the names of metrics.
        embed: images to points, (N, D).
        embed_shifted: images and slightly shifted versions of them to points, (N, V, E); the middle one of
        the
            V versions is not shifted.
    """

    name: str
    embed: Callable[[Tensor], Matrix]
    embed_shifted: Callable[[Tensor], Matrix]


def thumbnails(size: int) -> Embedding:
    """Thumbnails by averaging, insensitive to noise; shifted by 1/32 of the side in eight directions."""
    def embed(images: Tensor) -> Matrix:
        points: Matrix = F.adaptive_avg_pool2d(images.float(), size).flatten(1).cpu().double().numpy()
        return points

    def embed_shifted(images: Tensor) -> Matrix:
        grid = F.adaptive_avg_pool2d(images.float(), SHIFT_GRID).cpu()
        padded = F.pad(grid, (1, 1, 1, 1), mode="replicate")
        return np.stack([embed(padded[..., y:y + SHIFT_GRID, x:x + SHIFT_GRID])
                         for y in range(3) for x in range(3)], 1)

    return Embedding("pixels", embed, embed_shifted)


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) in [-1, 1] to (H, W, 3) uint8."""
    levels: NDArray[np.uint8] = to_rgb(to_array(image.float().cpu(), ImageFormat(len(image))))
    return levels


def best_embedding(device: torch.device, log: Callable[[str], None]) -> Embedding:
    """Features of EfficientNet-Lite0, or thumbnails where its weights are missing."""
    try:
        extractor = efficientnet_lite0(device=str(device))
    except RequestError as error:
        log(f"note: images are compared by their pixels, not by features: {error}")
        return thumbnails(THUMBNAIL_SIZE)

    def embed(images: Tensor) -> Matrix:
        points: Matrix = extractor.extract([to_uint8(image) for image in images])[0].double().numpy()
        return points

    return Embedding(extractor.name.replace("-", "_"), embed, thumbnails(THUMBNAIL_SIZE).embed_shifted)
