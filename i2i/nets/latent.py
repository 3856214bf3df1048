"""Priors: from standard normal noise to the z that a generator is given.  What is learned of them are
parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import require
from i2i.registry import register


class Prior(nn.Module):
    """What all have in common."""

    def cost(self) -> Tensor | float:
        """What G minimizes of the prior itself."""
        return 0.0


def component_of(normal: Tensor, sides: int) -> Tensor:
    """A die of so many sides from standard normal noise, by the normal distribution function.  N -> N, 0 to
    sides - 1"""
    return (torch.special.ndtr(normal) * sides).long().clamp_(max=sides - 1)


@register("latent", "normal")
class Normal(Prior):
    """z ~ N(0, 1)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.inputs = self.z_dim = z_dim

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        return eps


@register("latent", "uniform")
class Uniform(Prior):
    """z ~ U(-1, 1), by the normal distribution function.  Radford et al. 2016, section 4."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.inputs = self.z_dim = z_dim

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        return torch.special.erf(eps / 2**0.5)


@register("latent", "codes")
class Codes(Prior):
    """Noise, and codes that are to mean something: categories as one-hot vectors, each value equally likely,
    and numbers from U(-1, 1).

    They take the last places of z.  Chen et al. 2016, section 7 (ten categories and two numbers for
    MNIST)."""

    def __init__(self, z_dim: int, *, categories: tuple[int, ...] = (10,), numbers: int = 2) -> None:
        super().__init__()
        require(all(count >= 2 for count in categories), "latent.categories", ",".join(map(str, categories)),
                "2 or more values each")
        require(numbers >= 0 and numbers + len(categories) > 0, "latent.numbers", numbers,
                "0 or more, and at least one code in all")
        noise = z_dim - sum(categories) - numbers
        require(noise >= 0, "generator.z_dim", z_dim,
                f"{sum(categories) + numbers} or more, which the codes take")
        self.z_dim, self.categories, self.numbers = z_dim, categories, numbers
        self.inputs = noise + len(categories) + numbers

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        noise, category, number = eps.split([self.inputs - len(self.categories) - self.numbers,
                                             len(self.categories), self.numbers], 1)
        chosen = [torch.eye(count, device=eps.device)[component_of(category[:, i], count)] for i,
                  count in enumerate(self.categories)]
        return torch.cat([noise, *chosen, torch.special.erf(number / 2**0.5)], 1)

    def codes(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """The codes in z: an index tensor for each category, and the numbers.  N x z_dim -> [N], N x
        numbers"""
        parts = z[:,
                  self.z_dim - sum(self.categories) - self.numbers:].split([*self.categories, self.numbers],
                                                                           1)
        return [part.argmax(1) for part in parts[:-1]], parts[-1]


@register("latent", "mixture")
class Mixture(Prior):
    """z ~ N(mu_k, sigma_k^2), each of the `components` k equally likely; G learns all mu and sigma.
    Gurumurthy et al. 2017 (DeLiGAN), section 4.

    mu starts uniform in [-1, 1] and every sigma at `sigma`; `weight` is that of the mean of (1 - sigma)^2,
    without which sigma falls to 0 (equation 9; by default as the authors' code for MNIST).  The last number
    of the noise chooses k.
    """

    def __init__(self, z_dim: int, *, components: int = 50, sigma: float = 0.2,
                 weight: float = 1 / 3) -> None:
        super().__init__()
        require(components >= 1, "latent.components", components, "1 or more")
        require(sigma > 0, "latent.sigma", sigma, "more than 0")
        require(weight >= 0, "latent.weight", weight, "0 or more")
        self.z_dim, self.components, self.weight, self.inputs = z_dim, components, weight, z_dim + 1
        self.mu = nn.Parameter(torch.empty(components, z_dim).uniform_(-1, 1))
        self.sigma = nn.Parameter(torch.full((components, z_dim), sigma))

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        k = component_of(eps[:, -1], self.components)
        return F.embedding(k, self.mu) + F.embedding(k, self.sigma) * eps[:, :-1]

    def cost(self) -> Tensor | float:
        """weight * mean of (1 - sigma)^2 over components and places.  -> ()"""
        return self.weight * (1 - self.sigma).square().mean()
