"""Generator penalties: path length regularization."""

import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32
from i2i.registry import register

Synthesis = Callable[[Tensor], Tensor]      # (N, num_ws, w_dim) -> (N, C, H, W)
NoiseGenerator = Callable[[Tensor, Tensor | None], Tensor]      # A noise generator: z, labels -> images.


@register("generator_penalty", "none")
class NoGeneratorPenalty(nn.Module):
    """Leave the loss of G as it is."""

    every: ClassVar[int] = 0        # Never due.
    shrink: ClassVar[int] = 1
    differentiates_styles: ClassVar[bool] = False

    def forward(self, G: Any, z: Tensor, c: Tensor | None) -> Tensor:
        return z.new_zeros(())


@register("generator_penalty", "path-length")
class PathLengthPenalty(nn.Module):
    """Path length regularization: weight * E[(|J^T y| - a)^2].  Karras et al. 2020b, equation 4.

    y ~ N(0, 1) images over the square root of their pixels; a is the running mean of |J^T y|.  |J^T y| is the
    root of the mean over layers of the squared length for each layer's style, as in the reference
    implementation, which takes the penalty every 8 turns (4 in its smallest configurations).
    """

    differentiates_styles: ClassVar[bool] = True
    synced_buffers: ClassVar[tuple[str, ...]] = ("mean",)
    mean: Tensor

    def __init__(self, *, weight: Annotated[float, Doc("Weight of the penalty in G's loss")] = 2.0,
                 every: Annotated[int, Doc(
                     "Interval of the penalty in steps of G, by which it is multiplied")] = 4,
                 decay: Annotated[float, Doc("Weight of the new lengths in the running mean")] = 0.01,
                 shrink: Annotated[int, Doc("Divisor of the batch size for the penalty")] = 2) -> None:
        super().__init__()
        require(weight >= 0, "g_penalty.weight", weight, "0 or more")
        require(every >= 1, "g_penalty.every", every, "1 or more")
        require(0 < decay <= 1, "g_penalty.decay", decay, "more than 0, up to 1")
        require(shrink >= 1, "g_penalty.shrink", shrink, "1 or more")
        self.weight, self.every, self.decay, self.shrink = weight, every, decay, shrink
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, G: Any, z: Tensor, c: Tensor | None) -> Tensor:
        """The penalty of the styles of z, (N, z_dim), and labels.  Updates the mean."""
        return self.of_styles(G.synthesize, G.styles(z, c))

    def of_styles(self, synthesize: Synthesis, ws: Tensor) -> Tensor:
        """The penalty for styles `ws`, (N, num_ws, w_dim), in float32; updates the mean."""
        with fp32_island(ws):
            lengths = path_lengths(synthesize, to_float32(ws))
            with torch.no_grad():
                self.mean.lerp_(lengths.mean().to(self.mean.dtype), self.decay)
            return self.weight * (lengths - self.mean).square().mean()


def path_lengths(synthesize: Synthesis, ws: Tensor) -> Tensor:
    """|J^T y| for one random y per image, differentiable.  (N, num_ws, w_dim) -> (N)"""
    ws = ws if ws.requires_grad else ws.requires_grad_()
    images = synthesize(ws)
    noise = torch.randn(images.shape, dtype=images.dtype, device=images.device)     # In any memory format.
    noise = noise / math.sqrt(images.shape[2] * images.shape[3])
    gradient, = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()
