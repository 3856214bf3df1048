"""Layers that let a discriminator compare the images of a batch."""

from functools import reduce

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32


class MinibatchStdDev(nn.Module):
    """One more channel: the mean standard deviation over a group of images.  Karras et al. 2018, section 3.

    Groups have `group` images; fewer where that does not divide the batch; all if nothing does.  Image i is
    in the group of i modulo the number of groups, as in the reference implementation.
    """

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        require(group >= 2, "discriminator.group", group, "2 or more images, or 0 for none")
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + 1, H, W)"""
        n = len(x)
        size = next((size for size in range(min(self.group, n), 1, -1) if n % size == 0), n)
        groups = to_float32(x).unflatten(0, (size, n // size))
        std = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
        channel = std.repeat(size)[:, None, None, None].to(x.dtype).expand(-1, 1, *x.shape[2:])
        return torch.cat([x, channel], 1)


class MinibatchDiscrimination(nn.Module):
    """`kernels` more channels: closeness to other images of the batch.  Salimans et al. 2016, section 3.2.

    M_i = f(x_i) T, `dims` numbers per kernel b; o(x_i)_b = sum over j of exp(-|M_ib - M_jb|_1), without the
    constant exp(0) of j = i.  Costs C H W x kernels x dims parameters and N^2 x kernels x dims differences.
    """

    def __init__(self, shape: tuple[int, int, int], kernels: int, dims: int) -> None:
        super().__init__()
        require(kernels >= 1, "discriminator.kernels", kernels, "1 or more, or 0 for none")
        require(dims >= 1, "discriminator.kernel_dims", dims, "1 or more")
        self.kernels = kernels
        self.T = nn.Linear(shape[0] * shape[1] * shape[2], kernels * dims, bias=False)      # A bias cancels.

    def forward(self, h: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + kernels, H, W)"""
        # (kernels, dims, N)
        M = to_float32(self.T(h.flatten(1))).t().unflatten(0, (self.kernels, -1)).contiguous()
        with fp32_island(M):
            # One of the dims at a time, images innermost: half the time of all at once on a CPU.
            distances = ((row[:, :, None] - row[:, None]).abs() for row in M.unbind(1))
            distance = reduce(torch.add, distances)
            o = (torch.exp(-distance).sum(1) - 1).t().to(h.dtype)
        return torch.cat([h, o[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1)


def minibatch_layers(shape: tuple[int, int, int], group: int, kernels: int,
                     dims: int) -> tuple[nn.Sequential, int]:
    """Minibatch discrimination and standard deviation for features (C, H, W), and their output channels."""
    layers: list[nn.Module] = [MinibatchDiscrimination(shape, kernels, dims)] if kernels else []
    layers += [MinibatchStdDev(group)] if group else []
    return nn.Sequential(*layers), shape[0] + kernels + bool(group)
