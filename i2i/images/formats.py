"""The one place where images inside ([-1, 1], float32, CHW) meet images outside (integers or floats of any
range, HWC, files)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from i2i.images.clahe import clahe

Array = NDArray[Any]
DTYPES = ("uint8", "uint16", "float32")
_MAX = {"uint8": 255, "uint16": 65535}
_OPAQUE = {"uint8": 255, "uint16": 65535, "float32": 1.0}
_LUMA = (0.299, 0.587, 0.114)       # ITU-R BT.601, as Pillow has it for 8 bits.


@dataclass(frozen=True)
class ImageFormat:
    """What the images of one side look like outside: read from the data, kept in the model's header, inverted
    on output.

    `range` are the values that become -1 and 1; None is all of an integer type, and 0 … 1 for floats.  With
    `alpha` the last channel is opacity; without, pictures that have it are laid over `background` (8-bit
    levels, one for gray or three for red, green, blue).
    """

    channels: int = 3
    dtype: str = "uint8"
    range: tuple[float, float] | None = None
    alpha: bool = False
    background: tuple[int, ...] = (255,)
    clahe: float = 0.0              # Clip limit with which contrast is equalized; 0: not at all.
    clahe_tiles: int = 8            # On each side.

    @staticmethod
    def of(header: Mapping[str, Any]) -> ImageFormat:
        """From the JSON of a header; models of before a field have its default.  ValueError or TypeError for
        what no header says."""
        given = dict(header)
        for key in ("range", "background"):
            if given.get(key) is not None:
                given[key] = tuple(map(float if key == "range" else int, given[key]))
        kind = ImageFormat(**given)
        numbers = type(kind.channels) is int and kind.channels > kind.alpha and type(kind.alpha) is bool
        levels = len(kind.background) in (1, 3) and all(0 <= level <= 255 for level in kind.background)
        if not (numbers and levels and kind.dtype in DTYPES
                and (kind.range is None or (len(kind.range) == 2 and all(map(math.isfinite, kind.range))
                                                                                        and kind.range[0] < kind.range[1]))):
            raise ValueError(f"no kind of image is {str(dict(header))[:80]}")
        return kind

    @property
    def limits(self) -> tuple[float, float]:
        """The values that become -1 and 1."""
        return self.range or (0, _MAX.get(self.dtype, 1))

    @property
    def colors(self) -> int:
        """Channels without alpha."""
        return self.channels - self.alpha

    def __str__(self) -> str:
        words = f"{self.channels} {'channel' if self.channels == 1 else 'channels'} of {self.dtype}" + (", the last alpha" if self.alpha else "")
        words += f", {self.range[0]:g} … {self.range[1]:g}" if self.range else ""
        return words + (f", equalized with CLAHE {self.clahe:g} in {self.clahe_tiles}x{self.clahe_tiles} "
                        "tiles" if self.clahe else "")


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """One image as stored, and what came with it.  `array` is HW or HWC of one of three types; with `alpha`
    its last channel is opacity."""

    array: Array
    alpha: bool = False
    name: str = ""
    profile: bytes | None = None                        # ICC.
    dpi: tuple[float, float] | None = None              # Pixels per inch, across and down.
    notes: tuple[str, ...] = ()                         # What of the file is not in the array.

    @property
    def channels(self) -> int:
        """With alpha."""
        return num_channels(self.array)


def num_channels(array: Array) -> int:
    """HW or HWC -> C"""
    return 1 if array.ndim == 2 else int(array.shape[2])


def to_tensor(array: Array, kind: ImageFormat | None = None) -> Tensor:
    """Values to [-1, 1]; what lies outside the kind's range goes on beyond it.  HW or HWC -> CHW float32

    Without a kind, that of the array: the full range of its type.
    """
    return to_tensors([array], kind)[0]


def to_tensors(arrays: Sequence[Array], kind: ImageFormat | None = None) -> Tensor:
    """As `to_tensor`, for images of one size and type at once.  N of HW or HWC -> NCHW float32"""
    first = arrays[0]
    low, high = (kind or ImageFormat(dtype=first.dtype.name)).limits
    exact = np.float64 if first.dtype.kind == "f" else np.float32       # 32 bits hold 24 of an integer.
    nchw = np.empty((len(arrays), num_channels(first), *first.shape[:2]), exact)
    for image, array in zip(nchw, arrays, strict=True):
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    values = torch.from_numpy(nchw)
    if low:
        values.sub_(low)
    return values.div_(high - low).sub_(0.5).div_(0.5).float()


def to_array(image: Tensor, kind: ImageFormat) -> Array:
    """[-1, 1] to values of a kind, so that to_array(to_tensor(x, kind), kind) is x.  CHW -> HWC, or HW for
    one channel

    Integers are rounded to nearest and clamped to what their type holds; floats are neither.
    """
    low, high = kind.limits
    values = image.detach().to("cpu", torch.float32 if kind.dtype == "uint8" else torch.float64)
    values = (values + 1) * ((high - low) / 2) + low
    if kind.dtype in _MAX:
        values = values.round_().clamp_(0, _MAX[kind.dtype])
    array = values.numpy().astype(kind.dtype)
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


# ---------------------------------------------------------------------------------------------- from one
# kind to another

def convert_to(picture: DecodedImage, kind: ImageFormat) -> Array:
    """A picture as its side has them.  -> HW or HWC of the kind's type and channels; ValueError where that
    would lose what it holds

    8 bits become 16 exactly (times 257), gray becomes color by repetition and color gray by luma, alpha is
    added opaque or laid over the background; contrast is equalized at last.  Where files do not say what
    their channels are (NPY), as many as the kind has are taken to be those.
    """
    return apply_clahe(_to_format(picture, kind), kind)


def _to_format(picture: DecodedImage, kind: ImageFormat) -> Array:
    array = _to_dtype(picture.array, kind)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not kind.alpha:
        return convert_channels(composite_over(array, kind.background) if picture.alpha else array,
                                kind.channels)
    if picture.channels == kind.channels:
        return array
    color, alpha = (array[..., :-1], array[..., -1:]) if picture.alpha else (array,
                                                                             np.full((*array.shape[:2], 1),
                                                                                     _OPAQUE[kind.dtype]))
    color = convert_channels(color, kind.colors).reshape(*array.shape[:2], kind.colors)
    return np.concatenate([color, alpha.astype(kind.dtype)], 2)


def apply_clahe(array: Array, kind: ImageFormat) -> Array:
    """CLAHE within the range of the kind, beyond which no value then is; alpha stays.  HW or HWC -> the
    same"""
    if not kind.clahe:
        return array
    low, high = kind.limits
    whole = array[..., None] if array.ndim == 2 else array
    levels = clahe((whole[..., :kind.colors].astype(np.float64) - low) / (high - low), kind.clahe,
                   kind.clahe_tiles)
    values = _rounded(levels.astype(np.float64) * (high - low) + low, array.dtype)
    return np.concatenate([values, whole[..., kind.colors:]], 2).reshape(array.shape)


def _to_dtype(array: Array, kind: ImageFormat) -> Array:
    factor = _dtype_factor(array.dtype.name, kind)
    return array if factor == 1 else array.astype(np.uint16) * np.uint16(factor)


def _dtype_factor(dtype: str, kind: ImageFormat) -> int:
    if dtype == kind.dtype:
        return 1
    if (dtype, kind.dtype) == ("uint8", "uint16") and kind.range is None:
        return 257                                              # 65535 / 255.
    told = f"{kind.dtype}" + (f" from {kind.range[0]:g} to {kind.range[1]:g}" if kind.range else "")
    raise ValueError(f"is {dtype}, and the images of its side are {told}")


def convert_channels(array: Array, channels: int) -> Array:
    """Gray to color by repetition, color to gray by ITU-R 601 luma, as Pillow does.  HW or HWC -> HW or
    HWC"""
    have = num_channels(array)
    if have == channels:
        return array[..., 0] if array.ndim == 3 and channels == 1 else array
    if have == 1 and channels == 3:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if have == 3 and channels == 1:
        if array.dtype == np.uint8:
            return np.asarray(Image.fromarray(np.ascontiguousarray(array)).convert("L"))
        return _rounded(array @ np.array(_LUMA), array.dtype)
    raise ValueError(f"an image of {have} channels cannot become one of {channels}")


def _rounded(values: Array, dtype: Any) -> Array:
    return (values if np.dtype(dtype).kind == "f" else np.rint(values)).astype(dtype)


def composite_over(array: Array, background: Sequence[int] = (255,)) -> Array:
    """A picture with alpha laid over a color of 8-bit levels.  HW2 or HW4, the last opacity -> HW or HW3"""
    colors = num_channels(array) - 1
    if array.dtype == np.uint8 and colors in (1, 3):
        level = tuple(background) * 3 if len(background) == 1 else tuple(background)
        rgba = Image.fromarray(np.ascontiguousarray(array)).convert("RGBA")
        sheet = Image.new("RGBA", rgba.size, (*level, 255))
        return np.asarray(Image.alpha_composite(sheet, rgba).convert("L" if colors == 1 else "RGB"))
    top = _OPAQUE[array.dtype.name]
    below = _background_levels(colors, background) * top
    opacity = array[..., -1:].astype(np.float64) / top
    laid = _rounded(array[..., :-1] * opacity + below * (1 - opacity), array.dtype)
    return laid[..., 0] if colors == 1 else laid


def _background_levels(colors: int, background: Sequence[int]) -> Array:
    """A background's color as shares of the highest level: three of them for three colors, else its luma.  ->
    3 or 1"""
    level = np.array(tuple(background) * 3 if len(background) == 1 else background) / 255
    return level if colors == 3 else np.array([level @ np.array(_LUMA)])


def apply_clahe_to_tensors(images: Tensor, kind: ImageFormat) -> Tensor:
    """As `equalized`, without rounding.  NCHW in [-1, 1] -> NCHW"""
    if not kind.clahe:
        return images
    kind = replace(kind, dtype="float32", range=(-1, 1))
    return torch.stack([to_tensor(apply_clahe(to_array(image, kind), kind), kind)
                        for image in images]).to(images)


def convert_tensors(images: Tensor, made: ImageFormat, taken: ImageFormat) -> Tensor:
    """What `conform` would do to images that were written as one kind and are read as another, without
    writing or rounding them. NCHW -> NC'HW in [-1, 1]; ValueError where `conform` would refuse"""
    return apply_clahe_to_tensors(_converted(images, made, taken), taken)


def _converted(images: Tensor, made: ImageFormat, taken: ImageFormat) -> Tensor:
    (low, high), (bottom, top) = made.limits, taken.limits
    factor = _dtype_factor(made.dtype, taken)
    if made.dtype in _MAX:
        images = images.clamp(*(2 * (level - low) / (high - low) - 1 for level in (0, _MAX[made.dtype])))
    if (factor * low, factor * high) != (bottom, top):
        images = (images
                  + 1) * (factor * (high - low) / (top - bottom)) + (2 * (factor * low - bottom) / (top - bottom) - 1)
    if made.alpha and taken.alpha and made.channels == taken.channels:
        return images
    none, full = (2 * (level - bottom) / (top - bottom) - 1 for level in (0, _OPAQUE[taken.dtype]))
    color, alpha = images[:, :made.colors], images[:, made.colors:]
    if made.alpha and not taken.alpha:
        opacity, below = (alpha - none) / (full - none), images.new_tensor(_background_levels(made.colors,
                                                                                              taken.background)) * (full - none) + none
        color = color * opacity + below[:, None, None] * (1 - opacity)
    color = _convert_tensor_channels(color, taken.colors)
    if not taken.alpha:
        return color
    return torch.cat([color, alpha if made.alpha else torch.full_like(color[:, :1], full)], 1)


def _convert_tensor_channels(images: Tensor, channels: int) -> Tensor:
    """As `as_channels`.  NCHW -> NC'HW"""
    have = images.shape[1]
    if have == channels:
        return images
    if (have, channels) == (1, 3):
        return images.expand(-1, 3, -1, -1)
    if (have, channels) == (3, 1):
        return (images * images.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    raise ValueError(f"an image of {have} channels cannot become one of {channels}")


def to_8bit(picture: DecodedImage) -> Array:
    """A picture of integers in 8-bit levels of its type's range, alpha laid over white.  -> uint8 HW or
    HWC"""
    array = composite_over(picture.array) if picture.alpha else picture.array
    return array if array.dtype == np.uint8 else to_array(to_tensor(array), ImageFormat(num_channels(array)))


def to_rgb(array: Array) -> Array:
    """Gray repeated; of two channels the first as gray, of four or more the first three.  HW or HWC -> HW3"""
    channels = num_channels(array)
    return convert_channels(array if channels in (1, 3) else array[..., 0] if channels == 2
                            else array[..., :3], 3)


# ---------------------------------------------------------------------------------------------- Pillow

def from_pil(image: Image.Image) -> DecodedImage:
    """An opened picture: 8 or 16 bits or floats, gray or RGB, with or without alpha; palettes, CMYK and the
    rest become RGB.

    ValueError for 32-bit integers, which no dtype here holds.
    """
    mode, notes = image.mode, tuple[str, ...]()
    alpha = mode in ("LA", "PA", "RGBA", "La",
                     "RGBa") or ("transparency" in image.info and mode in ("1", "L", "P", "RGB"))
    if mode == "F":
        array = np.asarray(image, np.float32)
    elif mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        array = np.asarray(image).astype(np.uint16)
    elif mode == "I" or mode.startswith("I;"):
        raise ValueError(f"mode {mode} (32-bit integers) is not supported; accepted: 8 or 16 bits without "
                         "sign, or 32-bit floats")
    elif alpha:
        array = np.asarray(image.convert("RGBA"))
        array = np.ascontiguousarray(array[..., [0, 3]]) if mode in ("1", "L", "LA", "La") else array
    else:
        array = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB"))
        if mode in ("CMYK", "LAB"):
            notes = (f"{mode}, read as RGB without its profile",)
    return DecodedImage(array, alpha, profile=image.info.get("icc_profile") or None,
                        dpi=parse_dpi(image.info.get("dpi")), notes=notes)


def parse_dpi(dpi: Any) -> tuple[float, float] | None:
    """Pixels per inch, across and down, if a file's words for it mean anything."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # 1: Pillow's word for none.
    return (across, down) if 1 < across < float("inf") and 1 < down < float("inf") else None


def pil_supports(kind: ImageFormat) -> bool:
    """Whether Pillow has a mode for such images."""
    if kind.dtype == "uint8":
        return (kind.channels, kind.alpha) in ((1, False), (3, False), (2, True), (4, True))
    return kind.channels == 1


def to_pil(array: Array) -> Image.Image:
    """HW of any type (L, I;16, F) or uint8 HWC of 2 (LA), 3 or 4 (RGBA) channels -> picture."""
    return Image.fromarray(array)


def grid(rows: Sequence[Sequence[Tensor]], *, gap: int = 2) -> Array:
    """Rows of equally large images in [-1, 1] on a white sheet, in 8-bit levels of their range; of many
    channels the first three. CHW each -> HWC uint8"""
    height, width = rows[0][0].shape[-2:]
    down, across = len(rows), max(len(row) for row in rows)
    sheet = np.full((down * (height + gap) + gap, across * (width + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = gap + i * (height + gap), gap + j * (width + gap)
            sheet[y:y + height, x:x + width] = to_rgb(to_array(image, ImageFormat(len(image))))
    return sheet
