"""InfoGAN: images from noise, part of which can be read back from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.losses.mutual_information import mutual_information_bound
from i2i.nets.trunk_discriminator import QHead
from i2i.recipes.base import Player, get_module
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.gan import GAN, Latent
from i2i.recipes.stabilizers import GOptimizer
from i2i.recipes.stabilizers.gradient_penalty import clip_value
from i2i.registry import component, register


@register("recipe", "infogan")
@dataclass(frozen=True, kw_only=True)
class InfoGAN(GAN):
    """Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel 2016, "InfoGAN", arXiv:1606.03657.

    Equation 6: D as in any GAN; G and Q together, minus the lower bound L_I (equation 5) on the mutual
    information of the image and its codes.
    """

    latent: Latent = component("latent", "codes")
    lambda_info: Annotated[float, Doc("Weight of the mutual information of an image and its codes")] = 1.0
    g_optimizer: GOptimizer = component("optimizer", "adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_info >= 0, "lambda_info", self.lambda_info, "0 or more")
        require(self.pack == 1, "pack", self.pack,
                "1: Q reads the codes of one image from D's trunk, which would see a whole pack")
        require(self.latent.name == "codes", "latent", self.latent.name, "codes, which InfoGAN is about")

    @property
    def players(self) -> Mapping[str, Player]:
        """Q learns with G.  Appendix C: the learning rates are 2e-4 (D) and 1e-3 (G)."""
        return {"D": Player(("D",), self.d_optimizer, self.schedule, clip_value(self.penalty)),
                "G": Player(("G", "Z", "Q"), self.g_optimizer, self.schedule)}

    def heads(self, m: nn.ModuleDict) -> dict[str, nn.Module]:
        """Q: D's trunk -> codes."""
        D, Z = get_module(m, "D"), get_module(m, "Z")
        require(hasattr(D, "trunk"), "discriminator", self.discriminator.name,
                "dcgan or sagan, whose trunk Q can share")
        return {"Q": QHead(D.feature_shape, Z.categorical, Z.continuous)}

    def discriminate_with_codes(self, m: nn.ModuleDict, D: DiscriminatorView, fake: Tensor,
                                z: Tensor) -> tuple[Tensor, Tensor | float, dict[str, Tensor]]:
        """D and Q share one pass through the trunk."""
        x, c = D.inputs(fake)
        h = D.call("trunk", x, c)
        bound, logs = mutual_information_bound(m["Q"](h), *get_module(m, "Z").codes(z))
        return D.call("head", h, c), -self.lambda_info * bound, logs
