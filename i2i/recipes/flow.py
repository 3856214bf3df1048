"""Normalizing flow: an invertible network from images to noise, and so their exact likelihood."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.losses.likelihood import (
    Levels,
    bits_per_dim,
    check_levels,
    dequantize,
    inverse_logit,
    logit,
    quantize,
    standard_normal,
)
from i2i.nets.priors import TemperedPrior
from i2i.nets.realnvp import ClassNormal
from i2i.recipes.base import Batch, DataInfo, Family, Update, get_module, set_progress
from i2i.recipes.one_player import OnePlayer
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress


@register("recipe", "flow")
@dataclass(frozen=True, kw_only=True)
class Flow(OnePlayer):
    """Dinh, Sohl-Dickstein, Bengio 2017, "Density estimation using Real NVP", arXiv:1605.08803, equation 3.

    Images are dequantized and go through a logit (section 4.1).  Labels choose the distribution of z.
    """

    network: Annotated[Spec, Doc("Invertible network from an image to z")] = component(
        "invertible_network", "realnvp")
    alpha: Annotated[float, Doc("Distance from 0 and 1 that images keep before the logit")] = 0.05
    levels: Levels = 256

    family: ClassVar[Family] = Family("flow", density="exact", inversion="exact")
    ema_modules: ClassVar[tuple[str, ...]] = ("F", "Z", "P")

    def __post_init__(self) -> None:
        check_levels(self.levels)
        require(0 < self.alpha < 0.5, "alpha", self.alpha, "more than 0 and less than 0.5")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """F: image -> z; Z: noise -> noise of the temperature; P: z of a class -> noise."""
        classes = info.num_classes if self.conditional else 0
        dimensions = info.b_channels * math.prod(info.size)
        return nn.ModuleDict({"F": build("invertible_network", self.network, info.b_channels, info.size),
                              "Z": TemperedPrior(dimensions),
                              "P": ClassNormal(classes, dimensions) if classes else nn.Identity()})

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Maximize log p(x) = log N(F(x); 0, I) + log |det dF/dx|, Dinh et al. 2017, equation 3."""
        set_progress(m, progress)
        bits = self.score(m, batch).mean()
        update("model", bits, bits_per_dim=bits)

    def score(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> bits per dimension, (N)"""
        y = dequantize(batch["b"], self.levels, torch.rand_like(batch["b"]))
        z, log_determinant = self.encode(m, y, batch)
        return bits_per_dim(standard_normal(z) + log_determinant, z.shape[1], self.levels)

    def encode(self, m: nn.ModuleDict, y: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Dequantized images -> the noise they would be made from, (N, D), and the log-determinant, (N)"""
        v, log_determinant = logit(y, self.alpha) if self.levels else (y, y.new_zeros(len(y)))
        z, change = m["F"](v)
        if not self.conditional:
            return z, log_determinant + change
        z, of_class = m["P"](z, batch["c"])
        return z, log_determinant + change + of_class

    def invert(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> noise, of the middle of each level"""
        return self.encode(m, dequantize(batch["b"], self.levels, torch.full_like(batch["b"], 0.5)), batch)[0]

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}"""
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        v = get_module(m, "F").inverse(get_module(m, "P").inverse(z, batch["c"]) if self.conditional else z)
        return {"fake_b": quantize(inverse_logit(v, self.alpha), self.levels) if self.levels else v}
