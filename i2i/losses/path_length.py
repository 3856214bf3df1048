"""What keeps a generator smooth."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import ClassVar

import torch
from torch import Tensor, nn

from i2i.errors import require
from i2i.registry import register

Synthesis = Callable[[Tensor], Tensor]      # N x num_ws x w_dim -> NCHW


@register("generator_penalty", "none")
class NoGeneratorPenalty(nn.Module):
    """Nothing is added."""

    every: ClassVar[int] = 0        # Never due.
    shrink: ClassVar[int] = 1

    def forward(self, synthesize: Synthesis, ws: Tensor) -> Tensor:
        """0"""
        return ws.new_zeros(())


@register("generator_penalty", "path-length")
class PathLength(nn.Module):
    """weight * E[(|J^T y| - a)^2], y ~ N(0, 1) images over the square root of their pixels, a the running
    mean of |J^T y|: a step in style space has the same effect on the image everywhere.  Karras et al. 2020b,
    equation 4 and appendix B.

    |J^T y| is the root of the mean over layers of the squared length for each layer's style, as in the
    reference implementation.  It is due in one of `every` turns of G (theirs: 8, in their smallest
    configurations 4) for 1 / `shrink` of the batch; the mean moves by `decay` each time.
    """

    synced_buffers: ClassVar[tuple[str, ...]] = ("mean",)
    mean: Tensor

    def __init__(self, *, weight: float = 2.0, every: int = 4, decay: float = 0.01, shrink: int = 2) -> None:
        super().__init__()
        require(weight >= 0, "g_penalty.weight", weight, "0 or more")
        require(every >= 1, "g_penalty.every", every, "1 or more")
        require(0 < decay <= 1, "g_penalty.decay", decay, "more than 0, up to 1")
        require(shrink >= 1, "g_penalty.shrink", shrink, "1 or more")
        self.weight, self.every, self.decay, self.shrink = weight, every, decay, shrink
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, synthesize: Synthesis, ws: Tensor) -> Tensor:
        """The penalty for these styles, in single precision at least; moves the mean.  N x num_ws x w_dim ->
        ()"""
        kind = ws.device.type
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            lengths = path_lengths(synthesize, ws.to(torch.promote_types(ws.dtype, torch.float32)))
            with torch.no_grad():
                self.mean.lerp_(lengths.mean().to(self.mean.dtype), self.decay)
            return self.weight * (lengths - self.mean).square().mean()


def path_lengths(synthesize: Synthesis, ws: Tensor) -> Tensor:
    """|J^T y| of each image for one random y.  N x num_ws x w_dim -> N, differentiable"""
    ws = ws if ws.requires_grad else ws.requires_grad_()
    images = synthesize(ws)
    noise = torch.randn_like(images) / math.sqrt(images.shape[2] * images.shape[3])
    slopes, = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return slopes.square().sum(2).mean(1).sqrt()
