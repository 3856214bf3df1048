"""Pix2pix: paired image-to-image translation with a conditional GAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.augment.base import Augment
from i2i.clock import Clock
from i2i.nets.packing import packed, with_neighbours
from i2i.recipes.base import Batch, DataInfo, Player, Update, augmented, check_critics, grow, limit, observe
from i2i.recipes.remedies import Remedies
from i2i.spec import Spec, build, piece, register, require


@register("recipe", "pix2pix")
@dataclass(frozen=True, kw_only=True)
class Pix2Pix(Remedies):
    """Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks", arXiv:1611.07004."""

    generator: Spec = piece("generator", "unet")
    discriminator: Spec = piece("discriminator", "patch")
    adversarial: Spec = piece("adversarial", "nonsaturating")
    augment: Spec = piece("augment", "none")
    g_parametrisation: Spec = piece("parametrisation", "none")
    d_parametrisation: Spec = piece("parametrisation", "none")
    lambda_l1: float = 100.0        # Of |G(a) - b|.
    g_optimiser: Spec = piece("optimiser", "adam")
    d_optimiser: Spec = piece("optimiser", "adam")
    schedule: Spec = piece("schedule", "linear")

    dataset: ClassVar[str] = "paired"
    needs: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}
    averaged: ClassVar[tuple[str, ...]] = ("G",)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_l1 >= 0, "lambda_l1", self.lambda_l1, "0 or more")

    @property
    def players(self) -> Mapping[str, Player]:
        """D and G, each with its own optimiser."""
        return {"D": Player(("D",), self.d_optimiser, self.schedule, limit(self.penalty)), "G": Player(("G",), self.g_optimiser, self.schedule)}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """D under a gradient penalty or ahead of its time."""
        return self.critics_twice("D")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: a -> b; D: the pair (a, b) -> logits; T: what D sees of the pair; the remedies' own."""
        m = nn.ModuleDict({
            "G": build("parametrisation", self.g_parametrisation, build("generator", self.generator, info.a_channels, info.b_channels, info.size)),
            "D": build("parametrisation", self.d_parametrisation,
                       build("discriminator", self.discriminator, self.pack * (info.a_channels + info.b_channels), info.size)),
            "T": augmented(self.augment, self.adversarial)})
        check_critics(self.penalty, m["D"])
        self.check_matching(m["D"], self.discriminator.name, pairs=True)
        self.add_remedies(m, self.players)
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """Equations 1 to 4; D's loss is halved (section 3.3), a penalty with it."""
        adversarial, update = build("adversarial", self.adversarial), self.drawn(m, update, self.players)
        grow(m, clock)
        a, b, D, T = batch["a"], batch["b"], m["D"], cast(Augment, m["T"])
        d_turn, g_turn = self.turns(clock)
        with torch.set_grad_enabled(g_turn):
            fake = m["G"](a)                                # Computed once, used by both players.

        def shown(image: Tensor) -> tuple[Tensor]:
            source, image = T(a, image)
            return (packed(torch.cat([source, m["N"](image)], 1), self.pack),)      # D sees the pair.

        def critic(D: Any, image: Tensor) -> Tensor:
            return D(*shown(image))

        self.compare(D, lambda: shown(b))
        if d_turn:
            fake_logits, real_logits = critic(D, fake.detach()), critic(D, b)
            d = adversarial.d(real_logits, fake_logits) / 2
            penalty = self.penalised(clock, partial(critic, D), b, fake) / 2
            update("D", d + penalty, d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean(), **T.logs())
            observe(T, adversarial, real_logits, clock)
        if g_turn:
            D = self.ahead(m, adversarial, critic, b, fake)
            gan = adversarial.g(critic(D, fake), critic(D, b) if adversarial.relativistic else None)
            loss, matched = self.matched(D, shown, b, fake, gan)
            l1 = F.l1_loss(fake, b)
            update("G", loss + self.lambda_l1 * l1, gan=gan, l1=l1, **matched)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a"} -> {"fake_b"}"""
        return {"fake_b": m["G"](batch["a"])}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"a", "b"} -> N1hw logits, of packs one for each pair and those after it"""
        return m["D"](with_neighbours(torch.cat([batch["a"], batch["b"]], 1), self.pack))
