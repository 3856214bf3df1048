"""How far results are from their targets, beside the score of doing nothing."""

from __future__ import annotations

import torch

from i2i.data.datasets import Pairs
from i2i.data.files import Unreadable
from i2i.errors import JobError
from i2i.images import Array, as_channels, to_array
from i2i.infer import Model
from i2i.metrics.paired import PairedMetrics


def evaluate_pairs(model: Model, pairs: Pairs) -> dict[str, dict[str, float]]:
    """L1 (of 255), PSNR (dB) and SSIM of the translations and of the inputs themselves ("copy the input").

    Each image is translated whole, at its own size, and judged as the 8-bit image that would be saved.
    JobError names an image that cannot be read.
    """
    ours, copied = PairedMetrics(), PairedMetrics()
    channels = model.kinds["b"].channels
    for index in range(len(pairs)):
        try:
            a, b = pairs[index]
        except Unreadable as error:
            raise JobError(str(error)) from None
        fake = to_array(model(model.prepare(a)[None])[0].cpu(), model.kinds["b"])
        real = _levels(as_channels(b, channels))
        ours.update(_levels(fake), real)
        copied.update(_levels(as_channels(a, channels)), real)
    return {"model": ours.compute(), "copy the input": copied.compute()}


def _levels(array: Array) -> torch.Tensor:
    """Grey levels 0 … 255.  HW or HWC -> 1CHW"""
    whole = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(whole.transpose(2, 0, 1).copy())[None].float()
