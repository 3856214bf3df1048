"""Normalisation layers, by name."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from i2i.spec import Spec, build, register


class BatchNorm(nn.BatchNorm2d):
    """Ioffe and Szegedy 2015.  In eval mode it normalises with the running statistics or, on request, with each image's own.

    A network trained one image at a time has only ever seen images normalised by themselves; `per_image` gives it the same
    again, deterministically and without looking at other images of the batch.
    """

    per_image = False

    def forward(self, x: Tensor) -> Tensor:
        """NCHW -> NCHW"""
        if self.per_image and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return super().forward(x)


@register("norm", "batch")
def batch(channels: int) -> nn.Module:
    """Batch normalisation with affine parameters (Ioffe and Szegedy 2015)."""
    return BatchNorm(channels)


@register("norm", "syncbatch")
def syncbatch(channels: int) -> nn.Module:
    """Batch normalisation with statistics over all processes.  Needs a GPU when there is more than one process."""
    return nn.SyncBatchNorm(channels)


@register("norm", "instance")
def instance(channels: int) -> nn.Module:
    """Instance normalisation without parameters or running statistics (Ulyanov et al. 2016), as in CycleGAN."""
    return nn.InstanceNorm2d(channels)


@register("norm", "none")
def none(channels: int) -> nn.Module:
    """No normalisation."""
    return nn.Identity()


def make(name: str, channels: int) -> nn.Module:
    """The norm of this name for so many channels."""
    return build("norm", Spec(name), channels)


def needs_bias(name: str) -> bool:
    """Whether the convolution before this norm needs a bias, i.e. the norm has none of its own."""
    return name in ("instance", "none")


def mixes_images(network: nn.Module) -> bool:
    """Whether, while training, an image is normalised with the other images of its batch.

    The minibatch standard deviation is not counted: it tells a critic how alike the images are and changes none of them, and its papers take
    gradient penalties through it (WGAN-GP: Karras et al. 2018; R1: Karras et al. 2019, 2020b)."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def draws(network: nn.Module) -> bool:
    """Whether, while training, the output depends on chance."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
