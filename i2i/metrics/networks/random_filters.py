"""Random filters: a feature network without weights, which nobody has trained for or against."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.metrics.networks.base import FeatureNetwork, Layer
from i2i.registry import register

FILTERS, SIDE, SCALES = 32, 7, 3
SEED = 0            # Of RandomState, whose integers are the same everywhere.
STEPS = 1000        # Weights are whole numbers from -STEPS to STEPS before they are scaled.


@register("feature_network", "random")
class RandomFilters(FeatureNetwork):
    """Random 7x7 filters of mean 0 at three scales, and their deviation over the image; no weights file.

    Sees sharpness, texture and colors, not objects.  The layers are `scale1`, `scale2` and `scale4`.
    """

    name, size, num_features = "random", 128, FILTERS * SCALES
    filters: Tensor

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        if path is not None:
            raise RequestError(f"--weights {path}: the feature network random has no weights file")
        steps = np.random.RandomState(SEED).randint(-STEPS, STEPS + 1, (FILTERS, 3 * SIDE * SIDE), np.int32)
        # Of mean 0 and norm about 1.  Sums of integers are exact, whatever their order.
        centered = steps - steps.sum(1, keepdims=True) / (3 * SIDE * SIDE)
        filters = centered * (np.sqrt(3 / (3 * SIDE * SIDE)) / STEPS)
        filters = filters.astype("<f4").reshape(FILTERS, 3, SIDE, SIDE)
        self.weights = hashlib.sha256(filters.tobytes()).hexdigest()
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)
        self.layers = {f"scale{2**i}": Layer(FILTERS, 2**i) for i in range(SCALES)}
        self.default_layers = tuple(self.layers)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return torch.cat([maps.std((2, 3)) for _, maps in self.walk(x)], 1), None

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for i, name in enumerate(self.layers):
            if i:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            padded = F.pad(x, (SIDE // 2,) * 4, mode="replicate")
            yield name, F.conv2d(padded, self.filters)
