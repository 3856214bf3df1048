"""The spread of several samples of a translation, as an image: where the model is not sure."""

from collections.abc import Callable

import torch
from torch import Tensor

from i2i.images.format import ImageFormat
from i2i.inference.model import Model
from i2i.nets.norms import has_dropout
from i2i.seeding import stable_seed

GAIN = 2        # White is a standard deviation of half of what is possible: 64 of 255 levels.


def is_stochastic(model: Model) -> bool:
    """Whether another seed makes another image of a source."""
    return model.samples_in_steps or has_dropout(model.modules)


def sample_spread(translate: Callable[[int], Tensor], seed: int, samples: int,
                  target: ImageFormat) -> tuple[Tensor, Tensor]:
    """The first of several samples, and the standard deviation of all, by pixel, as a gray image.

    One sample is in memory at a time.

    Args:
        translate: a seed -> images, (N, C, H, W) in [-1, 1].
        seed: of the first sample, of which the others' are functions.
        target: format of the images and of the spread, whose alpha is opaque.
    """
    first = mean = translate(seed)
    deviations = torch.zeros_like(first)
    for i in range(1, samples):                         # Welford 1962.
        x = translate(stable_seed(seed, i))
        before, mean = mean, mean + (x - mean) / (i + 1)
        deviations += (x - before) * (x - mean)
    spread = (deviations / samples).sqrt()
    colors = spread[:, :-1] if target.alpha else spread
    gray = (2 * GAIN * colors.mean(1, keepdim=True) - 1).clamp(max=1).repeat(1, spread.shape[1], 1, 1)
    if target.alpha:
        gray[:, -1] = 1
    return first, gray
