"""Formats and sizes of a dataset's images, detected from a few, and the training sizes that follow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from i2i.data.config import DataConfig, parse_range
from i2i.data.dataset import Dataset
from i2i.data.paired import strip_note
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable
from i2i.data.transforms import Size
from i2i.errors import RequestError, require
from i2i.images.format import DTYPES, DecodedImage, ImageFormat

MAX_CHANNELS = 512                # A limit of OpenCV.
BIT_DEPTHS = (8, 10, 12, 14, 16)      # That cameras and scanners store in 16 bits.
MAX_CROP = 256                    # Of the default crop.
MAX_LABEL_COLORS = 64             # Of all label maps together; drawings of 64 pixels have 81 in four images.
DARK_LABELS = 4                   # Label maps with no value above a quarter of the range are reported.
SAMPLED_SIDE = 256                # Rows and columns of an image in which colors are counted.


@dataclass(frozen=True)
class DatasetSummary:
    """Formats and sizes found in a few images of a dataset; where it has one side, `a` is `b`."""

    height: int                     # The smallest.
    width: int
    a: ImageFormat
    b: ImageFormat
    notes: tuple[str, ...] = ()     # What the files hold that is not read, with an example.


def inspect_dataset(dataset: Dataset, config: DataConfig | None = None, *, count: int = 16) -> DatasetSummary:
    """Decode up to `count` samples.

    RequestError if one cannot be read (with on_error="skip", if none can), or a side has no common format.
    """
    config = config or DataConfig()
    samples: list[tuple[DecodedImage, DecodedImage]] = []
    problem, two_sided = None, False
    for index in evenly_spaced(len(dataset), count):
        try:
            image, other = dataset[index]
        except Unreadable as error:
            if config.on_error == "stop":
                raise RequestError(str(error)) from None
            problem = error
            continue
        two_sided = isinstance(other, DecodedImage)
        samples.append((image, other if two_sided else image))
    if not samples:
        raise RequestError(f"no image could be read; the last: {problem}")
    if config.clahe and config.clahe_sides == "a" and not two_sided:
        raise RequestError("data.clahe_sides=a cannot be used: generators from noise learn the images of b; "
                           "accepted: b or both")
    sides = config.direction if two_sided else "bb"
    a, b = (replace(detect_format(images, config.alpha == "keep", config.background, f"data.{side}_range",
                                  getattr(config, f"{side}_range")), **config.clahe_options(side),
                    resize=_resizing(images, getattr(config, f"{side}_resize")))
            for images, side in zip(zip(*samples, strict=True), sides, strict=True))
    every = [image for sample in samples for image in sample]
    height, width = (min(image.array.shape[axis] for image in every) for axis in (0, 1))
    notes = {note: image.name for image in every for note in image.notes}
    if config.alpha == "drop" and (found := [image.name for image in every if image.transparent]):
        notes["transparency is composited over data.background; data.alpha=keep keeps it"] = found[0]
    if getattr(dataset, "strips", False):
        notes |= _strip_notes([image for image, _ in samples])
    for side, format, images in zip(sides, (a, b), zip(*samples, strict=True), strict=True):
        high = max(image.array.max() for image in images)
        if format.labels and 0 < high < format.limits[1] / DARK_LABELS:
            notes[f"the highest value of {side.upper()} is {high:g} of {format.limits[1]:g}, nearly black; "
                  f"data.{side}_range=0,{high:g} makes it white"] = images[0].name
    listed = (getattr(dataset, "note", ""), *(f"{name}: {note}" for note, name in notes.items()))
    return DatasetSummary(height, width, a, b, tuple(filter(None, listed)))


def _strip_notes(halves: Sequence[DecodedImage]) -> dict[str, str]:
    """A note, and an image, if A|B strips have the proportions of ordinary photographs."""
    for image in halves:
        height, width = image.array.shape[:2]
        if note := strip_note(2 * width, height):
            return {note: image.name}
    return {}


def training_sizes(config: DataConfig, dataset: Dataset, summary: DatasetSummary) -> tuple[Size, Size]:
    """The crop and the size to load images at before it, each as (height, width).

    By default the crop is the images' size rounded down to a multiple of 32, at most 256; for generators from
    noise, a square of 28 or a power of two.
    """
    height, width = stored = summary.height, summary.width

    def resolve(value: tuple[int, ...], default: Callable[[int], int]) -> Size:
        pair = value if len(value) == 2 else (value[0], value[0])
        return pair[0] or default(0), pair[1] or default(1)

    smallest = min(MAX_CROP, height, width)
    square = 28 if 28 <= smallest < 32 else 2 ** int(np.log2(max(1, smallest)))
    crop = resolve(config.size, lambda i: square if dataset.square_crop
                   else min(MAX_CROP, stored[i] // 32 * 32 or stored[i] // 16 * 16))
    if min(crop) < 16:
        raise RequestError(f"the images are {width}x{height} pixels; training needs 16x16 or more")
    load = resolve(config.load_size, lambda i: round(crop[i] * (dataset.load_scale if config.jitter else 1)))
    require(load[0] >= crop[0] and load[1] >= crop[1], "data.load_size", f"{load[0]},{load[1]}",
            f"at least data.size ({crop[0]},{crop[1]})")
    return crop, load


def detect_format(images: Sequence[DecodedImage], keep_alpha: bool, background: tuple[int, ...], key: str,
                  range_text: str) -> ImageFormat:
    """The format that all images of a side can be converted to.

    It has color, 16 bits and, with `keep_alpha`, alpha as soon as one image has.  `range_text` is the setting
    `key` of the side's range.  RequestError names two images without a common format.
    """
    dtypes = {image.array.dtype.name: image for image in images}
    colors = {image.channels - image.alpha: image for image in images}
    if len(dtypes) > 1 and "float32" in dtypes:
        raise _mismatch(dtypes)
    if len(colors) > 1 and set(colors) != {1, 3}:
        raise _mismatch({f"of {number} channels": image for number, image in colors.items()})
    if max(colors) > MAX_CHANNELS:
        raise RequestError(f"{images[0].name} has {max(colors)} channels; accepted: at most {MAX_CHANNELS}")
    dtype = max(dtypes, key=DTYPES.index)
    alpha = keep_alpha and any(image.alpha for image in images)
    # Mixed bit depths and alpha need the full range of the type.
    measurable = dtype == "float32" or (dtype == "uint16" and len(dtypes) == 1 and not alpha)
    values = (_measured_range(images, dtype) if range_text == "auto" and measurable
              else parse_range(key, range_text))
    if dtype == "float32" and values is None:
        raise RequestError(f"{key}=full cannot be used: {images[0].name} is float32, which has no full "
                           "range; accepted: auto, or LOW,HIGH")
    return ImageFormat(max(colors) + alpha, dtype, values, alpha, background)


def _mismatch(examples: dict[str, DecodedImage]) -> RequestError:
    (one, image), (other, another) = list(examples.items())[:2]
    return RequestError(f"{image.name} is {one} and {another.name} is {other}; the images of one side must "
                        "be of one kind (gray among color, and 8 among 16 bits, will do)")


def _measured_range(images: Sequence[DecodedImage], dtype: str) -> tuple[float, float] | None:
    """Lowest and highest value of floats; of 16 bits the range of the smallest usual depth, None for all."""
    images = [image for image in images if image.missing is None or not image.missing.all()] or images
    high = max(float(image.array.max()) for image in images)
    if dtype == "uint16":
        depth = next(bits for bits in BIT_DEPTHS if high < 2 ** bits)
        return None if depth == 16 else (0, 2 ** depth - 1)
    low = min(float(image.array.min()) for image in images)
    return low, high if high > low else low + 1


def _resizing(images: Sequence[DecodedImage], setting: str) -> str:
    """How to resize the images of a side: the setting, or for "auto" what suits their colors."""
    if setting != "auto" or any(image.array.dtype.kind == "f" for image in images):
        return "bicubic" if setting == "auto" else setting
    colors, constant = set[bytes](), True
    for image in images:
        steps = [max(1, side // SAMPLED_SIDE) for side in image.array.shape[:2]]
        pixels = np.ascontiguousarray(image.array[::steps[0], ::steps[1]]).reshape(-1, image.channels)
        found = set(map(bytes, np.unique(pixels, axis=0)))
        colors, constant = colors | found, constant and len(found) == 1
        if len(colors) > MAX_LABEL_COLORS:
            return "bicubic"
    return "bicubic" if constant else "nearest"
