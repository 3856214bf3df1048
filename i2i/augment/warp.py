"""Pixels of one image taken to other places.

Not torch's grid_sample, nor what is built on it, as kornia's warps: its gradient is summed in another order
each time on CUDA, so no run would repeat, and in the oldest torch that we support it cannot be differentiated
twice, as a gradient penalty does with what D sees.  Here all is a selection of pixels times weights.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Low-pass filter of sym6, the least asymmetric orthogonal wavelet with six vanishing moments (Daubechies
# 1992), as Karras et al. 2020a, appendix B.
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
        0.4910559419267466, 0.787641141030194,
        0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
        0.0017677118642428036, -0.007800708325034148)
# Taps before the two in the middle.
BEFORE = len(SYM6) // 2 - 1
# Where pixel 0 lies at twice the resolution: its center of mass.
CENTER = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - BEFORE


def gather_pixels(x: Tensor, index: Tensor) -> Tensor:
    """Pixels by their number.  NCHW, Nhw int64 -> NChw

    Two ways because each has a gradient that is summed in a fixed order on one device only
    (torch.use_deterministic_algorithms lists the others).
    """
    flat, chosen = x.flatten(2), index.flatten(1)
    if x.device.type == "cpu":
        out = flat.gather(2, chosen[:, None].expand(-1, x.shape[1], -1))
    else:
        out = flat.transpose(1, 2)[torch.arange(len(x), device=x.device)[:, None], chosen].transpose(1, 2)
    return out.unflatten(2, index.shape[1:])


def reflect_index(at: Tensor, size: int) -> Tensor:
    """Coordinates brought into [0, size - 1] by reflection at the outermost pixels, as often as needed."""
    period = max(2 * (size - 1), 1)
    at = at.remainder(period)
    return torch.minimum(at, period - at)


def bilinear(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Between four pixels each.  NCHW, Nhw and Nhw in [0, H - 1] and [0, W - 1] -> NChw"""
    height, width = x.shape[2:]
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).to(x.dtype)[:, None], (columns - left).to(x.dtype)[:, None]
    index = top.long() * width + left.long()
    # From a pixel to that below it, or to itself at the edge, where its weight is 0.
    below = torch.where(top < height - 1, width, 0)
    beside = torch.where(left < width - 1, 1, 0)
    upper = gather_pixels(x, index) * (1 - right) + gather_pixels(x, index + beside) * right
    lower = gather_pixels(x, index + below) * (1 - right) + gather_pixels(x, index + below + beside) * right
    return upper * (1 - down) + lower * down


def doubled(x: Tensor) -> Tensor:
    """Twice the size, by wavelet synthesis; pixel y lies at 2y + CENTER.  Edges are reflected.  NCHW ->
    NC(2H)(2W)"""
    n, channels, height, width = x.shape
    # What the filter reaches.
    rows, columns = (reflect_index(torch.arange(-3, size + 3, device=x.device), size)
                     for size in (height, width))
    x = x[:, :, rows][..., columns].reshape(n * channels, 1, height + 6, width + 6)
    # So that a constant stays what it is.
    taps = torch.tensor(SYM6, dtype=x.dtype, device=x.device) * 2**0.5
    x = F.conv_transpose2d(x, taps.view(1, 1, -1, 1), stride=(2, 1), padding=(6 + BEFORE, 0))
    x = F.conv_transpose2d(x, taps.view(1, 1, 1, -1), stride=(1, 2), padding=(0, 6 + BEFORE))
    return x.view(n, channels, 2 * height, 2 * width)


def halved(x: Tensor) -> Tensor:
    """The adjoint, wavelet analysis: doubled and halved is what there was.  Needs 5 pixels more on each side.
    NC(2H + 10)(2W + 10) -> NCHW"""
    n, channels, height, width = x.shape
    taps = torch.tensor(SYM6, dtype=x.dtype, device=x.device) / 2**0.5
    x = F.conv2d(x.reshape(n * channels, 1, height, width), taps.view(1, 1, -1, 1), stride=(2, 1))
    x = F.conv2d(x, taps.view(1, 1, 1, -1), stride=(1, 2))
    return x.view(n, channels, *x.shape[2:])


def warped(x: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """Each image moved: the pixel at p, an (x, y) from the image's middle, comes from matrix (p - shift).
    Outside is a reflection.

    At twice the resolution, between filters, so that neither shrinking nor the interpolation makes patterns
    of its own.  Karras et al. 2020a, appendix B.  NCHW, N22, N2 in pixels -> NCHW
    """
    height, width = x.shape[2:]
    fine = doubled(x)
    y, x_ = ((torch.arange(-BEFORE, 2 * size + BEFORE, device=x.device) - CENTER) / 2 - (size - 1) / 2
             for size in (height, width))
    y, x_ = y[None, :, None] - shift[:, 1, None, None], x_[None, None, :] - shift[:, 0, None, None]
    a, b, c, d = (matrix[:, i, j, None, None] for i in (0, 1) for j in (0, 1))
    rows = reflect_index(c * x_ + d * y + (height - 1) / 2, height)
    columns = reflect_index(a * x_ + b * y + (width - 1) / 2, width)
    return halved(bilinear(fine, 2 * rows + CENTER, 2 * columns + CENTER))
