"""Encoders: from an image to mean and logarithm of the variance of z, for variational autoencoders."""

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets import dcgan, mlp
from i2i.nets.blocks import GemmConv2d, init_weights
from i2i.nets.class_conditioning import LabelChannel, require_labels
from i2i.nets.options import Norm, Width
from i2i.registry import register


def _check_norm(norm: str) -> None:
    require(norm != "virtual", "encoder.norm", norm, "batch, syncbatch, instance or none")


@register("encoder", "dcgan")
class ConvEncoder(dcgan.Discriminator):
    """DCGAN's discriminator with a last layer for z.  Labels enter as an image channel."""

    def __init__(self, in_channels: int, size: tuple[int, int], z_dim: int, num_classes: int = 0, *,
                 width: Width = 64, norm: Norm = "batch") -> None:
        _check_norm(norm)
        super().__init__(in_channels, size, num_classes, width=width, norm=norm)
        channels, *base = self.feature_shape
        self.out = GemmConv2d(channels, 2 * z_dim, (base[0], base[1]))
        init_weights(self.out)


@register("encoder", "mlp")
class MLPEncoder(mlp.Discriminator):
    """Fully connected encoder, for points and small images.  Labels enter as an image channel."""

    def __init__(self, in_channels: int, size: tuple[int, int], z_dim: int, num_classes: int = 0, *,
                 width: mlp.Units = 400, layers: mlp.Layers = 2, activation: mlp.Activation = "relu",
                 norm: Norm = "none") -> None:
        _check_norm(norm)
        super().__init__(in_channels + bool(num_classes), size, width=width, layers=layers,
                         activation=activation, norm=norm)
        self.label = LabelChannel(num_classes, size) if num_classes else None
        self.out = nn.Linear(width, 2 * z_dim)
        init_weights(self.out)

    def features(self, x: Tensor, c: Tensor | None = None) -> list[Tensor]:
        if self.label:
            x = torch.cat([x, self.label(require_labels(c)).to(x.dtype)], 1)
        return super().features(x)
