"""Likelihoods of images in bits per dimension, and the bound of variational autoencoders."""

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from typing_extensions import Doc

from i2i.errors import require
from i2i.nets.precision import fp32_island, to_float32

Levels = Annotated[int, Doc(
    "Values of a channel, which uniform noise spreads evenly over 0 to 1 (dequantization): 256 for 8 bits; "
    "0: the data are continuous, and taken as they are")]
SIGMA_RATE, FIRST_SIGMA = 10.0, 0.3     # How much faster a learned sigma moves than a weight; its start.


def check_levels(levels: int) -> None:
    """RequestError for an impossible number of levels."""
    require(levels == 0 or 2 <= levels <= 2**16, "levels", levels, "2 to 65536; 0 for continuous data")


def dequantize(x: Tensor, levels: int, uniform: Tensor) -> Tensor:
    """Images of so many levels in [-1, 1] with U(0, 1) noise as densities need them, in [0, 1].

    Theis et al. 2016, section 3.1.  With 0 levels they stay as they are.
    """
    x = to_float32(x)
    return (((x + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1) + uniform) / levels if levels else x


def quantize(y: Tensor, levels: int) -> Tensor:
    """Images in [-1, 1] from those in [0, 1]: the middle of a level's noise is the level."""
    return ((y * levels - 0.5) * (2 / (levels - 1)) - 1).clamp(-1, 1) if levels else y


def logit(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Logit of alpha + (1 - 2 alpha) y, and the logarithm of its determinant, (N).  Dinh et al. 2017, 4.1."""
    y = alpha + (1 - 2 * alpha) * y
    log_y, log_rest = y.log(), (-y).log1p()
    return log_y - log_rest, (math.log(1 - 2 * alpha) - log_y - log_rest).flatten(1).sum(1)


def inverse_logit(v: Tensor, alpha: float) -> Tensor:
    """The y in [0, 1] whose `logit` is v."""
    return (torch.sigmoid(v) - alpha) / (1 - 2 * alpha)


def bits_per_dim(log_density: Tensor, dimensions: int, levels: int) -> Tensor:
    """Bits per dimension of images with log densities (N), in nats, of what `dequantize` returns."""
    bits: Tensor = math.log2(levels or 1) - log_density / (dimensions * math.log(2))
    return bits


def standard_normal(z: Tensor) -> Tensor:
    """Log density of N(0, I), (N, D) -> (N), in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each dimension, in nats.  Kingma and Welling 2014, appendix B."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def with_free_bits(kl: Tensor, least: float) -> Tensor:
    """Sum over dimensions of the batch's mean KL, (N, D) -> (), each at least so much, in nats.

    Below it the dimension costs nothing.  Kingma et al. 2016, appendix C.8.
    """
    return kl.mean(0).clamp(min=least).sum()


class GaussianLikelihood(nn.Module):
    """Log density of images, each value independent: N(mean, sigma^2).

    Args:
        sigma: standard deviation; 0: learned, one number (Rybkin et al. 2021).
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        require(sigma >= 0, "sigma", sigma, "more than 0; 0: learned")
        self.sigma = sigma
        start = torch.full((), math.log(FIRST_SIGMA) / SIGMA_RATE)
        self.log_sigma = None if sigma else nn.Parameter(start)

    def values(self, y: Tensor, mean: Tensor) -> Tensor:
        """Log density of each value, (N, C, H, W)"""
        log_sigma = (y.new_full((), math.log(self.sigma)) if self.log_sigma is None
                     else SIGMA_RATE * self.log_sigma)
        error = (y - to_float32(mean)) * torch.exp(-log_sigma)
        return -0.5 * (error.square() + math.log(2 * math.pi)) - log_sigma

    def forward(self, y: Tensor, mean: Tensor) -> Tensor:
        """Log density of images y given their means, (N, C, H, W) each -> (N), in nats."""
        with fp32_island(y):
            return self.values(y, mean).flatten(1).sum(1)
