"""Fully connected generator and discriminator, for points (images of one pixel) and small images."""

import math
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.blocks import MAX_LAYERS, init_weights
from i2i.nets.class_conditioning import ClassProjection, require_labels
from i2i.nets.minibatch_discrimination import minibatch_layers
from i2i.nets.noise_generator import NoiseGenerator
from i2i.nets.norms import make_norm, needs_bias
from i2i.nets.options import Group, KernelDims, Kernels, Norm, Reference, ZDim
from i2i.nets.trunk_discriminator import TrunkDiscriminator
from i2i.nets.virtual_batch_norm import ReferenceBatch
from i2i.registry import register

MAXOUT_PIECES = 5       # Linear layers per maxout: the code of Lin et al. 2018 for points.

Units = Annotated[int, Doc("Units of each hidden layer")]
Layers = Annotated[int, Doc("Number of hidden layers, 1 to 1000")]
Activation = Annotated[Literal["relu", "leaky", "tanh", "maxout"], Doc(
    "Activation of hidden layers; maxout: the maximum of five linear layers (Goodfellow et al. 2013)")]
Std = Annotated[float, Doc("Standard deviation of the initial weights; 0: that of He et al. 2015")]


class Dense(nn.Module):
    """Linear layer, norm and activation."""

    def __init__(self, in_features: int, out_features: int, activation: str, norm: str,
                 reference: int = 0) -> None:
        super().__init__()
        self.pieces = MAXOUT_PIECES if activation == "maxout" else 1
        self.linear = nn.Linear(in_features, out_features * self.pieces, bias=needs_bias(norm))
        self.norm = make_norm(norm, out_features, reference)
        self.act = {"relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.2), "tanh": nn.Tanh(),
                    "maxout": nn.Identity()}[activation]

    def forward(self, h: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)"""
        alone = self.training and len(h) == 1 and isinstance(self.norm, nn.modules.batchnorm._BatchNorm)
        require(not alone, "train.batch_size", 1,
                "2 or more for each process, with batch norm over single values; or norm=virtual or none")
        h = self.linear(h)
        if self.pieces > 1:
            h = h.unflatten(1, (-1, self.pieces)).max(2).values
        if not isinstance(self.norm, nn.Identity):
            h = self.norm(h[:, :, None, None]).flatten(1)
        return self.act(h)


def _hidden_layers(player: str, in_features: int, width: int, layers: int, activation: str, norm: str,
                   reference: int) -> nn.Sequential:
    require(width >= 1, f"{player}.width", width, "1 or more")
    require(1 <= layers <= MAX_LAYERS, f"{player}.layers", layers, f"1 to {MAX_LAYERS}")
    require(norm != "instance", f"{player}.norm", norm,
            "batch, syncbatch, virtual or none; a unit has a single value, which instance norm makes 0")
    return nn.Sequential(*(Dense(width if i else in_features, width, activation, norm, reference)
                           for i in range(layers)))


def _init_weights(player: str, network: nn.Module, std: float) -> None:
    """Weights from N(0, std), or if that is 0 by He et al. 2015, equation 10."""
    require(std >= 0, f"{player}.std", std, "0 or more")
    init_weights(network, partial(nn.init.normal_, std=std) if std else nn.init.kaiming_normal_)


@register("noise_generator", "mlp")
class Generator(NoiseGenerator):
    """Fully connected generator of images of any size.  Goodfellow et al. 2014.

    A point of the plane is an image of 2 channels and 1x1 pixel.  Defaults of width, layers, activation and
    norm are those of the code of Lin et al. 2018 for points, which has z_dim 2, output=linear and std=0.02.
    A label's embedding is concatenated to z.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: ZDim = 100,
                 width: Units = 400, layers: Layers = 4, activation: Activation = "relu",
                 norm: Norm = "batch", output: Annotated[Literal["tanh", "linear"], Doc(
                     "Activation of the output")] = "tanh",
                 std: Std = 0.0, reference: Reference = 64) -> None:
        super().__init__(z_dim, num_classes, norm=norm, reference=reference)
        self.shape = out_channels, *size
        self.layers = _hidden_layers("generator", self.in_features, width, layers, activation, norm,
                                     self.reference.count)
        self.out = nn.Linear(width, math.prod(self.shape))
        self.activation = torch.tanh if output == "tanh" else nn.Identity()
        _init_weights("generator", self, std)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, z_dim), (N) labels -> (N, C, H, W), in [-1, 1] with output=tanh"""
        h = self.layers(self.inputs(z, c)[0])
        return self.activation(self.out(h[self.reference.count:]).unflatten(1, self.shape))


@register("discriminator", "mlp")
class Discriminator(TrunkDiscriminator):
    """Fully connected discriminator.  Goodfellow et al. 2014.

    Defaults of width, layers and activation are those of the code of Lin et al. 2018 for points.  With
    classes, the inner product with the label's vector is added (Miyato and Koyama 2018).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: Units = 200,
                 layers: Layers = 3, activation: Activation = "maxout", norm: Norm = "none",
                 group: Group = 0, kernels: Kernels = 0, kernel_dims: KernelDims = 5, std: Std = 0.0,
                 reference: Reference = 64) -> None:
        super().__init__()
        self.num_classes, self.feature_shape = num_classes, (width, 1, 1)
        self.reference = ReferenceBatch("discriminator", norm, reference, (in_channels, *size))
        self.layers = _hidden_layers("discriminator", in_channels * size[0] * size[1], width, layers,
                                     activation, norm, self.reference.count)
        self.minibatch, in_last = minibatch_layers(self.feature_shape, group, kernels, kernel_dims)
        self.out = nn.Linear(in_last, 1)
        self.projection = ClassProjection(num_classes, width) if num_classes else None
        _init_weights("discriminator", self, std)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """Activations of all layers but the last, without labels: (N, C, H, W) -> [(N, C', 1, 1)]"""
        h, out = self.reference(x)[0].flatten(1), []
        for layer in self.layers:
            h = layer(h)
            out.append(h[self.reference.count:, :, None, None])
        return out

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """(N, *feature_shape), (N) -> (N, 1) logits"""
        logits = self.out(self.minibatch(h).flatten(1))
        return logits + self.projection(h, require_labels(c)).flatten(1) if self.projection else logits
