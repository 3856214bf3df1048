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
from i2i.errors import require
from i2i.nets.packing import pack_images, pack_neighbors
from i2i.recipes.base import (
    Batch,
    DataInfo,
    Player,
    Update,
    build_augment,
    check_critics,
    clip_value,
    observe,
    set_progress,
)
from i2i.recipes.stabilizers import Stabilizers
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress


@register("recipe", "pix2pix")
@dataclass(frozen=True, kw_only=True)
class Pix2Pix(Stabilizers):
    """Isola, Zhu, Zhou, Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
    arXiv:1611.07004."""

    generator: Spec = component("generator", "unet")
    discriminator: Spec = component("discriminator", "patch")
    adversarial: Spec = component("adversarial", "nonsaturating")
    augment: Spec = component("augment", "none")
    g_weight_norm: Spec = component("weight_norm", "none")
    d_weight_norm: Spec = component("weight_norm", "none")
    lambda_l1: float = 100.0        # Of |G(a) - b|.
    g_optimizer: Spec = component("optimizer", "adam")
    d_optimizer: Spec = component("optimizer", "adam")
    schedule: Spec = component("schedule", "linear")

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
        """D and G, each with its own optimizer."""
        return {"D": Player(("D",), self.d_optimizer, self.schedule, clip_value(self.penalty)),
                "G": Player(("G",), self.g_optimizer, self.schedule)}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """D under a gradient penalty or ahead of its time."""
        return self.critics_twice("D")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: a -> b; D: the pair (a, b) -> logits; T: what D sees of the pair; the remedies' own."""
        m = nn.ModuleDict({
            "G": build("weight_norm", self.g_weight_norm,
                       build("generator", self.generator, info.a_channels, info.b_channels, info.size)),
            "D": build("weight_norm", self.d_weight_norm,
                       build("discriminator", self.discriminator,
                             self.pack * (info.a_channels + info.b_channels), info.size)),
            "T": build_augment(self.augment, self.adversarial)})
        check_critics(self.penalty, m["D"])
        self.check_matching(m["D"], self.discriminator.name, pairs=True)
        self.add_remedies(m, self.players)
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Equations 1 to 4; D's loss is halved (section 3.3), a penalty with it."""
        adversarial, update = build("adversarial", self.adversarial), self.drawn(m, update, self.players)
        set_progress(m, progress)
        a, b, D, T = batch["a"], batch["b"], m["D"], cast(Augment, m["T"])
        d_turn, g_turn = self.turns(progress)
        with torch.set_grad_enabled(g_turn):
            fake = m["G"](a)                                # Computed once, used by both players.

        def shown(image: Tensor) -> tuple[Tensor]:
            source, image = T(a, image)
            return (pack_images(torch.cat([source, m["N"](image)], 1), self.pack),)      # D sees the pair.

        def critic(D: Any, image: Tensor) -> Tensor:
            return D(*shown(image))

        self.compare(D, lambda: shown(b))
        if d_turn:
            fake_logits, real_logits = critic(D, fake.detach()), critic(D, b)
            d = adversarial.d(real_logits, fake_logits) / 2
            penalty = self.penalized(progress, partial(critic, D), b, fake) / 2
            update("D", d + penalty, d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean(),
                   **T.logs())
            observe(T, adversarial, real_logits, progress)
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
        return m["D"](pack_neighbors(torch.cat([batch["a"], batch["b"]], 1), self.pack))
