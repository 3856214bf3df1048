"""One file: what it is, what it holds, and what is odd about it by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np

from i2i.data.format_detection import BIT_DEPTHS
from i2i.data.image_set import pixel_digest
from i2i.data.sources import Source, Unreadable, decode_bytes
from i2i.images.convert import composite_over, to_rgb
from i2i.images.decode import FIRST_FRAME, read_header
from i2i.images.format import Array, DecodedImage
from i2i.images.pil import ORIENTATION, open_image

ENDINGS: Mapping[str, tuple[str, ...]] = {      # Format by content -> the endings that say so.
    "PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg"), "WEBP": (".webp",),
                                          "BMP": (".bmp",), "DIB": (".bmp",),
    "TIFF": (".tif", ".tiff"), "NPY": (".npy",), "GIF": (".gif",)}
FOREIGN = (     # What files with an image's name often are: place, bytes, name.
    (0, b"%PDF", "PDF"), (0, b"PK\3\4", "a zip"), (4, b"ftyphei", "HEIC"), (4, b"ftypmif1", "HEIC"),
           (4, b"ftypavif", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "a Photoshop file"), (0, b"<", "HTML, XML or SVG"),
           (0, b"version https://git-lfs", "a Git LFS pointer"))
LUMA, CHROMA = 16, 8        # Sides of the two layers of a thumbnail.
# The outermost sixteenth of a picture, which is background in most drawings and scans.
BORDER = 16
# Share of the pixels that have one of two values from which a picture counts as black and white.
BINARY = 0.995
# Levels of 255: the standard deviation of a thumbnail up to which a picture counts as empty.
FLAT = 2.0


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used: the kind of fault (a kind of finding) and the reason."""

    kind: str
    reason: str


@dataclass(frozen=True)
class FileFacts:
    """A picture that was decoded.  Levels are shares of the type's range times 255; of floats, of the
    picture's own."""

    bytes: int
    format: str
    mode: str                   # As the file has it: P, CMYK, I;16; "" where Pillow knows no word.
    width: int
    height: int
    channels: int
    dtype: str
    alpha: bool
    low: float
    high: float
    depth: int                  # Bits that its values need, of integers.
    digest: int                 # Of the pixels: equal for equal ones.
    thumb: Array                # LUMA² + 2 CHROMA² levels, uint8.
    flat: bool
    border: float               # Mean level of the outermost pixels.
    binary: bool                # Gray levels, of which nearly all are one of two.
    twins: bool                 # Left and right half are equal.
    turned: bool                # By an EXIF orientation.
    labeled: str               # The ending it should have, "" if it has it.
    notes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Channels and type in words."""
        colors = self.channels - self.alpha
        words = {1: "gray", 3: "color"}.get(colors, f"{colors} channels")
        return f"{words}{' + alpha' if self.alpha else ''}, {self.dtype}"

    @property
    def animated(self) -> bool:
        """Whether there are more frames, which nobody sees."""
        return FIRST_FRAME in self.notes


def examine_file(source: Source, name: str) -> FileFacts | Fault:
    """Read and decode one file of a source."""
    try:
        data = source.read(name)
    except Unreadable as error:
        return Fault("unreadable", error.reason)
    if not data:
        return Fault("empty", "has no bytes")
    try:
        picture = decode_bytes(name, data)
    except Unreadable as error:
        return _fault(data, error.reason)
    try:
        return _facts(name, data, picture)
    # A picture so odd that it cannot be measured is told, and the others still are.
    except Exception as error:
        return Fault("refused", f"{type(error).__name__}: {error}")


def _fault(data: bytes, reason: str) -> Fault:
    if "bomb" in reason:
        return Fault("bomb", reason)
    other = next((word for place, start, word in FOREIGN if data[place:].startswith(start)), None)
    if other:
        return Fault("no-image", f"is {other}")
    return Fault("no-image" if "not an image" in reason else "refused" if "accepted:" in reason
                 or "not supported" in reason else "damaged", reason)


def _facts(name: str, data: bytes, picture: DecodedImage) -> FileFacts:
    array = picture.array
    low, high = float(array.min()), float(array.max())
    told = read_header(data)
    mode, turned = _tags(data)
    small = thumbnail(picture, low, high)
    luma = small[:LUMA * LUMA].reshape(LUMA, LUMA).astype(np.float32)
    edge = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    middle = array.shape[1] // 2
    ending = PurePosixPath(name).suffix.lower()
    right = ENDINGS.get(told.format, (ending,))
    return FileFacts(
        len(data), told.format, mode, array.shape[1], array.shape[0], picture.channels, array.dtype.name,
        picture.alpha, low, high,
        _depth(array, high), int(pixel_digest(array)[:15], 16), small, bool(luma.std() <= FLAT),
        float(edge.mean()),
        low < high and _two_values(array, low, high),
        array.shape[1] % 2 == 0 and np.array_equal(array[:, :middle], array[:, middle:]), turned,
        "" if ending in right else right[0], picture.notes)


def _tags(data: bytes) -> tuple[str, bool]:
    """Pillow's mode, and whether EXIF turns the picture."""
    try:
        with open_image(data) as image:
            return image.mode, image.getexif().get(ORIENTATION, 1) not in (0, 1)
    except Exception:       # NPY, and TIFF of many channels: decoded by others.
        return "", False


def _depth(array: Array, high: float) -> int:
    """The smallest usual bit depth that holds the values; 8 also for 8 bits that were stretched to 16 (times
    257)."""
    if array.dtype != np.uint16:
        return 8 * array.dtype.itemsize
    if high >= 256 and not (array % 257).any():
        return 8
    return next(bits for bits in BIT_DEPTHS if high < 2 ** bits)


def _two_values(array: Array, low: float, high: float) -> bool:
    """Whether nearly all of a gray picture is as dark as its darkest or as light as its lightest pixel, and
    some of it is neither."""
    near = (high - low) / 16
    ends = np.count_nonzero(array <= low + near) + np.count_nonzero(array >= high - near)
    return array.ndim == 2 and array.dtype.kind == "u" and bool(ends >= BINARY * array.size) and bool(((array > low) & (array < high)).any())


def thumbnail(picture: DecodedImage, low: float, high: float) -> Array:
    """What is left of a picture when it is small: 16x16 means of luma and 8x8 means of both chromas (ITU-R
    BT.601).  -> uint8, 384 values"""
    array = composite_over(picture.array) if picture.alpha else picture.array
    array = np.ascontiguousarray(to_rgb(array) if array.ndim == 3 and array.shape[2] != 2 else array
                                 if array.ndim == 2 else array[..., 0])
    area = cv2.resize(array, (LUMA, LUMA), interpolation=cv2.INTER_AREA).astype(np.float32)
    base, span = (low, high - low or 1.0) if array.dtype.kind == "f" else (0.0,
                                                                           float(np.iinfo(array.dtype).max))
    levels = np.rint((area - base) / span * 255).clip(0, 255).astype(np.uint8)
    if levels.ndim == 2:
        return np.concatenate([levels.ravel(), np.full(2 * CHROMA * CHROMA, 128, np.uint8)])
    ycc = cv2.cvtColor(levels, cv2.COLOR_RGB2YCrCb)
    chroma = cv2.resize(np.ascontiguousarray(ycc[..., 1:]), (CHROMA, CHROMA), interpolation=cv2.INTER_AREA)
    return np.concatenate([ycc[..., 0].ravel(), chroma.ravel()])
