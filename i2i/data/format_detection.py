"""What the images of one side look like outside, found from some of them: type, channels, alpha, range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from i2i.errors import RequestError, require
from i2i.images.formats import DTYPES, DecodedImage, ImageFormat

MAX_CHANNELS = 512                        # Channels that OpenCV takes in one image.
DEPTHS = (8, 10, 12, 14, 16)      # Bits that cameras and scanners put into 16.


def detect_format(pictures: Sequence[DecodedImage], keep_alpha: bool, background: tuple[int, ...], key: str,
                  text: str) -> ImageFormat:
    """The kind that all pictures of a side can be brought to: color as soon as one has it, 16 bits as soon as
    one has them.

    `text` is the setting `key` of the side's range.  RequestError names two pictures that have no kind in
    common.
    """
    types = {picture.array.dtype.name: picture for picture in pictures}
    colors = {picture.channels - picture.alpha: picture for picture in pictures}
    if len(types) > 1 and "float32" in types:
        _differ(*list(types.items())[:2])
    if len(colors) > 1 and set(colors) != {1, 3}:
        _differ(*((f"of {number} channels", picture) for number, picture in list(colors.items())[:2]))
    if max(colors) > MAX_CHANNELS:
        raise RequestError(f"{pictures[0].name} has {max(colors)} channels; accepted: at most {MAX_CHANNELS}")
    dtype = max(types, key=DTYPES.index)
    alpha = keep_alpha and any(picture.alpha for picture in pictures)
    # Otherwise something needs the type's full range.
    seen = dtype == "float32" or (dtype == "uint16" and len(types) == 1 and not alpha)
    values = parse_range(key, text) or (_seen(pictures, dtype) if text == "auto" and seen else None)
    if dtype == "float32" and values is None:
        raise RequestError(f"{key}=full cannot be used: {pictures[0].name} is float32, which has no full "
                           "range; accepted: auto, or LOW,HIGH")
    return ImageFormat(max(colors) + alpha, dtype, values, alpha, background)


def _differ(first: tuple[str, DecodedImage], second: tuple[str, DecodedImage]) -> None:
    raise RequestError(f"{first[1].name} is {first[0]} and {second[1].name} is {second[0]}; the images of "
                       "one side must be of one kind "
                       "(gray among color, and 8 among 16 bits, will do)")


def _seen(pictures: Sequence[DecodedImage], dtype: str) -> tuple[float, float] | None:
    """Of floats the lowest and highest value; of 16 bits what the smallest usual bit depth holds, None where
    that is all."""
    low = min(float(picture.array.min()) for picture in pictures)
    high = max(float(picture.array.max()) for picture in pictures)
    if dtype == "uint16":
        depth = next(bits for bits in DEPTHS if high < 2 ** bits)
        return None if depth == DEPTHS[-1] else (0, 2 ** depth - 1)
    return low, high if high > low else low + 1


def parse_range(key: str, text: str) -> tuple[float, float] | None:
    """LOW,HIGH as numbers, None for auto and full.  RequestError for other words."""
    if text in ("auto", "full"):
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    require(bool(np.isfinite([low, high]).all()) and low < high, key, text,
            "auto, full, or the values that become -1 and 1, such as 0,4095")
    return low, high
