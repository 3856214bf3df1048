"""Reparametrizations of all weights of a network, in place: spectral norm and weight norm."""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import fp32_island
from i2i.registry import register

INITIAL_ITERATIONS = 15     # Of the power method before the first step, for an initial norm of about 1.

_TRANSPOSED = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | _TRANSPOSED


def _layers(network: nn.Module, name: str) -> list[Layer]:
    """All linear and convolutional layers, hence no embeddings such as the gains of a conditional norm.

    Raises:
        RequestError: if there are none, or one is parametrized already or has only zeros, without direction.
    """
    found = [m for m in network.modules() if isinstance(m, Layer)]
    require(bool(found), "weight_norm", name,
            "none, with a network that has neither linear nor convolutional layers")
    require(not any(parametrize.is_parametrized(m, "weight") for m in found), "weight_norm", name,
            "none, with a network whose weights are parametrized already")
    require(all(m.weight.is_meta or bool(m.weight.any()) for m in found), "weight_norm", name,
            "none, with a network that has a layer whose initial weights are zeros")
    return found


def output_dim(layer: Layer) -> int:
    """The dimension of the weight that indexes output units (of one group, in transposed convolutions)."""
    return 1 if isinstance(layer, _TRANSPOSED) else 0


@register("weight_norm", "none")
def none(network: nn.Module) -> nn.Module:
    """Leave the weights of the network as they are."""
    return network


@register("weight_norm", "spectral")
def spectral(network: nn.Module, *,
             iterations: Annotated[int, Doc("Power iterations per forward pass, 1 to 100")] = 1,
             eps: Annotated[float, Doc("Lower limit of divisors")] = 1e-12) -> nn.Module:
    """Spectral norm: weights divided by their largest singular value.  Miyato et al. 2018 (SNGAN)."""
    require(1 <= iterations <= 100, "weight_norm.iterations", iterations, "1 to 100")
    require(eps > 0, "weight_norm.eps", eps, "more than 0")
    for layer in _layers(network, "spectral"):
        add_spectral_norm(layer, iterations, eps)
    return network


def add_spectral_norm(layer: Layer, iterations: int = 1, eps: float = 1e-12) -> None:
    """Spectral norm of one layer, in place, with the options of `spectral`."""
    norm = SpectralNorm(layer.weight, output_dim(layer), iterations, eps)
    parametrize.register_parametrization(layer, "weight", norm)


@register("weight_norm", "weight")
def weight(network: nn.Module) -> nn.Module:
    """Weight norm: length and direction as separate parameters.  Salimans and Kingma 2016, equation 2."""
    for layer in _layers(network, "weight"):
        parametrize.register_parametrization(layer, "weight", WeightNorm(output_dim(layer)))
    return network


class SpectralNorm(nn.Module):
    """W -> W / (u W v), W as a matrix of output units by the rest.  Miyato et al. 2018, algorithm 1.

    u and v, buffers, approximate the singular vectors; each use in train mode iterates them, eval mode leaves
    them.  torch's own version fails under autocast on CUDA (its issue 125544).
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, dim: int, iterations: int, eps: float) -> None:
        super().__init__()
        self.dim, self.iterations, self.eps = dim, iterations, eps
        matrix = self._matrix(weight.detach())
        self.register_buffer("u", F.normalize(torch.randn_like(matrix[:, 0]), dim=0, eps=eps))
        self.register_buffer("v", F.normalize(torch.randn_like(matrix[0]), dim=0, eps=eps))
        self._iterate(matrix, INITIAL_ITERATIONS)

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor, times: int) -> None:
        for _ in range(0 if matrix.is_meta else times):     # Without data it would only take seconds.
            self.v.copy_(F.normalize(self.u @ matrix, dim=0, eps=self.eps))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        with fp32_island(weight):
            matrix = self._matrix(weight)
            if self.training:
                self._iterate(matrix, self.iterations)
            # D is used several times before its backward, which needs the vectors of each use.
            u, v = self.u.clone(), self.v.clone()
            return weight / (u @ matrix @ v)


class WeightNorm(nn.Module):
    """(g, v) -> g v / |v| for each output unit.  Salimans and Kingma 2016, equation 2."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def _length(self, weight: Tensor) -> Tensor:
        dims = [d for d in range(weight.ndim) if d != self.dim]
        return torch.linalg.vector_norm(weight, dim=dims, keepdim=True)

    def forward(self, length: Tensor, direction: Tensor) -> Tensor:
        return direction * (length / self._length(direction))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Length and direction of a weight."""
        return self._length(weight), weight
