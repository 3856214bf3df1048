"""Pix2pix: paired image-to-image translation with a conditional GAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.augment.base import Augment
from i2i.clock import Clock
from i2i.losses.penalties import penalised
from i2i.recipes.base import Batch, DataInfo, Player, Update, augmented, check_critics, limit, observe, twice
from i2i.spec import Spec, build, piece, register, require


@register("recipe", "pix2pix")
@dataclass(frozen=True, kw_only=True)
class Pix2Pix:
    """Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004."""

    generator: Spec = piece("generator", "unet")
    discriminator: Spec = piece("discriminator", "patch")
    adversarial: Spec = piece("adversarial", "nonsaturating")
    penalty: Spec = piece("penalty", "none")
    augment: Spec = piece("augment", "none")
    g_parametrisation: Spec = piece("parametrisation", "none")
    d_parametrisation: Spec = piece("parametrisation", "none")
    lambda_l1: float = 100.0
    g_optimiser: Spec = piece("optimiser", "adam")
    d_optimiser: Spec = piece("optimiser", "adam")
    schedule: Spec = piece("schedule", "linear")

    dataset: ClassVar[str] = "paired"
    needs: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}
    averaged: ClassVar[tuple[str, ...]] = ("G",)

    def __post_init__(self) -> None:
        require(self.lambda_l1 >= 0, "lambda_l1", self.lambda_l1, "0 or more")

    @property
    def players(self) -> Mapping[str, Player]:
        """D and G, each with its own optimiser."""
        return {"D": Player(("D",), self.d_optimiser, self.schedule, limit(self.penalty)), "G": Player(("G",), self.g_optimiser, self.schedule)}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """D under a gradient penalty."""
        return twice(self.penalty, "D")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: a -> b; D: the pair (a, b) -> logits; T: what D sees of the pair."""
        m = nn.ModuleDict({
            "G": build("parametrisation", self.g_parametrisation, build("generator", self.generator, info.a_channels, info.b_channels, info.size)),
            "D": build("parametrisation", self.d_parametrisation,
                       build("discriminator", self.discriminator, info.a_channels + info.b_channels, info.size)),
            "T": augmented(self.augment, self.adversarial)})
        check_critics(self.penalty, m["D"])
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """Equations 1 to 4; D's loss is halved (section 3.3), a penalty with it."""
        adversarial, penalty = build("adversarial", self.adversarial), build("penalty", self.penalty)
        a, b, T = batch["a"], batch["b"], cast(Augment, m["T"])
        fake = m["G"](a)                                    # Computed once, used by both players.

        def critic(image: Tensor) -> Tensor:
            return m["D"](torch.cat(T(a, image), 1))        # D sees the pair.

        fake_logits, real_logits = critic(fake.detach()), critic(b)
        d = adversarial.d(real_logits, fake_logits) / 2
        update("D", d + penalised(penalty, clock.step, critic, b, fake) / 2, d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean(),
               **T.logs())
        observe(T, adversarial, real_logits, clock)

        gan = adversarial.g(critic(fake), critic(b) if adversarial.relativistic else None)
        l1 = F.l1_loss(fake, b)
        update("G", gan + self.lambda_l1 * l1, gan=gan, l1=l1)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a"} -> {"fake_b"}"""
        return {"fake_b": m["G"](batch["a"])}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"a", "b"} -> N1hw logits"""
        return m["D"](torch.cat([batch["a"], batch["b"]], 1))
