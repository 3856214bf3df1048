"""Pillow: opening safely, orientation, conversion from and to its images."""

import contextlib
import functools
import io
import re
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from i2i.images.color import cmyk_note, cmyk_to_srgb, to_srgb
from i2i.images.format import Array, DecodedImage, ImageFormat

ORIENTATION = 0x0112        # EXIF 2.3 and TIFF 6.0.
ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
GRAY_MODES = ("1", "L", "LA", "La", "F", "I;16", "I;16B", "I;16L", "I;16N")
MAX_PIXELS = 89_478_485     # Of an image, by default: Pillow's limit, a quarter of a gigabyte of RGB.
# What Pillow identifies without decoding, programs that Ghostscript would run, and Photo CD, which has the
# extension of point clouds.
NOT_DECODED = ("BUFR", "GRIB", "HDF5", "WMF", "MPEG", "EPS", "PCD")
SIGNATURES = (      # Offset, bytes and name of formats.
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"GIF8", "GIF"), (8, b"WEBP", "WebP"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"MM\0+", "TIFF"),
    (0, b"\x93NUMPY", "NPY"), (4, b"ftypavif", "AVIF"), (4, b"ftypavis", "AVIF"), (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"), (4, b"ftypmif1", "HEIC"), (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"), (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"), (0, b"8BPS", "Photoshop"), (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"), (0, b"SIMPLE  =", "FITS"))
# BMP has its reserved bytes, and PNM its width, after two letters that texts may begin with.
SHORT_SIGNATURES = re.compile(rb"BM.{4}\0{4}|P[1-6]\s+(#|\d)", re.DOTALL)
HINTS = {"HEIC": "pip install 'i2i-toolkit[heif]'", "JPEG XL": "convert it to PNG"}
OTHER_SIGNATURES = (    # Of files that often have the extension of an image.
    (0, b"%PDF", "a PDF"), (0, b"PK\3\4", "a zip"), (0, b"%!PS", "a PostScript program"),
    (0, b"<", "HTML, XML or SVG"), (0, b"version https://git-lfs", "a Git LFS pointer"))


@functools.cache
def extensions() -> frozenset[str]:
    """The extensions of image files, such as ".png": of NPY and all formats that Pillow decodes, with HEIC if
    pillow-heif is installed, and with those of other packages that were registered before."""
    with contextlib.suppress(ImportError):
        import pillow_heif
        pillow_heif.register_heif_opener()
    Image.init()
    return frozenset({".npy", *(extension for extension, name in Image.EXTENSION.items()
                                if name == "MPO" or (name in Image.OPEN and name not in NOT_DECODED))})


def identify(start: bytes, signatures: Iterable[tuple[int, bytes, str]] = SIGNATURES) -> str:
    """The name of the image format of a file that begins so, "" if it is not known."""
    if signatures is SIGNATURES and (other := SHORT_SIGNATURES.match(start)):
        return "BMP" if other[0].startswith(b"BM") else "PNM"
    return next((name for offset, magic, name in signatures if start[offset:].startswith(magic)), "")


def open_image(data: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an image with Pillow, whose pixels are decoded later.

    `Image.open` would warn of more pixels than `Image.MAX_IMAGE_PIXELS` and refuse twice as many.  Both that
    number and what becomes of warnings hold for the whole process, so no thread can decide them for itself.

    Raises:
        ValueError: if it is not an image, or has more pixels than the limit.
    """
    extensions()        # Registers the formats.
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        try:
            accepted = not accept or accept(data[:16])
            if name in NOT_DECODED or not accepted or isinstance(accepted, str):    # "Its codec is missing".
                continue
            image = factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):      # As in Image.open.
            continue
        check_pixels(*image.size, max_pixels)
        return image
    raise ValueError(_explain(data))


def _explain(data: bytes) -> str:
    """Why a file cannot be opened."""
    if not data:
        return "empty file"
    if name := identify(data[:32]):
        return f"is {name}, which cannot be read: {HINTS[name]}" if name in HINTS else \
            f"is {name}, but its header is damaged"
    name = identify(data[:32], OTHER_SIGNATURES)
    return f"is {name}, not an image" if name else "not an image, or of an unknown format"


def check_pixels(width: int, height: int, max_pixels: int | None) -> None:
    """Raise ValueError if a header claims more pixels than the limit, which may be a decompression bomb."""
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(f"{width} x {height} pixels are more than {max_pixels:,}, which is refused as a "
                         "decompression bomb; raise the limit by data.max_pixels or --max-pixels")


def apply_orientation(array: Array, orientation: int) -> Array:
    """Turn and mirror an array as its EXIF orientation says (EXIF 2.3, tag 0x0112)."""
    if orientation in (3, 4, 6, 7):
        array = array[::-1]
    if orientation in (2, 3, 7, 8):
        array = array[:, ::-1]
    return np.ascontiguousarray(array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array)


def from_pil(image: Image.Image, declared: str = "") -> DecodedImage:
    """Convert an opened image: 8 or 16 bits or floats, gray or RGB, with or without alpha, stay; palettes,
    CMYK and other modes become RGB, and colors with a profile sRGB; those of files without are `declared`.
    ValueError for 32-bit integers, which no supported type holds."""
    mode, info, notes = image.mode, image.info, tuple[str, ...]()
    profile: bytes | None = info.get("icc_profile")
    if mode == "CMYK":
        notes = (cmyk_note(profile),)
        image, profile, declared = (cmyk_to_srgb(image, profile) if profile else None) or image, None, ""
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
        if mode == "LAB":
            notes, profile, declared = ("LAB, converted to sRGB",), None, ""
    return to_srgb(DecodedImage(array, alpha, dpi=parse_dpi(info.get("dpi")), notes=notes), profile, declared)


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
