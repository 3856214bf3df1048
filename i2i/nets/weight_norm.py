"""Weights that are computed anew from other parameters whenever they are used.  Each wraps all layers of a
network, in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from i2i.errors import require
from i2i.nets.equalized import cast_like
from i2i.registry import register

FIRST = 15      # Power iterations before the first step, so that training starts from a norm of about 1.

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d


def layers(network: nn.Module, name: str) -> list[Layer]:
    """The layers whose weight is wrapped: all that multiply by one, so no embedding, such as the gains of
    classes in a conditional norm.

    RequestError if there are none, or one is wrapped already or begins with zeros, which have no direction.
    """
    found = [m for m in network.modules() if isinstance(m, Layer)]
    require(bool(found), "weight_norm", name,
            "none, with a network that has neither linear nor convolutional layers")
    twice = any(parametrize.is_parametrized(m, "weight") for m in found)
    require(not twice, "weight_norm", name, "none, with a network whose weights are parametrized already")
    zeros = any(not m.weight.is_meta and not bool(m.weight.any()) for m in found)
    require(not zeros, "weight_norm", name,
            "none, with a network that has a layer whose weights begin as zeros")
    return found


def units(layer: Layer) -> int:
    """The dimension of the weight that counts output units (of one group, in a transposed convolution)."""
    return 1 if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d) else 0


@register("weight_norm", "none")
def none(network: nn.Module) -> nn.Module:
    """Weights are parameters."""
    return network


@register("weight_norm", "spectral")
def spectral(network: nn.Module, *, iterations: int = 1, eps: float = 1e-12) -> nn.Module:
    """Weights divided by their largest singular value, so that no layer stretches what it is given.  Miyato
    et al. 2018 (SNGAN)."""
    require(1 <= iterations <= 100, "parametrization.iterations", iterations, "1 to 100")
    require(eps > 0, "parametrization.eps", eps, "more than 0")
    for layer in layers(network, "spectral"):
        parametrize.register_parametrization(layer, "weight",
                                             SpectralNorm(layer.weight, units(layer), iterations, eps))
    return network


@register("weight_norm", "weight")
def weight(network: nn.Module) -> nn.Module:
    """The length and the direction of each unit's weights as parameters of their own.  Salimans and Kingma
    2016, equation 2."""
    for layer in layers(network, "weight"):
        parametrize.register_parametrization(layer, "weight", WeightNorm(units(layer)))
    return network


class SpectralNorm(nn.Module):
    """W -> W / (u W v), W as a matrix of units by all else.  Miyato et al. 2018, equation 8 and algorithm 1.

    u and v, the singular vectors, come closer with each use in train mode and stay in eval mode.  Buffers, so
    checkpoints and averages have them. torch's own version fails under autocast on CUDA (its issue 125544).
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, unit: int, iterations: int, eps: float) -> None:
        super().__init__()
        self.unit, self.iterations, self.eps = unit, iterations, eps
        matrix = self._matrix(weight.detach())
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn_like(matrix[0]), dim=0, eps=eps))
        self._iterate(matrix, FIRST)

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.unit, 0).flatten(1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, times: int) -> None:
        for _ in range(times):
            self.v.copy_(F.normalize(self.u @ matrix, dim=0, eps=self.eps))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, its largest singular value about 1"""
        with cast_like(weight):      # Half of the digits are too few for a power method.
            matrix = self._matrix(weight)
            if self.training:
                self._iterate(matrix, self.iterations)
            # D is used several times before its backward, which must find what each use had.
            u, v = self.u.clone(), self.v.clone()
            return weight / (u @ matrix @ v)


class WeightNorm(nn.Module):
    """(g, v) -> g v / |v| for each unit.  Salimans and Kingma 2016, equation 2."""

    def __init__(self, unit: int) -> None:
        super().__init__()
        self.unit = unit

    def _lengths(self, weight: Tensor) -> Tensor:
        return torch.linalg.vector_norm(weight, dim=[d for d in range(weight.ndim) if d != self.unit],
                                        keepdim=True)

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        """The weight"""
        return direction * (length / self._lengths(direction))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight"""
        return self._lengths(weight), weight
