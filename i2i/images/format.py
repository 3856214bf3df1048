"""What images are: the format of a data set's side, and one decoded image."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
DTYPES = ("uint8", "uint16", "float32")
MAX_VALUE = {"uint8": 255, "uint16": 65535, "float32": 1.0}     # White, and opaque alpha.
RESIZING = ("bicubic", "bilinear", "nearest")
LUMA = (0.299, 0.587, 0.114)        # ITU-R BT.601, as Pillow has it for 8 bits.


@dataclass(frozen=True)
class ImageFormat:
    """The format of the images of one side of a data set.

    It is detected in the data, kept in the model's header and restored on output.

    Attributes:
        channels: number of channels, including alpha.
        dtype: "uint8", "uint16" or "float32".
        range: the values that map to -1 and 1; None is the full range of an integer type, [0, 1] for floats.
        alpha: whether the last channel is opacity; if not, transparent images are composited over
            `background`.
        background: 8-bit levels, one for gray or three for red, green and blue.
        clahe: clip limit of the CLAHE contrast equalization that is applied to every image; 0 is off.
        clahe_tiles: tiles on each side for CLAHE.
        resize: how images are resized, one of RESIZING; "nearest" keeps the colors of label maps.
        palette: the colors of label maps, one for each class, in the values of `dtype`; None where they do
            not matter.
    """

    channels: int = 3
    dtype: str = "uint8"
    range: tuple[float, float] | None = None
    alpha: bool = False
    background: tuple[int, ...] = (255,)
    clahe: float = 0.0
    clahe_tiles: int = 8
    resize: str = "bicubic"
    palette: tuple[tuple[float, ...], ...] | None = None

    @staticmethod
    def of(header: Mapping[str, Any]) -> "ImageFormat":
        """The format in a model's header.

        Raises:
            ValueError, TypeError: if the header does not describe a format.
        """
        values = dict(header)
        for key, convert in (("range", float), ("background", int)):
            if values.get(key) is not None:
                values[key] = tuple(map(convert, values[key]))
        if values.get("palette") is not None:
            values["palette"] = tuple(map(tuple, values["palette"]))
        result = ImageFormat(**values)
        valid = type(result.channels) is int and type(result.alpha) is bool and result.dtype in DTYPES
        valid = valid and result.resize in RESIZING and 0 <= result.clahe < math.inf
        valid = valid and type(result.clahe_tiles) is int and result.clahe_tiles > 0
        valid = valid and result.channels > result.alpha and len(result.background) in (1, 3)
        valid = valid and all(0 <= level <= 255 for level in result.background)
        if valid and result.range is not None:
            valid = len(result.range) == 2 and all(map(math.isfinite, result.range))
            valid = valid and result.range[0] < result.range[1]
        if valid and result.palette is not None:
            lengths = set(map(len, result.palette))
            valid = len(lengths) == 1 and 0 < lengths.pop() <= result.channels
            valid = valid and all(type(level) in (int, float) and math.isfinite(level)
                                   for color in result.palette for level in color)
        if not valid:
            raise ValueError(f"not an image format: {str(dict(header))[:80]}")
        return result

    @property
    def limits(self) -> tuple[float, float]:
        """The values that map to -1 and 1."""
        return self.range or (0, MAX_VALUE[self.dtype])

    @property
    def colors(self) -> int:
        """Channels without alpha."""
        return self.channels - self.alpha

    def as_uint8(self) -> "ImageFormat":
        """The 8-bit levels of its range; CLAHE has been applied before."""
        return replace(self, dtype="uint8", range=None, clahe=0.0)

    @property
    def labels(self) -> bool:
        """Whether the images are label maps, in which colors between two others mean nothing."""
        return self.resize == "nearest"

    def __str__(self) -> str:
        parts = [f"{self.channels} {'channel' if self.channels == 1 else 'channels'} of {self.dtype}"]
        if self.alpha:
            parts.append("the last alpha")
        if self.range:
            parts.append(f"{self.range[0]:g} … {self.range[1]:g}")
        if self.clahe:
            parts.append(f"CLAHE {self.clahe:g} in {self.clahe_tiles}x{self.clahe_tiles} tiles")
        if self.resize != "bicubic":
            colors = f" of {len(self.palette)} colors" if self.palette else ""
            parts.append(f"label maps{colors}" if self.labels else f"{self.resize} resizing")
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One image as stored, with its metadata.

    Attributes:
        array: (H, W) or (H, W, C) of uint8, uint16 or float32.
        alpha: whether the last channel is opacity.
        name: the file, for messages.
        dpi: pixels per inch, horizontal and vertical.
        notes: what in the file is not in the array, or was converted.
        tags: the georeference of a TIFF, as tifffile writes it.
        nodata: the value that its file has where there are no data.
        missing: (H, W), where there are no data in any channel; the array has a mean value there.
    """

    array: Array
    alpha: bool = False
    name: str = ""
    dpi: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    tags: tuple[tuple[Any, ...], ...] = ()
    nodata: float | None = None
    missing: Array | None = None

    @property
    def channels(self) -> int:
        """Channels, including alpha."""
        return num_channels(self.array)

    @property
    def transparent(self) -> bool:
        """Whether any pixel is not opaque."""
        return self.alpha and bool((self.array[..., -1] < MAX_VALUE[self.array.dtype.name]).any())


def num_channels(array: Array) -> int:
    """(H, W) or (H, W, C) -> C"""
    return 1 if array.ndim == 2 else int(array.shape[2])


def round_to(values: Array, dtype: Any) -> Array:
    """Cast to a type; to integers by rounding to the nearest, halves to even."""
    return (values if np.dtype(dtype).kind == "f" else np.rint(values)).astype(dtype)


def to_supported_dtype(array: Array) -> tuple[Array, tuple[str, ...]]:
    """Convert to native byte order; other floats, and signed integers of 8 or 16 bits, all of which float32
    holds, to float32, with a note."""
    if (array.dtype.kind == "f" and array.dtype.itemsize != 4) or array.dtype.name in ("int8", "int16"):
        return array.astype(np.float32), (f"{array.dtype.name}, read as float32",)
    if array.dtype.name not in DTYPES:
        raise ValueError(f"values of type {array.dtype.name} are not supported; accepted: "
                         f"{', '.join(DTYPES)}, and int16, int8 and other floats as float32")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("=")), ()
