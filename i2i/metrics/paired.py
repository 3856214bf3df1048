"""Metrics of an image against its target."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

PSNR_CAP = 100.0        # dB given to identical images, whose PSNR is infinite.


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference, in the images' units.  NCHW, NCHW -> N"""
    return (fake.double() - real.double()).abs().mean((1, 2, 3))


def psnr(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, at most 100.  NCHW, NCHW -> N"""
    mse = (fake.double() - real.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).clamp(max=PSNR_CAP)


def ssim(fake: Tensor, real: Tensor, *, data_range: float) -> Tensor:
    """Structural similarity, mean over windows that lie inside the image and over channels.  NCHW, NCHW -> N

    Wang et al. 2004, equation 13: 11x11 Gaussian window of sigma 1.5, population covariance, K1 = 0.01, K2 = 0.03.
    Equal to scikit-image's structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False).
    """
    taps, sigma = 11, 1.5
    if min(fake.shape[-2:]) < taps:
        raise ValueError(f"SSIM needs images of at least {taps} pixels a side, these are {fake.shape[-1]}x{fake.shape[-2]}")
    x, y = fake.double(), real.double()
    channels = x.shape[1]
    steps = torch.arange(taps, dtype=torch.float64, device=x.device) - taps // 2
    window = torch.exp(-steps.square() / (2 * sigma**2))
    window = (window / window.sum()).expand(channels, 1, 1, taps)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, window, groups=channels), window.transpose(2, 3), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    index = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return index.mean((1, 2, 3))


class PairedMetrics:
    """Running means of L1, PSNR and SSIM over 8-bit images in 0 … 255."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {"l1": [], "psnr": [], "ssim": []}

    def update(self, fake: Tensor, real: Tensor) -> None:
        """Add a batch.  NCHW, NCHW"""
        self.values["l1"] += l1(fake, real).tolist()
        self.values["psnr"] += psnr(fake, real, data_range=255).tolist()
        self.values["ssim"] += ssim(fake, real, data_range=255).tolist() if min(fake.shape[-2:]) >= 11 else [math.nan] * len(fake)

    def compute(self) -> dict[str, float]:
        """Means over images: L1 in grey levels, PSNR in dB, SSIM (nan if an image was smaller than its window)."""
        return {key: sum(values) / len(values) for key, values in self.values.items()}
