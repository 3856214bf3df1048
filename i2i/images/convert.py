"""Conversion between arrays (integers or floats of any range, HWC) and tensors (float32 in [-1, 1], CHW), and
between image formats."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2i.images.clahe import clahe
from i2i.images.format import LUMA, MAX_VALUE, Array, DecodedImage, ImageFormat, num_channels, round_to


def to_tensor(array: Array, format: ImageFormat | None = None) -> Tensor:
    """Map the range of a format to [-1, 1]; values outside it stay outside.  (H, W) or (H, W, C) -> (C, H, W)

    Without a format, the full range of the array's type is used.
    """
    return to_tensors([array], format)[0]


def to_tensors(arrays: Sequence[Array], format: ImageFormat | None = None) -> Tensor:
    """`to_tensor` for images of one size and type.  N times (H, W) or (H, W, C) -> (N, C, H, W) float32"""
    first = arrays[0]
    low, high = (format or ImageFormat(dtype=first.dtype.name)).limits
    exact = np.float64 if first.dtype.kind == "f" else np.float32       # float32 holds 24 bits of an integer.
    batch = np.empty((len(arrays), num_channels(first), *first.shape[:2]), exact)
    for image, array in zip(batch, arrays, strict=True):
        image[:] = array if array.ndim == 2 else array.transpose(2, 0, 1)
    values = torch.from_numpy(batch)
    if low:
        values.sub_(low)
    return values.div_(high - low).sub_(0.5).div_(0.5).float()


def palette_values(format: ImageFormat) -> tuple[tuple[float, ...], ...]:
    """The palette of a format in [-1, 1], exactly as `to_tensor` maps its colors; empty if there is none."""
    if not format.palette:
        return ()
    colors = to_tensor(np.array(format.palette, format.dtype)[:, None], format)     # (C, colors, 1)
    return tuple(map(tuple, colors[..., 0].T.tolist()))


def to_array(image: Tensor, format: ImageFormat) -> Array:
    """Map [-1, 1] to the range of a format, so that to_array(to_tensor(x, format), format) is x.

    Integers are rounded to the nearest and clamped to what their type holds; floats are neither.

    Args:
        image: (C, H, W).
        format: its `channels` need not be those of the image.

    Returns:
        (H, W, C), or (H, W) for one channel.
    """
    low, high = format.limits
    values = image.detach().to("cpu", torch.float32 if format.dtype == "uint8" else torch.float64)
    values = (values + 1) * ((high - low) / 2) + low
    if format.dtype != "float32":
        values = values.round_().clamp_(0, MAX_VALUE[format.dtype])
    array = values.numpy().astype(format.dtype)
    return array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))


# ------------------------------------------------------------------------------------------- between formats

def convert_to(image: DecodedImage, format: ImageFormat) -> Array:
    """Convert an image to the type and channels of a format, where that loses nothing it holds.

    8 bits become 16 exactly (times 257), gray becomes color by repetition and color gray by luma, alpha is
    added opaque or composited over the background; CLAHE comes last.  Where a file does not say what its
    channels are (NPY), as many as the format has are taken to be those of the format.

    Raises:
        ValueError: if the conversion would lose information.
    """
    return apply_clahe(_convert(image, format), format)


def conversion_notes(image: DecodedImage, format: ImageFormat) -> tuple[str, ...]:
    """What decoding and `convert_to` change of an image's colors and alpha, for people."""
    notes, colors = list(image.notes), image.channels - image.alpha
    if colors != format.colors and image.channels != format.channels:
        notes.append("gray, converted to color" if colors == 1 else "in color, converted to gray")
    if image.transparent and not format.alpha:
        notes.append("transparent, composited over the background")
    return tuple(notes)


class ConversionLog(dict[str, set[str]]):
    """The notes on images that were read for a model, with the names of the images."""

    def add(self, name: str, image: DecodedImage, format: ImageFormat) -> None:
        """Keep the notes on an image that is converted to a format."""
        for note in conversion_notes(image, format):
            self.setdefault(note, set()).add(name)

    def lines(self, what: str = "images") -> list[str]:
        """A line for each note, such as "gray, converted to color: 3 of the images, such as a.png"."""
        return [f"{note}: {len(names):,} of the {what}, such as {min(names)}"
                for note, names in self.items()]


def _convert(image: DecodedImage, format: ImageFormat) -> Array:
    factor = _integer_scale(image.array.dtype.name, format)
    array = image.array if factor == 1 else image.array.astype(np.uint16) * np.uint16(factor)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if not format.alpha:
        opaque = composite_over(array, format.background) if image.alpha else array
        return convert_channels(opaque, format.channels)
    if image.channels == format.channels:
        return array
    color, alpha = array, np.full((*array.shape[:2], 1), MAX_VALUE[format.dtype], format.dtype)
    if image.alpha:
        color, alpha = array[..., :-1], array[..., -1:]
    color = convert_channels(color, format.colors).reshape(*array.shape[:2], format.colors)
    return np.concatenate([color, alpha], 2)


def _integer_scale(dtype: str, format: ImageFormat) -> int:
    """The factor from values of a type to those of a format."""
    if dtype == format.dtype:
        return 1
    if (dtype, format.dtype) == ("uint8", "uint16") and format.range is None:
        return 257                                              # 65535 / 255.
    limits = f" from {format.range[0]:g} to {format.range[1]:g}" if format.range else ""
    raise ValueError(f"is {dtype}, and the images of its side are {format.dtype}{limits}")


def convert_channels(array: Array, channels: int) -> Array:
    """Gray to color by repetition, color to gray by luma (ITU-R BT.601).  (H, W) or (H, W, C) -> the same"""
    current = num_channels(array)
    if current == channels:
        return array[..., 0] if array.ndim == 3 and channels == 1 else array
    if (current, channels) == (1, 3):
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if (current, channels) == (3, 1):
        if array.dtype == np.uint8:
            return np.asarray(Image.fromarray(np.ascontiguousarray(array)).convert("L"))
        return round_to(array @ np.array(LUMA), array.dtype)
    raise ValueError(f"an image of {current} channels cannot become one of {channels}")


def composite_over(array: Array, background: Sequence[int] = (255,)) -> Array:
    """Composite an image with alpha, its last channel, over a color of 8-bit levels.

    (H, W, 2) -> (H, W), and (H, W, 4) -> (H, W, 3).
    """
    colors, white = num_channels(array) - 1, MAX_VALUE[array.dtype.name]
    exact = np.dtype("float32" if array.dtype == np.uint8 else "float64")
    opacity = array[..., -1:].astype(exact) / exact.type(white)
    below = (_background_levels(colors, background) * white).astype(exact)
    result = round_to(array[..., :-1] * opacity + below * (1 - opacity), array.dtype)
    return result[..., 0] if colors == 1 else result


def _background_levels(colors: int, background: Sequence[int]) -> Array:
    """The background in [0, 1]: three levels for three colors, else its luma."""
    levels = np.broadcast_to(background, 3) / 255
    return levels if colors == 3 else np.array([levels @ np.array(LUMA)])


def convert_tensors(images: Tensor, source: ImageFormat, target: ImageFormat) -> Tensor:
    """What `convert_to` would do to images written in one format and read in another, without rounding.

    Args:
        images: (N, C, H, W) in [-1, 1].
        source: the format the images are in.

    Raises:
        ValueError: if `convert_to` would refuse.
    """
    (low, high), (target_low, target_high) = source.limits, target.limits
    factor = _integer_scale(source.dtype, target)
    if source.dtype != "float32":
        ends = (2 * (level - low) / (high - low) - 1 for level in (0, MAX_VALUE[source.dtype]))
        images = images.clamp(*ends)
    span = target_high - target_low
    if (factor * low, factor * high) != (target_low, target_high):
        images = (images + 1) * (factor * (high - low) / span) + (2 * (factor * low - target_low) / span - 1)
    if (source.channels, source.alpha) != (target.channels, target.alpha):
        white = MAX_VALUE[target.dtype]
        levels = replace(target, dtype="float32", range=(target_low / white, target_high / white))
        arrays = [_convert(DecodedImage(to_array(image, levels), source.alpha), levels) for image in images]
        images = to_tensors(arrays, levels).to(images)
    return apply_clahe_to_tensors(images, target)


def add_alpha(array: Array, format: ImageFormat, alpha: Array | None) -> tuple[Array, ImageFormat]:
    """An image of a format without alpha with that of another, (H, W) of any type, and its format."""
    if alpha is None:
        return array, format
    opacity = alpha * (MAX_VALUE[format.dtype] / MAX_VALUE[alpha.dtype.name])
    return (np.dstack([array, round_to(opacity, format.dtype)]),
            replace(format, channels=format.channels + 1, alpha=True))


# ------------------------------------------------------------------------------------------- CLAHE

def apply_clahe(array: Array, format: ImageFormat) -> Array:
    """Apply the CLAHE of a format within its range; alpha is unchanged.  (H, W) or (H, W, C) -> the same"""
    if not format.clahe:
        return array
    low, high = format.limits
    image = array[..., None] if array.ndim == 2 else array
    levels = (image[..., :format.colors].astype(np.float64) - low) / (high - low)
    levels = clahe(levels, format.clahe, format.clahe_tiles).astype(np.float64)
    values = round_to(levels * (high - low) + low, array.dtype)
    return np.concatenate([values, image[..., format.colors:]], 2).reshape(array.shape)


def apply_clahe_to_tensors(images: Tensor, format: ImageFormat) -> Tensor:
    """`apply_clahe` without rounding.  (N, C, H, W) in [-1, 1]"""
    if not format.clahe:
        return images
    format = replace(format, dtype="float32", range=(-1, 1))
    equalized = [to_tensor(apply_clahe(to_array(image, format), format), format) for image in images]
    return torch.stack(equalized).to(images)


# ------------------------------------------------------------------------------------------- for display

def to_8bit(image: DecodedImage) -> Array:
    """An integer image in 8-bit levels of its type's range, alpha over white.  uint8 (H, W) or (H, W, C)"""
    array = composite_over(image.array) if image.alpha else image.array
    return array if array.dtype == np.uint8 else to_array(to_tensor(array), ImageFormat(num_channels(array)))


def to_rgb(array: Array) -> Array:
    """Gray repeated; of two channels the first, of four or more the first three.  -> (H, W, 3)"""
    channels = num_channels(array)
    if channels not in (1, 3):
        array = array[..., 0] if channels == 2 else array[..., :3]
    return convert_channels(array, 3)


def tensor_to_rgb(image: Tensor, format: ImageFormat | None = None) -> Array:
    """An image in 8-bit levels of its range, alpha over white.  (C, H, W) in [-1, 1] -> (H, W, 3) uint8

    By default it has 8 bits and no alpha.
    """
    format = format or ImageFormat(len(image))
    return to_rgb(to_8bit(DecodedImage(to_array(image, format.as_uint8()), format.alpha)))


def to_levels(images: Tensor) -> Tensor:
    """[-1, 1] to the integers 0 to 255, as 8-bit files would be saved, on one scale for all image formats."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255)


def middle_square(image: Array) -> Array:
    """The middle square of an image, (H, W) or (H, W, C)."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top:top + side, left:left + side])


def make_grid(rows: Sequence[Sequence[Tensor | Array]], *, gap: int = 2) -> Array:
    """Rows of images of one size on a white sheet.

    Args:
        rows: images, (C, H, W) in [-1, 1] or (H, W, 3) uint8.
        gap: pixels between images.

    Returns:
        (H', W', 3) uint8.
    """
    first = rows[0][0]
    height, width = first.shape[-2:] if isinstance(first, Tensor) else first.shape[:2]
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = gap + i * (height + gap), gap + j * (width + gap)
            rgb = tensor_to_rgb(image) if isinstance(image, Tensor) else image
            sheet[y:y + height, x:x + width] = rgb
    return sheet
