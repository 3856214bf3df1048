"""Autoregressive model: the likelihood of an image as a product over pixels, each given those before it."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.losses.logistic_mixture import count_parameters, log_prob, sample
from i2i.nets.pixelcnn import Features, Scan, with_ones
from i2i.nets.precision import fp32_island, to_float32
from i2i.nets.priors import LatentPrior
from i2i.recipes.base import Batch, DataInfo, Family, Update, get_module, set_progress
from i2i.recipes.one_player import OnePlayer
from i2i.registry import Spec, build, component, register
from i2i.seeding import Progress

MAX_COMPONENTS = 1000


@register("recipe", "autoregressive")
@dataclass(frozen=True, kw_only=True)
class Autoregressive(OnePlayer):
    """Salimans et al. 2017, "PixelCNN++", arXiv:1701.05517; the gates of van den Oord et al. 2016 by option.

    Sampling computes each pixel once, with what earlier ones left behind (Ramachandran et al. 2017).
    """

    network: Annotated[Spec, Doc("Network from the pixels before each pixel to its distribution")] = (
        component("autoregressive_network", "pixelcnn"))
    components: Annotated[int, Doc("Logistic distributions in the mixture of a pixel, 1 to 1000")] = 10
    levels: Annotated[int, Doc("Values of a channel, 2 to 65536: 256 for 8 bits")] = 256

    family: ClassVar[Family] = Family("autoregressive", density="exact", steps="pixels")
    ema_modules: ClassVar[tuple[str, ...]] = ("G", "Z")

    def __post_init__(self) -> None:
        require(2 <= self.levels <= 2**16, "levels", self.levels, "2 to 65536")
        require(1 <= self.components <= MAX_COMPONENTS, "components", self.components,
                f"1 to {MAX_COMPONENTS}")

    def modules(self, info: DataInfo) -> nn.ModuleDict:
        """G: image, label -> distribution of each pixel; Z: independent noise for each pixel."""
        G = build("autoregressive_network", self.network, info.b_channels,
                  count_parameters(info.b_channels, self.components), info.size,
                  info.num_classes if self.conditional else 0)
        return nn.ModuleDict({"G": G, "Z": LatentPrior((1 + info.b_channels) * math.prod(info.size))})

    def step(self, m: nn.ModuleDict, batch: Batch, progress: Progress, update: Update) -> None:
        """Maximize log p(x), the sum of log p(x_i | x_1 ... x_(i-1)); van den Oord et al. 2016, eq. 1."""
        set_progress(m, progress)
        bits = self.score(m, batch).mean()
        update("model", bits, bits_per_dim=bits)

    def score(self, m: nn.ModuleDict, batch: Batch) -> Tensor:
        """{"b"[, "c"]} -> bits per dimension, (N)"""
        x = batch["b"]
        parameters = to_float32(m["G"](x, batch["c"] if self.conditional else None))
        with fp32_island(x):
            nats = log_prob(to_float32(x), parameters, self.levels).flatten(1).sum(1)
        return nats * (-1 / (x[0].numel() * math.log(2)))

    def generate(self, m: nn.ModuleDict, batch: Batch) -> dict[str, Tensor]:
        """{"eps" or "z"[, "c"]} -> {"fake_b"}, pixel by pixel"""
        G, c = get_module(m, "G"), batch["c"] if self.conditional else None
        z = batch["z"] if "z" in batch else m["Z"](batch["eps"])
        noise = z.unflatten(1, (-1, *G.size))
        # All that is kept is there after the first pixel, which is enough to estimate memory without data.
        height, width = (1, 1) if z.is_meta else G.size
        image = noise[:, 1:].new_zeros(noise[:, 1:].shape)
        scan, features = Scan(G.size), Features()
        above = torch.cat([image[:, :1], image], 1)[:, :, :1]
        for scan.row in range(height):
            scan.column, left = 0, above.new_zeros(above[..., :1].shape)
            linked = G.rows(above, features, c, scan)
            for scan.column in range(width):
                parameters = to_float32(G.pixels(left, linked, features, c, scan))
                place = slice(scan.row, scan.row + 1), slice(scan.column, scan.column + 1)
                pixel = sample(parameters, noise[:, :, *place], self.levels)
                image[:, :, *place] = pixel
                left = with_ones(pixel)
            above = with_ones(image[:, :, scan.row:scan.row + 1])
        return {"fake_b": image}
