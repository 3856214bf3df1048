"""Pillow: opening safely, orientation, conversion from and to its images."""

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from i2i.images.format import Array, DecodedImage, ImageFormat

ORIENTATION = 0x0112        # EXIF 2.3 and TIFF 6.0.
ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
GRAY_MODES = ("1", "L", "LA", "La", "F", "I;16", "I;16B", "I;16L", "I;16N")


def open_image(data: bytes) -> Image.Image:
    """Open an image with Pillow, unless it is a decompression bomb."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise _bomb() from None
        except UnidentifiedImageError:
            raise ValueError("not an image, or of an unknown format" if data else "empty file") from None


def _bomb() -> ValueError:
    return ValueError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb")


def check_pixels(pixels: int) -> None:
    """Raise ValueError if a header claims more pixels than Pillow's limit (a decompression bomb)."""
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise _bomb()


def apply_orientation(array: Array, orientation: int) -> Array:
    """Turn and mirror an array as its EXIF orientation says (EXIF 2.3, tag 0x0112)."""
    if orientation in (3, 4, 6, 7):
        array = array[::-1]
    if orientation in (2, 3, 7, 8):
        array = array[:, ::-1]
    return np.ascontiguousarray(array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array)


def from_pil(image: Image.Image) -> DecodedImage:
    """Convert an opened image: 8 or 16 bits or floats, gray or RGB, with or without alpha, stay; palettes,
    CMYK and other modes become RGB.  ValueError for 32-bit integers, which no supported type holds."""
    mode, notes = image.mode, tuple[str, ...]()
    if mode == "F":
        array, alpha = np.asarray(image, np.float32), False
    elif mode.startswith("I;16"):
        array, alpha = np.asarray(image).astype(np.uint16), False
    elif mode == "I" or mode.startswith("I;"):
        raise ValueError(f"mode {mode} (32-bit integers) is not supported; accepted: unsigned 8 or 16 bits, "
                         "or 32-bit floats")
    elif mode in ALPHA_MODES or ("transparency" in image.info and mode in ("1", "L", "P", "RGB")):
        alpha = True
        array = np.asarray(image.convert("RGBA"))
        array = np.ascontiguousarray(array[..., [0, 3]]) if mode in GRAY_MODES else array
    else:
        array, alpha = np.asarray(image.convert("L" if mode in GRAY_MODES else "RGB")), False
        if mode in ("CMYK", "LAB"):
            notes = (f"{mode}, read as RGB without its profile",)
    return DecodedImage(array, alpha, profile=image.info.get("icc_profile") or None,
                        dpi=parse_dpi(image.info.get("dpi")), notes=notes)


def parse_dpi(dpi: Any) -> tuple[float, float] | None:
    """Pixels per inch, horizontal and vertical, if the metadata of a file is meaningful."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # Pillow reports 1 for an unknown resolution.
    return (across, down) if 1 < across < float("inf") and 1 < down < float("inf") else None


def pil_supports(format: ImageFormat) -> bool:
    """Whether Pillow has a mode for images of a format."""
    return format.colors in (1, 3) if format.dtype == "uint8" else format.channels == 1
