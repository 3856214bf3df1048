"""Mixtures of discretized logistic distributions: the values of a pixel, each channel given those before it.

Salimans et al. 2017 (PixelCNN++), sections 2.1 and 2.2.  Parameters (N, P, H, W) are, for K components, K
logits, then K means of each channel, K log scales of each, and K coefficients of each pair of channels, i and
j, i < j, in the order (0, 1), (0, 2), (1, 2), (0, 3).  Levels are values in [-1, 1] at equal distances.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_LOG_SCALE = -7.0        # With 256 levels; with others as far below the distance of two levels.


def count_parameters(channels: int, components: int) -> int:
    """Parameters of a pixel: for each component a weight, means, scales and coefficients of the channels."""
    return components * (1 + 2 * channels + channels * (channels - 1) // 2)


def round_to_levels(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """The nearest levels of values, by number, from 0, and in [-1, 1]."""
    number = ((x + 1) * ((levels - 1) / 2)).round().clamp(0, levels - 1)
    return number, number * (2 / (levels - 1)) - 1


def _split(parameters: Tensor, channels: int, levels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log weights (N, K, H, W), means and log scales (N, C, K, H, W), coefficients (N, pairs, K, H, W)."""
    pairs = channels * (channels - 1) // 2
    logits, *rest = parameters.unflatten(1, (1 + 2 * channels + pairs, -1)).split(
        [1, channels, channels, pairs], 1)
    means, log_scales, coefficients = rest
    floor = MIN_LOG_SCALE - math.log((levels - 1) / 255)
    return logits[:, 0].log_softmax(1), means, log_scales.clamp(min=floor), coefficients.tanh()


def _mean(means: Tensor, coefficients: Tensor, x: Tensor, channel: int) -> Tensor:
    """The means of a channel given the values of those before it, (N, K, H, W)."""
    first, mean = channel * (channel - 1) // 2, means[:, channel]
    for j in range(channel):
        mean = mean + coefficients[:, first + j] * x[:, j:j + 1]
    return mean


def log_prob(x: Tensor, parameters: Tensor, levels: int) -> Tensor:
    """Log probabilities of pixels, (N, C, H, W) in [-1, 1] -> (N, H, W), in nats.

    They are exact at any scale, and those of all levels sum to one: sigmoid(u) - sigmoid(l) is computed as
    sigmoid(u) sigmoid(-l) (1 - exp(l - u)).  The authors' code has the density in place of small ones.
    """
    number, x = round_to_levels(x, levels)
    total, means, log_scales, coefficients = _split(parameters, x.shape[1], levels)
    half = 1 / (levels - 1)
    for channel in range(x.shape[1]):
        offset = x[:, channel:channel + 1] - _mean(means, coefficients, x, channel)
        precision = (-log_scales[:, channel]).exp()
        below = F.logsigmoid((offset + half) * precision)       # Of what is not above the level.
        above = F.logsigmoid((half - offset) * precision)
        inside = below + above + torch.log(-torch.expm1(-2 * half * precision))
        level = number[:, channel:channel + 1]
        total = total + torch.where(level == 0, below, torch.where(level == levels - 1, above, inside))
    return total.logsumexp(1)


def sample(parameters: Tensor, noise: Tensor, levels: int) -> Tensor:
    """Pixels from standard normal noise, (N, 1 + C, H, W) -> (N, C, H, W), by inverse distribution functions.

    The first noise chooses the component.
    """
    channels = noise.shape[1] - 1
    log_weights, means, log_scales, coefficients = _split(parameters, channels, levels)
    passed = log_weights.exp().cumsum(1) < torch.special.ndtr(noise[:, :1])
    k = passed.sum(1, keepdim=True).clamp(max=log_weights.shape[1] - 1)
    means, log_scales, coefficients = (each.gather(2, k[:, None].expand(-1, each.shape[1], -1, -1, -1))
                                       for each in (means, log_scales, coefficients))
    logistic = torch.special.log_ndtr(noise[:, 1:]) - torch.special.log_ndtr(-noise[:, 1:])
    values = list[Tensor]()
    for channel in range(channels):
        mean = _mean(means, coefficients, torch.cat(values, 1) if values else noise, channel)
        value = mean + log_scales[:, channel].exp() * logistic[:, channel:channel + 1]
        values.append(round_to_levels(value, levels)[1])
    return torch.cat(values, 1)
