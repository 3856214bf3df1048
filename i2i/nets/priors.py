"""Latent priors: maps from standard normal noise to the z of a generator."""

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import register


@register("latent", "normal")
class LatentPrior(nn.Module):
    """z ~ N(0, 1); the base class of all priors.

    Attributes:
        noise_dim: length of the noise that z is computed from.
    """

    def __init__(self, z_dim: int, noise_dim: int | None = None) -> None:
        super().__init__()
        self.z_dim, self.noise_dim = z_dim, z_dim if noise_dim is None else noise_dim

    def forward(self, eps: Tensor) -> Tensor:
        """(N, noise_dim) standard normal -> (N, z_dim)"""
        return eps

    def regularization(self) -> Tensor | float:
        """The prior's own term of G's loss."""
        return 0.0


class TemperedPrior(LatentPrior):
    """z ~ N(0, T^2), where `truncation` sets the temperature T.  Kingma and Dhariwal 2018, section 6."""

    truncation: float | Tensor = 1.0

    def forward(self, eps: Tensor) -> Tensor:
        return self.truncation * eps


def _uniform(eps: Tensor) -> Tensor:
    """Standard normal -> U(-1, 1), by the normal distribution function."""
    return torch.special.erf(eps / 2**0.5)


def _categorical(eps: Tensor, values: int) -> Tensor:
    """Standard normal (N) -> (N) indices, uniform in [0, values - 1], by the normal distribution function."""
    return (torch.special.ndtr(eps) * values).long().clamp_(max=values - 1)


@register("latent", "uniform")
class UniformPrior(LatentPrior):
    """z ~ U(-1, 1).  Radford et al. 2016, section 4."""

    def forward(self, eps: Tensor) -> Tensor:
        return _uniform(eps)


@register("latent", "codes")
class InfoGANPrior(LatentPrior):
    """Noise, equally likely one-hot categories, and U(-1, 1) numbers.  Chen et al. 2016, section 7."""

    def __init__(
            self, z_dim: int, *,
            categorical: Annotated[tuple[int, ...], Doc("Number of values of each categorical code")] = (10,),
            continuous: Annotated[int, Doc("Number of continuous codes")] = 2) -> None:
        require(all(values >= 2 for values in categorical), "latent.categorical",
                ",".join(map(str, categorical)), "2 or more values each")
        require(continuous >= 0 and continuous + len(categorical) > 0, "latent.continuous", continuous,
                "0 or more, and at least one code in all")
        noise = z_dim - sum(categorical) - continuous
        require(noise >= 0, "generator.z_dim", z_dim,
                f"{sum(categorical) + continuous} or more, which the codes take")
        super().__init__(z_dim, noise + len(categorical) + continuous)
        self.noise, self.categorical, self.continuous = noise, categorical, continuous

    def forward(self, eps: Tensor) -> Tensor:
        noise, categories, numbers = eps.split([self.noise, len(self.categorical), self.continuous], 1)
        one_hot = [torch.eye(values, device=eps.device)[_categorical(categories[:, i], values)]
                   for i, values in enumerate(self.categorical)]
        return torch.cat([noise, *one_hot, _uniform(numbers)], 1)

    def codes(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """The codes in z: (N, z_dim) -> [(N) indices per categorical code], (N, continuous)"""
        *one_hot, numbers = z[:, self.noise:].split([*self.categorical, self.continuous], 1)
        return [each.argmax(1) for each in one_hot], numbers


@register("latent", "mixture")
class GaussianMixturePrior(LatentPrior):
    """Learned Gaussian mixture: z ~ N(mu_k, sigma_k^2), k uniform.  Gurumurthy et al. 2017 (DeLiGAN).

    mu starts uniform in [-1, 1].  Without the regularization of equation 9 sigma collapses to 0; its default
    weight is that of the authors' code for MNIST.  The last number of the noise selects k.
    """

    def __init__(self, z_dim: int, *,
                 components: Annotated[int, Doc("Components of the mixture")] = 50,
                 sigma: Annotated[float, Doc("Initial standard deviation of the components")] = 0.2,
                 weight: Annotated[float, Doc("Weight of the mean of (1 - sigma)^2 in G's loss")] = 1 / 3
                 ) -> None:
        super().__init__(z_dim, z_dim + 1)
        require(components >= 1, "latent.components", components, "1 or more")
        require(sigma > 0, "latent.sigma", sigma, "more than 0")
        require(weight >= 0, "latent.weight", weight, "0 or more")
        self.components, self.weight = components, weight
        self.mu = nn.Parameter(torch.empty(components, z_dim).uniform_(-1, 1))
        self.sigma = nn.Parameter(torch.full((components, z_dim), sigma))

    def forward(self, eps: Tensor) -> Tensor:
        k = _categorical(eps[:, -1], self.components)
        return F.embedding(k, self.mu) + F.embedding(k, self.sigma) * eps[:, :-1]

    def regularization(self) -> Tensor | float:
        return self.weight * (1 - self.sigma).square().mean()
