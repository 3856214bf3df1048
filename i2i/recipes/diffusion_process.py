"""Diffusion in discrete time: noise schedules, what a network predicts, and the steps back to an image.

`ab` is the product of all alphas up to a time, the image's share of the variance: a number or (N, 1, 1, 1).
Schedules are float64 on the CPU: in float32 they are wrong by 1e-5 of their value where noise is nearly all.
"""

import functools
import math
from typing import Annotated, Any, Literal

import torch
from torch import Tensor
from typing_extensions import Doc

from i2i.errors import require

TIMESTEPS = 1000        # Of a schedule.  Ho et al. 2020, section 4.
MIN_VARIANCE = 1e-20    # Of an ancestral step.
MAX_BETA = 0.999        # Nichol and Dhariwal 2021, section 3.2.

AlphaBar = Tensor | float
NoiseSchedule = Annotated[Literal["cosine", "linear"], Doc(
    "Noise by time: cosine (Nichol and Dhariwal 2021) or linear (Ho et al. 2020)")]
Prediction = Annotated[Literal["v", "epsilon", "x0"], Doc(
    "What the network predicts: the velocity (Salimans and Ho 2022), the noise or the image")]
Spacing = Annotated[Literal["trailing", "leading"], Doc(
    "Times that the steps visit: from pure noise on (Lin et al. 2024), or from one stride before it")]


@functools.cache
@torch.inference_mode(False)      # Else it could not be used in training afterwards.
def noise_betas(schedule: str, timesteps: int = TIMESTEPS) -> Tensor:
    """The noise variance that each time adds, (timesteps) float64."""
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64, device="cpu")
    edges = torch.arange(timesteps + 1, dtype=torch.float64, device="cpu") / timesteps
    image = torch.cos((edges + 0.008) / 1.008 * math.pi / 2) ** 2       # Equation 17.
    return (1 - image[1:] / image[:-1]).clamp(max=MAX_BETA)


@functools.cache
@torch.inference_mode(False)      # Else it could not be used in training afterwards.
def alphas_cumprod(schedule: str, timesteps: int = TIMESTEPS) -> Tensor:
    """The share of the image's variance that is left at each time, `ab`, (timesteps) float64."""
    return (1 - noise_betas(schedule, timesteps)).cumprod(0)


def _roots(ab: AlphaBar, like: Tensor) -> tuple[Any, Any]:
    """The weights of image and noise in a sample, rounded after they are computed."""
    image, noise = ab**0.5, (1 - ab) ** 0.5
    return (image.to(like), noise.to(like)) if isinstance(image, Tensor) else (image, noise)


def add_noise(x0: Tensor, noise: Tensor, ab: AlphaBar) -> Tensor:
    """A noisy image, a sample of q(x_t | x_0).  Ho et al. 2020, equation 4."""
    image, sigma = _roots(ab, x0)
    return image * x0 + sigma * noise


def prediction_target(x0: Tensor, noise: Tensor, ab: AlphaBar, prediction: str) -> Tensor:
    """The target of the network for `add_noise(x0, noise, ab)`: velocity, noise or image."""
    if prediction == "v":
        image, sigma = _roots(ab, x0)
        return image * noise - sigma * x0
    return noise if prediction == "epsilon" else x0


def split_prediction(output: Tensor, x: Tensor, ab: AlphaBar, prediction: str) -> tuple[Tensor, Tensor]:
    """The image and the noise in `x` that follow from the network's output for it."""
    image, sigma = _roots(ab, x)
    if prediction == "v":
        return image * x - sigma * output, image * output + sigma * x
    if prediction == "epsilon":
        return (x - sigma * output) / image, output
    return output, (x - image * output) / sigma


def min_snr_weight(ab: Tensor, prediction: str, gamma: float) -> Tensor:
    """The weight of a time in the loss: min(SNR, gamma) times the squared error of the image, expressed in
    that of the prediction.  Hang et al. 2023, section 3.4."""
    snr = ab / (1 - ab)
    return snr.clamp(max=gamma) / {"v": snr + 1, "epsilon": snr, "x0": torch.ones_like(snr)}[prediction]


def sampling_times(steps: int, spacing: str, timesteps: int = TIMESTEPS) -> list[int]:
    """The times that `steps` steps start at, descending; the last leads to the image."""
    require(1 <= steps <= timesteps, "steps", steps, f"1 to {timesteps}")
    if spacing == "leading":
        return [i * (timesteps // steps) for i in reversed(range(steps))]
    return [round(timesteps - i * timesteps / steps) - 1 for i in range(steps)]


def posterior_variance(ab: AlphaBar, ab_next: AlphaBar) -> AlphaBar:
    """The variance of q(x_next | x_t, x_0).  Ho et al. 2020, equation 7."""
    return (1 - ab_next) / (1 - ab) * (1 - ab / ab_next)


def ddim_step(x0: Tensor, noise: Tensor, ab: AlphaBar, ab_next: AlphaBar, eta: float = 0.0,
              fresh_noise: Tensor | None = None) -> Tensor:
    """A step from `ab` to `ab_next`.  Song et al. 2021a (DDIM), equations 12 and 16.

    Args:
        x0, noise: the image and the noise in the present sample, as predicted.
        eta: share of the ancestral step's fresh noise; 0: the step is deterministic.
    """
    sigma = eta * posterior_variance(ab, ab_next) ** 0.5
    x = ab_next**0.5 * x0 + (1 - ab_next - sigma**2) ** 0.5 * noise
    return x if fresh_noise is None else x + sigma * fresh_noise


def ddpm_step(x: Tensor, x0: Tensor, ab: float, ab_next: float, fresh_noise: Tensor | None,
              variance: str = "small") -> Tensor:
    """An ancestral step; `variance`: small, the posterior's; large, beta's.  Ho et al. 2020, algorithm 2."""
    alpha = ab / ab_next
    mean = (ab_next**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - ab_next) * x) / (1 - ab)
    if fresh_noise is None:         # The last step.
        return mean
    scale = 1 - alpha if variance == "large" else max(float(posterior_variance(ab, ab_next)), MIN_VARIANCE)
    return mean + scale**0.5 * fresh_noise
