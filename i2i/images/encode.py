"""Encoding of image files, with their resolution and georeference; colors are sRGB, without a profile."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from i2i.images.format import Array, DecodedImage, ImageFormat, num_channels
from i2i.images.geotiff import NODATA, can_hold, restore_missing

INCH = 0.0254               # Meters.


@dataclass(frozen=True)
class FileFormat:
    """A file format: Pillow's name, options of `Image.save`, and which images it holds; no dtypes: any."""

    name: str
    options: Mapping[str, Any]
    dtypes: tuple[str, ...] = ()
    alpha: bool = True
    max_side: int = 2**31 - 1       # Pixels.

    def supports(self, format: ImageFormat) -> bool:
        """Whether it stores images of a format unchanged, except for lossy compression."""
        return not self.dtypes or (format.dtype in self.dtypes and format.colors in (1, 3)
                                   and self.alpha >= format.alpha)


_JPEG = FileFormat("jpeg", {"quality": 95, "subsampling": 0}, ("uint8",), alpha=False, max_side=65_500)
_TIFF = FileFormat("tiff", {"compression": "tiff_adobe_deflate"})
FILE_FORMATS = {
    ".png": FileFormat("png", {"compress_level": 1}, ("uint8", "uint16")), ".jpg": _JPEG, ".jpeg": _JPEG,
    ".jpe": _JPEG, ".jfif": _JPEG, ".bmp": FileFormat("bmp", {}, ("uint8",), alpha=False),
    ".webp": FileFormat("webp", {"lossless": True, "quality": 20, "exact": True}, ("uint8",),
                        max_side=16_383),
    ".tif": _TIFF, ".tiff": _TIFF, ".npy": FileFormat("npy", {})}


def encode(suffix: str, array: Array, format: ImageFormat, like: DecodedImage | None = None) -> bytes:
    """Encode an image.

    Args:
        suffix: an extension in FILE_FORMATS.
        array: (H, W) or (H, W, C).
        format: the format of the array.
        like: takes the resolution from this image, and if it is of the same size the georeference and what
            has no data.

    Raises:
        ValueError: if the image has more pixels on a side than such files can hold.
    """
    form, buffer = FILE_FORMATS[suffix.lower()], io.BytesIO()
    if (side := max(array.shape[:2])) > form.max_side:
        raise ValueError(f"{side:,} pixels on a side are more than the {form.max_side:,} that {suffix} files "
                         "hold; accepted: --format png, tif or npy")
    dpi = like.dpi if like else None
    tags: tuple[tuple[Any, ...], ...] = ()
    if like and (like.missing is None or like.missing.shape == array.shape[:2]):
        tags = like.tags
        array, nodata = restore_missing(array, like)
        if nodata is not None:
            tags += ((NODATA, "s", 0, f"{nodata:.17g}", True),)
    if form.name == "npy":
        np.save(buffer, array, allow_pickle=False)
    elif form.name == "png" and format.dtype == "uint16":
        return _png16(array, dpi)
    elif form.name == "tiff" and (tags or format.dtype != "uint8" or format.colors not in (1, 3)):
        tifffile.imwrite(buffer, array, **tiff_options(format, dpi, tags))
    else:
        Image.fromarray(array).save(buffer, form.name, **form.options, **({"dpi": dpi} if dpi else {}))
    return buffer.getvalue()


def carried_alpha(suffix: str, format: ImageFormat, like: DecodedImage) -> Array | None:
    """The alpha of an input, (H, W), if its result has none of its own and such files hold it."""
    held = like.alpha and not format.alpha and format.colors in (1, 3) and FILE_FORMATS[suffix.lower()].alpha
    return like.array[..., -1] if held else None


def tiff_options(format: ImageFormat, dpi: tuple[float, float] | None, tags: tuple[tuple[Any, ...], ...]
                 ) -> dict[str, Any]:
    """How tifffile writes a page: interleaved channels; those that are neither color nor alpha say so."""
    extra = format.channels - (3 if format.colors == 3 else 1)
    return {"photometric": "rgb" if format.colors == 3 else "minisblack",
            "planarconfig": "contig" if format.channels > 1 else None,
            "extrasamples": (["unassalpha"] if format.alpha else ["unspecified"] * extra) or None,
            "compression": "zlib", "metadata": None, "software": False, "resolution": dpi,
            "resolutionunit": "INCH" if dpi else None, "extratags": tags}


def losses(suffix: str, format: ImageFormat, like: DecodedImage, alpha: bool = False) -> tuple[str, ...]:
    """What of an input its result does not hold, for people; `alpha`: its alpha is carried over."""
    notes = []
    if like.tags and FILE_FORMATS[suffix.lower()].name != "tiff":
        notes.append(f"has a georeference, which {suffix} files do not hold")
    if like.missing is not None and not can_hold(like.nodata, np.dtype(format.dtype)):
        notes.append(f"has pixels without data ({like.nodata:g}), which {format.dtype} does not hold")
    if like.transparent and not (format.alpha or alpha):
        notes.append("is transparent, which the results are not")
    return tuple(notes)


def _png16(array: Array, dpi: tuple[float, float] | None) -> bytes:
    """16 bits per channel, which Pillow writes only for gray (ISO/IEC 15948; filter 1 for every row)."""
    height, width = array.shape[:2]
    channels = num_channels(array)
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0], step = 1, 2 * channels
    filtered[:, 1:1 + step] = rows[:, :step]
    filtered[:, 1 + step:] = rows[:, step:] - rows[:, :-step]
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", round(dpi[0] / INCH), round(dpi[1] / INCH), 1)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


def formats_for(format: ImageFormat) -> list[str]:
    """File formats that support an image format, each once."""
    names: dict[str, str] = {}
    for suffix, form in FILE_FORMATS.items():
        if form.supports(format):
            names.setdefault(form.name, suffix[1:])
    return list(names.values())
