"""Paired metrics against scikit-image itself and closed forms."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from i2i.metrics.paired import MAX_PSNR, l1, psnr, ssim


def test_live_scikit_image_agrees_on_odd_sizes() -> None:
    g = np.random.default_rng(0)
    real = g.integers(0, 256, (23, 41, 3)).astype(np.float64)
    fake = np.clip(real + g.normal(0, 20, real.shape), 0, 255)
    got = ssim(*(torch.from_numpy(x.transpose(2, 0, 1))[None] for x in (fake, real)), data_range=255).item()
    theirs = structural_similarity(real, fake, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2)
    assert got == pytest.approx(theirs, abs=1e-7)


def test_closed_forms() -> None:
    black, gray = torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 51.0)
    assert l1(black, gray).tolist() == [51, 51]
    assert psnr(black, gray, data_range=255).tolist() == pytest.approx([20 * math.log10(5)] * 2)
    assert psnr(gray, gray, data_range=255).tolist() == [MAX_PSNR] * 2
    assert ssim(gray, gray, data_range=255).tolist() == pytest.approx([1, 1])
    c1 = (0.01 * 255) ** 2
    assert ssim(black, gray, data_range=255).tolist() == pytest.approx([c1 / (51**2 + c1)] * 2)


def test_the_range_matters_and_scaling_both_does_not() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 32, 32)
    assert ssim(a * 255, b * 255, data_range=255).item() == pytest.approx(ssim(a, b, data_range=1).item())
    assert psnr(2 * a - 1, 2 * b - 1, data_range=2).item() == pytest.approx(psnr(a, b, data_range=1).item())


def test_images_smaller_than_the_window() -> None:
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 1, 10, 40), torch.zeros(1, 1, 10, 40), data_range=1)
