"""Images from noise: one algorithm, of which DCGAN, WGAN-GP, SNGAN, R3GAN, StyleGAN2 … are settings
(presets.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.class_conditioning import LabelChannel
from i2i.nets.packing import pack_images, pack_neighbors
from i2i.nets.priors import LatentPrior
from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.recipes.base import (
    Batch,
    DataInfo,
    Player,
    Update,
    build_augment,
    check_critics,
    clip_value,
    get_module,
    observe,
    set_progress,
)
from i2i.recipes.stabilizers import Stabilizers
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress


@register("recipe", "gan")
@dataclass(frozen=True, kw_only=True)
class GAN(Stabilizers):
    """Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv:1406.2661, algorithm 1.  Mirza and
    Osindero 2014 where `conditional`."""

    generator: Spec = component("noise_generator", "dcgan")
    discriminator: Spec = component("discriminator", "dcgan")
    latent: Spec = component("latent", "normal")
    adversarial: Spec = component("adversarial", "nonsaturating")
    g_penalty: Spec = component("generator_penalty", "none")
    augment: Spec = component("augment", "none")
    g_weight_norm: Spec = component("weight_norm", "none")
    d_weight_norm: Spec = component("weight_norm", "none")
    conditional: bool = False       # Both players are given the labels.
    g_optimizer: Spec = component("optimizer", "adam")
    d_optimizer: Spec = component("optimizer", "adam")
    schedule: Spec = component("schedule", "constant")

    dataset: ClassVar[str] = "images"
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {}
    averaged: ClassVar[tuple[str, ...]] = ("G", "Z")

    @property
    def needs(self) -> tuple[str, ...]:
        """Images, and labels where they are used."""
        return ("b", "c") if self.conditional else ("b",)

    @property
    def players(self) -> Mapping[str, Player]:
        """D and G, each with its own optimizer; what is learned of the prior belongs to G, what brings labels
        into packs to D."""
        return {"D": Player(("D", "L") if self.labeled else ("D",), self.d_optimizer, self.schedule,
                            clip_value(self.penalty)),
                "G": Player(("G", "Z"), self.g_optimizer, self.schedule)}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """D under a gradient penalty or ahead of its time, G under path length."""
        return self.critics_twice("D") + (("G",) if build("generator_penalty", self.g_penalty).every else ())

    @property
    def labeled(self) -> bool:
        """Whether each image of a pack carries its label as one more channel (Mirza and Osindero 2014), since
        D has no way in for several."""
        return self.conditional and self.pack > 1

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Z: noise -> z; G: z, c -> image; D: image, c -> logits; T: what D sees of an image; P: a
        regularizer of G; the remedies' own."""
        classes = info.num_classes if self.conditional else 0
        G = build("noise_generator", self.generator, info.b_channels, info.size, classes)
        D = build("discriminator", self.discriminator, self.pack * (info.b_channels + self.labeled),
                  info.size, 0 if self.labeled else classes)
        P = build("generator_penalty", self.g_penalty)
        require(not P.every or hasattr(G, "synthesize"), "g_penalty", self.g_penalty.name,
                f"none, with the generator {self.generator.name}, which has no style space; or "
                "generator=stylegan2")
        check_critics(self.penalty, D)
        self.check_matching(D, self.discriminator.name, pairs=False)
        Z = build("latent", self.latent, G.z_dim)
        if (compared := get_reference_batch(G)) is not None:
            compared.initialize(Z(torch.randn(compared.count, Z.noise_dim)))
        m = nn.ModuleDict({
            "Z": Z,
            "G": build("weight_norm", self.g_weight_norm, G),
            "D": build("weight_norm", self.d_weight_norm, D),
            "T": build_augment(self.augment, self.adversarial), "P": P})
        if self.labeled:
            m["L"] = LabelChannel(classes, info.size)
        m.update(self.heads(m))
        self.add_remedies(m, self.players)
        return m

    def heads(self, m: nn.ModuleDict) -> dict[str, nn.Module]:
        """What else reads D's features."""
        return {}

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """D on real and generated images, then G on the same noise, each where its turn has come."""
        adversarial, update = build("adversarial", self.adversarial), self.drawn(m, update, self.players)
        set_progress(m, progress)
        real, c = batch["b"], batch["c"] if self.conditional else None
        Z, G, D, T = (get_module(m, name) for name in "ZGDT")
        d_turn, g_turn = self.turns(progress)

        def critic(D: Any, image: Tensor) -> Tensor:
            return D(*self.shown(m, image, c))

        self.compare(D, lambda: self.shown(m, real, c))
        z = Z(torch.randn(len(real), Z.noise_dim, device=real.device))
        with torch.set_grad_enabled(g_turn):
            fake = G(z, c)                                  # Computed once, used by both players.
        if d_turn:
            fake_logits, real_logits = critic(D, fake.detach()), critic(D, real)
            d = adversarial.d(real_logits, fake_logits)
            penalty = self.penalized(progress, partial(critic, D), real, fake)
            update("D", d + penalty, d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean(),
                   **T.logs())
            observe(T, adversarial, real_logits, progress)
        if g_turn:
            D = self.ahead(m, adversarial, critic, real, fake)
            logits, more, logs = self.judged(m, D, fake, z, c)
            gan = adversarial.g(logits, critic(D, real) if adversarial.relativistic else None)
            loss, matched = self.matched(D, lambda image: self.shown(m, image, c), real, fake, gan)
            update("G", loss + more + self._regularized(m, z, c, progress.step // self.d_steps), gan=gan,
                   **matched, **logs)

    def shown(self, m: nn.ModuleDict, image: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What D is given of images: varied, with noise, in packs.  NCHW, N -> NCHW, N or None"""
        x, = get_module(m, "T")(image)
        x = m["N"](x)
        return (pack_images(torch.cat([x, m["L"](c).to(x.dtype)], 1), self.pack),
                None) if self.labeled else (pack_images(x, self.pack), c)

    def judged(self, m: nn.ModuleDict, D: Any, fake: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor,
                                                                                                   Tensor,
                                                                                                   dict[str,
                                                                                                        Tensor]]:
        """What D says of generated images, what else G minimizes of what it sees in them, and that for the
        log.  -> logits, (), logs"""
        return D(*self.shown(m, fake, c)), z.new_zeros(()), {}

    def _regularized(self, m: nn.ModuleDict, z: Tensor, c: Tensor | None, turn: int) -> Tensor | float:
        """The cost of the prior, and the regularizer of G in turns when it is due, times `every`."""
        G, P, prior = get_module(m, "G"), get_module(m, "P"), cast(LatentPrior, m["Z"]).regularization()
        if not P.every or turn % P.every:
            return prior
        few = slice(max(1, len(z) // P.shrink))
        return prior + P.every * P(G.synthesize, G.styles(z[few].detach(), None if c is None else c[few]))

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}"""
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        return {"fake_b": m["G"](z, batch["c"] if self.conditional else None)}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> logits, of packs one for each image and those after it"""
        x, c = batch["b"], batch["c"] if self.conditional else None
        if self.labeled:
            x, c = torch.cat([x, m["L"](c)], 1), None
        return m["D"](pack_neighbors(x, self.pack), c)
