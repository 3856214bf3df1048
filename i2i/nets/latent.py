"""Priors: from standard normal noise to the z that a generator is given.  What is learnt of them are parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from i2i.spec import register, require


@register("latent", "normal")
class Normal(nn.Module):
    """z ~ N(0, 1)."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.inputs = self.z_dim = z_dim

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        return eps


@register("latent", "uniform")
class Uniform(nn.Module):
    """z ~ U(-1, 1), by the normal distribution function.  Radford et al. 2016, section 4."""

    def __init__(self, z_dim: int) -> None:
        super().__init__()
        self.inputs = self.z_dim = z_dim

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        return torch.special.erf(eps / 2**0.5)


@register("latent", "codes")
class Codes(nn.Module):
    """Noise, and codes that are to mean something: categories as one-hot vectors, each value equally likely, and numbers from U(-1, 1).

    They take the last places of z.  Chen et al. 2016, section 7 (ten categories and two numbers for MNIST)."""

    def __init__(self, z_dim: int, *, categories: tuple[int, ...] = (10,), numbers: int = 2) -> None:
        super().__init__()
        require(all(count >= 2 for count in categories), "latent.categories", ",".join(map(str, categories)), "2 or more values each")
        require(numbers >= 0 and numbers + len(categories) > 0, "latent.numbers", numbers, "0 or more, and at least one code in all")
        noise = z_dim - sum(categories) - numbers
        require(noise >= 0, "generator.z_dim", z_dim, f"{sum(categories) + numbers} or more, which the codes take")
        self.z_dim, self.categories, self.numbers = z_dim, categories, numbers
        self.inputs = noise + len(categories) + numbers

    def forward(self, eps: Tensor) -> Tensor:
        """N x inputs of standard normal noise -> N x z_dim"""
        noise, category, number = eps.split([self.inputs - len(self.categories) - self.numbers, len(self.categories), self.numbers], 1)
        uniform = torch.special.ndtr(category)
        chosen = [torch.eye(count, device=eps.device)[(uniform[:, i] * count).long().clamp_(max=count - 1)]
                  for i, count in enumerate(self.categories)]
        return torch.cat([noise, *chosen, torch.special.erf(number / 2**0.5)], 1)

    def codes(self, z: Tensor) -> tuple[list[Tensor], Tensor]:
        """The codes in z: an index tensor for each category, and the numbers.  N x z_dim -> [N], N x numbers"""
        parts = z[:, self.z_dim - sum(self.categories) - self.numbers:].split([*self.categories, self.numbers], 1)
        return [part.argmax(1) for part in parts[:-1]], parts[-1]
