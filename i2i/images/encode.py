"""Encoding of image files, with their color profile and resolution."""

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tifffile
from PIL import Image

from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.pil import pil_supports

_LOSSY: Mapping[str, object] = {"quality": 95, "subsampling": 0}
_DEFLATE: Mapping[str, object] = {"compression": "tiff_adobe_deflate"}
_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA = (1, False), (3, False), (2, True), (4, True)
_INCH = 0.0254              # Meters.


@dataclass(frozen=True)
class FileFormat:
    """A file format.

    Attributes:
        name: Pillow's name.
        options: of `Image.save`.
        dtypes: types that it holds; empty: any.
        channels: (channels, alpha) that it holds; with empty `dtypes`, any.
    """

    name: str
    options: Mapping[str, object]
    dtypes: tuple[str, ...] = ()
    channels: tuple[tuple[int, bool], ...] = ()

    def supports(self, format: ImageFormat) -> bool:
        """Whether it stores images of a format unchanged, except for lossy compression."""
        channels = (format.channels, format.alpha)
        return not self.dtypes or (format.dtype in self.dtypes and channels in self.channels)


_JPEG = FileFormat("jpeg", _LOSSY, ("uint8",), (_GRAY, _COLOR))
_TIFF = FileFormat("tiff", _DEFLATE)
FILE_FORMATS = {
    ".png": FileFormat("png", {"compress_level": 1}, ("uint8", "uint16"),
                       (_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA)),
    ".jpg": _JPEG, ".jpeg": _JPEG, ".bmp": FileFormat("bmp", {}, ("uint8",), (_GRAY, _COLOR)),
    ".webp": FileFormat("webp", {"lossless": True, "quality": 20, "exact": True}, ("uint8",),
                        (_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA)),
    ".tif": _TIFF, ".tiff": _TIFF, ".npy": FileFormat("npy", {})}


def encode(suffix: str, array: Array, format: ImageFormat, like: DecodedImage | None = None) -> bytes:
    """Encode an image.

    Args:
        suffix: an extension in FILE_FORMATS.
        array: (H, W) or (H, W, C).
        format: the format of the array.
        like: takes the resolution from this image, and the color profile if it applies to such colors.
    """
    form, buffer = FILE_FORMATS[suffix.lower()], io.BytesIO()
    profile = _profile(form, format, like.profile if like else None)
    dpi = like.dpi if like else None
    if form.name == "npy":
        np.save(buffer, array, allow_pickle=False)
    elif form.name == "png" and format.dtype == "uint16":
        return _png16(array, profile, dpi)
    elif form.name == "tiff" and not (pil_supports(format) and format.dtype == "uint8"):
        _tiff(buffer, array, format, profile, dpi)
    else:
        extra: dict[str, object] = {"icc_profile": profile} if profile else {}
        if dpi:
            extra["dpi"] = dpi
        Image.fromarray(array).save(buffer, form.name, **form.options, **extra)  # type: ignore[arg-type]
    return buffer.getvalue()


def _profile(form: FileFormat, format: ImageFormat, profile: bytes | None) -> bytes | None:
    """The profile, if it is for such colors (ICC.1:2022, 7.2.6, bytes 16-19).  WebP stores gray as color."""
    space = {1: b"RGB " if form.name == "webp" else b"GRAY", 3: b"RGB "}.get(format.colors)
    return profile if profile and profile[16:20] == space else None


def _tiff(buffer: io.BytesIO, array: Array, format: ImageFormat, profile: bytes | None,
          dpi: tuple[float, float] | None) -> None:
    """One page with interleaved channels; those that are neither color nor alpha are declared as such."""
    color = format.colors == 3
    extra = format.channels - (3 if color else 1)
    tifffile.imwrite(buffer, array, photometric="rgb" if color else "minisblack",
                     planarconfig="contig" if format.channels > 1 else None,
                     extrasamples=(["unassalpha"] if format.alpha else ["unspecified"] * extra) or None,
                     compression="zlib", metadata=None,
                     software=False, iccprofile=profile, resolution=dpi,
                     resolutionunit="INCH" if dpi else None)


def _png16(array: Array, profile: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """16 bits per channel, which Pillow writes only for gray (ISO/IEC 15948; filter 1 for every row)."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 1
    step = 2 * channels
    filtered[:, 1:1 + step] = rows[:, :step]
    filtered[:, 1 + step:] = rows[:, step:] - rows[:, :-step]
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0))]
    if profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", round(dpi[0] / _INCH), round(dpi[1] / _INCH), 1)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks)


def formats_for(format: ImageFormat) -> list[str]:
    """File formats that support an image format, each once."""
    names = {form.name: suffix[1:] for suffix, form in reversed(FILE_FORMATS.items())
             if form.supports(format)}
    return list(names.values())[::-1]
