"""What recipes share whose network removes noise: settings, guidance, sampling in steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, cast

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.priors import LatentPrior
from i2i.recipes.base import Batch, DataInfo, get_module
from i2i.recipes.one_player import OnePlayer
from i2i.registry import Spec, build, component
from i2i.seeding import ImageNoise

MAX_STEPS = 1000

# (N, C, H, W) and a time in [0, 1] -> what the network predicts.
Predict = Callable[[Tensor, float], Tensor]


class Sampling(nn.Module):
    """How a model samples: settings that its user can change, without weights.

    Attributes:
        steps: from noise to an image.
        guidance: weight of the label; 1: none but the network's own.
        seed: of the noise of translated images.
    """

    def __init__(self, steps: int, guidance: float = 1.0, *, guidable: bool = False) -> None:
        super().__init__()
        self.guidable, self.seed, self.own = guidable, 0, (steps, guidance)
        self.set()

    def set(self, steps: int | None = None, guidance: float | None = None) -> None:
        """Set both; None: as the recipe says.  RequestError for what cannot be."""
        steps = self.own[0] if steps is None else steps
        guidance = self.own[1] if guidance is None else guidance
        require(1 <= steps <= MAX_STEPS, "steps", steps, f"1 to {MAX_STEPS}")
        require(self.guidable or guidance == 1, "guidance", guidance,
                "1 in a model without labels; others are trained with conditional=true")
        require(math.isfinite(guidance) and guidance >= 0, "guidance", guidance, "0 or more")
        self.steps, self.guidance = steps, guidance


@dataclass(frozen=True, kw_only=True)
class Denoising(OnePlayer):
    """Settings, modules and guided predictions of a recipe whose network predicts what noise hides."""

    denoiser: Annotated[Spec, Doc("Network from a noisy image and its time to a prediction")] = component(
        "denoiser", "unet")
    steps: Annotated[int, Doc("Steps from noise to an image, 1 to 1000; generating can change them")] = 20
    guidance: Annotated[float, Doc(
        "Weight of the label in sampling, more than 1 for more typical images (Ho and Salimans 2022); "
        "generating can change it")] = 1.0
    label_dropout: Annotated[float, Doc("Share of the images that are trained without their label")] = 0.1
    optimizer: Annotated[Spec, Doc("Optimizer of all networks")] = component(
        "optimizer", "adam", lr=5e-4, beta1=0.9)

    ema_modules: ClassVar[tuple[str, ...]] = ("G", "Z", "S")

    def __post_init__(self) -> None:
        Sampling(self.steps, self.guidance, guidable=self.conditional)
        require(0 <= self.label_dropout <= 1, "label_dropout", self.label_dropout, "0 to 1")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: noisy image[, source], time, label -> prediction; Z: noise; S: how images are sampled."""
        channels = info.b_channels + (info.a_channels if self.sources else 0)
        G = build("denoiser", self.denoiser, channels, info.b_channels, info.size,
                  info.num_classes if self.conditional else 0)
        return nn.ModuleDict({"G": G, "Z": LatentPrior(info.b_channels * math.prod(info.size)),
                              "S": Sampling(self.steps, self.guidance, guidable=self.conditional)})

    def train_predict(self, m: nn.ModuleDict, batch: Batch, x: Tensor, t: Tensor) -> Tensor:
        """The network's prediction for noisy images (N, C, H, W) and times (N), some of them unlabeled."""
        c = batch["c"] if self.conditional else None
        if c is not None:
            unlabeled = torch.rand(len(c), device=c.device) < self.label_dropout
            c = c.masked_fill(unlabeled, cast(int, m["G"].num_classes))
        return m["G"](self.with_source(x, batch), t, c).float()

    def with_source(self, x: Tensor, batch: Batch) -> Tensor:
        """The input of the network: the source, if there is one, as further channels."""
        return torch.cat([x, *(batch[key] for key in self.sources.values())], 1)

    def predict(self, m: nn.ModuleDict, batch: Batch) -> Predict:
        """The guided prediction for the images of a batch."""
        G, S, c = m["G"], get_module(m, "S"), batch["c"] if self.conditional else None

        def guided(x: Tensor, t: float) -> Tensor:
            x, times = self.with_source(x, batch), torch.full((len(x),), t, device=x.device)
            prediction = G(x, times, c).float()
            if c is None or S.guidance == 1:
                return prediction
            return G(x, times, None).float().lerp(prediction, S.guidance)       # Beyond it above 1.
        return guided


@dataclass(frozen=True, kw_only=True)
class NoiseToImage(Denoising, ABC):
    """A recipe of denoising that goes from noise to images in steps, and back."""

    @abstractmethod
    def sample(self, predict: Predict, x: Tensor, steps: int, noise: ImageNoise) -> Tensor:
        """Noise (N, C, H, W) -> images; `noise` makes more of it, if the sampler needs it."""

    @abstractmethod
    def to_noise(self, predict: Predict, x: Tensor, steps: int) -> Tensor:
        """Images (N, C, H, W) -> noise from which `sample` makes them again, nearly."""

    def invert(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> noise (N, D), by the steps of sampling in the other direction"""
        return self.to_noise(self.predict(m, batch), batch["b"], get_module(m, "S").steps).flatten(1)

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps"[, "c"]} or {"a"[, "c"]} -> {"fake_b"}; all noise is that of each image's own seed."""
        G, S = get_module(m, "G"), get_module(m, "S")
        if self.sources:
            a = batch["a"]
            noise = ImageNoise(a, (G.out_channels, *a.shape[2:]), S.seed)
            x = noise()
        else:
            eps = m["Z"](batch["z"] if "z" in batch else batch["eps"])
            x = eps.unflatten(1, (G.out_channels, *G.size))
            noise = ImageNoise(eps, tuple(x.shape[1:]))
        return {"fake_b": self.sample(self.predict(m, batch), x, S.steps, noise)}
