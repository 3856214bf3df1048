"""Fully connected generator and discriminator: for points (images of one pixel) and small pictures."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets import norms
from i2i.nets.conditional import Projection, Vectors, needed
from i2i.nets.minibatch import among
from i2i.nets.virtual import Reference
from i2i.registry import register

CHUNKS = 5      # Of which maxout takes the largest: Lin et al. 2018, for points, in the authors' code.

Activation = Literal["relu", "leaky", "tanh", "maxout"]


class Dense(nn.Module):
    """A linear layer, a norm and an activation.  `maxout` is the largest of five linear layers (Goodfellow et
    al. 2013)."""

    def __init__(self, into: int, out: int, activation: str, norm: str, reference: int = 0) -> None:
        super().__init__()
        self.pieces = CHUNKS if activation == "maxout" else 1
        self.linear = nn.Linear(into, out * self.pieces, bias=norms.needs_bias(norm))
        self.norm = norms.make(norm, out, reference)
        self.act = {"relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.2), "tanh": nn.Tanh(),
                    "maxout": nn.Identity()}[activation]

    def forward(self, h: Tensor) -> Tensor:
        """NC -> NC'"""
        alone = len(h) == 1 and self.training and isinstance(self.norm, nn.modules.batchnorm._BatchNorm)
        require(not alone, "train.batch_size", 1,
                "2 or more for each process, with batch norm over single values; or norm=virtual or none")
        h = self.linear(h)
        if self.pieces > 1:
            h = h.unflatten(1, (-1, self.pieces)).max(2).values
        return self.act(h if isinstance(self.norm, nn.Identity)
                        else self.norm(h[:, :, None, None]).flatten(1))


def hidden_layers(player: str, into: int, width: int, layers: int, activation: str, norm: str,
                  reference: int) -> nn.Sequential:
    """`layers` layers of `width` units."""
    require(width >= 1, f"{player}.width", width, "1 or more")
    require(layers >= 1, f"{player}.layers", layers, "1 or more")
    require(norm != "instance", f"{player}.norm", norm,
            "batch, syncbatch, virtual or none, as a unit has one value, which nothing remains of")
    return nn.Sequential(*(Dense(into if i == 0 else width, width, activation, norm, reference)
                           for i in range(layers)))


@torch.no_grad()
def init_weights(player: str, network: nn.Module, std: float) -> None:
    """Weights from N(0, std), or where that is 0 as He et al. 2015, equation 10; biases 0."""
    require(std >= 0, f"{player}.std", std, "0 or more")
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, std) if std else nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@register("noise_generator", "mlp")
class Generator(nn.Module):
    """Goodfellow et al. 2014: fully connected.  Images of any size; a point of the plane is one of 2 channels
    and 1x1 pixel.

    Width, layers, activation and norm are by default those of the code of Lin et al. 2018 for points, which
    has z_dim 2, output=linear and std=0.02. `std`: standard deviation of the first weights; 0: as the widths
    ask for.  A label's vector stands beside z. `reference`: how many images virtual batch norm compares with.
    """

    def __init__(self, out_channels: int, size: tuple[int, int], num_classes: int = 0, *, z_dim: int = 100,
                 width: int = 400, layers: int = 4,
                 activation: Activation = "relu", norm: str = "batch",
                 output: Literal["tanh", "linear"] = "tanh",
                 std: float = 0.0, reference: int = 64) -> None:
        super().__init__()
        require(z_dim >= 1, "generator.z_dim", z_dim, "1 or more")
        self.z_dim, self.num_classes, self.shape = z_dim, num_classes, (out_channels, *size)
        self.embedding = Vectors(num_classes, z_dim) if num_classes else None
        self.reference = Reference("generator", norm, reference, (z_dim,), num_classes)
        self.layers = hidden_layers("generator", z_dim * (2 if num_classes else 1), width, layers,
                                    activation, norm, self.reference.count)
        self.out = nn.Linear(width, math.prod(self.shape))
        self.bounded = output == "tanh"
        init_weights("generator", self, std)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """N x z_dim, N -> NCHW, in [-1, 1] with output=tanh"""
        z, c = self.reference(z, c)
        h = torch.cat([z, self.embedding(needed(c))], 1) if self.embedding else z
        x = self.out(self.layers(h)[self.reference.count:]).unflatten(1, self.shape)
        return torch.tanh(x) if self.bounded else x


@register("discriminator", "mlp")
class Discriminator(nn.Module):
    """Goodfellow et al. 2014: fully connected; width, layers and activation are by default those of the code
    of Lin et al. 2018 for points.

    `kernels` and `kernel_dims`: minibatch discrimination (Salimans et al. 2016); `group`: minibatch standard
    deviation (Karras et al. 2018); 0: none. `reference`: how many images virtual batch norm compares with.
    With classes, the inner product with the label's vector is added (Miyato and Koyama 2018).
    """

    def __init__(self, in_channels: int, size: tuple[int, int], num_classes: int = 0, *, width: int = 200,
                 layers: int = 3,
                 activation: Activation = "maxout", norm: str = "none", group: int = 0, kernels: int = 0,
                 kernel_dims: int = 5,
                 std: float = 0.0, reference: int = 64) -> None:
        super().__init__()
        self.num_classes, self.feature_shape = num_classes, (width, 1, 1)
        self.reference = Reference("discriminator", norm, reference, (in_channels, *size))
        self.layers = hidden_layers("discriminator", in_channels * size[0] * size[1], width, layers,
                                    activation, norm, self.reference.count)
        self.among, channels = among(self.feature_shape, group, kernels, kernel_dims)
        self.out = nn.Linear(channels, 1)
        self.projection = Projection(num_classes, width) if num_classes else None
        init_weights("discriminator", self, std)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        """The activations of all layers but the last, outermost first; the label plays no part in them.  NCHW
        -> [NC11, …]"""
        h, out = self.reference(x)[0].flatten(1), []
        for layer in self.layers:
            h = layer(h)
            out.append(h[self.reference.count:, :, None, None])
        return out

    def trunk(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """What `head` judges, of the shape `feature_shape`.  NCHW -> NC11"""
        return self.features(x, c)[-1]

    def head(self, h: Tensor, c: Tensor | None = None) -> Tensor:
        """NC11 features, N -> N1 logits"""
        logits = self.out(self.among(h).flatten(1))
        return logits + self.projection(h, needed(c)).flatten(1) if self.projection else logits

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """NCHW, N -> N1 logits"""
        return self.head(self.trunk(x, c), c)
