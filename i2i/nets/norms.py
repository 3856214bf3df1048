"""Normalization layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.nets.virtual_batch_norm import VirtualBatchNorm
from i2i.registry import Spec, build, register


class BatchNorm(nn.BatchNorm2d):
    """Batch normalization that can use each image's own statistics in eval mode (`per_image`).

    A network trained with batches of one image has only seen images normalized by themselves.
    """

    per_image = False

    def forward(self, x: Tensor) -> Tensor:
        if self.per_image and not self.training:
            return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return super().forward(x)


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalization without parameters or running statistics.

    For one image, on a CPU, the gradient of torch's own (2.14) is wrong where the gradient that it is given
    is in channels_last, as it is with `train.memory_format=channels_last` or after a `permute`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, None, None, training=True, eps=self.eps)     # The same, bit for bit.


AFFINE = (BatchNorm, nn.SyncBatchNorm, VirtualBatchNorm)


@register("norm", "batch")
def batch(channels: int) -> nn.Module:
    """Batch normalization with affine parameters (Ioffe and Szegedy 2015)."""
    return BatchNorm(channels)


@register("norm", "syncbatch")
def syncbatch(channels: int) -> nn.Module:
    """Batch normalization with statistics over all processes; several processes need GPUs."""
    return nn.SyncBatchNorm(channels)


@register("norm", "instance")
def instance(channels: int) -> nn.Module:
    """Instance normalization without parameters or running statistics (Ulyanov et al. 2016)."""
    return InstanceNorm(channels)


@register("norm", "none")
def none(channels: int) -> nn.Module:
    """The identity, in place of a normalization layer."""
    return nn.Identity()


def make_norm(name: str, channels: int, reference: int = 0) -> nn.Module:
    """Build a norm by name; `reference` is the size of the reference batch of virtual batch norm."""
    return build("norm", Spec(name), channels, *([reference] if name == "virtual" else []))


def make_norm_without_parameters(name: str, channels: int, reference: int = 0) -> nn.Module:
    """`make_norm` without gain and bias, for layers that supply them."""
    norm = make_norm(name, channels, reference)
    if isinstance(norm, AFFINE):
        norm.affine = False
        norm.register_parameter("weight", None)
        norm.register_parameter("bias", None)
    return norm


def needs_bias(name: str) -> bool:
    """Whether a convolution before this norm needs a bias, because the norm has none."""
    return name in ("instance", "none")


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether an image is normalized with the other images of its batch during training.

    Minibatch standard deviation does not count: it changes no image, and its papers use gradient penalties
    with it (WGAN-GP: Karras et al. 2018; R1: Karras et al. 2019, 2020b).
    """
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def has_dropout(network: nn.Module) -> bool:
    """Whether the network has active dropout layers."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
