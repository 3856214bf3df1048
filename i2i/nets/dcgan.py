"""Generator and discriminator of DCGAN."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets import norms
from i2i.nets.blocks import Conv, ConvTranspose, init_weights, upsample
from i2i.nets.conditional import LabelMap, Normalized, Projection, Vectors, needed
from i2i.nets.minibatch import among
from i2i.nets.recompute import checkpointed
from i2i.nets.sizes import halvings
from i2i.nets.virtual import Reference
from i2i.registry import register

# Channels at the smallest map, as a multiple of those next to the image, are no more than this.
MAX_WIDTH = 8


def widths(width: int, count: int) -> list[int]:
    """Channels of `count` maps from the image inwards, doubled each time up to eight times: 64, 128, 256,
    512, 512."""
    return [width * min(2**i, MAX_WIDTH) for i in range(count)]


def scaled_widths(layer: nn.Module, norm: nn.Module, x: Tensor, c: Tensor | None) -> Tensor:
    """One layer of the generator.  NChw, N -> NC'(2h)(2w)"""
    return F.relu(norm(layer(x), c))


@register("noise_generator", "dcgan")
class Generator(nn.Module):
    """Radford, Metz and Chintala 2016 (arXiv:1511.06434): no fully connected layer, a norm everywhere but at
    the output, ReLU, tanh.

    `width` channels next to the image, doubling inwards to at most eight times.  With classes, the label
    comes in by `condition`: its embedding beside z (`concat`; Mirza and Osindero 2014), or as gain and bias
    of every norm (`batchnorm`; de Vries et al. 2017). `reference`: how many images virtual batch norm
    compares with.
    """

    recompute = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 100,
                 width: int = 64,
                 norm: str = "batch", up: Literal["transposed", "resize"] = "transposed",
                 condition: Literal["concat", "batchnorm"] = "concat", reference: int = 64) -> None:
        super().__init__()
        require(width >= 1, "generator.width", width, "1 or more")
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        smallest, count = halvings(size, "dcgan")
        self.z_dim, self.num_classes = z_dim, num_classes
        # As many numbers as z has.
        self.embedding = Vectors(num_classes, z_dim) if num_classes and condition == "concat" else None
        self.reference = Reference("generator", norm, reference, (z_dim,), num_classes)
        classes = num_classes if condition == "batchnorm" else 0
        bias = norms.needs_bias(norm) and not classes
        inner = widths(width, count)[::-1]
        layers: list[nn.Module] = [ConvTranspose(z_dim * (2 if self.embedding else 1), inner[0], smallest,
                                                 bias=bias)]      # type: ignore[arg-type]
        layers += [upsample(up, a, b, kernel=4, bias=bias) for a, b in pairwise(inner)]
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList(Normalized(norm, channels, classes, self.reference.count)
                                   for channels in inner)
        self.out = upsample(up, inner[-1], out_channels, kernel=4, bias=True)
        init_weights(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> NCHW in [-1, 1]"""
        z, c = self.reference(z, c)
        x = torch.cat([z, self.embedding(needed(c))], 1) if self.embedding else z
        x = x[:, :, None, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = checkpointed(self, scaled_widths, layer, norm, x, c)
        return torch.tanh(self.out(x[self.reference.count:]))


@register("discriminator", "dcgan")
class Discriminator(nn.Module):
    """Radford et al. 2016: strided convolutions, a norm everywhere but at the input, LeakyReLU, one logit.

    With classes, the label comes in by `condition`: one more channel of the image (`concat`; Mirza and
    Osindero 2014), or the inner product of its vector with the sum of the last features (`projection`; Miyato
    and Koyama 2018).  `kernels` and `kernel_dims`: minibatch discrimination before the last layer (Salimans
    et al. 2016, section 3.2); `group`: minibatch standard deviation (Karras et al. 2018, section 3); 0 for
    none. `reference`: how many images virtual batch norm compares with.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 64,
                 norm: str = "batch",
                 condition: Literal["concat", "projection"] = "concat", group: int = 0, kernels: int = 0,
                 kernel_dims: int = 5,
                 reference: int = 64) -> None:
        super().__init__()
        require(width >= 1, "discriminator.width", width, "1 or more")
        smallest, count = halvings(size, "dcgan")
        outer = widths(width, count)
        self.num_classes, self.feature_shape = num_classes, (outer[-1], *smallest)
        self.label = LabelMap(num_classes, size) if num_classes and condition == "concat" else None
        self.reference = Reference("discriminator", norm, reference, (in_channels, *size), num_classes)
        bias = norms.needs_bias(norm)
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(in_channels + (1 if self.label else 0), width,
                                                             4, 2, 1), nn.LeakyReLU(0.2))])
        for a, b in pairwise(outer):
            self.layers.append(nn.Sequential(Conv(a, b, 4, 2, 1, bias=bias),
                                             norms.make(norm, b, self.reference.count), nn.LeakyReLU(0.2)))
        self.among, channels = among(self.feature_shape, group, kernels, kernel_dims)
        self.out = Conv(channels, 1, smallest)      # type: ignore[arg-type]
        self.projection = Projection(num_classes,
                                     outer[-1]) if num_classes and condition == "projection" else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The activations of all layers but the last, outermost first.  NCHW, N -> [NChw, …]"""
        x, c = self.reference(x, c)
        if self.label:
            x = torch.cat([x, self.label(needed(c)).to(x.dtype)], 1)
        out = []
        for layer in self.layers:
            x = layer(x)
            out.append(x[self.reference.count:])
        return out

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """What `head` judges, of the shape `feature_shape`.  NCHW, N -> NChw"""
        return self.features(x, c)[-1]

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """NChw features, N -> N1 logits"""
        logits = self.out(self.among(h)).flatten(1)
        return logits + self.projection(h, needed(c)).sum((2, 3)) if self.projection else logits

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1 logits"""
        return self.head(self.trunk(x, c), c)
