"""Normalization layers, by name."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.nets.equalized import cast_like, to_float32
from i2i.registry import Spec, build, register


class BatchNorm(nn.BatchNorm2d):
    """Ioffe and Szegedy 2015.  In eval mode it normalizes with the running statistics or, on request, with
    each image's own.

    A network trained one image at a time has only ever seen images normalized by themselves; `per_image`
    gives it the same again, deterministically and without looking at other images of the batch.
    """

    per_image = False

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        if self.per_image and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return super().forward(x)


class VirtualBatchNorm(nn.Module):
    """Salimans et al. 2016, section 3.4: an image is normalized with the statistics of a batch that never
    changes and of itself, that batch with its own alone.  What comes out for an image is then the same
    whatever else is in its batch, while training and after.

    The first `reference` images of what comes in are that batch (nets/virtual.py).  An image counts as one
    among them, as in the authors' code.
    """

    affine, eps = True, 1e-5

    def __init__(self, channels: int, reference: int) -> None:
        super().__init__()
        self.reference = reference
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        R, kind, x = self.reference, x.dtype, to_float32(x)
        with cast_like(x):
            # Of each image by itself: NC.
            mean, variance = x.mean((2, 3)), x.var((2, 3), correction=0)
            m, own = mean[:R].mean(0), mean[R:]
            # Of the whole batch, from those of its parts.
            v = variance[:R].mean(0) + mean[:R].var(0, correction=0)
            share = 1 / (R + 1)
            apart = own - m
            mean = torch.cat([m.expand(R, -1), m + share * apart])
            variance = torch.cat([v.expand(R, -1),
                                  (1 - share) * v + share * variance[R:]
                                  + share * (1 - share) * apart.square()])
            y = (x - mean[:, :, None, None]) * torch.rsqrt(variance + self.eps)[:, :, None, None]
            return (y * self.weight[:, None, None] + self.bias[:, None, None] if self.affine else y).to(kind)


@register("norm", "batch")
def batch(channels: int) -> nn.Module:
    """Batch normalization with affine parameters (Ioffe and Szegedy 2015)."""
    return BatchNorm(channels)


@register("norm", "syncbatch")
def syncbatch(channels: int) -> nn.Module:
    """Batch normalization with statistics over all processes.  Needs a GPU when there is more than one
    process."""
    return nn.SyncBatchNorm(channels)


@register("norm", "instance")
def instance(channels: int) -> nn.Module:
    """Instance normalization without parameters or running statistics (Ulyanov et al. 2016), as in
    CycleGAN."""
    return nn.InstanceNorm2d(channels)


@register("norm", "virtual")
def virtual(channels: int, reference: int = 0) -> nn.Module:
    """Virtual batch normalization with affine parameters (Salimans et al. 2016), in networks that keep a
    batch to compare with."""
    require(reference > 0, "norm", "virtual",
            "batch, syncbatch, instance or none in this network, which keeps no batch to compare with; "
            "the generators dcgan, mlp and sagan and the discriminators dcgan and mlp do")
    return VirtualBatchNorm(channels, reference)


@register("norm", "none")
def none(channels: int) -> nn.Module:
    """No normalization."""
    return nn.Identity()


def make(name: str, channels: int, reference: int = 0) -> nn.Module:
    """The norm of this name for so many channels; `reference` images are compared with, where it does
    that."""
    return build("norm", Spec(name), channels, reference) if compares(name) else build("norm", Spec(name),
                                                                                       channels)


def compares(name: str) -> bool:
    """Whether this norm compares images with a batch that never changes."""
    return name == "virtual"


def needs_bias(name: str) -> bool:
    """Whether the convolution before this norm needs a bias, i.e. the norm has none of its own."""
    return name in ("instance", "none")


def mixes_images(network: nn.Module) -> bool:
    """Whether, while training, an image is normalized with the other images of its batch.

    The minibatch standard deviation is not counted: it tells a critic how alike the images are and changes
    none of them, and its papers take gradient penalties through it (WGAN-GP: Karras et al. 2018; R1: Karras
    et al. 2019, 2020b)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def draws(network: nn.Module) -> bool:
    """Whether, while training, the output depends on chance."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
