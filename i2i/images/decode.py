"""Decoding of image files, by their content and not by their name."""

import contextlib
import io
import logging
import math
import warnings
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageOps

from i2i.images import pil, tiff
from i2i.images.color import cmyk_note, color_note, profile_name, to_srgb
from i2i.images.color_space import declared_space
from i2i.images.format import DecodedImage, to_supported_dtype
from i2i.images.geotiff import interpret_tags
from i2i.images.memory import PILLOW_BYTES, reserve_memory
from i2i.images.truncation import check_end

# Their warnings concern what is raised here, or nothing that matters.
for library in ("tifffile", "PIL"):
    logging.getLogger(library).addHandler(logging.NullHandler())
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)
LOG_ERRORS = 2      # OpenCV's log level; the function has another place in OpenCV 4 than in 5.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(LOG_ERRORS)

PNG = b"\x89PNG\r\n\x1a\n"
NPY = b"\x93NUMPY"
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "FLI")        # In others, further frames are previews or layers.
FIRST_FRAME = "animated, only the first frame is used"
GRAY_BYTES = 6      # As PILLOW_BYTES.
MIN_ROWS = 16       # An NPY array with fewer rows, before a longer last axis, has its channels first.


def decode_file(data: bytes, max_pixels: int | None = pil.MAX_PIXELS) -> DecodedImage:
    """Decode an image of at most `max_pixels` as stored, upright (EXIF orientation applied).

    Raises:
        ValueError: if the file is damaged or not supported; decoders also raise OSError, SyntaxError,
            struct.error, zlib.error and cv2.error.
    """
    if data[:4] in tiff.SIGNATURES:
        decoded = tiff.decode(data, max_pixels) or _decode_with_pillow(data, max_pixels)
        return _check_finite(interpret_tags(decoded, data))
    if data.startswith(NPY):
        return _check_finite(_decode_npy(data, max_pixels))
    if _is_png16(data):
        return _decode_png16(data, max_pixels)
    return _decode_with_pillow(data, max_pixels)


@dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are read."""

    format: str
    width: int
    height: int
    gray: bool = False
    alpha: bool = False
    colors: str = ""        # What becomes of colors that are not sRGB.


def read_header(data: bytes) -> Header:
    """Read the format and size of an image file, and whether it has one channel, or alpha."""
    if data.startswith(NPY):
        shape = _npy_header(data)
        return Header("NPY", shape[1], shape[0], len(shape) == 2 or shape[2] == 1)
    try:
        with pil.open_image(data) as image:
            alpha = image.mode in pil.ALPHA_MODES or "transparency" in image.info
            lossless = data[8:16] == b"WEBPVP8L"    # Without metadata; with them, it is called lossy.
            return Header("lossless " * lossless + str(image.format), *image.size,
                          image.mode in pil.GRAY_MODES, alpha, _header_colors(image, data))
    except ValueError:
        if data[:4] not in tiff.SIGNATURES:
            raise
    return Header("TIFF", *tiff.size(data))     # Channels that Pillow has no mode for.


def try_header(data: bytes) -> Header | None:
    """`read_header`, or None if that fails: decoding says better what is wrong with a file."""
    with contextlib.suppress(Exception):
        return read_header(data)
    return None


def _header_colors(image: Image.Image, data: bytes) -> str:
    """The note on colors that decoding will give an opened image."""
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        return cmyk_note(profile)
    if image.mode == "LAB":
        return "LAB, converted to sRGB"
    dtype = "uint8"
    if profile and profile_name(profile):
        dtype = tiff.dtype(data) if data[:4] in tiff.SIGNATURES else "uint16" if _is_png16(data) else dtype
    return color_note(profile, dtype, declared_space(data, image))


def _is_png16(data: bytes) -> bool:
    return data.startswith(PNG) and data[24:25] == b"\x10"         # IHDR's bit depth.


def _check_finite(image: DecodedImage) -> DecodedImage:
    if image.array.dtype.kind == "f" and (invalid := int((~np.isfinite(image.array)).sum())):
        raise ValueError(f"{invalid:,} of {image.array.size:,} values are NaN or infinite; accepted: "
                         "finite values, and what a GeoTIFF declares as nodata")
    return image


def _decode_with_pillow(data: bytes, max_pixels: int | None) -> DecodedImage:
    check_end(data)
    if data.startswith(PNG):
        _verify_png(data, max_pixels)
    with pil.open_image(data, max_pixels) as image, reserve_memory(
            *image.size, GRAY_BYTES if image.mode in pil.GRAY_MODES else PILLOW_BYTES):
        animated = image.format in ANIMATED and getattr(image, "is_animated", False)
        image.load()
        if data.startswith(PNG) and image.mode in ("1", "L") and "transparency" in image.info:
            # Pillow stretches levels of fewer bits to 8, but not the transparent one (newer ones: of 1 bit).
            level = image.info["transparency"] * (255 // (2 ** data[24] - 1))
            image.info["transparency"] = min(level, 255)
        declared = declared_space(data, image)
        decoded = pil.from_pil(ImageOps.exif_transpose(image), declared)
        return replace(decoded, notes=(FIRST_FRAME, *decoded.notes)) if animated else decoded


def _verify_png(data: bytes, max_pixels: int | None) -> None:
    """Compare the checksums and find the end of a PNG, which neither Pillow nor OpenCV does on decoding."""
    image = pil.open_image(data, max_pixels)
    try:
        image.verify()
    except (OSError, SyntaxError, IndexError) as error:     # IndexError: no pixels at all.
        raise ValueError(f"is truncated or damaged: {error}") from None


def _decode_png16(data: bytes, max_pixels: int | None) -> DecodedImage:
    """Decode 16 bits with OpenCV, as Pillow reduces them to 8 where there is more than one channel."""
    _verify_png(data, max_pixels)
    with pil.open_image(data) as opened:
        size, info, orientation = opened.size, opened.info, opened.getexif().get(pil.ORIENTATION, 1)
        notes = (FIRST_FRAME,) if getattr(opened, "is_animated", False) else ()
        declared = declared_space(data, opened)
    with reserve_memory(*size):
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ValueError("this 16-bit PNG is damaged")
    gray, alpha = data[25] in (0, 4), array.ndim == 3 and array.shape[2] == 4        # IHDR's color type.
    if alpha:
        array = array[..., [0, 3] if gray else [2, 1, 0, 3]]
    elif array.ndim == 3:
        array = array[..., ::-1]
    elif "transparency" in info:
        opacity = np.where(array == info["transparency"], 0, 65535).astype(np.uint16)
        array, alpha = np.stack([array, opacity], 2), True
    image = DecodedImage(pil.apply_orientation(array, orientation), alpha, notes=notes,
                         dpi=pil.parse_dpi(info.get("dpi")))
    return to_srgb(image, info.get("icc_profile"), declared)


def _decode_npy(data: bytes, max_pixels: int | None) -> DecodedImage:
    """Decode (H, W) or (H, W, C), after checking the header against the length of the file."""
    shape = _npy_header(data, max_pixels)
    with reserve_memory(shape[1], shape[0], 3 * len(data) // (shape[0] * shape[1])):
        array = np.load(io.BytesIO(data), allow_pickle=False)
    if len(shape) == 3 and shape[0] < MIN_ROWS <= shape[2]:
        raise ValueError(f"its shape {shape} looks like channels first; accepted: height x width, or height "
                         "x width x channels (numpy.moveaxis(array, 0, -1))")
    array, notes = to_supported_dtype(array)
    return DecodedImage(array, notes=notes)


def _npy_header(data: bytes, max_pixels: int | None = None) -> tuple[int, ...]:
    """The shape of an array in a file."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except Exception:           # SyntaxError, TokenError, ValueError with half the file in it …
        raise ValueError("its NPY header is damaged") from None
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never read")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"its shape is {shape}; accepted: height x width, or height x width x channels")
    pil.check_pixels(shape[1], shape[0], max_pixels)
    actual, expected = len(data) - file.tell(), math.prod(shape) * dtype.itemsize
    if actual != expected:
        raise ValueError(f"holds {actual:,} bytes of pixels, but its header says {expected:,}")
    return shape
