"""CUT: unpaired image-to-image translation in one direction with a patchwise contrastive loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.augment.base import Augment
from i2i.errors import require
from i2i.losses.patch_nce import Negatives, patch_nce
from i2i.losses.perceptual import check_perceptual, perceptual_term
from i2i.nets.joined_images import JoinedChannels
from i2i.nets.patch_projection import PatchProjection, draw_places, mirror_places
from i2i.recipes.base import Batch, DataInfo, Family, Player, Update, get_module, set_progress
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


@register("recipe", "cut")
@dataclass(frozen=True, kw_only=True)
class CUT(StabilizerSettings):
    """Park et al. 2020, arXiv:2007.15651: unpaired translation in one direction with a contrastive loss."""

    generator: Annotated[Spec, Doc("Network that translates a to b, and whose features are compared")] = (
        component("generator", "resnet", down="blurpool", up="bilinear"))
    discriminator: Annotated[Spec, Doc("Network that judges b")] = component(
        "discriminator", "patch", norm="instance", down="blurpool")
    adversarial: AdversarialLoss = component("adversarial", "lsgan")
    lambda_nce: Annotated[float, Doc("Weight of the contrastive loss of patches")] = 1.0
    nce_identity: Annotated[bool, Doc(
        "The contrastive loss is the mean of that of G(a) and a and that of G(b) and b")] = True
    nce_layers: Annotated[tuple[int, ...], Doc("Layers of G whose features are compared, counted from 0")] = (
        0, 4, 8, 12, 16)
    nce_patches: Annotated[int, Doc("Patches of a layer that are compared; all if there are fewer")] = 256
    nce_temperature: Annotated[float, Doc("Divisor of the similarities of patches")] = 0.07
    nce_negatives: Negatives = "image"
    nce_width: Annotated[int, Doc(
        "Channels of the networks that project features for the comparison; 0: none")] = 256
    flip_equivariance: Annotated[bool, Doc(
        "Half of the batches are mirrored for G, and its output is compared with what they were")] = False
    perceptual: Annotated[Spec, Doc("Distance of G(a) and a in a feature network, in G's loss")] = component(
        "perceptual", "none")
    g_optimizer: GOptimizer = component("optimizer", "adam")
    d_optimizer: DOptimizer = component("optimizer", "adam")
    schedule: Schedule = component("schedule", "linear")

    family: ClassVar[Family] = Family("GAN")
    dataset: ClassVar[str] = "unpaired"
    required_keys: ClassVar[tuple[str, ...]] = ("a", "b")
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}
    ema_modules: ClassVar[tuple[str, ...]] = ("G",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, least in (("lambda_nce", 0), ("nce_width", 0), ("nce_patches", 2)):
            require(getattr(self, key) >= least, key, getattr(self, key), f"{least} or more")
        require(self.nce_temperature > 0, "nce_temperature", self.nce_temperature, "more than 0")

    def data_defaults(self, info: DataInfo) -> dict[str, tuple[Any, str]]:
        """G cannot be applied to b where the two sides differ in channels."""
        a, b = info.a_channels, info.b_channels
        return {} if a == b else {"nce_identity": (False, f"the sides differ in channels, {a} and {b}")}

    @property
    def players(self) -> Mapping[str, Player]:
        return {"D": Player(("D",), self.d_optimizer, self.schedule, clip_value(self.penalty)),
                "G": Player(("G", "F"), self.g_optimizer, self.schedule)}

    @property
    def second_order_modules(self) -> tuple[str, ...]:
        return ("D",) if self.needs_second_derivatives else ()

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: a -> b; F: projections of G's features; D: b -> patch logits; T: augmentation; N: instance
        noise; U: unrolling of D; H_D, H_G: historical averages."""
        a, b = info.a_channels, info.b_channels
        require(a == b or not self.nce_identity, "nce_identity", "true",
                f"false where the sides differ in channels ({a} and {b}) and G cannot be applied to b")
        check_perceptual(self.perceptual, a, b)
        G = build("generator", self.generator, a, b, info.size)
        D = build("discriminator", self.discriminator, JoinedChannels(b, pack=self.pack), info.size)
        require(hasattr(G, "intermediates"), "generator", self.generator.name,
                "resnet with cut, which compares patches by features of the generator's layers")
        layers = len(G.layers)
        require(bool(self.nce_layers) and all(0 <= i < layers for i in self.nce_layers), "nce_layers",
                ",".join(map(str, self.nce_layers)), f"layers from 0 to {layers - 1} with this generator")
        m = nn.ModuleDict({
            "G": build("weight_norm", self.g_weight_norm, G, key="g_weight_norm"),
            "F": PatchProjection(G.intermediate_channels(self.nce_layers), self.nce_width),
            "D": build("weight_norm", self.d_weight_norm, D, key="d_weight_norm"),
            "T": build_augment(self.augment, self.adversarial, (b,), info.size,
                               twice=self.needs_second_derivatives),
            "N": build("instance_noise", self.instance_noise)})
        check_penalty(self.penalty, m["D"])
        check_feature_matching(self.feature_matching, m["D"], self.discriminator, paired=False)
        m["U"] = build_unrolling(self.unrolling, m["D"], self.penalty)
        m.update(historical_averages(m, self.players, self.lambda_history))
        return m

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Equations 1 to 5, with the loss of D halved as in the reference code."""
        adversarial = build_adversarial(self.adversarial)
        update = with_historical_averaging(update, m, self.players, self.lambda_history)
        set_progress(m, progress)
        d_turn, g_turn = self.updated_players(progress)
        a, b, T = batch["a"], batch["b"], cast(Augment, m["T"])
        D = DiscriminatorView(m["D"], lambda image: (pack_images(m["N"](*T(image)), self.pack),))
        D.set_reference(b)
        with torch.set_grad_enabled(g_turn):
            output, keys, mirrored = self.translate(m, torch.cat([a, b]) if self.nce_identity else a)
        fake = output[:len(a)]                              # Of b, the rest, only patches are compared.
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
            queries = get_module(m, "G").intermediates(match_channels(output, a), self.nce_layers)
            nce = [self.contrast(m["F"], *features, mirrored) for features in zip(
                split_batch(queries, len(a)), split_batch(keys, len(a)), strict=True)]
            perceptual, perceptual_logs = perceptual_term(self.perceptual, (fake, a))
            update("G", loss + self.lambda_nce * torch.stack(nce).mean() + perceptual, gan=gan,
                   **matching_logs, **dict(zip(("nce", "nce_identity"), nce, strict=False)),
                   **perceptual_logs)

    def translate(self, m: nn.ModuleDict, source: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """G(source), G's features of the source, and whether the source was mirrored, `()` bool."""
        G = get_module(m, "G")
        if not self.flip_equivariance:
            return *G(source, self.nce_layers), None
        with torch.no_grad():
            features = G.intermediates(source, self.nce_layers)
        mirrored = torch.rand((), device=source.device) < 0.5
        return G(torch.where(mirrored, source.flip(-1), source)), features, mirrored

    def contrast(self, F: nn.Module, queries: Sequence[Tensor], keys: Sequence[Tensor],
                 mirrored: Tensor | None) -> Tensor:
        """Equation 4: the mean over layers and patches, `()`, from features (N, c, h, w) of each layer."""
        places = draw_places(keys, self.nce_patches)
        with torch.no_grad():
            positive = F(keys, places)
        query = F(queries, places if mirrored is None else mirror_places(queries, places, mirrored))
        return torch.stack([patch_nce(q, k, self.nce_temperature, self.nce_negatives).mean()
                            for q, k in zip(query, positive, strict=True)]).mean()

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a"} -> {"fake_b"}"""
        return {"fake_b": m["G"](batch["a"])}

    def discriminate(self, m: nn.ModuleDict, batch: Batch) -> Logits:
        """{"b"} -> patch logits `(N, 1, h, w)`; with packing, of one pack for each image."""
        return m["D"](pack_neighbors(batch["b"], self.pack))


def match_channels(image: Tensor, like: Tensor) -> Tensor:
    """An image with as many channels as another: its own, or their mean, repeated."""
    channels = like.shape[1]
    return image if image.shape[1] == channels else image.mean(1, keepdim=True).expand(-1, channels, -1, -1)


def split_batch(features: Sequence[Tensor], size: int) -> list[tuple[Tensor, ...]]:
    """Feature maps of a batch -> those of each part of it of `size` images."""
    return list(zip(*(x.split(size) for x in features), strict=True))
