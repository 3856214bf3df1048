"""Generator and discriminator of DCGAN."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import GemmConv2d, GemmConvTranspose2d, channels_per_level, init_weights, upsample_layer
from i2i.nets.checkpointing import checkpoint_stage
from i2i.nets.class_conditioning import (
    ClassEmbedding,
    ClassProjection,
    ConditionalNorm,
    LabelChannel,
    require_labels,
)
from i2i.nets.minibatch_discrimination import minibatch_layers
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.trunk import TrunkDiscriminator
from i2i.nets.virtual_batch_norm import ReferenceBatch
from i2i.registry import register


def _stage(layer: nn.Module, norm: nn.Module, x: Tensor, c: Tensor | None) -> Tensor:
    """One layer of the generator.  (N, C, H, W), (N) -> (N, C', 2H, 2W)"""
    return F.relu(norm(layer(x), c))


@register("noise_generator", "dcgan")
class Generator(nn.Module):
    """DCGAN generator: transposed convolutions, norm and ReLU, tanh.  Radford et al. 2016 (arXiv:1511.06434).

    `width` channels next to the image, doubled inwards up to eight times that.  `condition`: how a label
    enters: its embedding beside z (`concat`; Mirza and Osindero 2014), or as gain and bias of every norm
    (`batchnorm`; de Vries et al. 2017).  `reference`: images in the reference batch of virtual batch norm.
    """

    gradient_checkpointing = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 100,
                 width: int = 64, norm: str = "batch", up: Literal["transposed", "resize"] = "transposed",
                 condition: Literal["concat", "batchnorm"] = "concat", reference: int = 64) -> None:
        super().__init__()
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        base, levels = base_resolution(size, "dcgan")
        self.z_dim, self.num_classes = z_dim, num_classes
        concat = bool(num_classes) and condition == "concat"
        self.embedding = ClassEmbedding(num_classes, z_dim) if concat else None
        self.reference = ReferenceBatch("generator", norm, reference, (z_dim,), num_classes)
        classes = num_classes if condition == "batchnorm" else 0
        bias = needs_bias(norm) and not classes
        channels = channels_per_level("generator", width, levels)[::-1]
        self.layers = nn.ModuleList([
            GemmConvTranspose2d(z_dim * (1 + concat), channels[0], base, bias=bias),  # type: ignore[arg-type]
            *(upsample_layer(up, a, b, kernel=4, bias=bias) for a, b in pairwise(channels))])
        self.norms = nn.ModuleList(ConditionalNorm(norm, n, classes, self.reference.count) for n in channels)
        self.out = upsample_layer(up, channels[-1], out_channels, kernel=4, bias=True)
        init_weights(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W) in [-1, 1]"""
        z, c = self.reference(z, c)
        x = torch.cat([z, self.embedding(require_labels(c))], 1) if self.embedding else z
        x = x[:, :, None, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = checkpoint_stage(self, _stage, layer, norm, x, c)
        return torch.tanh(self.out(x[self.reference.count:]))


@register("discriminator", "dcgan")
class Discriminator(TrunkDiscriminator):
    """DCGAN discriminator: strided convolutions, norm and LeakyReLU, one logit.  Radford et al. 2016.

    `condition`: how a label enters: as one more channel of the image (`concat`; Mirza and Osindero 2014), or
    by the inner product of its vector and the summed features (`projection`; Miyato and Koyama 2018).
    `kernels` and `kernel_dims`: minibatch discrimination before the last layer (Salimans et al. 2016, section
    3.2).  `group`: minibatch standard deviation (Karras et al. 2018, section 3).  0: none.  `reference`:
    images in the reference batch of virtual batch norm.
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 64,
                 norm: str = "batch", condition: Literal["concat", "projection"] = "concat", group: int = 0,
                 kernels: int = 0, kernel_dims: int = 5, reference: int = 64) -> None:
        super().__init__()
        base, levels = base_resolution(size, "dcgan")
        channels = channels_per_level("discriminator", width, levels)
        last = channels[-1]
        self.num_classes, self.feature_shape = num_classes, (last, *base)
        self.label = LabelChannel(num_classes, size) if num_classes and condition == "concat" else None
        self.reference = ReferenceBatch("discriminator", norm, reference, (in_channels, *size), num_classes)
        bias = needs_bias(norm)
        self.layers = nn.ModuleList([nn.Sequential(nn.Conv2d(in_channels + bool(self.label), width, 4, 2, 1),
                                                   nn.LeakyReLU(0.2))])
        for a, b in pairwise(channels):
            self.layers.append(nn.Sequential(GemmConv2d(a, b, 4, 2, 1, bias=bias),
                                             make_norm(norm, b, self.reference.count), nn.LeakyReLU(0.2)))
        self.minibatch, in_last = minibatch_layers(self.feature_shape, group, kernels, kernel_dims)
        self.out = GemmConv2d(in_last, 1, base)      # type: ignore[arg-type]
        project = num_classes and condition == "projection"
        self.projection = ClassProjection(num_classes, last) if project else None
        init_weights(self)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """Activations of all layers but the last: (N, C, H, W), (N) -> [(N, C', H', W')], outermost first"""
        x, c = self.reference(x, c)
        if self.label:
            x = torch.cat([x, self.label(require_labels(c)).to(x.dtype)], 1)
        out = []
        for layer in self.layers:
            x = layer(x)
            out.append(x[self.reference.count:])
        return out

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, *feature_shape), (N) -> (N, 1) logits"""
        logits = self.out(self.minibatch(h)).flatten(1)
        return logits + self.projection(h, require_labels(c)).sum((2, 3)) if self.projection else logits
