"""Perceptual losses: distances of images in the features of a frozen network."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.metrics.feature_networks import frozen_network, rgb_images
from i2i.metrics.lpips import LAYERS, layer_distance, read_lins
from i2i.metrics.weights import find_weights
from i2i.nets.precision import fp32_island
from i2i.registry import Spec, build, register


def perceptual_term(spec: Spec, *pairs: tuple[Tensor, Tensor]) -> tuple[Tensor | float, dict[str, Tensor]]:
    """The perceptual loss of pairs of generated images and what they are compared with, and values to log."""
    loss = build("perceptual", spec)
    if not loss.weight:
        return 0.0, {}
    distance = torch.stack([loss(fake, real) for fake, real in pairs]).sum()
    return loss.weight * distance, {"perceptual": distance}


def check_perceptual(spec: Spec, a_channels: int, b_channels: int) -> None:
    """RequestError if images of two sides are to be compared that differ in channels."""
    require(a_channels == b_channels or spec.name == "none", "perceptual", spec.name,
            f"none where the sides differ in channels ({a_channels} and {b_channels}) and their images "
            "cannot be compared")


@register("perceptual", "none")
class NoPerceptual:
    """Images are compared by their pixels alone."""

    weight: ClassVar[float] = 0.0


class _FeatureLoss(ABC):
    """A distance of images in the features of a frozen network, at the size of the images.  Channels beyond
    three are seen as gray images."""

    features: str
    layers: tuple[str, ...] = ()

    @abstractmethod
    def compare(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Distance of the layers' features (N, C, h, w) of images and of others: `()`"""

    def __call__(self, fake: Tensor, real: Tensor) -> Tensor:
        """Distance of images to others of the same shape, of which no gradient is taken: `()`"""
        network = frozen_network(self.features, fake.device)

        def maps(x: Tensor) -> list[Tensor]:
            return network.feature_maps(torch.cat(rgb_images(x)).float(), self.layers or None)

        with fp32_island(fake):
            with torch.no_grad():
                wanted = maps(real)
            return self.compare(maps(fake), wanted)


Weight = Annotated[float, Doc("Weight of the distance")]


@register("perceptual", "features")
@dataclass(frozen=True, kw_only=True)
class FeatureDistance(_FeatureLoss):
    """Sum over layers of w_i |F_i(x) - F_i(y)|_1 / N_i, F a frozen network, N_i the features of its layer i.

    Johnson et al. 2016 (arXiv:1603.08155), section 3.2, with the absolute differences of Wang et al. 2018
    (pix2pixHD).
    """

    weight: Weight = 10.0
    features: Annotated[str, Doc(
        "Feature network, i2i list feature_network, or timm:NAME")] = "efficientnet-lite0"
    layers: Annotated[tuple[str, ...], Doc("Its layers, from shallow to deep; none: its default layers")] = ()
    layer_weights: Annotated[tuple[float, ...], Doc("A weight for each layer; none: 1 for each")] = ()

    def __post_init__(self) -> None:
        require(self.weight > 0, "perceptual.weight", self.weight, "more than 0; or perceptual=none")
        count = len(frozen_network(self.features).check_layers(self.layers or None))
        require(len(self.layer_weights) in (0, count), "perceptual.layer_weights", len(self.layer_weights),
                f"{count}, one for each layer, or none")

    def compare(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        distances = torch.stack([F.l1_loss(a, b).float() for a, b in zip(found, wanted, strict=True)])
        return (distances * distances.new_tensor(self.layer_weights or [1.0] * len(found))).sum()


@register("perceptual", "lpips")
@dataclass(frozen=True, kw_only=True)
class LPIPSDistance(_FeatureLoss):
    """LPIPS v0.1, equation 1 of Zhang et al. 2018 (arXiv:1801.03924), in VGG16, as they advise for a loss.

    The weights of VGG16 are torchvision's: `i2i weights fetch vgg16`; the calibrated ones come with i2i.
    """

    weight: Weight = 1.0
    features: Annotated[Literal["vgg16"], Doc("Feature network that has calibrated weights")] = "vgg16"

    def __post_init__(self) -> None:
        require(self.weight > 0, "perceptual.weight", self.weight, "more than 0; or perceptual=none")
        frozen_network(self.features)

    def compare(self, found: list[Tensor], wanted: list[Tensor]) -> Tensor:
        layers = zip(found, wanted, _calibrated_weights(found[0].device), strict=True)
        return torch.stack([layer_distance(torch.cat([a, b]), lin).mean() for a, b, lin in layers]).sum()


@cache
def _calibrated_weights(device: torch.device) -> list[Tensor]:
    """Those of VGG16's default layers, (1, C, 1, 1) each."""
    weights = read_lins(find_weights("lpips-lin"))
    return [weights[f"vgg_lin{i}"].float().to(device) for i in range(len(LAYERS["vgg"]))]
