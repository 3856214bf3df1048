"""What generators with a style space share: the mapping network, noise for each layer, mixing and truncation
of styles."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.conditional import needed
from i2i.nets.equalized import EqualLinear, PixelNorm, cast_like, leaky_relu, to_float32

# Of the moving average of styles: the share one step keeps, as in the code of Karras et al. 2019 (section
# B, truncation).
BETA = 0.995


class Mapping(nn.Module):
    """From noise and a label to a style: fully connected layers that learn `lr_multiplier` times as fast as
    the rest.  Karras et al. 2019, section 2.

    Noise and the label's embedding are each normalized, then joined (Karras et al. 2020a).  Without noise
    (`z_dim` 0) it is the embedding of a label that a discriminator projects on.  In single precision,
    whatever the step around it runs in.
    """

    def __init__(self, z_dim: int, w_dim: int, num_classes: int, *, layers: int = 8,
                 lr_multiplier: float = 0.01) -> None:
        super().__init__()
        self.embed = EqualLinear(num_classes, w_dim) if num_classes else None
        widths = [z_dim + (w_dim if num_classes else 0)] + [w_dim] * layers
        self.layers = nn.ModuleList(EqualLinear(i, o, lr_multiplier=lr_multiplier) for i,
                                    o in pairwise(widths))
        self.norm = PixelNorm()

    def forward(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> N x w_dim"""
        inputs = [] if z is None else [self.norm(to_float32(z))]
        if self.embed is not None:
            inputs.append(self.norm(self.embed.column(needed(c))))
        w = torch.cat(inputs, 1)
        with cast_like(w):
            for layer in self.layers:
                w = leaky_relu(layer(w))
        return w


class Noise(nn.Module):
    """What a layer adds to all its channels, or to each by its own share, times a learned strength: drawn
    anew in training, the same always in eval mode.  Karras et al. 2019, section 2; one strength a layer:
    Karras et al. 2020b."""

    constant: Tensor

    def __init__(self, size: tuple[int, int], channels: int = 1) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("constant", torch.randn(1, 1, *size))

    def forward(self, x: Tensor) -> Tensor:
        """For an NCHW map -> what is to be added to it"""
        noise = torch.randn(len(x), *self.constant.shape[1:], dtype=x.dtype,
                            device=x.device) if self.training else self.constant.to(x.dtype)
        return noise * self.strength.to(x.dtype)


class Styled(nn.Module):
    """A generator made of a mapping network and, in the class that inherits, `synthesize`: N x num_ws x w_dim
    -> NCHW.

    In training a share `mixing` of the images takes its later layers' styles from a second z (Karras et al.
    2019, section 3.1), and `w_avg` follows the mean style.  In eval mode styles are drawn to that mean where
    `truncation` is below 1 (section B).
    """

    recompute = False
    shared: ClassVar[tuple[str, ...]] = ("w_avg",)
    w_avg: Tensor

    def __init__(self, num_ws: int, num_classes: int, *, z_dim: int, w_dim: int, mapping_layers: int,
                 mixing: float) -> None:
        super().__init__()
        for key, value in (("z_dim", z_dim), ("w_dim", w_dim)):
            require(value >= 1, f"generator.{key}", value, "1 or more")
        require(1 <= mapping_layers <= 100, "generator.mapping_layers", mapping_layers, "1 to 100")
        require(0 <= mixing <= 1, "generator.mixing", mixing, "0 to 1")
        self.num_ws, self.num_classes, self.z_dim, self.w_dim, self.mixing = num_ws, num_classes, z_dim, w_dim, mixing
        self.truncation = 1.0
        self.mapping = Mapping(z_dim, w_dim, num_classes, layers=mapping_layers)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def styles(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """One style for each layer: mixed in training, truncated in eval mode.  N x z_dim, N -> N x num_ws x
        w_dim"""
        if not self.training:
            w = self.mapping(z, c)
            w = w if self.truncation == 1 else self.w_avg.lerp(w, self.truncation)
            return w[:, None].expand(-1, self.num_ws, -1)
        if not self.mixing:
            w = other = self.mapping(z, c)
        else:
            w, other = self.mapping(torch.cat([z, torch.randn_like(z)]),
                                    None if c is None else torch.cat([c, c])).chunk(2)
        with torch.no_grad():
            self.w_avg.lerp_(w.mean(0), 1 - BETA)
        mixed = torch.rand(len(z), 1, device=z.device) < self.mixing
        # The layer from which on the second style holds.
        first = torch.randint(1, self.used(), (len(z), 1), device=z.device)
        layer = torch.arange(self.num_ws, device=z.device)
        return torch.where((mixed & (layer >= first))[:, :, None], other[:, None], w[:, None])

    def used(self) -> int:
        """How many layers an image now passes: in a network that grows fewer than all, so that what is mixed
        is seen."""
        return self.num_ws

    def synthesize(self, ws: Tensor) -> Tensor:
        """N x num_ws x w_dim -> NCHW"""
        raise NotImplementedError

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> NCHW"""
        return self.synthesize(self.styles(z, c))
