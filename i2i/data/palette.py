"""The colors of label maps: all that the images of a side have."""

from dataclasses import replace

import numpy as np

from i2i.data.config import DataConfig
from i2i.data.dataset import Dataset
from i2i.data.format_detection import DatasetSummary
from i2i.data.sharding import map_in_threads
from i2i.data.sources import Unreadable
from i2i.images.convert import convert_to
from i2i.images.format import Array

MAX_CLASSES = 256           # Colors of label maps that become one channel each.
READ_AHEAD = 64             # Images decoded at a time.

Color = tuple[float, ...]


def with_palette(summary: DatasetSummary, dataset: Dataset, channels: int,
                 config: DataConfig) -> DatasetSummary:
    """The summary with all colors of the source images, if they are label maps of at most MAX_CLASSES.

    Args:
        dataset: the training images, all of which are read.
        channels: the first channels, whose values are a color; 0 leaves the summary as it is.
    """
    if not channels:
        return summary
    colors = find_colors(dataset, summary, channels) if summary.a.labels else None
    kind = (f"label maps of {len(colors)} colors, which become one channel each" if colors else
            f"not label maps of at most {MAX_CLASSES} exact colors, so that its channels stay as they are")
    note = f"{config.direction[0].upper()} is {kind}"
    return replace(summary, a=replace(summary.a, palette=colors), notes=(*summary.notes, note))


def find_colors(dataset: Dataset, summary: DatasetSummary, channels: int) -> tuple[Color, ...] | None:
    """All colors of the source images, sorted; None if there are more than MAX_CLASSES."""
    stream = next(stream for stream in dataset.streams if "a" in stream.keys)

    def read(index: int) -> set[Color]:
        try:
            image = dataset.decode(stream.keys, index)[stream.keys.index("a")]
            return distinct_colors(convert_to(image, summary.a), channels)
        except (Unreadable, ValueError):        # Training says so, and stops or skips it.
            return set()

    found: set[Color] = set()
    for colors in map_in_threads(read, range(stream.size), chunk=READ_AHEAD):
        found |= colors
        if len(found) > MAX_CLASSES:
            return None
    return tuple(sorted(found)) or None


def distinct_colors(image: Array, channels: int) -> set[Color]:
    """The colors of an image's first channels.  (H, W) or (H, W, C)"""
    pixels = image.reshape(-1, 1 if image.ndim == 2 else image.shape[2])[:, :channels]
    starts = np.r_[True, (pixels[1:] != pixels[:-1]).any(1)]        # Of runs of one color, which are long.
    return {tuple(color) for color in np.unique(pixels[starts], axis=0).tolist()}
