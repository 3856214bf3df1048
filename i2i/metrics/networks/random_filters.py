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

FILTERS, SIDE, SCALES = 64, 7, 3
SEED = 0            # Of RandomState, whose uniform numbers are the same everywhere, to the last bit.


@register("feature_network", "random")
class RandomFilters(FeatureNetwork):
    """Random 7x7 filters and ReLU at three scales, mean and deviation over the image; no weights file.

    Sees textures, sharpness and colors, not objects; the layers are `scale1`, `scale2` and `scale4`.
    """

    name, size, num_features = "random", 128, 2 * FILTERS * SCALES
    filters: Tensor

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        if path is not None:
            raise RequestError(f"--weights {path}: the feature network random has no weights file")
        uniform = np.random.RandomState(SEED).random_sample((FILTERS, 3, SIDE, SIDE)) - 0.5
        filters = (uniform * np.sqrt(12 / (3 * SIDE * SIDE))).astype("<f4")     # Of norm about 1.
        self.weights = hashlib.sha256(filters.tobytes()).hexdigest()
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)
        self.layers = {f"scale{2**i}": Layer(FILTERS, 2**i) for i in range(SCALES)}
        self.default_layers = tuple(self.layers)
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        parts = [part for _, maps in self.walk(x) for part in (maps.mean((2, 3)), maps.std((2, 3)))]
        return torch.cat(parts, 1), None

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for i, name in enumerate(self.layers):
            if i:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            padded = F.pad(x, (SIDE // 2,) * 4, mode="replicate")
            yield name, F.relu(F.conv2d(padded, self.filters))
