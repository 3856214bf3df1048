"""How pictures are compared: by the features of a fixed network, or by small versions of themselves."""

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
from i2i.images.formats import ImageFormat, to_array, to_rgb
from i2i.metrics.feature_networks import efficientnet_lite0

Matrix = NDArray[Any]
# Pictures are moved by one of so many parts of their side: a little, to a person who looks at them.
GRID = 32
SCREEN = 8              # Pixels a side: what is left of a picture in the first, cheap look,
PIXELS = 16             # and where no feature network can be had.


@dataclass(frozen=True)
class Embedding:
    """Pictures as points.  `take`: NCHW in [-1, 1] -> N×D.  `moved`: as they are and moved a little, ->
    N×V×D, as they are in the middle of V."""

    name: str
    take: Callable[[Tensor], Matrix]
    moved: Callable[[Tensor], Matrix]


def thumbnails(side: int) -> Embedding:
    """Means over areas, so that noise and single pixels count for little; moved by a 32nd of the side in
    eight directions."""
    def take(images: Tensor) -> Matrix:
        out: Matrix = F.adaptive_avg_pool2d(images.float(), side).flatten(1).cpu().double().numpy()
        return out

    def moved(images: Tensor) -> Matrix:
        framed = F.pad(F.adaptive_avg_pool2d(images.float(), GRID).cpu(), (1, 1, 1, 1), mode="replicate")
        return np.stack([take(framed[..., y:y + GRID, x:x + GRID]) for y in range(3) for x in range(3)], 1)

    return Embedding("pixels", take, moved)


def to_levels(image: Tensor) -> NDArray[np.uint8]:
    """A picture as a person sees it: 8-bit levels of its range, three channels.  CHW in [-1, 1] -> HW3
    uint8"""
    shown: NDArray[np.uint8] = to_rgb(to_array(image.float().cpu(), ImageFormat(len(image))))
    return shown


def best_embedding(device: torch.device, tell: Callable[[str], None]) -> Embedding:
    """EfficientNet-Lite0's features, whose weights come with the package; where they are missing, which is
    told, small pictures."""
    try:
        extractor = efficientnet_lite0(device=str(device))
    except RequestError as error:
        tell(f"note: pictures are compared by their pixels, not by features: {error}")
        return thumbnails(PIXELS)

    def take(images: Tensor) -> Matrix:
        out: Matrix = extractor.extract([to_levels(image) for image in images])[0].double().numpy()
        return out

    return Embedding(extractor.name.replace("-", "_"), take, thumbnails(PIXELS).moved)
