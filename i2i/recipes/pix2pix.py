"""Pix2pix: paired image-to-image translation with a conditional GAN."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.augment.base import Augment
from i2i.errors import require
from i2i.losses.perceptual import perceptual_term
from i2i.nets.joined_images import JoinedChannels
from i2i.nets.label_maps import SourceEncoder
from i2i.recipes.base import Batch, DataInfo, Family, Player, Update, set_progress
from i2i.recipes.discriminator_outputs import Logits, average_logits, build_adversarial
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.stabilizers import AdversarialLoss, DOptimizer, GOptimizer, Schedule, StabilizerSettings
from i2i.recipes.stabilizers.augmentation import adapt_augment, build_augment
from i2i.recipes.stabilizers.feature_matching import check_feature_matching, match_features
from i2i.recipes.stabilizers.gradient_penalty import check_penalty, clip_value, penalty_term
from i2i.recipes.stabilizers.historical_averaging import historical_averages, with_historical_averaging
from i2i.recipes.stabilizers.packing import pack_images, pack_neighbors
from i2i.recipes.stabilizers.unrolling import build_unrolling, unrolled
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress


@register("recipe", "pix2pix")
@dataclass(frozen=True, kw_only=True)
class Pix2Pix(StabilizerSettings):
    """Isola et al. 2017, arXiv:1611.07004: paired translation with a conditional GAN."""

    generator: Annotated[Spec, Doc("Network that translates a to b")] = component("generator", "unet")
    discriminator: Annotated[Spec, Doc("Network that judges b beside a")] = component(
        "discriminator", "patch")
    adversarial: AdversarialLoss = component("adversarial", "nonsaturating")
    lambda_l1: Annotated[float, Doc("Weight of |G(a) - b|")] = 100.0
    perceptual: Annotated[Spec, Doc("Distance of G(a) and b in a feature network, in G's loss")] = component(
        "perceptual", "none")
    source_encoding: Annotated[Literal["channels", "one-hot", "auto"], Doc(
        "What G and D see of a: its channels, or one channel for each color of label maps; auto: those if "
        "a is label maps")] = "channels"
    instance_channel: Annotated[bool, Doc(
        "The last channel of a is an instance map, of which G and D see the edges")] = False
    g_optimizer: GOptimizer = component("optimizer", "adam")
    d_optimizer: DOptimizer = component("optimizer", "adam")
    schedule: Schedule = component("schedule", "linear")

    family: ClassVar[Family] = Family("GAN")
    dataset: ClassVar[str] = "paired"
    required_keys: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}
    ema_modules: ClassVar[tuple[str, ...]] = ("E", "G")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lambda_l1 >= 0, "lambda_l1", self.lambda_l1, "0 or more")

    @property
    def players(self) -> Mapping[str, Player]:
        return {"D": Player(("D",), self.d_optimizer, self.schedule, clip_value(self.penalty)),
                "G": Player(("G",), self.g_optimizer, self.schedule)}

    @property
    def second_order_modules(self) -> tuple[str, ...]:
        return ("D",) if self.needs_second_derivatives else ()

    def class_channels(self, channels: int) -> int:
        """How many of the source's channels are a color that stands for a class, if they are label maps."""
        return 0 if self.source_encoding == "channels" else channels - self.instance_channel

    def source_encoder(self, info: DataInfo) -> SourceEncoder:
        """a -> what G and D see of it.  RequestError if that needs classes or instances that a has not."""
        require(not self.instance_channel or info.a_channels > 1, "instance_channel", "true",
                "false where the source has one channel")
        colors = info.a_colors if self.class_channels(info.a_channels) else ()
        require(bool(colors) or self.source_encoding != "one-hot", "source_encoding", "one-hot",
                "channels where the source images are not label maps of at most 256 exact colors; "
                "data.a_resize=nearest (b_resize with data.direction=ba) declares that they are")
        return SourceEncoder(info.a_channels, colors, instances=self.instance_channel)

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """E: a as G and D see it; G: a -> b; D: the pair (a, b) -> logits; T: augmentation of the pair; N:
        instance noise on b; U: unrolling of D; H_D, H_G: historical averages."""
        E = self.source_encoder(info)
        G = build("generator", self.generator, E.out_channels, info.b_channels, info.size)
        D = build("discriminator", self.discriminator,
                  JoinedChannels(E.out_channels, info.b_channels, pack=self.pack), info.size)
        m = nn.ModuleDict({
            "E": E,
            "G": build("weight_norm", self.g_weight_norm, G, key="g_weight_norm"),
            "D": build("weight_norm", self.d_weight_norm, D, key="d_weight_norm"),
            "T": build_augment(self.augment, self.adversarial, (E.out_channels, info.b_channels), info.size,
                               twice=self.needs_second_derivatives),
            "N": build("instance_noise", self.instance_noise)})
        check_penalty(self.penalty, m["D"])
        check_feature_matching(self.feature_matching, m["D"], self.discriminator, paired=True)
        m["U"] = build_unrolling(self.unrolling, m["D"], self.penalty)
        m.update(historical_averages(m, self.players, self.lambda_history))
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Equations 1 to 4; the loss of D, penalty included, is halved (section 3.3)."""
        adversarial = build_adversarial(self.adversarial)
        update = with_historical_averaging(update, m, self.players, self.lambda_history)
        set_progress(m, progress)
        d_turn, g_turn = self.updated_players(progress)
        a, b, G, T = m["E"](batch["a"]), batch["b"], m["G"], cast(Augment, m["T"])

        def pair(image: Tensor) -> tuple[Tensor]:
            source, target = T(a, image)
            return (pack_images(torch.cat([source, m["N"](target)], 1), self.pack),)

        D = DiscriminatorView(m["D"], pair)                 # D sees the source with the image.
        with torch.set_grad_enabled(g_turn):
            fake = G(a)                                     # Computed once, for both players.
        D.set_reference(b)
        if d_turn:
            fake_logits, (real_logits, own_losses) = D(fake.detach()), D.self_supervise(b)
            d = adversarial.d(real_logits, fake_logits) / 2
            penalty = penalty_term(self.penalty, progress.step // self.g_steps, D, b, fake, self.pack) / 2
            update("D", d + penalty + sum(own_losses.values()), d=d,
                   real_logits=average_logits(real_logits).mean(),
                   fake_logits=average_logits(fake_logits).mean(), **own_losses, **T.logs())
            adapt_augment(T, adversarial, real_logits, progress)
        if g_turn:
            D = unrolled(m, D, adversarial, b, fake)
            gan = adversarial.g(D(fake), D(b) if adversarial.relativistic else None)
            loss, matching_logs = match_features(self.feature_matching, D, b, fake, gan)
            l1 = F.l1_loss(fake, b)
            perceptual, perceptual_logs = perceptual_term(self.perceptual, (fake, b))
            update("G", loss + self.lambda_l1 * l1 + perceptual, gan=gan, l1=l1, **matching_logs,
                   **perceptual_logs)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a"} -> {"fake_b"}"""
        return {"fake_b": m["G"](m["E"](batch["a"]))}

    def discriminate(self, m: nn.ModuleDict, batch: Batch) -> Logits:
        """{"a", "b"} -> patch logits `(N, 1, h, w)`; with packing, of one pack for each pair."""
        return m["D"](pack_neighbors(torch.cat([m["E"](batch["a"]), batch["b"]], 1), self.pack))
