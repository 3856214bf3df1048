"""CycleGAN: unpaired image-to-image translation, both ways at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.augment.base import Augment
from i2i.errors import require
from i2i.losses.penalties import Critic
from i2i.nets.image_pool import ImagePool
from i2i.nets.norms import has_dropout, uses_batch_statistics
from i2i.nets.packing import pack_images, pack_neighbors
from i2i.nets.virtual_batch_norm import get_reference_batch
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

UNSUPPORTED = {"feature_matching": "no image of one side belongs to one of the other, and its batches are "
                                   "too small for means",
       "unrolling": "its discriminators answer images of the past (pool), not those that G is judged by"}


@register("recipe", "cyclegan")
@dataclass(frozen=True, kw_only=True)
class CycleGAN(Stabilizers):
    """Zhu, Park, Isola, Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
    Networks", arXiv:1703.10593."""

    generator: Spec = component("generator", "resnet")
    discriminator: Spec = component("discriminator", "patch", norm="instance")
    adversarial: Spec = component("adversarial", "lsgan")
    augment: Spec = component("augment", "none")
    g_weight_norm: Spec = component("weight_norm", "none")
    d_weight_norm: Spec = component("weight_norm", "none")
    lambda_cycle_a: float = 10.0        # Of |G_ba(G_ab(a)) - a|.
    lambda_cycle_b: float = 10.0        # Of |G_ab(G_ba(b)) - b|.
    # Of |G_ba(a) - a| and |G_ab(b) - b|, as a share of the cycle's weight on the same side.
    lambda_identity: float = 0.5
    # Generated images of each side that the discriminators may be shown again; 0 shows new ones only.
    pool: int = 50
    g_optimizer: Spec = component("optimizer", "adam")
    d_optimizer: Spec = component("optimizer", "adam")
    schedule: Spec = component("schedule", "linear")

    dataset: ClassVar[str] = "unpaired"
    needs: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b", "fake_a": "a"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a", "fake_a": "b"}
    averaged: ClassVar[tuple[str, ...]] = ("G_ab", "G_ba")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("feature_matching", "unrolling"):
            require(getattr(self, key).name == "none", key, getattr(self, key).name,
                    "none with cyclegan: " + UNSUPPORTED[key])
        for key in ("lambda_cycle_a", "lambda_cycle_b", "lambda_identity", "pool"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")

    @property
    def players(self) -> Mapping[str, Player]:
        """Both generators together, both discriminators together."""
        return {"G": Player(("G_ab", "G_ba"), self.g_optimizer, self.schedule),
                "D": Player(("D_a", "D_b"), self.d_optimizer, self.schedule, clip_value(self.penalty))}

    @property
    def differentiated_twice(self) -> tuple[str, ...]:
        """Both discriminators under a gradient penalty."""
        return self.critics_twice("D_a", "D_b")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G_ab: a -> b, G_ba: b -> a; D_a and D_b judge images of one side, T_a and T_b are what they see of
        them; the pools hold generated ones."""
        a, b = info.a_channels, info.b_channels
        require(a == b or self.lambda_identity == 0, "lambda_identity", self.lambda_identity,
                f"0, where the sides differ in channels ({a} and {b}) and no image of one can be held "
                "against the other")

        def G(source: int, target: int) -> nn.Module:
            return build("weight_norm", self.g_weight_norm,
                         build("generator", self.generator, source, target, info.size))

        def D(channels: int) -> nn.Module:
            return build("weight_norm", self.d_weight_norm,
                         build("discriminator", self.discriminator, self.pack * channels, info.size))

        m = nn.ModuleDict({
            "G_ab": G(a, b), "G_ba": G(b, a), "D_a": D(a), "D_b": D(b),
            # Either D overfits by itself.
            "T_a": build_augment(self.augment, self.adversarial),
            "T_b": build_augment(self.augment, self.adversarial),
            "pool_a": ImagePool(self.pool, a, info.size), "pool_b": ImagePool(self.pool, b, info.size)})
        check_critics(self.penalty, m["D_a"], m["D_b"])
        require(get_reference_batch(m["D_a"]) is None, "discriminator.norm", "virtual",
                "instance, batch or none with cyclegan: G has the first turn, when its discriminators have "
                "nothing yet to compare with")
        self.add_remedies(m, self.players)
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Equations 1 to 3 and the identity term of section 5.2; generators first, then discriminators, as
        the reference implementation."""
        set_progress(m, progress)
        update, (d_turn, g_turn) = self.drawn(m, update, self.players), self.turns(progress)
        a, b = batch["a"], batch["b"]
        if g_turn:
            fake_a, fake_b = self._generators(m, a, b, update)
        else:
            with torch.no_grad():
                fake_a, fake_b = m["G_ba"](b), m["G_ab"](a)
        if d_turn:
            self._discriminators(m, {"b": (b, fake_b), "a": (a, fake_a)}, progress, update)

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
        update("G", loss, gan_a=gan_a, gan_b=gan_b, cycle_a=cycle_a, cycle_b=cycle_b, identity_a=identity_a,
               identity_b=identity_b)
        return fake_a.detach(), fake_b.detach()

    def _discriminators(self, m: nn.ModuleDict, sides: Mapping[str, tuple[Tensor, Tensor]],
                        progress: Progress, update: Update) -> None:
        adversarial = build("adversarial", self.adversarial)
        total = torch.zeros((), device=sides["a"][0].device)
        logs: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for side, (real, fresh) in sides.items():
            D, fake = critic(m, side, self.pack), m[f"pool_{side}"](fresh)
            real_logits, fake_logits = D(real), D(fake)
            d = adversarial.d(real_logits, fake_logits) / 2        # Section 4: slower than G.
            total = total + d + self.penalized(progress, D, real, fake) / 2
            logs |= {f"d_{side}": d, f"real_logits_{side}": real_logits.mean(),
                     f"fake_logits_{side}": fake_logits.mean()}
            logs |= {f"{key}_{side}": value for key, value in cast(Augment, m[f"T_{side}"]).logs().items()}
            seen[side] = real_logits
        update("D", total, **logs)
        for side, real_logits in seen.items():
            observe(cast(Augment, m[f"T_{side}"]), adversarial, real_logits, progress)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a", "b"} -> {"fake_b", "fake_a"}, or one of them"""
        networks = {"fake_b": m["G_ab"], "fake_a": m["G_ba"]}
        return {key: networks[key](batch[side]) for key, side in self.sources.items() if side in batch}

    def judge(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"} -> N1hw logits of D_b, of packs one for each image and those after it"""
        return m["D_b"](pack_neighbors(batch["b"], self.pack))


def critic(m: nn.ModuleDict, side: str, pack: int) -> Critic:
    """D of a side, of what T shows it, with noise, in packs."""
    D, T, N = m[f"D_{side}"], m[f"T_{side}"], m["N"]
    return lambda image: D(pack_images(N(*T(image)), pack))


def concat_if(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y) as one batch."""
    one, other = G(torch.cat([x, y])).chunk(2)
    return one, other


def split_batch(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y), one after the other."""
    return G(x), G(y)


def both(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y): as one batch, which is faster (bench/cyclegan.py), unless the images of a batch or the
    noise would then be others."""
    return split_batch(G, x, y) if uses_batch_statistics(G) or has_dropout(G) else concat_if(G, x, y)
