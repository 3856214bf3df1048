"""CycleGAN: unpaired image-to-image translation in both directions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.augment.base import Augment
from i2i.errors import require
from i2i.losses.perceptual import check_perceptual, perceptual_term
from i2i.nets.image_pool import ImagePool
from i2i.nets.joined_images import JoinedChannels
from i2i.nets.norms import has_dropout, uses_batch_statistics
from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.recipes.base import Batch, DataInfo, Family, Player, Update, set_progress
from i2i.recipes.discriminator_outputs import Logits, average_logits, build_adversarial
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.stabilizers import AdversarialLoss, DOptimizer, GOptimizer, Schedule, StabilizerSettings
from i2i.recipes.stabilizers.augmentation import adapt_augment, build_augment
from i2i.recipes.stabilizers.gradient_penalty import check_penalty, clip_value, penalty_term
from i2i.recipes.stabilizers.historical_averaging import historical_averages, with_historical_averaging
from i2i.recipes.stabilizers.packing import pack_images, pack_neighbors
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress

UNSUPPORTED = {
    "feature_matching": "images of the two sides do not correspond, and batches are too small for means",
    "unrolling": "its discriminators learn from a pool of earlier images, not from those G is updated on"}


@register("recipe", "cyclegan")
@dataclass(frozen=True, kw_only=True)
class CycleGAN(StabilizerSettings):
    """Zhu et al. 2017, arXiv:1703.10593: unpaired translation with a cycle-consistency loss."""

    generator: Annotated[Spec, Doc("Network of each direction")] = component("generator", "resnet")
    discriminator: Annotated[Spec, Doc("Network that judges the images of a side")] = component(
        "discriminator", "patch", norm="instance")
    adversarial: AdversarialLoss = component("adversarial", "lsgan")
    lambda_cycle_a: Annotated[float, Doc("Weight of |G_ba(G_ab(a)) - a|")] = 10.0
    lambda_cycle_b: Annotated[float, Doc("Weight of |G_ab(G_ba(b)) - b|")] = 10.0
    lambda_identity: Annotated[float, Doc(
        "Weight of |G_ba(a) - a| and |G_ab(b) - b|, relative to the cycle's")] = 0.5
    perceptual: Annotated[Spec, Doc(
        "Distance of G_ab(a) and a, and of G_ba(b) and b, in a feature network, in G's loss: what keeps the "
        "contents of images")] = component("perceptual", "none")
    pool: Annotated[int, Doc("Earlier generated images of each side that D may see again; 0: none")] = 50
    g_optimizer: GOptimizer = component("optimizer", "adam")
    d_optimizer: DOptimizer = component("optimizer", "adam")
    schedule: Schedule = component("schedule", "linear")

    family: ClassVar[Family] = Family("GAN", inversion="approximate")
    dataset: ClassVar[str] = "unpaired"
    required_keys: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b", "fake_a": "a"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a", "fake_a": "b"}
    ema_modules: ClassVar[tuple[str, ...]] = ("G_ab", "G_ba")

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, reason in UNSUPPORTED.items():
            require(getattr(self, key).name == "none", key, getattr(self, key).name,
                    f"none with cyclegan: {reason}")
        for key in ("lambda_cycle_a", "lambda_cycle_b", "lambda_identity", "pool"):
            require(getattr(self, key) >= 0, key, getattr(self, key), "0 or more")

    def data_defaults(self, info: DataInfo) -> dict[str, tuple[Any, str]]:
        """No identity loss where images of the two sides cannot be compared."""
        a, b = info.a_channels, info.b_channels
        return {} if a == b else {"lambda_identity": (0.0, f"the sides differ in channels, {a} and {b}")}

    @property
    def players(self) -> Mapping[str, Player]:
        return {"G": Player(("G_ab", "G_ba"), self.g_optimizer, self.schedule),
                "D": Player(("D_a", "D_b"), self.d_optimizer, self.schedule, clip_value(self.penalty))}

    @property
    def second_order_modules(self) -> tuple[str, ...]:
        return ("D_a", "D_b") if self.needs_second_derivatives else ()

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G_ab: a -> b; G_ba: b -> a; for each side D: image -> patch logits, T: augmentation and a pool of
        generated images; N: instance noise; H_D, H_G: historical averages."""
        a, b = info.a_channels, info.b_channels
        require(a == b or self.lambda_identity == 0, "lambda_identity", self.lambda_identity,
                f"0 where the sides differ in channels ({a} and {b}) and their images cannot be compared")
        check_perceptual(self.perceptual, a, b)

        def G(source: int, target: int) -> nn.Module:
            return build("weight_norm", self.g_weight_norm,
                         build("generator", self.generator, source, target, info.size), key="g_weight_norm")

        def D(channels: int) -> nn.Module:
            return build("weight_norm", self.d_weight_norm,
                         build("discriminator", self.discriminator, JoinedChannels(channels, pack=self.pack),
                               info.size), key="d_weight_norm")

        def T(channels: int) -> Augment:        # One for each side, as each D overfits by itself.
            return build_augment(self.augment, self.adversarial, (channels,), info.size,
                                 twice=self.needs_second_derivatives)

        m = nn.ModuleDict({
            "G_ab": G(a, b), "G_ba": G(b, a), "D_a": D(a), "D_b": D(b),
            "T_a": T(a), "T_b": T(b),
            "pool_a": ImagePool(self.pool, a, info.size), "pool_b": ImagePool(self.pool, b, info.size),
            "N": build("instance_noise", self.instance_noise)})
        check_penalty(self.penalty, m["D_a"], m["D_b"])
        require(get_reference_batch(m["D_a"]) is None, "discriminator.norm", "virtual",
                "instance, batch or none with cyclegan: G is updated before D has a reference batch")
        m.update(historical_averages(m, self.players, self.lambda_history))
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Equations 1 to 3 and the identity loss of section 5.2; generators first, as the reference code."""
        adversarial = build_adversarial(self.adversarial)
        update = with_historical_averaging(update, m, self.players, self.lambda_history)
        set_progress(m, progress)
        d_turn, g_turn = self.updated_players(progress)
        a, b, G_ab, G_ba = batch["a"], batch["b"], m["G_ab"], m["G_ba"]
        with torch.set_grad_enabled(g_turn):
            identity = g_turn and self.lambda_identity > 0
            fake_b, same_b = translate_both(G_ab, a, b) if identity else (G_ab(a), b)
            fake_a, same_a = translate_both(G_ba, b, a) if identity else (G_ba(b), a)
        if g_turn:
            D_a, D_b = self.view(m, "a"), self.view(m, "b")
            gan_b = adversarial.g(D_b(fake_b), D_b(b) if adversarial.relativistic else None)
            gan_a = adversarial.g(D_a(fake_a), D_a(a) if adversarial.relativistic else None)
            cycle_a, cycle_b = F.l1_loss(G_ba(fake_b), a), F.l1_loss(G_ab(fake_a), b)
            identity_a, identity_b = F.l1_loss(same_a, a), F.l1_loss(same_b, b)
            loss = (gan_b + gan_a + self.lambda_cycle_a * (cycle_a + self.lambda_identity * identity_a)
                    + self.lambda_cycle_b * (cycle_b + self.lambda_identity * identity_b))
            perceptual, perceptual_logs = perceptual_term(self.perceptual, (fake_b, a), (fake_a, b))
            update("G", loss + perceptual, gan_a=gan_a, gan_b=gan_b, cycle_a=cycle_a, cycle_b=cycle_b,
                   identity_a=identity_a, identity_b=identity_b, **perceptual_logs)
        if d_turn:
            loss_b, logits_b, logs_b = self.discriminator_loss(m, "b", b, fake_b, progress)
            loss_a, logits_a, logs_a = self.discriminator_loss(m, "a", a, fake_a, progress)
            update("D", loss_b + loss_a, **logs_b, **logs_a)
            for side, real_logits in (("b", logits_b), ("a", logits_a)):
                adapt_augment(cast(Augment, m[f"T_{side}"]), adversarial, real_logits, progress)

    def view(self, m: nn.ModuleDict, side: str) -> DiscriminatorView:
        """D of a side, of images augmented, with noise, in packs."""
        T, N = m[f"T_{side}"], m["N"]
        return DiscriminatorView(m[f"D_{side}"], lambda image: (pack_images(N(*T(image)), self.pack),))

    def discriminator_loss(self, m: nn.ModuleDict, side: str, real: Tensor, fresh: Tensor,
                           progress: Progress) -> tuple[Tensor, Logits, dict[str, Tensor]]:
        """Equation 1, halved (section 4).  -> loss `()`, logits of real images, values to log"""
        D, fake = self.view(m, side), m[f"pool_{side}"](fresh)
        (real_logits, own_losses), fake_logits = D.self_supervise(real), D(fake)
        d = build_adversarial(self.adversarial).d(real_logits, fake_logits) / 2
        penalty = penalty_term(self.penalty, progress.step // self.g_steps, D, real, fake, self.pack) / 2
        logs = {"d": d, "real_logits": average_logits(real_logits).mean(),
                "fake_logits": average_logits(fake_logits).mean(), **own_losses,
                **cast(Augment, m[f"T_{side}"]).logs()}
        loss = d + penalty + sum(own_losses.values())
        return loss, real_logits, {f"{key}_{side}": value for key, value in logs.items()}

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a", "b"} -> {"fake_b", "fake_a"}; one side alone gives one of them."""
        networks = {"fake_b": m["G_ab"], "fake_a": m["G_ba"]}
        return {key: networks[key](batch[side]) for key, side in self.sources.items() if side in batch}

    def discriminate(self, m: nn.ModuleDict, batch: Batch) -> Logits:
        """{"b"} -> patch logits of D_b `(N, 1, h, w)`; with packing, of one pack for each image."""
        return m["D_b"](pack_neighbors(batch["b"], self.pack))


def translate_both(G: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """G(x) and G(y): in one batch, which is faster, unless batch statistics or dropout would change them."""
    if uses_batch_statistics(G) or has_dropout(G):
        return G(x), G(y)
    of_x, of_y = G(torch.cat([x, y])).chunk(2)
    return of_x, of_y
