"""Images from noise: one algorithm, of which DCGAN, WGAN-GP, SNGAN, R3GAN, StyleGAN2 … are settings (presets.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.clock import Clock
from i2i.losses.penalties import penalised
from i2i.recipes.base import Batch, DataInfo, Player, Update, augmented, check_critics, grow, limit, observe, piece_of, twice
from i2i.spec import Spec, build, piece, register, require


@register("recipe", "gan")
@dataclass(frozen=True, kw_only=True)
class GAN:
    """Goodfellow et al. 2014, "Generative Adversarial Networks", arXiv:1406.2661, algorithm 1.  Mirza and Osindero 2014 where `conditional`."""

    generator: Spec = piece("synthesis", "dcgan")
    discriminator: Spec = piece("discriminator", "dcgan")
    latent: Spec = piece("latent", "normal")
    adversarial: Spec = piece("adversarial", "nonsaturating")
    penalty: Spec = piece("penalty", "none")
    g_penalty: Spec = piece("generator_penalty", "none")
    augment: Spec = piece("augment", "none")
    g_parametrisation: Spec = piece("parametrisation", "none")
    d_parametrisation: Spec = piece("parametrisation", "none")
    conditional: bool = False       # Both players are given the labels.
    d_steps: int = 1                # Updates of D for each update of G, each with images of its own.
    g_optimiser: Spec = piece("optimiser", "adam")
    d_optimiser: Spec = piece("optimiser", "adam")
    schedule: Spec = piece("schedule", "constant")

    dataset: ClassVar[str] = "images"
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {}
    averaged: ClassVar[tuple[str, ...]] = ("G", "Z")

    def __post_init__(self) -> None:
        require(self.d_steps >= 1, "d_steps", self.d_steps, "1 or more")

    @property
    def needs(self) -> tuple[str, ...]:
        """Images, and labels where they are used."""
        return ("b", "c") if self.conditional else ("b",)

    @property
    def players(self) -> Mapping[str, Player]:
        """D and G, each with its own optimiser; what is learnt of the prior belongs to G."""
        return {"D": Player(("D",), self.d_optimiser, self.schedule, limit(self.penalty)),
                "G": Player(("G", "Z"), self.g_optimiser, self.schedule)}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """D under a gradient penalty, G under path length."""
        return twice(self.penalty, "D") + (("G",) if build("generator_penalty", self.g_penalty).every else ())

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Z: noise -> z; G: z, c -> image; D: image, c -> logits; T: what D sees of an image; P: a regulariser of G."""
        classes = info.num_classes if self.conditional else 0
        G = build("synthesis", self.generator, info.b_channels, info.size, classes)
        D = build("discriminator", self.discriminator, info.b_channels, info.size, classes)
        P = build("generator_penalty", self.g_penalty)
        require(not P.every or hasattr(G, "synthesise"), "g_penalty", self.g_penalty.name,
                f"none, with the generator {self.generator.name}, which has no style space; or generator=stylegan2")
        check_critics(self.penalty, D)
        return nn.ModuleDict({
            "Z": build("latent", self.latent, G.z_dim),
            "G": build("parametrisation", self.g_parametrisation, G), "D": build("parametrisation", self.d_parametrisation, D),
            "T": augmented(self.augment, self.adversarial), "P": P})

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """D on real and generated images, then, where its turn has come, G on the same noise."""
        adversarial, penalty = build("adversarial", self.adversarial), build("penalty", self.penalty)
        grow(m, clock)
        real, c = batch["b"], batch["c"] if self.conditional else None
        Z, G, D, T = (piece_of(m, name) for name in "ZGDT")
        turn = clock.every(self.d_steps)                    # Of G.

        def critic(image: Tensor) -> Tensor:
            return D(*T(image), c)

        z = Z(torch.randn(len(real), Z.inputs, device=real.device))
        with torch.set_grad_enabled(turn):
            fake = G(z, c)                                  # Computed once, used by both players.
        fake_logits, real_logits = critic(fake.detach()), critic(real)
        d = adversarial.d(real_logits, fake_logits)
        update("D", d + penalised(penalty, clock.step, critic, real, fake), d=d, real_logits=real_logits.mean(), fake_logits=fake_logits.mean(),
               **T.logs())
        observe(T, adversarial, real_logits, clock)
        if turn:
            logits, more, logs = self.judged(m, fake, z, c)
            gan = adversarial.g(logits, critic(real) if adversarial.relativistic else None)
            update("G", gan + more + self._regularised(m, z, c, clock.step // self.d_steps), gan=gan, **logs)

    def judged(self, m: nn.ModuleDict, fake: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What D says of generated images, what else G minimises of what it sees in them, and that for the log.  -> logits, (), logs"""
        return m["D"](*piece_of(m, "T")(fake), c), z.new_zeros(()), {}

    def _regularised(self, m: nn.ModuleDict, z: Tensor, c: Tensor | None, turn: int) -> Tensor:
        """The regulariser of G in turns when it is due, times `every`; else 0."""
        G, P = piece_of(m, "G"), piece_of(m, "P")
        if not P.every or turn % P.every:
            return z.new_zeros(())
        few = slice(max(1, len(z) // P.shrink))
        return P.every * P(G.synthesise, G.styles(z[few].detach(), None if c is None else c[few]))

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}"""
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        return {"fake_b": m["G"](z, batch["c"] if self.conditional else None)}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> logits"""
        return m["D"](batch["b"], batch["c"] if self.conditional else None)
