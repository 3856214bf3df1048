"""The interface of feature networks: frozen networks that turn images into features."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.registry import suggest


class Layer(NamedTuple):
    """A layer whose output `feature_maps` can return."""

    channels: int
    stride: int     # Pixels of the image for each position of the map, rounded.


class FeatureNetwork(nn.Module, ABC):
    """A frozen network: always in eval mode, without gradients of its own, but differentiable in its input.

    A new network is a subclass in a file of its own, registered as a `feature_network` by the name that users
    give, and called with the path of its weights file (None if the catalog of weights does not have it and
    the user gives none).  It sets the attributes below and defines `forward`, and `walk` or `maps` if
    it has layers.

    Keep it out of the modules that are saved: it is the same in every run.  Its `weights` say which it is.

    Attributes:
        name: what the user calls it.
        weights: sha256 of its weights file.
        size: side of the square input for pooled features.
        num_features: their number.
        layers: what `feature_maps` can return, from shallow to deep; empty if there is nothing.
        default_layers: names of the layers for losses and discriminators, from shallow to deep.
        mean, std: of RGB in [0, 1]; None for networks that take [-1, 1].
    """

    name: str
    weights: str
    size: int
    num_features: int
    layers: Mapping[str, Layer]
    default_layers: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Normalized images (N, 3, size, size) to pooled features (N, D) and logits (N, K) or None."""

    def feature_maps(self, images: Tensor, layers: Sequence[str] | None = None) -> list[Tensor]:
        """The outputs of layers for images (N, 3, H, W) in [-1, 1] at their own size, differentiable.

        Args:
            images: not resized; normalized here as the network expects it.
            layers: names from `self.layers`; by default `self.default_layers`.

        Returns:
            Maps (N, C, H / stride, W / stride), rounded, in the order of `layers`.
        """
        wanted = self.check_layers(layers)
        x = images
        if self.mean is not None and self.std is not None:
            mean, std = (x.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
            x = (x * 0.5 + 0.5 - mean) / std
        found = self.maps(x, wanted)
        return [found[name] for name in wanted]

    def check_layers(self, layers: Sequence[str] | None) -> tuple[str, ...]:
        """The layers, or the default ones; RequestError for a name that is not known."""
        if not self.layers:
            raise RequestError(f"the feature network {self.name} has no feature maps to train with")
        for name in layers or ():
            if name not in self.layers:
                raise RequestError(f"{self.name} has no layer {name!r}; {suggest(name, self.layers)}")
        return self.default_layers if layers is None else tuple(layers)

    def maps(self, x: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The wanted layers' outputs for normalized images, computed no deeper than needed."""
        found: dict[str, Tensor] = {}
        for name, value in self.walk(x):
            if name in wanted:
                found[name] = value
            if len(found) == len(set(wanted)):
                break
        return found

    def walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and output of each layer of `layers` in turn, for normalized images (N, 3, H, W)."""
        return iter(())

    def freeze(self) -> None:
        """Into eval mode, without gradients of the weights, channels last."""
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in eval mode, whatever the module it is part of does."""
        super().train(False)
        return self
