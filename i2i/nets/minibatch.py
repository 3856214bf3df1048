"""What a discriminator is told of the other images of its batch, so that it can see that they repeat each
other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.nets.equalized import MinibatchStd, cast_like, to_float32


def _apart(row: Tensor) -> Tensor:
    """|a_i - a_j|.  KN -> KNN"""
    return (row[:, :, None] - row[:, None]).abs()


class MinibatchDiscrimination(nn.Module):
    """`kernels` more channels: how close an image is to the others of its batch, by distances that are
    learned.  Salimans et al. 2016, section 3.2.

    M_i = f(x_i) T, a row of `dims` numbers for each kernel b; o(x_i)_b = sum over j of exp(-|M_ib - M_jb|_1).
    An image's closeness to itself, exp(0), is not counted: it is the same for all.  Costs CHW x kernels x
    dims parameters and N^2 x kernels x dims differences.
    """

    def __init__(self, shape: tuple[int, int, int], kernels: int, dims: int) -> None:
        super().__init__()
        require(kernels >= 1, "discriminator.kernels", kernels, "1 or more, or 0 for none")
        require(dims >= 1, "discriminator.kernel_dims", dims, "1 or more")
        self.kernels = kernels
        # A bias would cancel.
        self.T = nn.Linear(shape[0] * shape[1] * shape[2], kernels * dims, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """NChw -> N(C + kernels)hw"""
        # kernels x dims x N
        M = to_float32(self.T(h.flatten(1))).t().unflatten(0, (self.kernels, -1)).contiguous()
        with cast_like(M):
            first, *rest = M.unbind(1)
            apart = _apart(first)
            # One of the dims at a time, images innermost: half the time of all at once on a CPU.
            for row in rest:
                apart = apart + _apart(row)
            o = (torch.exp(-apart).sum(1) - 1).t().to(h.dtype)
        return torch.cat([h, o[:, :, None, None].expand(-1, -1, *h.shape[2:])], 1)


def among(shape: tuple[int, int, int], group: int, kernels: int, dims: int) -> tuple[nn.Sequential, int]:
    """What is added to features of this shape, and how many channels there are then: `kernels` of minibatch
    discrimination, and the standard deviation over groups of `group` images; 0 for neither.  NChw -> NC'hw"""
    layers: list[nn.Module] = []
    if kernels:
        layers.append(MinibatchDiscrimination(shape, kernels, dims))
    if group:
        layers.append(MinibatchStd(group))
    return nn.Sequential(*layers), shape[0] + kernels + bool(group)
