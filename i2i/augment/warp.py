"""Geometric transforms of images, twice differentiable, with deterministic gradients.

Not torch's `grid_sample`, nor kornia's warps, which use it: its gradient is not deterministic on CUDA, and in
the oldest supported torch it cannot be differentiated twice, as gradient penalties do.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i.nets.padding import reflect_index

# Low-pass filter of sym6, the least asymmetric orthogonal wavelet with six vanishing moments (Daubechies
# 1992), as in Karras et al. 2020a, appendix B.
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
        0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
        -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148)
BEFORE = len(SYM6) // 2 - 1     # Taps before the two in the middle.
# Position of pixel 0 at twice the resolution: the filter's center of mass.
CENTER = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - BEFORE


def gather_pixels(x: Tensor, index: Tensor) -> Tensor:
    """Pixels by flat index: (N, C, H, W), (N, H', W') int64 -> (N, C, H', W')

    Two implementations, each with a gradient that is deterministic on one kind of device only.
    """
    pixels, flat = x.flatten(2), index.flatten(1)
    if x.device.type == "cpu":
        out = pixels.gather(2, flat[:, None].expand(-1, x.shape[1], -1))
    else:
        out = pixels.transpose(1, 2)[torch.arange(len(x), device=x.device)[:, None], flat].transpose(1, 2)
    return out.unflatten(2, index.shape[1:])


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear interpolation at (N, H', W') rows in [0, H - 1] and columns in [0, W - 1]."""
    height, width = x.shape[2:]
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).to(x.dtype)[:, None], (columns - left).to(x.dtype)[:, None]
    index = top.long() * width + left.long()
    # Offsets to the neighbors; 0 at the edge, where their weight is 0.
    below = torch.where(top < height - 1, width, 0)
    beside = torch.where(left < width - 1, 1, 0)
    upper = gather_pixels(x, index) * (1 - right) + gather_pixels(x, index + beside) * right
    lower = gather_pixels(x, index + below) * (1 - right) + gather_pixels(x, index + below + beside) * right
    return upper * (1 - down) + lower * down


def wavelet_upsample(x: Tensor) -> Tensor:
    """Double the size by wavelet synthesis with reflected edges; pixel y moves to 2y + CENTER."""
    n, channels, height, width = x.shape
    rows, columns = (reflect_index(torch.arange(-3, size + 3, device=x.device), size)
                     for size in (height, width))
    x = x[:, :, rows][..., columns].reshape(n * channels, 1, height + 6, width + 6)
    taps = torch.tensor(SYM6, dtype=x.dtype, device=x.device) * 2**0.5      # Preserves a constant.
    x = F.conv_transpose2d(x, taps.view(1, 1, -1, 1), stride=(2, 1), padding=(6 + BEFORE, 0))
    x = F.conv_transpose2d(x, taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, 6 + BEFORE))
    return x.view(n, channels, 2 * height, 2 * width)


def wavelet_downsample(x: Tensor) -> Tensor:
    """Wavelet analysis, the inverse of `wavelet_upsample`.  (N, C, 2H + 10, 2W + 10) -> (N, C, H, W)"""
    n, channels, height, width = x.shape
    taps = torch.tensor(SYM6, dtype=x.dtype, device=x.device) / 2**0.5
    x = F.conv2d(x.reshape(n * channels, 1, height, width), taps.view(1, 1, -1, 1), stride=(2, 1))
    x = F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, 2))
    return x.view(n, channels, *x.shape[2:])


def warp_affine(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Affine warp with reflection, at twice the resolution.  Karras et al. 2020a, appendix B.

    Args:
        x: (N, C, H, W).
        matrix: (N, 2, 2), from a position p = (x, y) relative to the center, less the shift, to the position
            its pixel comes from: matrix (p - shift).
        shift: (N, 2) in pixels.
    """
    height, width = x.shape[2:]
    fine = wavelet_upsample(x)
    y, x_ = ((torch.arange(-BEFORE, 2 * size + BEFORE, device=x.device) - CENTER) / 2 - (size - 1) / 2
             for size in (height, width))
    y, x_ = y[None, :, None] - shift[:, 1, None, None], x_[None, None, :] - shift[:, 0, None, None]
    a, b, c, d = (matrix[:, i, j, None, None] for i in (0, 1) for j in (0, 1))
    rows = reflect_index(c * x_ + d * y + (height - 1) / 2, height)
    columns = reflect_index(a * x_ + b * y + (width - 1) / 2, width)
    return wavelet_downsample(bilinear(fine, 2 * rows + CENTER, 2 * columns + CENTER))
