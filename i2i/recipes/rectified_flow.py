"""Rectified flow: a velocity field whose flow carries noise to images on lines that are nearly straight."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.recipes.base import Batch, Family, Update
from i2i.recipes.denoising import NoiseToImage, Predict
from i2i.recipes.flow_process import euler_step, flow_times, heun_step, interpolate
from i2i.registry import register
from i2i.seeding import ImageNoise, Progress


@register("recipe", "rectified-flow")
@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(NoiseToImage):
    """Liu et al. 2023, arXiv:2209.03003, and Lipman et al. 2023 (flow matching), arXiv:2210.02747."""

    times: Annotated[Literal["uniform", "logit-normal"], Doc(
        "Times that are trained: all alike, or the middle more often (Esser et al. 2024)")] = "uniform"
    sampler: Annotated[Literal["euler", "heun"], Doc(
        "Steps along the velocity, or along the mean of two: heun calls the network twice a step")] = "euler"
    shift: Annotated[float, Doc(
        "More than 1: more of the steps where there is more noise (Esser et al. 2024)")] = 1.0

    family: ClassVar[Family] = Family("flow matching", inversion="approximate", steps="steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.shift > 0, "shift", self.shift, "more than 0")

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Liu et al. 2023, equation 1, on independent pairs of image and noise."""
        x0 = batch["b"]
        noise, s = torch.randn_like(x0), torch.rand(len(x0), device=x0.device)
        if self.times == "logit-normal":
            s = torch.randn(len(x0), device=x0.device).sigmoid()
        x = interpolate(x0, noise, s[:, None, None, None])
        loss = F.mse_loss(self.train_predict(m, batch, x, s), noise - x0)
        update("model", loss, mse=loss)

    def sample(self, predict: Predict, x: Tensor, steps: int, noise: ImageNoise) -> Tensor:
        """Follow the velocity from noise, s = 1, to an image, s = 0."""
        return self._follow(predict, x, flow_times(steps, self.shift))

    def to_noise(self, predict: Predict, x: Tensor, steps: int) -> Tensor:
        return self._follow(predict, x, flow_times(steps, self.shift)[::-1])

    def _follow(self, predict: Predict, x: Tensor, times: list[float]) -> Tensor:
        for s, s_next in pairwise(times):
            x = (heun_step(x, predict, s, s_next) if self.sampler == "heun"
                 else euler_step(x, predict(x, s), s, s_next))
        return x
