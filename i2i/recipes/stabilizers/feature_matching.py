"""Feature matching: add the distance of D's features of real and generated images to G's adversarial loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import to_float32
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.registry import Spec, build, register


def match_features(spec: Spec, D: DiscriminatorView, real: Tensor, fake: Tensor,
                   gan: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Add the distance of features to G's adversarial loss `gan`.  -> loss `()`, values to log"""
    matching = build("feature_matching", spec)
    if not matching.weight:
        return gan, {}
    by_output = zip(D.features(real), D.features(fake), strict=True)
    distance = torch.stack([matching(*features) for features in by_output]).mean()
    return matching.gan * gan + matching.weight * distance, {"feature_matching": distance}


def check_feature_matching(spec: Spec, D: nn.Module, discriminator: Spec, *, paired: bool) -> None:
    """RequestError if D has no `features`, or images are to be matched one by one and are not `paired`."""
    matching = build("feature_matching", spec)
    require(not matching.weight or hasattr(D, "features"), "feature_matching", spec.name,
            f"none with discriminator={discriminator.name}, which does not expose its features; dcgan, mlp, "
            "multiscale, sagan and patch do")
    require(paired or not matching.paired, "feature_matching", spec.name,
            "means, or none: generated images have no real counterpart here, so only means can be matched")


@register("feature_matching", "none")
class NoFeatureMatching:
    """G learns from D's logits alone."""

    weight: ClassVar[float] = 0.0
    paired: ClassVar[bool] = False


Weight = Annotated[float, Doc("Weight of the distance of features")]
AdversarialWeight = Annotated[float, Doc("Weight of the adversarial loss")]


@dataclass(frozen=True, kw_only=True)
class _Weighted:
    weight: Weight
    gan: AdversarialWeight

    def __post_init__(self) -> None:
        require(self.weight > 0, "feature_matching.weight", self.weight,
                "more than 0; or feature_matching=none")
        require(self.gan >= 0, "feature_matching.gan", self.gan, "0 or more")


@register("feature_matching", "means")
@dataclass(frozen=True, kw_only=True)
class BatchMeans(_Weighted):
    """weight * |E f(x) - E f(G(z))|^2 / dim f, f the last features of D, the means over the batch.  Salimans
    et al. 2016, section 3.1, where it replaces G's own loss (gan=0); the division by the number of features
    makes the weight independent of the network.  Costs a pass of D over real images in G's update."""

    weight: Weight = 1.0
    gan: AdversarialWeight = 0.0
    paired: ClassVar[bool] = False

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        return F.mse_loss(to_float32(fake[-1]).mean(0), to_float32(real[-1].detach()).mean(0))


@register("feature_matching", "layers")
@dataclass(frozen=True, kw_only=True)
class Layers(_Weighted):
    """weight * sum over layers of |D_i(a, b) - D_i(a, G(a))|_1 / N_i, N_i the number of features of layer i.
    Wang et al. 2018 (pix2pixHD, arXiv:1711.11585), equation 5; the mean over the scales of discriminator=
    multiscale.  Costs a pass of D over real images."""

    weight: Weight = 10.0
    gan: AdversarialWeight = 1.0
    paired: ClassVar[bool] = True       # Image i of one batch is compared with image i of the other.

    def __call__(self, real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.l1_loss(f, r.detach()).float() for f, r in zip(fake, real, strict=True)]).sum()
