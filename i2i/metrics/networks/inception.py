"""The features of the Fréchet inception distance: those of Inception v3, from pytorch-fid's weights file."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from i2i.errors import RequestError
from i2i.metrics.networks.base import FeatureNetwork, Layer
from i2i.metrics.state_dict import read_state
from i2i.metrics.weights import find_weights, sha256
from i2i.registry import register

# The last layers before the maps get smaller.  Windows are not padded, so maps are smaller than H / stride.
LAYERS = {"Conv2d_2b_3x3": Layer(64, 2), "Conv2d_4a_3x3": Layer(192, 4), "Mixed_5d": Layer(288, 8),
          "Mixed_6e": Layer(768, 16), "Mixed_7c": Layer(2048, 32)}


@register("feature_network", "inception")
class Inception(FeatureNetwork):
    """The FID network, 2048 features and 1008 logits, from pytorch-fid's weights file."""

    name, size, num_features = "inception", 299, 2048      # Those of pool3.
    default_layers = ("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")

    def __init__(self, path: Path | None) -> None:
        from i2i.metrics.networks.inception_v3 import from_state  # torchvision takes two seconds to import.
        super().__init__()
        path = find_weights(self.name) if path is None else path
        try:
            self.network = from_state(read_state(path)).folded()
        except ValueError as error:
            raise RequestError(f"{path} does not hold the FID Inception: {error}") from None
        self.weights, self.layers = sha256(path), LAYERS
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.network(x)
        return features, logits

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        for name, layer in self.network.named_children():
            x = layer(x)
            if name in self.layers:
                yield name, x
            if name == self.default_layers[-1]:
                return
