"""A Brownian bridge from the source image to the target: translation that does not start at noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.recipes.base import Batch, Family, Update, get_module
from i2i.recipes.denoising import Denoising
from i2i.recipes.flow_process import flow_times, interpolate
from i2i.registry import register
from i2i.seeding import ImageNoise, Progress


def bridge_source(a: Tensor, channels: int) -> Tensor:
    """Where the bridge starts: the source image, or its mean in gray if the target has other channels."""
    return a if a.shape[1] == channels else a.mean(1, keepdim=True).repeat(1, channels, 1, 1)


def bridge_step(x: Tensor, x0: Tensor, y: Tensor, m: float, m_next: float, scale: float, eta: float,
                fresh_noise: Tensor) -> Tensor:
    """A step of the bridge back from m to m_next, with the target predicted as x0.

    Li et al. 2023, equations 8 to 13, with a share `eta` of fresh noise; what is left of the variance is kept
    of the noise in x.  At m = 1 that is none.
    """
    variance, variance_next = (2 * scale * (each - each**2) for each in (m, m_next))
    share = 1.0 if variance <= 0 else 1 - variance_next * (1 - m) ** 2 / ((1 - m_next) ** 2 * variance)
    fresh = eta**2 * share * variance_next
    kept = ((variance_next - fresh) / variance) ** 0.5 if variance > 0 else 0.0
    noise = x - interpolate(x0, y, m)
    return interpolate(x0, y, m_next) + kept * noise + fresh**0.5 * fresh_noise


@register("recipe", "bbdm")
@dataclass(frozen=True, kw_only=True)
class BBDM(Denoising):
    """Li et al. 2023 (Brownian bridge diffusion models), arXiv:2205.07680, in pixels.

    The network sees the source beside the point of the bridge, as the authors' code can.
    """

    variance: Annotated[float, Doc("Scale of the bridge's variance, which is half of it in the middle")] = 1.0
    eta: Annotated[float, Doc("Share of fresh noise in a step, 0 to 1; 0: deterministic")] = 1.0
    clip: Annotated[bool, Doc("Predicted images are clipped to [-1, 1] in every step of sampling")] = True

    family: ClassVar[Family] = Family("diffusion bridge", steps="steps")
    dataset: ClassVar[str] = "paired"
    sources: ClassVar[Mapping[str, str]] = {"fake_b": "a"}

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variance > 0, "variance", self.variance, "more than 0")
        require(0 <= self.eta <= 1, "eta", self.eta, "0 to 1")

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Li et al. 2023, algorithm 1: the network predicts how far a point of the bridge is from the target,
        E |f(x_t, t) - (x_t - x_0)|^2."""
        x0 = batch["b"]
        y = bridge_source(batch["a"], x0.shape[1])
        t = torch.rand(len(x0), device=x0.device)
        time = t[:, None, None, None]
        x = interpolate(x0, y, time) + (2 * self.variance * (time - time**2)).sqrt() * torch.randn_like(x0)
        loss = F.mse_loss(self.train_predict(m, batch, x, t), x - x0)
        update("model", loss, mse=loss)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"a"[, "c"]} -> {"fake_b"}, by algorithm 2 of Li et al. 2023"""
        S, y = get_module(m, "S"), bridge_source(batch["a"], get_module(m, "G").out_channels)
        noise, predict, x = ImageNoise(batch["a"], tuple(y.shape[1:]), S.seed), self.predict(m, batch), y
        for time, time_next in pairwise(flow_times(S.steps)):
            x0 = x - predict(x, time)
            x0 = x0.clamp(-1, 1) if self.clip else x0
            x = bridge_step(x, x0, y, time, time_next, self.variance, self.eta, noise())
        return {"fake_b": x}
