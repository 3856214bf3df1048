"""Color profiles: every image becomes sRGB when it is read, and results are sRGB without a profile.

By Display P3 of phones, Adobe RGB and ProPhoto RGB of cameras the same numbers mean other colors, and a
network or a metric would take a profile for a difference between images.
"""

import contextlib
import functools
import io
import struct
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from i2i.images.format import Array, DecodedImage, round_to

GRID = 9                # Levels of each channel by which a profile is compared with sRGB.
CONVERTED, KEPT = "converted to sRGB", "not converted to sRGB"
TOLERANCE = 2           # Levels of 8 bits by which versions of sRGB differ.
# Colors in the profile connection space (CIE XYZ, D50) -> linear sRGB (IEC 61966-2-1).
XYZ_TO_SRGB = np.linalg.inv([[0.436066, 0.385147, 0.143066], [0.222488, 0.716873, 0.060608],
                             [0.013916, 0.097076, 0.714096]])


def to_srgb(image: DecodedImage, profile: bytes | None, declared: str = "") -> DecodedImage:
    """Convert an image from the colors of its profile to sRGB.

    8 bits by any profile, 16 bits by those of a matrix and curves.  A note says what was done, also where an
    image without a profile has `declared` colors.
    """
    colors = image.channels - image.alpha
    if colors not in (1, 3):
        return image
    note = color_note(profile, image.array.dtype.name, declared)
    if not note:
        return image
    image = replace(image, notes=(*image.notes, note))
    if not profile or not note.endswith(CONVERTED):
        return image
    array = image.array.reshape(*image.array.shape[:2], -1)
    color, curves = array[..., :colors], _matrix_and_curves(profile)
    if array.dtype == np.uint8:
        color = _convert_8bit(color, profile)
    elif curves:
        color = _convert_16bit(color, *curves)
    return replace(image, array=np.concatenate([color, array[..., colors:]], 2).reshape(image.array.shape))


def color_note(profile: bytes | None, dtype: str, declared: str = "") -> str:
    """What becomes of the colors of an image, for people; "" if they are those of sRGB."""
    if not profile:
        return f"{declared}, {KEPT}" if declared else ""
    name = profile_name(profile)
    if name is None:
        return "its color profile is damaged and was not used"
    converted = dtype == "uint8" or (dtype == "uint16" and _matrix_and_curves(profile))
    return name and f"{name}, {CONVERTED if converted else f'{KEPT}: {dtype}'}"


def cmyk_note(profile: bytes | None) -> str:
    """What becomes of the colors of a CMYK image."""
    converted = profile and cmyk_to_srgb(Image.new("CMYK", (1, 1)), profile)
    return "CMYK, " + ("converted to sRGB by its profile" if converted else
                       "read as RGB: its profile is damaged" if profile else "read as RGB without a profile")


def cmyk_to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert a CMYK image by its profile; None if that is damaged, or of other colors."""
    try:
        return ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"),
                                         outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


@functools.lru_cache(maxsize=64)
def profile_name(profile: bytes) -> str | None:
    """The description of a profile; "" if its colors are those of sRGB, None if it is damaged."""
    levels = np.linspace(0, 255, GRID).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), 3).reshape(GRID, -1, 3)
    try:
        space = profile[16:20]          # ICC.1:2022, 7.2.6.
        grid = grid[..., :1] if space == b"GRAY" else grid
        same = np.abs(_convert_8bit(grid, profile).astype(int) - grid).max() <= TOLERANCE
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip()
    except (ImageCms.PyCMSError, OSError):
        return None
    return "" if same else name or "a profile without a name"


@functools.lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[ImageCms.ImageCmsTransform, str]:
    """A transform to sRGB, and the mode of its input."""
    mode = "L" if profile[16:20] == b"GRAY" else "RGB"
    return ImageCms.buildTransform(io.BytesIO(profile), ImageCms.createProfile("sRGB"), mode, "RGB",
                                   ImageCms.Intent.RELATIVE_COLORIMETRIC,
                                   ImageCms.Flags.BLACKPOINTCOMPENSATION), mode


def _convert_8bit(color: Array, profile: bytes) -> Array:
    """(H, W, 1 or 3) uint8 -> the same"""
    transform, mode = _transform(profile)
    channels = color.shape[2]
    whole = np.repeat(color, 3, 2) if (channels, mode) == (1, "RGB") else color
    image = Image.fromarray(np.ascontiguousarray(whole[..., 0] if mode == "L" else whole))
    return np.asarray(transform.apply(image))[..., :channels]


def _convert_16bit(color: Array, matrix: Array, curves: list[Array]) -> Array:
    """(H, W, 1 or 3) uint16 -> the same"""
    linear = np.stack([curves[i][color[..., min(i, color.shape[2] - 1)]] for i in range(3)], 2)
    linear = (linear @ (XYZ_TO_SRGB @ matrix).T).clip(0, 1)
    levels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return round_to(65535 * levels, np.uint16)[..., :color.shape[2]]


@functools.lru_cache(maxsize=8)
def _matrix_and_curves(profile: bytes) -> tuple[Array, list[Array]] | None:
    """The matrix from linear colors to XYZ, and the linear value of each 16-bit level (ICC.1:2022, 8.3.3).

    None if a profile has tables instead.
    """
    count = int.from_bytes(profile[128:132], "big")
    if len(profile) < 132 + 12 * count:
        return None
    with contextlib.suppress(ValueError, IndexError):       # LittleCMS may accept what is damaged.
        return _parse_curves(profile, count)
    return None


def _parse_curves(profile: bytes, count: int) -> tuple[Array, list[Array]] | None:
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count))
    tags = {name: profile[offset:offset + size] for name, offset, size in entries}
    if b"kTRC" in tags:     # Gray: the same amount of each color.
        return np.linalg.inv(XYZ_TO_SRGB), [_curve(tags[b"kTRC"])] * 3
    names = [(color + b"XYZ", color + b"TRC") for color in (b"r", b"g", b"b")]
    if b"A2B0" in tags or not all(xyz in tags and curve in tags for xyz, curve in names):
        return None
    columns = [np.frombuffer(tags[xyz], ">i4", 3, 8) / 65536 for xyz, _ in names]
    return np.stack(columns, 1), [_curve(tags[curve]) for _, curve in names]


def _curve(tag: bytes) -> Array:
    """The linear value of each 16-bit level by a curve (10.6) or parametric curve (10.18).  -> (65536,)"""
    x = np.linspace(0, 1, 65536)
    if tag[:4] == b"curv":
        count = int.from_bytes(tag[8:12], "big")
        table = np.frombuffer(tag, ">u2", count, 12)
        if count < 2:
            return x ** (table[0] / 256 if count else 1.0)
        return np.interp(x, np.linspace(0, 1, count), table / 65535)
    kind = int.from_bytes(tag[8:10], "big")
    g, a, b, c, d, e, f = np.pad(np.frombuffer(tag, ">i4", (1, 3, 4, 5, 7)[kind], 12) / 65536, (0, 7))[:7]
    if kind == 0:
        return x ** g
    if kind in (1, 2):
        start, low = -b / a, c      # Below it, a constant.
        return np.where(x >= start, (a * x + b).clip(0) ** g + low, low)
    return np.where(x >= d, (a * x + b).clip(0) ** g + e, c * x + f)
