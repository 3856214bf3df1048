"""The one place where images inside ([-1, 1], float32, CHW) meet images outside (integers, HWC, files)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Array = NDArray[Any]
_MAX = {"uint8": 255, "uint16": 65535}


@dataclass(frozen=True)
class Kind:
    """What the images of one side look like outside: integer type and number of channels (1 grey, 3 colour)."""

    channels: int = 3
    dtype: str = "uint8"


def to_tensor(array: Array) -> Tensor:
    """Integers to [-1, 1].  HW or HWC, uint8 or uint16 -> CHW float32"""
    top = _MAX[array.dtype.name]
    chw = np.ascontiguousarray((array[..., None] if array.ndim == 2 else array).transpose(2, 0, 1))
    return torch.from_numpy(chw.astype(np.float32)).div_(top).sub_(0.5).div_(0.5)


def to_array(image: Tensor, kind: Kind) -> Array:
    """[-1, 1] to integers, clamped and rounded to nearest, so to_array(to_tensor(x)) is x.  CHW -> HWC, or HW for one channel"""
    top = _MAX[kind.dtype]
    values = image.detach().to("cpu", torch.float64 if top > 255 else torch.float32)
    array = ((values + 1) * (top / 2)).round_().clamp_(0, top).numpy().astype(kind.dtype)
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


def as_channels(array: Array, channels: int) -> Array:
    """Grey to colour by repetition, colour to grey by ITU-R 601 luma, as Pillow does.  HW or HWC -> HW or HWC"""
    have = 1 if array.ndim == 2 else array.shape[2]
    if have == channels:
        return array[..., 0] if array.ndim == 3 and channels == 1 else array
    if have == 1 and channels == 3:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if have == 3 and channels == 1:
        return np.asarray(Image.fromarray(array).convert("L"))
    raise ValueError(f"an image of {have} channels cannot become one of {channels}")


def from_pil(image: Image.Image, background: int = 255) -> Array:
    """An opened picture as uint8 HW (grey) or HWC (RGB); alpha is laid over the background, palettes and CMYK become RGB.

    16-bit and floating-point pictures raise ValueError: clipping them to 8 bits would lose what they hold.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"mode {image.mode} (more than 8 bits a channel) is not supported; 8-bit grey or colour is")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        grey = image.mode in ("LA", "La", "L", "1")
        rgba = image.convert("RGBA")
        below = Image.new("RGBA", rgba.size, (background, background, background, 255))
        image = Image.alpha_composite(below, rgba).convert("L" if grey else "RGB")
    elif image.mode in ("1", "L"):
        image = image.convert("L")
    else:
        image = image.convert("RGB")
    return np.asarray(image)


def to_pil(array: Array) -> Image.Image:
    """uint8 HW or HWC -> picture."""
    return Image.fromarray(array)


def grid(rows: Sequence[Sequence[Tensor]], *, gap: int = 2) -> Array:
    """Rows of equally large images in [-1, 1] on a white sheet.  CHW each -> HWC uint8"""
    height, width = rows[0][0].shape[-2:]
    down, across = len(rows), max(len(row) for row in rows)
    sheet = np.full((down * (height + gap) + gap, across * (width + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = gap + i * (height + gap), gap + j * (width + gap)
            sheet[y:y + height, x:x + width] = as_channels(to_array(image, Kind(len(image))), 3)
    return sheet
