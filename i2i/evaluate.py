"""How far results are from their targets, beside the score of doing nothing."""

from __future__ import annotations

import numpy as np
import torch

from i2i.data.datasets import Pairs
from i2i.data.files import Unreadable
from i2i.errors import JobError
from i2i.images import Array, as_channels, grid, to_array, to_tensor
from i2i.infer import Model
from i2i.metrics.paired import PairedMetrics

Triple = tuple[Array, Array, Array]         # Input, result, target.
SHEET = 24      # Pairs on a sheet, spread over the split.


def evaluate_pairs(model: Model, pairs: Pairs) -> tuple[dict[str, dict[str, float]], list[Triple]]:
    """L1 (of 255), PSNR (dB) and SSIM of the translations and of the inputs themselves ("copy the input").

    Each image is translated whole, at its own size, and judged as the 8-bit image that would be saved.
    Also gives up to 24 pairs to look at.  JobError names an image that cannot be read.
    """
    ours, copied = PairedMetrics(), PairedMetrics()
    channels = model.kinds["b"].channels
    shown = set(np.unique(np.linspace(0, len(pairs) - 1, SHEET).astype(int)).tolist())
    triples: list[Triple] = []
    for index in range(len(pairs)):
        try:
            a, b = pairs[index]
        except Unreadable as error:
            raise JobError(str(error)) from None
        fake = to_array(model(model.prepare(a)[None])[0].cpu(), model.kinds["b"])
        real = _levels(as_channels(b, channels))
        ours.update(_levels(fake), real)
        copied.update(_levels(as_channels(a, channels)), real)
        if index in shown:
            triples.append((a, fake, b))
    return {"model": ours.compute(), "copy the input": copied.compute()}, triples


def sheet(triples: list[Triple], *, across: int = 4) -> Array:
    """Input, result and target side by side, several pairs in a row, images of other sizes than the first left out.  -> HWC uint8"""
    size = triples[0][0].shape[:2]
    flat = [to_tensor(as_channels(array, 3)) for triple in triples if triple[0].shape[:2] == size for array in triple]
    return grid([flat[i:i + 3 * across] for i in range(0, len(flat), 3 * across)])


def _levels(array: Array) -> torch.Tensor:
    """Grey levels 0 … 255.  HW or HWC -> 1CHW"""
    whole = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(whole.transpose(2, 0, 1).copy())[None].float()
