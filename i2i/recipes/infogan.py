"""InfoGAN: images from noise, part of which can be read back from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.clock import Clock
from i2i.losses.information import information
from i2i.losses.penalties import penalised
from i2i.nets.heads import QHead
from i2i.recipes.base import Batch, DataInfo, Player, Update, check_critics, limit, piece_of
from i2i.spec import Spec, build, piece, register, require


@register("recipe", "infogan")
@dataclass(frozen=True, kw_only=True)
class InfoGAN:
    """Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel 2016, "InfoGAN", arXiv:1606.03657."""

    generator: Spec = piece("synthesis", "dcgan")
    discriminator: Spec = piece("discriminator", "dcgan")
    latent: Spec = piece("latent", "codes")
    adversarial: Spec = piece("adversarial", "nonsaturating")
    penalty: Spec = piece("penalty", "none")
    lambda_info: float = 1.0        # Of the bound on the information that the image holds about its codes.
    g_optimiser: Spec = piece("optimiser", "adam", lr=1e-3)
    d_optimiser: Spec = piece("optimiser", "adam")
    schedule: Spec = piece("schedule", "constant")

    dataset: ClassVar[str] = "images"
    needs: ClassVar[tuple[str, ...]] = ("b",)
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {}
    averaged: ClassVar[tuple[str, ...]] = ("G", "Z")

    def __post_init__(self) -> None:
        require(self.lambda_info >= 0, "lambda_info", self.lambda_info, "0 or more")
        require(self.latent.name == "codes", "latent", self.latent.name, "codes, which InfoGAN is about")

    @property
    def players(self) -> Mapping[str, Player]:
        """D; and G with Q, which reads the codes from D's trunk.  Appendix C: the rates are 2e-4 and 1e-3."""
        return {"D": Player(("D",), self.d_optimiser, self.schedule, limit(self.penalty)),
                "G": Player(("G", "Z", "Q"), self.g_optimiser, self.schedule)}

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Z: noise -> z; G: z -> image; D: image -> logits; Q: D's trunk -> codes."""
        G = build("synthesis", self.generator, info.b_channels, info.size, 0)
        D = build("discriminator", self.discriminator, info.b_channels, info.size, 0)
        require(hasattr(D, "trunk"), "discriminator", self.discriminator.name, "dcgan or sagan, whose trunk Q can share")
        check_critics(self.penalty, D)
        Z = build("latent", self.latent, G.z_dim)
        return nn.ModuleDict({"Z": Z, "G": G, "D": D, "Q": QHead(D.feature_shape, Z.categories, Z.numbers)})

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """Equation 6: D as ever; G and Q together, less the bound L_I (equation 5)."""
        adversarial, penalty = build("adversarial", self.adversarial), build("penalty", self.penalty)
        real, D, Z = batch["b"], piece_of(m, "D"), piece_of(m, "Z")
        z = Z(torch.randn(len(real), Z.inputs, device=real.device))
        fake = m["G"](z)
        fake_logits, real_logits = D(fake.detach()), D(real)
        d = adversarial.d(real_logits, fake_logits)
        update("D", d + penalised(penalty, clock.step, D, real, fake), d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean())
        h = D.trunk(fake)
        gan = adversarial.g(D.head(h), D(real) if adversarial.relativistic else None)
        gained, logs = information(m["Q"](h), *Z.codes(z))
        update("G", gan - self.lambda_info * gained, gan=gan, **logs)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"} -> {"fake_b"}"""
        return {"fake_b": m["G"](batch["z"] if "z" in batch else m["Z"](batch["eps"]))}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"} -> logits"""
        return m["D"](batch["b"])
