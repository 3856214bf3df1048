"""Parts of StyleGAN and StyleGAN2 generators: mapping network, noise, style mixing and truncation."""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.class_conditioning import require_labels
from i2i.nets.equalized import EqualizedLinear, PixelNorm, leaky_relu
from i2i.nets.precision import fp32_island, to_float32

W_AVG_DECAY = 0.995     # Per step.  The code of Karras et al. 2019 (section B, truncation).


class MappingNetwork(nn.Module):
    """Map noise and a label to a style w, in single precision.  Karras et al. 2019, section 2.

    Noise and the label's embedding are normalized, then concatenated (Karras et al. 2020a).  `z_dim` is 0 to
    embed the label that a discriminator projects on.
    """

    def __init__(self, z_dim: int, w_dim: int, num_classes: int, *, layers: int = 8,
                 lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.embed = EqualizedLinear(num_classes, w_dim) if num_classes else None
        widths = [z_dim + (w_dim if num_classes else 0)] + [w_dim] * layers
        self.layers = nn.ModuleList(EqualizedLinear(a, b, lr_multiplier=lr_multiplier)
                                    for a, b in pairwise(widths))
        self.norm = PixelNorm()

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, w_dim)"""
        inputs = [] if z is None else [self.norm(to_float32(z))]
        if self.embed is not None:
            inputs.append(self.norm(self.embed.one_hot(require_labels(c))))
        w = torch.cat(inputs, 1)
        with fp32_island(w):
            for layer in self.layers:
                w = leaky_relu(layer(w))
        return w


class NoiseInjection(nn.Module):
    """Noise with a learned strength, constant in eval mode.  Karras et al. 2019, section 2."""

    constant: Tensor

    def __init__(self, size: tuple[int, int], channels: int = 1) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("constant", torch.randn(1, 1, *size))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> what is to be added to it: (N, C, H, W) or (N, 1, H, W)"""
        noise = self.constant.to(x.dtype)
        if self.training:
            noise = torch.randn(len(x), *self.constant.shape[1:], dtype=x.dtype, device=x.device)
        return noise * self.strength.to(x.dtype)


class StyleGenerator(nn.Module, ABC):
    """Base class of generators with a mapping network and `synthesize`, which a subclass defines.

    In training, a share `mixing` of the images takes the styles of its later layers from a second z (Karras
    et al. 2019, section 3.1), and `w_avg` tracks the mean style.  In eval mode, styles are interpolated to
    that mean if `truncation` is below 1 (section B).
    """

    gradient_checkpointing = False
    truncation: float | Tensor
    synced_buffers: ClassVar[tuple[str, ...]] = ("w_avg",)
    w_avg: Tensor

    def __init__(self, num_ws: int, num_classes: int, *, z_dim: int, w_dim: int, mapping_layers: int,
                 mixing: float) -> None:
        super().__init__()
        for key, value in (("z_dim", z_dim), ("w_dim", w_dim)):
            require(value >= 1, f"generator.{key}", value, "1 or more")
        require(1 <= mapping_layers <= 100, "generator.mapping_layers", mapping_layers, "1 to 100")
        require(0 <= mixing <= 1, "generator.mixing", mixing, "0 to 1")
        self.num_ws, self.num_classes, self.z_dim, self.w_dim = num_ws, num_classes, z_dim, w_dim
        self.mixing, self.truncation = mixing, 1.0
        self.mapping = MappingNetwork(z_dim, w_dim, num_classes, layers=mapping_layers)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def styles(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, num_ws, w_dim), mixed in training and truncated in eval mode"""
        if not self.training:
            w = self.mapping(z, c)
            w = self.w_avg.lerp(w, self.truncation)         # Exactly w where truncation is 1.
            return w[:, None].expand(-1, self.num_ws, -1)
        if self.mixing:
            w, other = self.mapping(torch.cat([z, torch.randn_like(z)]),
                                    None if c is None else torch.cat([c, c])).chunk(2)
        else:
            w = other = self.mapping(z, c)
        with torch.no_grad():
            self.w_avg.lerp_(w.mean(0), 1 - W_AVG_DECAY)
        mixed = torch.rand(len(z), 1, device=z.device) < self.mixing
        crossover = torch.randint(1, self.layers_in_use(), (len(z), 1), device=z.device)
        layer = torch.arange(self.num_ws, device=z.device)
        return torch.where((mixed & (layer >= crossover))[:, :, None], other[:, None], w[:, None])

    def layers_in_use(self) -> int:
        """Number of layers that contribute to the image, fewer than `num_ws` in a network that grows."""
        return self.num_ws

    @abstractmethod
    def synthesize(self, ws: Tensor) -> Tensor:
        """Images from a style for each layer, (N, num_ws, w_dim) -> (N, C, H, W) in [-1, 1]."""

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W)"""
        return self.synthesize(self.styles(z, c))
