"""GeoTIFF: pixels without data, and the tags that say where on Earth an image lies.

The tags are those of OGC GeoTIFF 1.1 and, for the nodata value, of GDAL.
"""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import tifffile

from i2i.images.format import Array, DecodedImage, round_to
from i2i.images.pil import ORIENTATION

# ModelPixelScale, ModelTiepoint, ModelTransformation, GeoKeyDirectory, GeoDoubleParams, GeoAsciiParams.
GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
NODATA = 42113


def interpret_tags(image: DecodedImage, data: bytes) -> DecodedImage:
    """Add the tags of its file to a decoded image, and fill pixels without data.

    A nodata value such as -9999 lies far from all others, or is not a number.  It is replaced by the mean of
    the others in its channel, which a network can read, and `restore_missing` puts it back into the result.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tags = file.pages.first.aspage().tags
        upright = int(tags.valueof(ORIENTATION, 1)) == 1
        image = replace(image, tags=georeference(tags) if upright else ())
        try:
            (text,) = set(str(tags.valueof(NODATA)).replace("\0", " ").split())    # Or one for each channel.
            nodata = float(text)
        except ValueError:
            return image
    colors = image.channels - image.alpha
    values = image.array.reshape(*image.array.shape[:2], -1).copy()
    with np.errstate(over="ignore"):
        value = np.float64(nodata).astype(np.float32) if values.dtype.kind == "f" else np.float64(nodata)
    missing = np.isnan(values) if np.isnan(nodata) else values == value
    missing[..., colors:] = False
    if not missing.any():
        return replace(image, nodata=nodata)
    for channel in range(colors):
        layer, gaps = values[..., channel], missing[..., channel]
        if gaps.any():
            layer[gaps] = 0 if gaps.all() else round_to(layer[~gaps].mean(dtype=np.float64), layer.dtype)
    return replace(image, array=values.reshape(image.array.shape), nodata=nodata,
                   missing=np.asarray(missing[..., :colors].all(2)))


def georeference(tags: tifffile.TiffTags) -> tuple[tuple[Any, ...], ...]:
    """The tags of a page that say where it lies, as tifffile writes them."""
    found = [tags[code] for code in GEOREFERENCE if code in tags]
    return tuple((tag.code, tag.dtype, tag.count, tag.value, True) for tag in found)


def restore_missing(array: Array, like: DecodedImage) -> tuple[Array, float | None]:
    """Put the nodata value of an input into its result.

    Returns:
        The array, and the nodata value to declare: None if there is none, or if the type does not hold it.
    """
    if not can_hold(like.nodata, array.dtype):
        return array, None
    if like.missing is not None:
        array = array.copy()
        array[like.missing] = like.nodata
    return array, like.nodata


def can_hold(nodata: float | None, dtype: np.dtype[Any]) -> bool:
    """Whether a nodata value is one of a type."""
    if nodata is None or dtype.kind == "f":
        return nodata is not None
    return nodata.is_integer() and 0 <= nodata <= np.iinfo(dtype).max
