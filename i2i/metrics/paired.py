"""Metrics of an image against its target: the formulas, and their registry entries on 8-bit levels."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Doc

from i2i.metrics import lpips
from i2i.registry import register

MAX_PSNR = 100.0                    # dB assigned to identical images, whose PSNR is infinite.
WINDOW_SIZE, SIGMA = 11, 1.5        # Gaussian window of Wang et al. 2004, section III-C.
# Wang et al. 2003, section 3.2, finest scale first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIZE = WINDOW_SIZE * 2 ** (len(MS_SSIM_WEIGHTS) - 1)    # 176: one whole window at the last scale.

# Generated images and targets, (N, C, H, W) in [0, 255] with 3 or more channels -> values (N,)
PairedMetric = Callable[[Tensor, Tensor], Tensor]
FindWeights = Callable[[str], Path]     # Name of a weights file in the catalog -> its path.


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of each image, in the images' units: 2 x (N, C, H, W) -> (N,)."""
    return (fake.double() - real.double()).abs().mean((1, 2, 3))


def psnr(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most 100: 2 x (N, C, H, W) -> (N,).

    `data_range`, here and below, is the difference of the largest and the smallest possible value.
    """
    mse = (fake.double() - real.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).clamp(max=MAX_PSNR)


def ssim(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Structural similarity of each image, in [-1, 1]: 2 x (N, C, H, W) -> (N,).

    Wang et al. 2004, equation 13: 11x11 Gaussian window of sigma 1.5, population covariance, K1 = 0.01, K2 =
    0.03; mean over channels and over windows that lie inside the image.  Equal to scikit-image's
    structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).  ValueError below
    11 pixels a side.
    """
    _check_size(fake, WINDOW_SIZE, "SSIM")
    luminance, contrast = _similarity(fake.double(), real.double(), data_range)
    return (luminance * contrast).mean((1, 2, 3))


def ms_ssim(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Multi-scale structural similarity of each image, in [0, 1]: 2 x (N, C, H, W) -> (N,).

    Wang, Simoncelli and Bovik 2003, equation 7, with the weights of its section 3.2: contrast and structure
    at five scales, luminance at the last; 2x2 means between scales; windows inside the image; the product is
    taken per channel, then the mean over channels.  Negative similarities, which have no real power, count as
    0.  ValueError below 176 pixels a side.
    """
    _check_size(fake, MS_SSIM_MIN_SIZE, "MS-SSIM")
    x, y = fake.double(), real.double()
    product = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = _similarity(x, y, data_range)
        similarity = luminance * contrast if scale == len(MS_SSIM_WEIGHTS) - 1 else contrast
        product = product * similarity.mean((2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1)


def _check_size(image: Tensor, smallest: int, metric: str) -> None:
    if min(image.shape[-2:]) < smallest:
        raise ValueError(f"{metric} needs images of at least {smallest} pixels a side, these are "
                         f"{image.shape[-1]}x{image.shape[-2]}")


def _similarity(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, at every window: 2 x (N, C, H, W) -> 2 x (N, C, h, w)."""
    channels = x.shape[1]
    steps = torch.arange(WINDOW_SIZE, dtype=torch.float64, device=x.device) - WINDOW_SIZE // 2
    window = torch.exp(-steps.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(channels, 1, 1, WINDOW_SIZE)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window, groups=channels), window.transpose(2, 3), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * cov + c2) / (vx + vy + c2)


BETTER = {"l1": "lower", "psnr": "higher", "ssim": "higher", "ms_ssim": "higher", "lpips": "lower"}
LPIPS_BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}  # Names in the catalog.


@register("paired_metric", "l1")
def _l1(find_weights: FindWeights) -> PairedMetric:
    """Mean absolute difference of levels, of 255."""
    return l1


@register("paired_metric", "psnr")
def _psnr(find_weights: FindWeights) -> PairedMetric:
    """Peak signal-to-noise ratio in dB, per image and then the mean; 100 for identical images."""
    return lambda fake, real: psnr(fake, real, data_range=255)


@register("paired_metric", "ssim")
def _ssim(find_weights: FindWeights) -> PairedMetric:
    """Structural similarity.  Wang et al. 2004."""
    return lambda fake, real: ssim(fake, real, data_range=255)


@register("paired_metric", "ms_ssim")
def _ms_ssim(find_weights: FindWeights) -> PairedMetric:
    """Multi-scale structural similarity, from 176 pixels a side.  Wang et al. 2003."""
    return lambda fake, real: ms_ssim(fake, real, data_range=255)


@register("paired_metric", "lpips")
def _lpips(find_weights: FindWeights, *,
           net: Annotated[lpips.Net, Doc("Classifier whose layers are compared")] = "alex"
           ) -> PairedMetric:
    """Learned perceptual distance, v0.1.  Zhang et al. 2018."""
    model = lpips.load(net, find_weights(LPIPS_BACKBONES[net]), find_weights("lpips-lin"))
    return lambda fake, real: model(fake / 127.5 - 1, real / 127.5 - 1).to(torch.float64)
