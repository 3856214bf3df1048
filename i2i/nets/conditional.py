"""What makes a network depend on a class label."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError, require
from i2i.nets import norms


def needed(c: Tensor | None) -> Tensor:
    """The labels; RequestError if there are none."""
    if c is None:
        raise RequestError("a class-conditional network needs the labels of its images; accepted: N class "
                           "indices")
    return c


class Vectors(nn.Module):
    """A vector for each class, from N(0, 1) or of one value.  Not torch's embedding, which spectral norm
    takes for a layer: these are inputs and gains, not weights (Miyato and Koyama 2018 and Zhang et al. 2019
    leave those of conditional norms alone)."""

    def __init__(self, num_classes: int, channels: int, value: float | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_classes, channels) if value is None
                                   else torch.full((num_classes, channels), value))

    def forward(self, c: Tensor) -> Tensor:
        """N -> NC"""
        return F.embedding(c, self.weight)


class ConditionalNorm(nn.Module):
    """A norm whose gain and bias belong to the class: Dumoulin et al. 2017, equation 5 (instance norm); de
    Vries et al. 2017 (batch norm)."""

    def __init__(self, name: str, channels: int, num_classes: int, reference: int = 0) -> None:
        super().__init__()
        require(name != "none", "generator.norm", name,
                "batch, syncbatch, virtual or instance, where the label chooses a norm's gain and bias; "
                "or set generator.condition=concat")
        self.norm = norms.make(name, channels, reference)
        # Its own gain and bias would say the same twice.
        if isinstance(self.norm, nn.modules.batchnorm._BatchNorm | norms.VirtualBatchNorm):
            self.norm.affine = False
            self.norm.register_parameter("weight", None)
            self.norm.register_parameter("bias", None)
        self.gain, self.bias = Vectors(num_classes, channels, 1.0), Vectors(num_classes, channels, 0.0)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """NCHW, N -> NCHW"""
        return self.norm(x) * self.gain(c)[:, :, None, None] + self.bias(c)[:, :, None, None]


class Normalized(nn.Module):
    """A norm that takes labels where there are any and plain affine parameters where there are none, so that
    a network names it once."""

    def __init__(self, name: str, channels: int, num_classes: int, reference: int = 0) -> None:
        super().__init__()
        self.norm = ConditionalNorm(name, channels, num_classes,
                                    reference) if num_classes else norms.make(name, channels, reference)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """NCHW, N or None -> NCHW"""
        return self.norm(x, needed(c)) if isinstance(self.norm, ConditionalNorm) else self.norm(x)


class Projection(nn.Module):
    """The part of a logit that depends on the label: the inner product of the class's vector with features of
    the image. Miyato and Koyama 2018, equation 3.  A linear layer over one-hot labels, so that spectral norm
    finds it, as theirs does."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.vectors = nn.Linear(num_classes, channels, bias=False)

    def forward(self, h: Tensor, c: Tensor) -> Tensor:
        """NChw features, N -> N1hw"""
        hot = (c[:, None] == torch.arange(self.vectors.in_features, device=c.device)).to(h.dtype)
        return (h * self.vectors(hot)[:, :, None, None]).sum(1, keepdim=True)


class LabelMap(Vectors):
    """A label as one more channel of the image: Mirza and Osindero 2014, where the label is an input of both
    players."""

    def __init__(self, num_classes: int, size: tuple[int, int]) -> None:
        super().__init__(num_classes, size[0] * size[1])
        self.size = size

    def forward(self, c: Tensor) -> Tensor:
        """N -> N1HW"""
        return super().forward(c).unflatten(1, (1, *self.size))
