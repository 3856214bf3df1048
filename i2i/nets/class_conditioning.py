"""Layers that condition a network on class labels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError, require
from i2i.nets.norms import make_norm, make_norm_without_parameters


def require_labels(c: Tensor | None) -> Tensor:
    """The labels, or RequestError if there are none."""
    if c is None:
        raise RequestError("a class-conditional network needs the labels of its images; accepted: N indices")
    return c


class ClassEmbedding(nn.Module):
    """A learned vector per class, initialized from N(0, 1) or to one value.

    Not `nn.Embedding`, which spectral norm would take for a layer: these are inputs and gains, not weights
    (Miyato and Koyama 2018 and Zhang et al. 2019 do not normalize those of conditional norms).
    """

    def __init__(self, num_classes: int, channels: int, value: float | None = None) -> None:
        super().__init__()
        shape = num_classes, channels
        self.weight = nn.Parameter(torch.randn(shape) if value is None else torch.full(shape, value))

    def forward(self, c: Tensor) -> Tensor:
        """(N) -> (N, C)"""
        return F.embedding(c, self.weight)


class ConditionalNorm(nn.Module):
    """Norm with gain and bias per class; a plain norm if `num_classes` is 0.

    Dumoulin et al. 2017, equation 5 (instance norm); de Vries et al. 2017 (batch norm).
    """

    def __init__(self, name: str, channels: int, num_classes: int, reference: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        require(not num_classes or name != "none", "generator.norm", name,
                "batch, syncbatch, virtual or instance, where the label selects a norm's gain and bias; "
                "or set generator.condition=concat")
        if not num_classes:
            self.norm = make_norm(name, channels, reference)
            return
        self.norm = make_norm_without_parameters(name, channels, reference)
        self.gain = ClassEmbedding(num_classes, channels, 1.0)
        self.bias = ClassEmbedding(num_classes, channels, 0.0)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """(N, C, H, W), (N) or None -> (N, C, H, W)"""
        if not self.num_classes:
            return self.norm(x)
        c = require_labels(c)
        return self.norm(x) * self.gain(c)[:, :, None, None] + self.bias(c)[:, :, None, None]


class ClassProjection(nn.Module):
    """Inner product of a class vector and image features.  Miyato and Koyama 2018, equation 3.

    A linear layer on one-hot labels, so that spectral norm applies to it as in the paper.
    """

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.vectors = nn.Linear(num_classes, channels, bias=False)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """(N, C, H, W) features, (N) -> (N, 1, H, W)"""
        one_hot = (c[:, None] == torch.arange(self.vectors.in_features, device=c.device)).to(h.dtype)
        return (h * self.vectors(one_hot)[:, :, None, None]).sum(1, keepdim=True)


class LabelChannel(ClassEmbedding):
    """A label as one more image channel.  Mirza and Osindero 2014."""

    def __init__(self, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__(num_classes, size[0] * size[1])
        self.size = size

    def forward(self, c: Tensor) -> Tensor:
        """(N) -> (N, 1, H, W)"""
        return super().forward(c).unflatten(1, (1, *self.size))
