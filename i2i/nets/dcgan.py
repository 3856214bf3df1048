"""Generator and discriminator of DCGAN."""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.nets.base_resolution import base_resolution
from i2i.nets.blocks import GemmConv2d, GemmConvTranspose2d, channels_per_level, init_weights, upsample_layer
from i2i.nets.class_conditioning import ClassProjection, ConditionalNorm, LabelChannel, require_labels
from i2i.nets.gradient_checkpointing import checkpoint_stage
from i2i.nets.minibatch_discrimination import minibatch_layers
from i2i.nets.noise_generator import NoiseGenerator
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Condition, Group, KernelDims, Kernels, Norm, Reference, Up, Width, ZDim
from i2i.nets.trunk_discriminator import TrunkDiscriminator
from i2i.nets.virtual_batch_norm import ReferenceBatch
from i2i.registry import register


def _stage(layer: nn.Module, norm: nn.Module, x: Tensor, c: Tensor | None) -> Tensor:
    """One layer of the generator.  (N, C, H, W), (N) -> (N, C', 2H, 2W)"""
    return F.relu(norm(layer(x), c))


@register("noise_generator", "dcgan")
class Generator(NoiseGenerator):
    """DCGAN generator: transposed convolutions, norm, ReLU, tanh.  Radford et al. 2016 (arXiv:1511.06434)."""

    gradient_checkpointing = False

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 100,
                 width: Width = 64, norm: Norm = "batch", up: Up = "transposed",
                 condition: Condition = "concat", reference: Reference = 64) -> None:
        base, levels = base_resolution(size, "dcgan")
        super().__init__(z_dim, num_classes, concat=condition == "concat", norm=norm, reference=reference)
        classes = num_classes if condition == "batchnorm" else 0
        bias = needs_bias(norm) and not classes
        channels = channels_per_level("generator", width, levels)[::-1]
        self.layers = nn.ModuleList([
            GemmConvTranspose2d(self.in_features, channels[0], base, bias=bias),  # type: ignore[arg-type]
            *(upsample_layer(up, a, b, kernel=4, bias=bias) for a, b in pairwise(channels))])
        self.norms = nn.ModuleList(ConditionalNorm(norm, n, classes, self.reference.count) for n in channels)
        self.out = upsample_layer(up, channels[-1], out_channels, kernel=4, bias=True)
        init_weights(self)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W) in [-1, 1]"""
        x, c = self.inputs(z, c)
        x = x[:, :, None, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = checkpoint_stage(self, _stage, layer, norm, x, c)
        return torch.tanh(self.out(x[self.reference.count:]))


@register("discriminator", "dcgan")
class Discriminator(TrunkDiscriminator):
    """DCGAN discriminator: strided convolutions, norm and LeakyReLU, one logit.  Radford et al. 2016."""

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Width = 64,
                 norm: Norm = "batch", condition: Annotated[Literal["concat", "projection"], Doc(
                     "How a label enters: as an image channel (Mirza and Osindero 2014), or by the inner "
                     "product of its vector and the summed features (Miyato and Koyama 2018)")] = "concat",
                 group: Group = 0, kernels: Kernels = 0, kernel_dims: KernelDims = 5,
                 reference: Reference = 64) -> None:
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
