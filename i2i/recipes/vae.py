"""Variational autoencoder: a decoder from noise, with an encoder that bounds the likelihood of images."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.losses.likelihood import (
    GaussianLikelihood,
    Levels,
    bits_per_dim,
    check_levels,
    dequantize,
    kl_to_standard_normal,
    with_free_bits,
)
from i2i.nets.precision import fp32_island, to_float32
from i2i.nets.priors import TemperedPrior
from i2i.nets.virtual_batch_norm import get_reference_batch
from i2i.recipes.base import Batch, DataInfo, Family, Update, set_progress
from i2i.recipes.one_player import OnePlayer
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress


@register("recipe", "vae")
@dataclass(frozen=True, kw_only=True)
class VAE(OnePlayer):
    """Kingma and Welling 2014, "Auto-Encoding Variational Bayes", arXiv:1312.6114, equation 10.

    Gaussian likelihood of dequantized images; a generated image is the mean.
    """

    generator: Annotated[Spec, Doc("Decoder, from z to the mean of an image")] = component(
        "noise_generator", "dcgan")
    encoder: Annotated[Spec, Doc("Network from an image to the mean and variance of z")] = component(
        "encoder", "dcgan")
    sigma: Annotated[float, Doc(
        "Standard deviation of values around the decoder's mean, where images are 0 to 1; 0: learned")] = 0.0
    beta: Annotated[float, Doc("Weight of the KL divergence (Higgins et al. 2017)")] = 1.0
    free_bits: Annotated[float, Doc(
        "KL divergence of each latent that costs nothing, in nats (Kingma et al. 2016)")] = 0.0
    levels: Levels = 256

    family: ClassVar[Family] = Family("VAE", density="bound", inversion="approximate")
    ema_modules: ClassVar[tuple[str, ...]] = ("G", "Z", "E", "L")

    def __post_init__(self) -> None:
        check_levels(self.levels)
        require(self.beta >= 0, "beta", self.beta, "0 or more")
        require(self.free_bits >= 0, "free_bits", self.free_bits, "0 or more")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: z, label -> mean of an image; E: image, label -> mean and log-variance of z; Z: noise -> z;
        L: likelihood."""
        classes = info.num_classes if self.conditional else 0
        G = build("noise_generator", self.generator, info.b_channels, info.size, classes, key="generator")
        Z = TemperedPrior(G.z_dim)
        if (reference := get_reference_batch(G)) is not None:
            reference.initialize(Z(torch.randn(reference.count, Z.noise_dim)))
        E = build("encoder", self.encoder, info.b_channels, info.size, G.z_dim, classes)
        return nn.ModuleDict({"G": G, "Z": Z, "E": E, "L": GaussianLikelihood(self.sigma)})

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Minimize beta KL(q(z|x) | N(0, I)) - E log p(x|z), with one z of q(z|x) for each image.

        Kingma and Welling 2014, algorithm 1, with the analytic KL divergence of appendix B.
        """
        set_progress(m, progress)
        log_likelihood, kl = self.terms(m, batch)
        to_bits = 1 / (batch["b"][0].numel() * math.log(2))
        loss = self.beta * with_free_bits(kl, self.free_bits) - log_likelihood.mean()
        bits = bits_per_dim(log_likelihood, batch["b"][0].numel(), self.levels).mean()
        kl_bits = to_bits * kl.sum(1).mean()
        update("model", to_bits * loss, bits_per_dim=bits + kl_bits, reconstruction=bits, kl=kl_bits)

    def terms(self, m: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log likelihood of images given a sample of their z, (N), and the KL divergence, (N, D); in nats."""
        mean, log_variance = self.encode(m, batch)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        y = dequantize(batch["b"], self.levels, torch.rand_like(batch["b"]))
        log_likelihood: Tensor = m["L"](y, self.decode(m, batch, z))
        with fp32_island(mean):
            return log_likelihood, kl_to_standard_normal(mean, log_variance)

    def encode(self, m: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        """{"b"[, "c"]} -> mean and log-variance of z, (N, D) each"""
        mean, log_variance = to_float32(m["E"](batch["b"], self.labels(batch))).chunk(2, 1)
        return mean, log_variance

    def decode(self, m: nn.ModuleDict, batch: Batch, z: Tensor) -> Tensor:
        """z of a batch -> means on the scale of `dequantize`, (N, C, H, W)"""
        x = to_float32(m["G"](z, self.labels(batch)))
        return (x + 1) / 2 if self.levels else x

    def labels(self, batch: Batch) -> Tensor | None:
        """Those that the networks are conditioned on."""
        return batch["c"] if self.conditional else None

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}"""
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        return {"fake_b": m["G"](z, self.labels(batch))}

    def reconstruct(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> images of the means of their z"""
        reconstructed: Tensor = m["G"](self.encode(m, batch)[0], self.labels(batch))
        return reconstructed

    def invert(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> the means of their z"""
        return self.encode(m, batch)[0]

    def score(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> upper bounds on bits per dimension, (N)"""
        log_likelihood, kl = self.terms(m, batch)
        return bits_per_dim(log_likelihood - kl.sum(1), batch["b"][0].numel(), self.levels)
