"""Metrics of an image against its target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

PSNR_CAP = 100.0        # dB given to identical images, whose PSNR is infinite.
TAPS, SIGMA = 11, 1.5   # Of the Gaussian window.  Wang et al. 2004, section III-C.
# Wang et al. 2003, section 3.2, finest scale first.
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_SMALLEST = TAPS * 2 ** (len(MS_SSIM_WEIGHTS) - 1)       # 176: one whole window at the last scale.


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference, in the images' units.  NCHW, NCHW -> N"""
    return (fake.double() - real.double()).abs().mean((1, 2, 3))


def psnr(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most 100.  NCHW, NCHW -> N"""
    mse = (fake.double() - real.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).clamp(max=PSNR_CAP)


def ssim(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Structural similarity, mean over windows that lie inside the image and over channels.  NCHW, NCHW -> N

    Wang et al. 2004, equation 13: 11x11 Gaussian window of sigma 1.5, population covariance, K1 = 0.01, K2 =
    0.03. Equal to scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False).
    """
    if min(fake.shape[-2:]) < TAPS:
        raise ValueError(f"SSIM needs images of at least {TAPS} pixels a side, these are "
                         f"{fake.shape[-1]}x{fake.shape[-2]}")
    luminance, contrast = _similarity(fake.double(), real.double(), data_range)
    return (luminance * contrast).mean((1, 2, 3))


def ms_ssim(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Multi-scale structural similarity.  NCHW, NCHW -> N

    Wang, Simoncelli and Bovik 2003, equation 7, with the weights of its section 3.2: contrast and structure
    at five scales, luminance at the last; 2x2 means between scales; windows inside the image; the product is
    taken per channel, then the mean over channels.  Negative similarities, which have no real power, count as
    0.
    """
    if min(fake.shape[-2:]) < MS_SSIM_SMALLEST:
        raise ValueError(f"MS-SSIM needs images of at least {MS_SSIM_SMALLEST} pixels a side, these are "
                         f"{fake.shape[-1]}x{fake.shape[-2]}")
    x, y = fake.double(), real.double()
    product = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = _similarity(x, y, data_range)
        whole = luminance * contrast if scale == len(MS_SSIM_WEIGHTS) - 1 else contrast
        product = product * whole.mean((2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.mean(1)


def _similarity(x: Tensor, y: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, at every window.  NCHW, NCHW -> NChw, NChw"""
    channels = x.shape[1]
    steps = torch.arange(TAPS, dtype=torch.float64, device=x.device) - TAPS // 2
    window = torch.exp(-steps.square() / (2 * SIGMA**2))
    window = (window / window.sum()).expand(channels, 1, 1, TAPS)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window, groups=channels), window.transpose(2, 3), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return (2 * mx * my + c1) / (mx * mx + my * my + c1), (2 * cov + c2) / (vx + vy + c2)
