"""The facts of one file that the check needs."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np
from PIL import Image

from i2i.data.format_detection import BIT_DEPTHS
from i2i.data.image_set import pixel_digest
from i2i.data.sources import Source, Unreadable, decode_bytes
from i2i.data.sources.base import error_reason
from i2i.images.convert import composite_over, to_rgb
from i2i.images.decode import read_header
from i2i.images.format import Array, DecodedImage
from i2i.images.memory import MORE_MEMORY
from i2i.images.pil import ORIENTATION, open_image

EXTENSIONS: Mapping[str, tuple[str, ...]] = {      # Format by content -> its extensions, the usual one first.
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".jpg", ".jpeg", ".mpo"), "DIB": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"), "NPY": (".npy",), "HEIF": (".heic", ".heif", ".hif")}
LUMA, CHROMA = 16, 8        # Sides of the two layers of a thumbnail.
THUMBNAIL_SIZE = LUMA**2 + 2 * CHROMA**2
BINARY_SHARE = 0.995        # Share of pixels near one of two values in a black-and-white image.
FLAT_DEVIATION = 2.0        # Standard deviation of the thumbnail of an empty image, at most.


@dataclass(frozen=True)
class Fault:
    """A file that cannot be used: the kind of finding, and the reason."""

    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A decoded image.  Levels are in 0 to 255 of the type's range; for floats, of the image's own range."""

    bytes: int
    format: str
    mode: str                   # Pillow's mode of the file, or "".
    width: int
    height: int
    channels: int
    dtype: str
    alpha: bool
    low: float
    high: float
    depth: int                  # Bits that integer values need.
    digest: int                 # Of the pixels.
    thumbnail: Array            # LUMA² + 2 CHROMA² levels, uint8.
    flat: bool
    border: float               # Mean level of the outermost pixels.
    binary: bool                # Gray, with nearly all pixels near one of two values.
    twins: bool                 # The left and right halves are identical.
    turned: bool                # By its EXIF orientation.
    expected_extension: str     # "" if it has it.
    distant: float | None       # A value of floats that is far from all others.
    notes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Channels and type, such as "gray + alpha, uint16"."""
        colors = self.channels - self.alpha
        name = {1: "gray", 3: "color"}.get(colors, f"{colors} channels")
        return f"{name}{' + alpha' if self.alpha else ''}, {self.dtype}"


def examine_file(source: Source, name: str) -> FileFacts | Fault:
    """Read and decode one file of a source."""
    try:
        data = source.read(name)
    except Unreadable as error:
        return Fault("memory" if error.reason.endswith(MORE_MEMORY) else "unreadable", error.reason)
    except MemoryError as error:
        return Fault("memory", error_reason(error))
    if not data:
        return Fault("empty", "has no bytes")
    try:
        image = decode_bytes(name, data, source.max_pixels)
    except Unreadable as error:
        return _classify(error.reason)
    try:
        return _facts(name, data, image)
    except MemoryError as error:
        return Fault("memory", error_reason(error))
    except Exception as error:      # One strange image must not stop the check.
        return Fault("refused", f"{type(error).__name__}: {error}")


def _classify(reason: str) -> Fault:
    if "bomb" in reason:
        return Fault("bomb", reason)
    if "not an image" in reason or "which cannot be read" in reason:
        return Fault("no-image", reason)
    if reason.endswith(MORE_MEMORY):
        return Fault("memory", reason)
    unsupported = "accepted:" in reason or "not supported" in reason
    return Fault("refused" if unsupported else "damaged", reason)


def _facts(name: str, data: bytes, image: DecodedImage) -> FileFacts:
    array, format = image.array, read_header(data).format
    low, high = float(array.min()), float(array.max())
    mode, turned = "", False        # NPY, or TIFF with many channels.
    with suppress(Exception), open_image(data) as opened:
        mode, turned = opened.mode, opened.getexif().get(ORIENTATION, 1) not in (0, 1)
    small = make_thumbnail(image, low, high)
    luma = small[:LUMA * LUMA].reshape(LUMA, LUMA).astype(np.float32)
    edge = np.concatenate([luma[0], luma[-1], luma[:, 0], luma[:, -1]])
    middle = array.shape[1] // 2
    extension = PurePosixPath(name).suffix.lower()
    expected = EXTENSIONS.get(format) or \
        [key for key, value in Image.EXTENSION.items() if value == format] or [extension]
    return FileFacts(
        len(data), format, mode, array.shape[1], array.shape[0], image.channels, array.dtype.name,
        image.alpha, low, high, _depth(array, high), int(pixel_digest(array)[:15], 16), small,
        flat=bool(luma.std() <= FLAT_DEVIATION), border=float(edge.mean()),
        binary=_is_binary(array, low, high),
        twins=array.shape[1] % 2 == 0 and np.array_equal(array[:, :middle], array[:, middle:]), turned=turned,
        expected_extension="" if extension in expected else expected[0],
        distant=_distant_value(array, low, high), notes=image.notes)


def _depth(array: Array, high: float) -> int:
    """The smallest common bit depth that holds the values; 8 also for 8 bits scaled to 16 (times 257)."""
    if array.dtype != np.uint16:
        return 8 * array.dtype.itemsize
    if high >= 256 and not (array % 257).any():
        return 8
    return next(bits for bits in BIT_DEPTHS if high < 2 ** bits)


def _distant_value(array: Array, low: float, high: float) -> float | None:
    """The lowest or highest value of floats if it is farther from the others than twice their range."""
    for end in (low, high) if array.dtype.kind == "f" else ():
        others = array[array != end]
        if others.size:
            least, most = float(others.min()), float(others.max())
            if least < most and max(least - end, end - most) > 2 * (most - least):
                return end
    return None


def _is_binary(array: Array, low: float, high: float) -> bool:
    """Whether nearly all of a gray image is near its darkest or lightest value, but not all of it exactly."""
    near = (high - low) / 16
    ends = np.count_nonzero(array <= low + near) + np.count_nonzero(array >= high - near)
    if array.ndim != 2 or array.dtype.kind != "u" or ends < BINARY_SHARE * array.size:
        return False
    return bool(((array > low) & (array < high)).any())


def make_thumbnail(image: DecodedImage, low: float, high: float) -> Array:
    """16x16 means of luma and 8x8 means of both chromas (ITU-R BT.601).  -> (384,) uint8"""
    array = composite_over(image.array) if image.alpha else image.array
    if array.ndim == 3:
        array = array[..., 0] if array.shape[2] == 2 else to_rgb(array)
    array = np.ascontiguousarray(array)
    area = cv2.resize(array, (LUMA, LUMA), interpolation=cv2.INTER_AREA).astype(np.float32)
    floats = array.dtype.kind == "f"
    base, span = (low, high - low or 1.0) if floats else (0.0, float(np.iinfo(array.dtype).max))
    levels = np.rint((area - base) / span * 255).clip(0, 255).astype(np.uint8)
    if levels.ndim == 2:
        return np.concatenate([levels.ravel(), np.full(2 * CHROMA * CHROMA, 128, np.uint8)])
    ycc = cv2.cvtColor(levels, cv2.COLOR_RGB2YCrCb)
    chroma = cv2.resize(np.ascontiguousarray(ycc[..., 1:]), (CHROMA, CHROMA), interpolation=cv2.INTER_AREA)
    return np.concatenate([ycc[..., 0].ravel(), chroma.ravel()])
