"""Diffusion: images from noise, step by step; with a source image beside the noise, translation (Palette)."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.recipes.base import Batch, Family, Update
from i2i.recipes.denoising import NoiseToImage, Predict
from i2i.recipes.diffusion_process import (
    TIMESTEPS,
    NoiseSchedule,
    Prediction,
    Spacing,
    add_noise,
    alphas_cumprod,
    ddim_step,
    ddpm_step,
    min_snr_weight,
    prediction_target,
    sampling_times,
    split_prediction,
)
from i2i.registry import register
from i2i.seeding import ImageNoise, Progress


@register("recipe", "diffusion")
@dataclass(frozen=True, kw_only=True)
class Diffusion(NoiseToImage):
    """Ho et al. 2020, arXiv:2006.11239, with the sampler of Song et al. 2021a (DDIM), arXiv:2010.02502."""

    noise_schedule: NoiseSchedule = "cosine"
    prediction: Prediction = "v"
    min_snr: Annotated[float, Doc(
        "Limit of the signal-to-noise ratio in the weights of times (Hang et al. 2023), such as 5; 0: all "
        "times weigh the same")] = 0.0
    sampler: Annotated[Literal["ddim", "ddpm", "ddpm-large"], Doc(
        "Steps with as much fresh noise as `eta` says, or ancestral with the variance of the posterior or, "
        "large, of the added noise")] = "ddim"
    eta: Annotated[float, Doc("Share of fresh noise in a step of ddim, 0 to 1; 0: deterministic")] = 0.0
    spacing: Spacing = "trailing"
    clip: Annotated[bool, Doc("Predicted images are clipped to [-1, 1] in every step of sampling")] = True

    family: ClassVar[Family] = Family("diffusion", inversion="approximate", steps="steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.min_snr >= 0, "min_snr", self.min_snr, "more than 0, or 0 for none")
        require(0 <= self.eta <= 1, "eta", self.eta, "0 to 1")

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Ho et al. 2020, algorithm 1: the squared error of the prediction, E |f(x_t, t) - target|^2, with
        x_t = sqrt(ab_t) x_0 + sqrt(1 - ab_t) noise at a random time t."""
        x0 = batch["b"]
        t = torch.randint(TIMESTEPS, (len(x0),), device="cpu")      # Where the schedule is.
        ab = alphas_cumprod(self.noise_schedule)[t][:, None, None, None]
        noise = torch.randn_like(x0)
        target = prediction_target(x0, noise, ab, self.prediction)
        output = self.train_predict(m, batch, add_noise(x0, noise, ab), (t / TIMESTEPS).to(x0.device))
        mse = (output - target).square()
        loss = mse
        if self.min_snr:
            loss = min_snr_weight(ab, self.prediction, self.min_snr).to(mse) * mse
        update("model", loss.mean(), mse=mse.mean())

    def sample(self, predict: Predict, x: Tensor, steps: int, noise: ImageNoise) -> Tensor:
        """Ho et al. 2020, algorithm 2, with `sampler=ddpm`; else Song et al. 2021a, equation 12 (DDIM)."""
        table = [*alphas_cumprod(self.noise_schedule).tolist(), 1.0]        # The last: no noise, time -1.
        for t, t_next in pairwise([*sampling_times(steps, self.spacing), -1]):
            ab, ab_next = table[t], table[t_next]
            x0, eps = split_prediction(predict(x, t / TIMESTEPS), x, ab, self.prediction)
            x0 = x0.clamp(-1, 1) if self.clip else x0
            if self.sampler == "ddim":
                fresh = noise() if self.eta and t_next >= 0 else None
                x = ddim_step(x0, eps, ab, ab_next, self.eta, fresh)
            else:
                variance = "large" if self.sampler == "ddpm-large" else "small"
                x = ddpm_step(x, x0, ab, ab_next, noise() if t_next >= 0 else None, variance)
        return x

    def to_noise(self, predict: Predict, x: Tensor, steps: int) -> Tensor:
        """DDIM in the other direction.  Song et al. 2021a, section 5.4."""
        table = alphas_cumprod(self.noise_schedule).tolist()
        for t, t_next in pairwise([0, *reversed(sampling_times(steps, self.spacing))]):
            x0, eps = split_prediction(predict(x, t / TIMESTEPS), x, table[t], self.prediction)
            x = add_noise(x0, eps, table[t_next])
        return x


@register("recipe", "palette")
@dataclass(frozen=True, kw_only=True)
class Palette(Diffusion):
    """Diffusion whose network also sees the source image.  Saharia et al. 2022, arXiv:2111.05826."""

    family: ClassVar[Family] = Family("diffusion", steps="steps")
    dataset: ClassVar[str] = "paired"
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}
