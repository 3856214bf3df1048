"""InfoGAN: images from noise, part of which can be read back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from i2i.errors import require
from i2i.losses.mutual_information import mutual_information_bound
from i2i.nets.q_head import QHead
from i2i.recipes.base import Player, clip_value, get_module
from i2i.recipes.gan import GAN
from i2i.registry import Spec, component, register


@register("recipe", "infogan")
@dataclass(frozen=True, kw_only=True)
class InfoGAN(GAN):
    """Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel 2016, "InfoGAN", arXiv:1606.03657.

    Equation 6: D as in any GAN; G and Q together, less the bound L_I (equation 5) on what the image tells of
    its codes.
    """

    latent: Spec = component("latent", "codes")
    lambda_info: float = 1.0        # Of the bound on the information that the image holds about its codes.
    g_optimizer: Spec = component("optimizer", "adam", lr=1e-3)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_info >= 0, "lambda_info", self.lambda_info, "0 or more")
        require(self.pack == 1, "pack", self.pack,
                "1: Q reads the codes of an image from D's trunk, which sees the images of a pack as one")
        require(self.latent.name == "codes", "latent", self.latent.name, "codes, which InfoGAN is about")

    @property
    def players(self) -> Mapping[str, Player]:
        """D; and G with Q, which reads the codes from D's trunk.  Appendix C: the rates are 2e-4 and 1e-3."""
        return {"D": Player(("D",), self.d_optimizer, self.schedule, clip_value(self.penalty)),
                "G": Player(("G", "Z", "Q"), self.g_optimizer, self.schedule)}

    def heads(self, m: nn.ModuleDict) -> dict[str, nn.Module]:
        """Q: D's trunk -> codes."""
        D, Z = get_module(m, "D"), get_module(m, "Z")
        require(hasattr(D, "trunk"), "discriminator", self.discriminator.name,
                "dcgan or sagan, whose trunk Q can share")
        return {"Q": QHead(D.feature_shape, Z.categorical, Z.continuous)}

    def judged(self, m: nn.ModuleDict, D: Any, fake: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor,
                                                                                                   Tensor,
                                                                                                   dict[str,
                                                                                                        Tensor]]:
        """Q reads the images as D sees them, from the same pass through the trunk that they share."""
        Z = get_module(m, "Z")
        x, c = self.shown(m, fake, c)
        h = D.trunk(x, c)
        gained, logs = mutual_information_bound(m["Q"](h), *Z.codes(z))
        return D.head(h, c), -self.lambda_info * gained, logs
