"""LPIPS: the distance of two images in the layers of a classifier, weighted as people judge.  Zhang et al.
2018 (arXiv 1801.03924), v0.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.metrics.features import exact_float32, read_state

Net = Literal["alex", "vgg", "squeeze"]
TAPS: Mapping[str, tuple[int, ...]] = {       # Layers of torchvision's `features` whose output is compared.
    "alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}
# ImageNet's mean and deviation for images in [-1, 1]; absent in v0.0.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
SMALLEST = 32       # Pixels a side; below it AlexNet's last layers are empty.
EPS = 1e-10


class Fire(nn.Module):
    """Iandola et al. 2016 (arXiv 1602.07360), figure 1."""

    def __init__(self, ins: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(ins, squeeze, 1)
        self.expand1x1, self.expand3x3 = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3,
                                                                                  padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> N(2·expand)HW"""
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def _alex() -> list[nn.Module]:
    return [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]


def _vgg() -> list[nn.Module]:
    layers: list[nn.Module] = []
    ins = 3
    # Simonyan and Zisserman 2015, table 1, column D.
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nn.Conv2d(ins, width, 3, padding=1), nn.ReLU()]
            ins = width
        layers.append(nn.MaxPool2d(2))
    return layers[:-1]


def _squeeze() -> list[nn.Module]:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return [nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(),
            Fire(128, 32, 128), Fire(256, 32, 128), pool(),
            Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]


LAYERS = {"alex": _alex, "vgg": _vgg, "squeeze": _squeeze}


class Lpips(nn.Module):
    """The distance of image pairs; lower is more alike.  N3HW, N3HW in [-1, 1] -> N"""

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Net, backbone: Mapping[str, Tensor], lins: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.net, self.features = net, nn.Sequential(*LAYERS[net]())
        self.load_state_dict({name: value for name,
                              value in backbone.items() if name.startswith("features.")})
        for i in range(len(TAPS[net])):
            self.register_buffer(f"lin{i}", lins[f"{net}_lin{i}"].float(), persistent=False)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)
        self.eval().requires_grad_(False)

    def layers(self, x: Tensor, y: Tensor) -> Tensor:
        """The share of each layer.  N3HW, N3HW in [-1, 1] -> LN"""
        for image in (x, y):
            if image.shape[1] != 3 or min(image.shape[-2:]) < SMALLEST:
                raise ValueError(f"LPIPS needs color images of at least {SMALLEST}x{SMALLEST} pixels, these "
                                 f"are {tuple(image.shape[1:])}")
            if float(image.min()) < -1 or float(image.max()) > 1:
                raise ValueError("LPIPS takes images in [-1, 1]")
        with exact_float32():
            pair = (torch.cat([x, y]).float() - self.shift) / self.scale
            out: list[Tensor] = []
            for i, layer in enumerate(self.features):
                pair = layer(pair)
                if i in TAPS[self.net]:
                    unit = pair / (pair.square().sum(1, keepdim=True).sqrt() + EPS)
                    a, b = unit.chunk(2)
                    out.append(((a - b).square() * getattr(self, f"lin{len(out)}")).sum(1).mean((1, 2)))
        return torch.stack(out)

    @torch.inference_mode()
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Zhang et al. 2018, equation 1.  N3HW, N3HW in [-1, 1] -> N"""
        return self.layers(x, y).sum(0)


def read_lins(path: Path) -> dict[str, Tensor]:
    """The calibrated layers from an `.npz` with names such as alex_lin0.  RequestError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files}
    except Exception as error:      # numpy raises OSError, ValueError or BadZipFile.
        raise RequestError(f"{path} cannot be read as the LPIPS layers ({error})") from None


def load(net: Net, backbone: Path, lins: Path) -> Lpips:
    """LPIPS from torchvision's weights file of a classifier and the calibrated layers.  RequestError if they
    do not fit."""
    try:
        return Lpips(net, read_state(backbone), read_lins(lins))
    except (KeyError, RuntimeError) as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise RequestError(f"{backbone} does not hold the layers of {net}: {reason[:160]}") from None
