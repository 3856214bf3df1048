"""Pixels to the bytes of a file: which format holds which kind of image, with its color profile and
resolution."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tifffile

from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.pil import pil_supports, to_pil

_LOSSY: Mapping[str, object] = {"quality": 95, "subsampling": 0}
_DEFLATE: Mapping[str, object] = {"compression": "tiff_adobe_deflate"}
_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA = (1, False), (3, False), (2, True), (4, True)
_INCH = 0.0254              # Metres.


@dataclass(frozen=True)
class FileFormat:
    """One file format: Pillow's name of it and how it is saved, and which (channels, alpha) of which types it
    holds; none: any of any."""

    name: str
    options: Mapping[str, object]
    dtypes: tuple[str, ...] = ()
    channels: tuple[tuple[int, bool], ...] = ()

    def holds(self, kind: ImageFormat) -> bool:
        """Whether images of a kind come back from it as they were, but for a lossy format's losses."""
        return not self.dtypes or (kind.dtype in self.dtypes and (kind.channels, kind.alpha) in self.channels)


_JPEG = FileFormat("jpeg", _LOSSY, ("uint8",), (_GRAY, _COLOR))
_TIFF = FileFormat("tiff", _DEFLATE)
FILE_FORMATS = {
    ".png": FileFormat("png", {"compress_level": 1}, ("uint8", "uint16"),
                       (_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA)),
    ".jpg": _JPEG, ".jpeg": _JPEG, ".bmp": FileFormat("bmp", {}, ("uint8",), (_GRAY, _COLOR)),
    ".webp": FileFormat("webp", {"lossless": True, "quality": 20, "exact": True}, ("uint8",),
                        (_GRAY, _COLOR, _GRAY_ALPHA, _COLOR_ALPHA)),
    ".tif": _TIFF, ".tiff": _TIFF, ".npy": FileFormat("npy", {})}


def encode(suffix: str, array: Array, kind: ImageFormat, like: DecodedImage | None = None) -> bytes:
    """A file of the format that `suffix` (".png") names.  HW or HWC -> bytes

    The color profile and the resolution are those of `like`, where the format has a place for them and the
    profile is one of such colors.
    """
    form, buffer = FILE_FORMATS[suffix.lower()], io.BytesIO()
    profile = _profile(form, kind, like.profile if like else None)
    dpi = like.dpi if like else None
    if form.name == "npy":
        np.save(buffer, array, allow_pickle=False)
    elif form.name == "png" and kind.dtype == "uint16":
        return _png16(array, profile, dpi)
    elif form.name == "tiff" and not (pil_supports(kind) and kind.dtype == "uint8"):
        _tiff(buffer, array, kind, profile, dpi)
    else:
        extra: dict[str, object] = {"icc_profile": profile} if profile else {}
        if dpi:
            extra["dpi"] = dpi
        to_pil(array).save(buffer, form.name, **form.options, **extra)  # type: ignore[arg-type]
    return buffer.getvalue()


def _profile(form: FileFormat, kind: ImageFormat, profile: bytes | None) -> bytes | None:
    """The profile, if it describes such colors: bytes 16 to 19 of ICC.1:2022, 7.2.6.  WebP makes color of
    gray."""
    space = b"GRAY" if kind.colors == 1 and form.name != "webp" else b"RGB " if kind.colors in (1,
                                                                                                3) else None
    return profile if profile and profile[16:20] == space else None


def _tiff(buffer: io.BytesIO, array: Array, kind: ImageFormat, profile: bytes | None,
          dpi: tuple[float, float] | None) -> None:
    """One page, channels together; those that are neither color nor alpha are declared as such."""
    color = kind.colors == 3
    extra = kind.channels - (3 if color else 1)
    tifffile.imwrite(buffer, array, photometric="rgb" if color else "minisblack",
                     planarconfig="contig" if kind.channels > 1 else None,
                     extrasamples=(["unassalpha"] if kind.alpha else ["unspecified"] * extra) or None,
                     compression="zlib", metadata=None,
                     software=False, iccprofile=profile, resolution=dpi,
                     resolutionunit="INCH" if dpi else None)


def _png16(array: Array, profile: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """16 bits a channel, which Pillow writes of gray alone.  ISO/IEC 15948: color type, filter 1 (Sub) for
    every row, big-endian."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = 1
    step = 2 * channels
    filtered[:, 1:1 + step] = rows[:, :step]
    filtered[:, 1 + step:] = rows[:, step:] - rows[:, :-step]
    chunks = [(b"IHDR",
               struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0))]
    if profile:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        chunks.append((b"pHYs", struct.pack(">IIB", round(dpi[0] / _INCH), round(dpi[1] / _INCH), 1)))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name,
        data in chunks)


def formats_for(kind: ImageFormat) -> list[str]:
    """Formats that hold a kind of image, each once."""
    return list({form.name: suffix[1:] for suffix,
                 form in reversed(FILE_FORMATS.items()) if form.holds(kind)}.values())[::-1]
