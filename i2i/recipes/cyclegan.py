"""CycleGAN: unpaired image-to-image translation, both ways at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.augment.base import Augment
from i2i.clock import Clock
from i2i.losses.penalties import Critic
from i2i.nets.norms import draws, mixes_images
from i2i.nets.packing import packed, with_neighbours
from i2i.nets.pool import ImagePool
from i2i.nets.virtual import reference_of
from i2i.recipes.base import Batch, DataInfo, Player, Update, augmented, check_critics, grow, limit, observe
from i2i.recipes.remedies import Remedies
from i2i.spec import Spec, build, piece, register, require

NOT = {"matching": "no image of one side belongs to one of the other, and its batches are too small for means",
       "unrolling": "its discriminators answer images of the past (pool), not those that G is judged by"}


@register("recipe", "cyclegan")
@dataclass(frozen=True, kw_only=True)
class CycleGAN(Remedies):
    """Zhu, Park, Isola, Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", arXiv:1703.10593."""

    generator: Spec = piece("generator", "resnet")
    discriminator: Spec = piece("discriminator", "patch", norm="instance")
    adversarial: Spec = piece("adversarial", "lsgan")
    augment: Spec = piece("augment", "none")
    g_parametrisation: Spec = piece("parametrisation", "none")
    d_parametrisation: Spec = piece("parametrisation", "none")
    lambda_cycle_a: float = 10.0        # Of |G_ba(G_ab(a)) - a|.
    lambda_cycle_b: float = 10.0        # Of |G_ab(G_ba(b)) - b|.
    lambda_identity: float = 0.5        # Of |G_ba(a) - a| and |G_ab(b) - b|, as a share of the cycle's weight on the same side.
    pool: int = 50                      # Generated images of each side that the discriminators may be shown again; 0 shows new ones only.
    g_optimiser: Spec = piece("optimiser", "adam")
    d_optimiser: Spec = piece("optimiser", "adam")
    schedule: Spec = piece("schedule", "linear")

    dataset: ClassVar[str] = "unpaired"
    needs: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b", "fake_a": "a"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a", "fake_a": "b"}
    averaged: ClassVar[tuple[str, ...]] = ("G_ab", "G_ba")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("matching", "unrolling"):
            require(getattr(self, key).name == "none", key, getattr(self, key).name, "none with cyclegan: " + NOT[key])
        for key in ("lambda_cycle_a", "lambda_cycle_b", "lambda_identity", "pool"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")

    @property
    def players(self) -> Mapping[str, Player]:
        """Both generators together, both discriminators together."""
        return {"G": Player(("G_ab", "G_ba"), self.g_optimiser, self.schedule),
                "D": Player(("D_a", "D_b"), self.d_optimiser, self.schedule, limit(self.penalty))}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """Both discriminators under a gradient penalty."""
        return self.critics_twice("D_a", "D_b")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G_ab: a -> b, G_ba: b -> a; D_a and D_b judge images of one side, T_a and T_b are what they see of them; the pools
        hold generated ones."""
        a, b = info.a_channels, info.b_channels
        require(a == b or self.lambda_identity == 0, "lambda_identity", self.lambda_identity,
                f"0, where the sides differ in channels ({a} and {b}) and no image of one can be held against the other")

        def G(source: int, target: int) -> nn.Module:
            return build("parametrisation", self.g_parametrisation, build("generator", self.generator, source, target, info.size))

        def D(channels: int) -> nn.Module:
            return build("parametrisation", self.d_parametrisation, build("discriminator", self.discriminator, self.pack * channels, info.size))

        m = nn.ModuleDict({
            "G_ab": G(a, b), "G_ba": G(b, a), "D_a": D(a), "D_b": D(b),
            "T_a": augmented(self.augment, self.adversarial), "T_b": augmented(self.augment, self.adversarial),     # Either D overfits by itself.
            "pool_a": ImagePool(self.pool, a, info.size), "pool_b": ImagePool(self.pool, b, info.size)})
        check_critics(self.penalty, m["D_a"], m["D_b"])
        require(reference_of(m["D_a"]) is None, "discriminator.norm", "virtual",
                "instance, batch or none with cyclegan: G has the first turn, when its discriminators have nothing yet to compare with")
        self.add_remedies(m, self.players)
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, clock: Clock, update: Update) -> None:
        """Equations 1 to 3 and the identity term of section 5.2; generators first, then discriminators, as the reference implementation."""
        grow(m, clock)
        update, (d_turn, g_turn) = self.drawn(m, update, self.players), self.turns(clock)
        a, b = batch["a"], batch["b"]
        if g_turn:
            fake_a, fake_b = self._generators(m, a, b, update)
        else:
            with torch.no_grad():
                fake_a, fake_b = m["G_ba"](b), m["G_ab"](a)
        if d_turn:
            self._discriminators(m, {"b": (b, fake_b), "a": (a, fake_a)}, clock, update)

    def _generators(self, m: nn.ModuleDict, a: Tensor, b: Tensor, update: Update) -> tuple[Tensor, Tensor]:
        adversarial = build("adversarial", self.adversarial)
        with_identity = self.lambda_identity > 0
        fake_b, same_b = both(m["G_ab"], a, b) if with_identity else (m["G_ab"](a), b)
        fake_a, same_a = both(m["G_ba"], b, a) if with_identity else (m["G_ba"](b), a)
        critic_a, critic_b = (critic(m, side, self.pack) for side in "ab")
        gan_b = adversarial.g(critic_b(fake_b), critic_b(b) if adversarial.relativistic else None)
        gan_a = adversarial.g(critic_a(fake_a), critic_a(a) if adversarial.relativistic else None)
        cycle_a, cycle_b = F.l1_loss(m["G_ba"](fake_b), a), F.l1_loss(m["G_ab"](fake_a), b)
        identity_a, identity_b = F.l1_loss(same_a, a), F.l1_loss(same_b, b)
        loss = (gan_b + gan_a + self.lambda_cycle_a * (cycle_a + self.lambda_identity * identity_a)
                + self.lambda_cycle_b * (cycle_b + self.lambda_identity * identity_b))
        update("G", loss, gan_a=gan_a, gan_b=gan_b, cycle_a=cycle_a, cycle_b=cycle_b, identity_a=identity_a, identity_b=identity_b)
        return fake_a.detach(), fake_b.detach()

    def _discriminators(self, m: nn.ModuleDict, sides: Mapping[str, tuple[Tensor, Tensor]], clock: Clock, update: Update) -> None:
        adversarial = build("adversarial", self.adversarial)
        total = torch.zeros((), device=sides["a"][0].device)
        logs: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for side, (real, fresh) in sides.items():
            D, fake = critic(m, side, self.pack), m[f"pool_{side}"](fresh)
            real_logits, fake_logits = D(real), D(fake)
            d = adversarial.d(real_logits, fake_logits) / 2        # Section 4: slower than G.
            total = total + d + self.penalised(clock, D, real, fake) / 2
            logs |= {f"d_{side}": d, f"real_logits_{side}": real_logits.mean(), f"fake_logits_{side}": fake_logits.mean()}
            logs |= {f"{key}_{side}": value for key, value in cast(Augment, m[f"T_{side}"]).logs().items()}
            seen[side] = real_logits
        update("D", total, **logs)
        for side, real_logits in seen.items():
            observe(cast(Augment, m[f"T_{side}"]), adversarial, real_logits, clock)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a", "b"} -> {"fake_b", "fake_a"}, or one of them"""
        networks = {"fake_b": m["G_ab"], "fake_a": m["G_ba"]}
        return {key: networks[key](batch[side]) for key, side in self.sources.items() if side in batch}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"} -> N1hw logits of D_b, of packs one for each image and those after it"""
        return m["D_b"](with_neighbours(batch["b"], self.pack))


def critic(m: nn.ModuleDict, side: str, pack: int) -> Critic:
    """D of a side, of what T shows it, with noise, in packs."""
    D, T, N = m[f"D_{side}"], m[f"T_{side}"], m["N"]
    return lambda image: D(packed(N(*T(image)), pack))


def joined(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y) as one batch."""
    one, other = G(torch.cat([x, y])).chunk(2)
    return one, other


def apart(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y), one after the other."""
    return G(x), G(y)


def both(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y): as one batch, which is faster (bench/cyclegan.py), unless the images of a batch or the noise would then be others."""
    return apart(G, x, y) if mixes_images(G) or draws(G) else joined(G, x, y)
