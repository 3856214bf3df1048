"""Discriminator on the features of a frozen network: projected GAN.  Sauer et al. 2021 (arXiv:2111.01007)."""

import functools
import math
from itertools import pairwise
from typing import Annotated, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import RequestError, require
from i2i.metrics.feature_networks import frozen_network
from i2i.metrics.networks.base import Layer
from i2i.nets.blocks import GemmConv2d, init_weights
from i2i.nets.class_conditioning import ClassProjection, require_labels
from i2i.nets.joined_images import MAX_CHANNELS, channels_of_images, split_rgb
from i2i.nets.norms import make_norm
from i2i.nets.options import Norm
from i2i.nets.weight_norm import spectral as spectral_norm
from i2i.registry import register

SCALES = 4
HEAD_SIDE = 8       # Pixels of the shorter side at which a head stops to halve.  The authors' code.
LAYERS_PER_BLOCK = 3        # Of a head: convolution, norm, activation.
LOGIT_WINDOW = 4    # Width of the heads' last convolutions.
# In place of the layers of a network whose weights are absent, where a model file is read for its generator.
UNKNOWN = tuple(Layer(1, 4 << scale) for scale in range(SCALES))

Features = Annotated[str, Doc("Feature network, i2i list feature_network, or timm:NAME")]
FeatureLayers = Annotated[tuple[str, ...], Doc("Its layers, from shallow to deep; none: its default layers")]


@functools.cache
def raw_sizes(name: str, layers: tuple[str, ...], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Heights and widths of a frozen network's feature maps of an image."""
    network, image = frozen_network(name, torch.device("meta")), torch.empty(1, 3, *size, device="meta")
    return [(h.shape[2], h.shape[3]) for h in network.feature_maps(image, layers)]


class FeaturePyramid(nn.Module):
    """Features of a frozen network, mixed across channels and scales by fixed random convolutions.

    Section 3.2.

    Images are not resized, unlike in the authors' code, which enlarges them to 224 pixels.  Each image of a
    pair passes through the network by itself; their features are mixed together, so that a head sees both.
    The network is no part of the state: its name is in the settings.

    Args:
        in_channels: channels of the image, or of each of several joined ones (`JoinedChannels`).
        channels: of the mixed features next to the image; doubled with each scale.
        kernel: width of the convolutions across scales.
    """

    def __init__(self, in_channels: int, features: str, layers: tuple[str, ...], channels: int,
                 kernel: int) -> None:
        super().__init__()
        self.network_name = features
        self.images = channels_of_images(in_channels)
        require(max(self.images) <= MAX_CHANNELS, "discriminator", "projected",
                f"others, such as patch or multiscale, where an image has more than {MAX_CHANNELS} channels "
                f"({max(self.images)} here; label maps have a channel for each class unless "
                "source_encoding=channels): the frozen network takes color or gray images")
        self.found = self.find_layers(layers)
        images = sum(channels // 3 + channels % 3 for channels in self.images)
        widths = [channels << scale for scale in range(len(self.found))]
        self.mix_channels = nn.ModuleList(nn.Conv2d(images * layer.channels, width, 1)
                                          for layer, width in zip(self.found, widths, strict=True))
        self.channels = [channels, *widths[:-1]]
        self.mix_scales = nn.ModuleList(nn.Conv2d(a, b, kernel, 1, kernel // 2)
                                        for a, b in zip(widths, self.channels, strict=True))
        init_weights(self, nn.init.kaiming_normal_)
        self._freeze()

    def find_layers(self, layers: tuple[str, ...]) -> list[Layer]:
        """Channels and strides of the layers; of unknown ones on the meta device without their weights."""
        try:
            network = frozen_network(self.network_name)
        except RequestError:
            if not torch.empty(0).is_meta:
                raise
            self.layers = layers
            return list(UNKNOWN[:len(layers) or SCALES])
        self.layers = network.check_layers(layers or None)
        return [network.layers[name] for name in self.layers]

    def _freeze(self) -> None:
        """Make all parameters buffers, which are saved, but not learned."""
        for module in list(self.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Heights and widths of the mixed features of an image of this size, shallow first."""
        try:
            raw = raw_sizes(self.network_name, self.layers, size)
        except RequestError:        # See `find_layers`.
            raw = [(-(-size[0] // layer.stride), -(-size[1] // layer.stride)) for layer in self.found]
        return enlarged_sizes(raw)

    def raw(self, x: Tensor) -> list[Tensor]:
        """The frozen network's features: (N, C, H, W) -> [(N, C', H / stride, W / stride)], shallow first"""
        n, images = len(x), split_rgb(x, self.images)
        network = frozen_network(self.network_name, x.device)
        maps = network.feature_maps(torch.cat(images).float(), self.layers)
        return [torch.cat(h.split(n), 1).to(x.dtype) if len(images) > 1 else h.to(x.dtype) for h in maps]

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> mixed features at twice the resolution of the raw ones, shallow first"""
        maps = [mix(h) for mix, h in zip(self.mix_channels, self.raw(x), strict=True)]
        sizes = enlarged_sizes([(h.shape[2], h.shape[3]) for h in maps])
        mixed: list[Tensor] = []
        for h, mix, size in zip(reversed(maps), reversed(self.mix_scales), reversed(sizes), strict=True):
            h = h + mixed[-1] if mixed else h
            mixed.append(mix(enlarge(h, size)))
        return mixed[::-1]


def enlarged_sizes(raw: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The next larger size of each: that of the features before it, or twice that of the first."""
    return [(2 * raw[0][0], 2 * raw[0][1]), *raw[:-1]]


def enlarge(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation whose corner pixels keep their places: (N, C, h, w) -> (N, C, H, W)

    As two matrix products: deterministic on GPUs, and differentiable twice.
    """
    for dim, side in ((2, size[0]), (3, size[1])):
        eye = torch.eye(x.shape[dim], dtype=x.dtype, device=x.device)[None]
        weights = F.interpolate(eye, side, mode="linear", align_corners=True)[0]        # (h, H)
        x = (x.transpose(2, 3) @ weights).transpose(2, 3) if dim == 2 else x @ weights
    return x


class Head(nn.Module):
    """A small patch discriminator of features: convolutions down to about 8 pixels, then one logit per patch.

    Args:
        blocks: how many convolutions halve the size; if 0, there is one that does not.
        width: channels of the last convolution; each one before it has half as many as the next.
    """

    def __init__(self, in_channels: int, blocks: int, width: int, norm: str, num_classes: int,
                 window: int = LOGIT_WINDOW) -> None:
        super().__init__()
        channels = [in_channels, *(max(1, width >> i) for i in reversed(range(max(1, blocks))))]
        kernel = (4, 2, 1) if blocks else (3, 1, 1)
        self.layers = nn.Sequential(*(layer for a, b in pairwise(channels) for layer in (
            GemmConv2d(a, b, *kernel), make_norm(norm, b), nn.LeakyReLU(0.2))))
        self.out = GemmConv2d(width, 1, window, bias=False)
        self.projection = ClassProjection(num_classes, width) if num_classes else None
        init_weights(self)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of all convolutions but the last: (N, C, H, W) -> [(N, C', H', W')]"""
        return [x := layer(x) for layer in self.layers][LAYERS_PER_BLOCK - 1::LAYERS_PER_BLOCK]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, C, H, W), (N) labels -> logits (N, 1, H', W')"""
        h = self.layers(x)
        if not self.projection:
            return self.out(h)
        projected = self.projection(h, require_labels(c))
        return self.out(h) + F.avg_pool2d(projected, self.out.kernel_size, 1, divisor_override=1)


@register("discriminator", "projected")
class ProjectedDiscriminator(nn.Module):
    """Projected GAN: small discriminators of a frozen network's features, mixed by fixed random convolutions.
    Sauer et al. 2021 (arXiv:2111.01007).

    One for each scale.  Judge what it has trained by other networks than its own (docs/evaluation.md).  With
    classes, the label's vector is projected on the features of each patch (Miyato and Koyama 2018).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *,
                 features: Features = "efficientnet-lite0", layers: FeatureLayers = (),
                 channels: Annotated[int, Doc(
                     "Channels of the mixed features next to the image, doubled with each scale")] = 32,
                 kernel: Annotated[int, Doc(
                     "Width of the fixed convolutions across scales, odd: 1 as in the authors' code, 3 as in "
                     "the paper")] = 1,
                 width: Annotated[int, Doc("Channels of each head's last convolution")] = 128,
                 norm: Norm = "batch",
                 spectral: Annotated[bool, Doc("Spectral norm of the heads' weights")] = True) -> None:
        super().__init__()
        for key, value in (("channels", channels), ("width", width)):
            require(value >= 1, f"discriminator.{key}", value, "1 or more")
        require(kernel % 2 == 1 and kernel >= 1, "discriminator.kernel", kernel, "an odd number, 1 or more")
        self.num_classes = num_classes
        self.pyramid = FeaturePyramid(in_channels, features, layers, channels, kernel)
        self.heads = nn.ModuleList()
        for a, sides in zip(self.pyramid.channels, self.pyramid.sizes(size), strict=True):
            blocks = max(0, math.ceil(math.log2(min(sides) / HEAD_SIDE)))
            window = min(LOGIT_WINDOW, min(sides) >> blocks)
            self.heads.append(Head(a, blocks, width, norm, num_classes, window))
        if spectral:
            spectral_norm(self.heads)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[list[Tensor]]:
        """Activations of each head but the logits, without labels: (N, C, H, W) -> [[(N, C', H', W')]]"""
        return [cast(Head, head).features(h) for head, h in zip(self.heads, self.pyramid(x), strict=True)]

    def forward(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """(N, C, H, W), (N) labels -> logits of each head, (N, 1, H', W') each"""
        return [head(h, c) for head, h in zip(self.heads, self.pyramid(x), strict=True)]
