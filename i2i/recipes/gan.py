"""GANs from noise: one algorithm, of which DCGAN, WGAN-GP, StyleGAN2 … are presets (presets.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.class_conditioning import LabelChannel
from i2i.nets.joined_images import JoinedChannels
from i2i.nets.priors import LatentPrior
from i2i.nets.virtual_batch_norm import get_reference_batch
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

Latent = Annotated[Spec, Doc("Distribution of z")]


@register("recipe", "gan")
@dataclass(frozen=True, kw_only=True)
class GAN(StabilizerSettings):
    """Goodfellow et al. 2014, arXiv:1406.2661, algorithm 1.  Mirza and Osindero 2014 where `conditional`."""

    generator: Annotated[Spec, Doc("Network from z to an image")] = component("noise_generator", "dcgan")
    discriminator: Annotated[Spec, Doc("Network that judges images")] = component("discriminator", "dcgan")
    latent: Latent = component("latent", "normal")
    adversarial: AdversarialLoss = component("adversarial", "nonsaturating")
    g_penalty: Annotated[Spec, Doc("Regularization of G")] = component("generator_penalty", "none")
    conditional: Annotated[bool, Doc("G and D are conditioned on class labels")] = False
    g_optimizer: GOptimizer = component("optimizer", "adam")
    d_optimizer: DOptimizer = component("optimizer", "adam")
    schedule: Schedule = component("schedule", "constant")

    family: ClassVar[Family] = Family("GAN")
    dataset: ClassVar[str] = "images"
    targets: ClassVar[Mapping[str, str]] = {"fake_b": "b"}
    sources: ClassVar[Mapping[str, str]] = {}
    ema_modules: ClassVar[tuple[str, ...]] = ("G", "Z")

    @property
    def required_keys(self) -> tuple[str, ...]:
        return ("b", "c") if self.conditional else ("b",)

    @property
    def players(self) -> Mapping[str, Player]:
        """The learned parameters of the prior belong to G, those of the label channels of packs to D."""
        return {"D": Player(("D", "L") if self.label_channels else ("D",), self.d_optimizer, self.schedule,
                            clip_value(self.penalty)),
                "G": Player(("G", "Z"), self.g_optimizer, self.schedule)}

    @property
    def second_order_modules(self) -> tuple[str, ...]:
        P = build("generator_penalty", self.g_penalty)
        twice = {"D": self.needs_second_derivatives, "G": P.differentiates_styles}
        return tuple(name for name, differentiated in twice.items() if differentiated)

    @property
    def label_channels(self) -> bool:
        """Whether each image of a pack carries its label as a channel, as D accepts one per input."""
        return self.conditional and self.pack > 1

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """Z: noise -> z; G: z, label -> image; D: image, label -> logits; T: augmentation; P: penalty of G;
        L: label -> channel; N: instance noise; U: unrolling of D; H_D, H_G: historical averages."""
        classes = info.num_classes if self.conditional else 0
        G = build("noise_generator", self.generator, info.b_channels, info.size, classes, key="generator")
        images = (info.b_channels, 1) if self.label_channels else (info.b_channels,)
        D = build("discriminator", self.discriminator, JoinedChannels(*images, pack=self.pack), info.size,
                  0 if self.label_channels else classes)
        P = build("generator_penalty", self.g_penalty)
        require(not P.differentiates_styles or hasattr(G, "synthesize"), "g_penalty", self.g_penalty.name,
                f"none with generator={self.generator.name}, which has no style space; or "
                "generator=stylegan2")
        check_penalty(self.penalty, D)
        check_feature_matching(self.feature_matching, D, self.discriminator, paired=False)
        Z = build("latent", self.latent, G.z_dim)
        if (reference := get_reference_batch(G)) is not None:
            reference.initialize(Z(torch.randn(reference.count, Z.noise_dim)))
        m = nn.ModuleDict({
            "Z": Z,
            "G": build("weight_norm", self.g_weight_norm, G, key="g_weight_norm"),
            "D": build("weight_norm", self.d_weight_norm, D, key="d_weight_norm"),
            "T": build_augment(self.augment, self.adversarial, (info.b_channels,), info.size,
                               twice=self.needs_second_derivatives),
            "P": P})
        if self.label_channels:
            m["L"] = LabelChannel(classes, info.size)
        m.update(self.heads(m))
        m["N"] = build("instance_noise", self.instance_noise)
        m["U"] = build_unrolling(self.unrolling, m["D"], self.penalty)
        m.update(historical_averages(m, self.players, self.lambda_history))
        return m

    def heads(self, m: nn.ModuleDict) -> dict[str, nn.Module]:
        """Further modules that read D's features, by name."""
        return {}

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Algorithm 1: D on real and generated images, then G on the same noise."""
        adversarial = build_adversarial(self.adversarial)
        update = with_historical_averaging(update, m, self.players, self.lambda_history)
        set_progress(m, progress)
        d_turn, g_turn = self.updated_players(progress)
        real, c = batch["b"], batch["c"] if self.conditional else None
        Z, G, T = (get_module(m, name) for name in "ZGT")
        D = DiscriminatorView(m["D"], partial(self.discriminator_inputs, m, c))
        D.set_reference(real)
        z = Z(torch.randn(len(real), Z.noise_dim, device=real.device))
        with torch.set_grad_enabled(g_turn):
            fake = G(z, c)                                  # Computed once, for both players.
        if d_turn:
            fake_logits, (real_logits, own_losses) = D(fake.detach()), D.self_supervise(real)
            d = adversarial.d(real_logits, fake_logits)
            penalty = penalty_term(self.penalty, progress.step // self.g_steps, D, real, fake, self.pack)
            update("D", d + penalty + sum(own_losses.values()), d=d,
                   real_logits=average_logits(real_logits).mean(),
                   fake_logits=average_logits(fake_logits).mean(), **own_losses, **T.logs())
            adapt_augment(T, adversarial, real_logits, progress)
        if g_turn:
            D = unrolled(m, D, adversarial, real, fake)
            fake_logits, code_loss, code_logs = self.discriminate_with_codes(m, D, fake, z)
            gan = adversarial.g(fake_logits, D(real) if adversarial.relativistic else None)
            loss, matching_logs = match_features(self.feature_matching, D, real, fake, gan)
            regularization = self.generator_regularization(m, z, c, progress.step // self.d_steps)
            update("G", loss + code_loss + regularization, gan=gan, **matching_logs, **code_logs)

    def discriminator_inputs(self, m: nn.ModuleDict, c: Tensor | None,
                             image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images augmented, with noise, in packs; and their labels, unless those are channels."""
        x, = get_module(m, "T")(image)
        x = m["N"](x)
        if not self.label_channels:
            return pack_images(x, self.pack), c
        return pack_images(torch.cat([x, m["L"](c).to(x.dtype)], 1), self.pack), None

    def discriminate_with_codes(self, m: nn.ModuleDict, D: DiscriminatorView, fake: Tensor,
                                z: Tensor) -> tuple[Logits, Tensor | float, dict[str, Tensor]]:
        """D's logits of generated images, G's loss on the codes in z (InfoGAN), and values to log."""
        return D(fake), 0.0, {}

    def generator_regularization(self, m: nn.ModuleDict, z: Tensor, c: Tensor | None,
                                 g_update: int) -> Tensor | float:
        """Regularization of the prior, and the penalty P of G times `P.every` when it is due.  -> `()`"""
        G, P, prior = get_module(m, "G"), get_module(m, "P"), cast(LatentPrior, m["Z"]).regularization()
        if not P.every or g_update % P.every:
            return prior
        subset = slice(max(1, len(z) // P.shrink))
        labels = None if c is None else c[subset]
        return prior + P.every * cast(Tensor, P(G, z[subset].detach(), labels))

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}"""
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        return {"fake_b": m["G"](z, batch["c"] if self.conditional else None)}

    def discriminate(self, m: nn.ModuleDict, batch: Batch) -> Logits:
        """{"b"[, "c"]} -> logits; with packing, of one pack for each image."""
        x, c = batch["b"], batch["c"] if self.conditional else None
        if self.label_channels:
            x, c = torch.cat([x, m["L"](c)], 1), None
        return m["D"](pack_neighbors(x, self.pack), c)
