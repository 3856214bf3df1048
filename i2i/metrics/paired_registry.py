"""Metrics of an image against its target, by name.  Each is made once and then takes batches of gray
levels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from i2i.metrics import lpips, paired
from i2i.registry import register

# NCHW, NCHW in 0 … 255 -> N; C is 3, or more where images have more.
PairMetric = Callable[[Tensor, Tensor], Tensor]
Find = Callable[[str], Path]                        # The name of a weights file -> where it lies.
BETTER = {"l1": "lower", "psnr": "higher", "ssim": "higher", "ms_ssim": "higher", "lpips": "lower"}
BACKBONES = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet"}


@register("paired_metric", "l1")
def l1(find: Find) -> PairMetric:
    """Mean absolute difference, of 255."""
    return paired.l1


@register("paired_metric", "psnr")
def psnr(find: Find) -> PairMetric:
    """Peak signal-to-noise ratio in dB, of each image and then the mean; 100 for identical images."""
    return lambda fake, real: paired.psnr(fake, real, data_range=255)


@register("paired_metric", "ssim")
def ssim(find: Find) -> PairMetric:
    """Structural similarity.  Wang et al. 2004."""
    return lambda fake, real: paired.ssim(fake, real, data_range=255)


@register("paired_metric", "ms_ssim")
def ms_ssim(find: Find) -> PairMetric:
    """Multi-scale structural similarity, from 176 pixels a side.  Wang et al. 2003."""
    return lambda fake, real: paired.ms_ssim(fake, real, data_range=255)


@register("paired_metric", "lpips")
def lpips_distance(find: Find, *, net: lpips.Net = "alex") -> PairMetric:
    """Distance as people judge, v0.1.  Zhang et al. 2018."""
    model = lpips.load(net, find(BACKBONES[net]), find("lpips-lin"))
    return lambda fake, real: model(fake / 127.5 - 1, real / 127.5 - 1).to(torch.float64)
