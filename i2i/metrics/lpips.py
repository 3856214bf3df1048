"""LPIPS v0.1, a perceptual distance in the layers of a classifier.  Zhang et al. 2018 (arXiv 1801.03924)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.metrics.feature_networks import exact_float32
from i2i.metrics.state_dict import last_line, read_state

Net = Literal["alex", "vgg", "squeeze"]
MODELS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}        # Of torchvision.
# Layers of each model's `features` whose outputs are compared.
LAYERS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}
# ImageNet's mean and standard deviation for images in [-1, 1]; absent in v0.0.
MEAN, STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
MIN_SIZE = 32       # Pixels a side; below it AlexNet's last layers are empty.
EPS = 1e-10


class LPIPS(nn.Module):
    """The LPIPS distance of image pairs, from torchvision's state dict and weights such as `alex_lin0`."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: Net, backbone: Mapping[str, Tensor], lins: Mapping[str, Tensor]) -> None:
        from torchvision import models
        super().__init__()
        self.net = net
        with torch.device("meta"):      # Without initializing the classifier's large last layers.
            features = getattr(models, MODELS[net])(weights=None).features
        self.features = features[:LAYERS[net][-1] + 1]
        self.load_state_dict({key: value for key, value in backbone.items() if key.startswith("features.")},
                             assign=True)
        for i in range(len(LAYERS[net])):
            self.register_buffer(f"lin{i}", lins[f"{net}_lin{i}"].float(), persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def layer_distances(self, x: Tensor, y: Tensor) -> Tensor:
        """The contribution of each layer: 2 x (N, 3, H, W) in [-1, 1] -> (L, N)."""
        for image in (x, y):
            if image.shape[1] != 3 or min(image.shape[-2:]) < MIN_SIZE:
                raise ValueError(f"LPIPS needs color images of at least {MIN_SIZE}x{MIN_SIZE} pixels, these "
                                 f"are {tuple(image.shape[1:])}")
            if float(image.min()) < -1 or float(image.max()) > 1:
                raise ValueError("LPIPS takes images in [-1, 1]")
        distances: list[Tensor] = []
        with exact_float32():
            pair = (torch.cat([x, y]).float() - self.mean) / self.std
            for i, layer in enumerate(self.features):
                pair = layer(pair)
                if i in LAYERS[self.net]:
                    distances.append(layer_distance(pair, getattr(self, f"lin{len(distances)}")))
        return torch.stack(distances)

    @torch.inference_mode()
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Zhang et al. 2018, equation 1: 2 x (N, 3, H, W) in [-1, 1] -> (N,)."""
        return self.layer_distances(x, y).sum(0)


def layer_distance(pair: Tensor, lin: Tensor) -> Tensor:
    """The contribution of a layer, from its features of two batches of images: (2 N, C, h, w) -> (N,)"""
    # The norm has a gradient where all features are 0, unlike the root of a sum of squares.
    a, b = (pair / (torch.linalg.vector_norm(pair, dim=1, keepdim=True) + EPS)).chunk(2)
    return ((a - b).square() * lin).sum(1).mean((1, 2))


def read_lins(path: Path) -> dict[str, Tensor]:
    """The calibrated weights from an `.npz` with names such as alex_lin0.  RequestError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:      # numpy raises OSError, ValueError or BadZipFile.
        raise RequestError(f"{path} cannot be read as LPIPS weights ({error})") from None


def load(net: Net, backbone: Path, lins: Path) -> LPIPS:
    """LPIPS from torchvision's weights file of a classifier and the calibrated weights."""
    try:
        return LPIPS(net, read_state(backbone), read_lins(lins))
    except (KeyError, RuntimeError) as error:
        raise RequestError(f"{backbone} does not hold the layers of {net}: {last_line(error)}") from None
