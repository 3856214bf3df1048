"""Translate a file in parts."""

from pathlib import Path

from i2i.files import atomic_path
from i2i.images.convert import add_alpha
from i2i.images.encode import encode
from i2i.images.format import Array, DecodedImage
from i2i.inference.tiled.limits import Limits
from i2i.inference.tiled.translate import image_reader, join_rows, translate_rows
from i2i.inference.translator import Translator


def translate_file(model: Translator, image: DecodedImage, alpha: Array | None, target: Path,
                   limits: Limits, seed: int | None, direction: str) -> None:
    """Write the translation of a decoded image, with its metadata, to a file that appears when it is done."""
    source, target_format = (model.formats[side] for side in model.sides(direction))
    height, width = image.array.shape[:2]
    rows = translate_rows(model, image_reader(image, source), height, width, limits, seed=seed,
                          direction=direction)
    array, made = add_alpha(join_rows(rows, height), target_format, alpha)
    with atomic_path(target) as part:
        part.write_bytes(encode(target.suffix, array, made, image))
