"""Translate a file in parts."""

from pathlib import Path

from i2i.data.sources import Source
from i2i.files import atomic_path
from i2i.images.convert import add_alpha, conversion_notes, convert_to, to_tensor
from i2i.images.encode import FILE_FORMATS, encode, losses
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.tiff_stream import open_rows, write_rows
from i2i.inference.tiled.limits import Limits
from i2i.inference.tiled.translate import image_reader, join_rows, translate_rows
from i2i.inference.translator import Translator


def write_result(target: Path, array: Array, target_format: ImageFormat, alpha: Array | None,
                 metadata: DecodedImage) -> None:
    """Write a result, with alpha and metadata of its input, to a file that appears when it is done."""
    array, made = add_alpha(array, target_format, alpha)
    with atomic_path(target) as part:
        part.write_bytes(encode(target.suffix, array, made, metadata))


def translate_file(model: Translator, image: DecodedImage, alpha: Array | None, target: Path,
                   limits: Limits, seed: int | None, direction: str) -> None:
    """Write the translation of a decoded image, with its metadata, to a file that appears when it is done."""
    source, target_format = (model.formats[side] for side in model.sides(direction))
    height, width = image.array.shape[:2]
    rows = translate_rows(model, image_reader(image, source), height, width, limits, seed=seed,
                          direction=direction)
    write_result(target, join_rows(rows, height), target_format, alpha, image)


def translate_tiff(model: Translator, source: Source, name: str, target: Path, limits: Limits,
                   seed: int | None, direction: str) -> tuple[str, ...] | None:
    """Translate a TIFF that is read in pieces, and written so where the result is one, too.

    Returns:
        Notes on what the result lacks; None if the image fits in memory, or has to be decoded whole.
    """
    source_format, target_format = (model.formats[side] for side in model.sides(direction))
    tiff = None if source.local is None or source_format.clahe else open_rows(
        source.local / name, source.max_pixels)
    if tiff is None:
        return None
    try:
        if not limits.in_parts(model, tiff.height, tiff.width, direction):
            return None
        rows = translate_rows(
            model, lambda low, high: to_tensor(convert_to(tiff.read(low, high), source_format),
                                               source_format)[None],
            tiff.height, tiff.width, limits, seed=seed, direction=direction)
        if FILE_FORMATS[target.suffix.lower()].name == "tiff":
            with atomic_path(target) as part:
                write_rows(part, rows, tiff.height, tiff.width, target_format, tiff.metadata)
        else:
            write_result(target, join_rows(rows, tiff.height), target_format, None, tiff.metadata)
    finally:
        tiff.close()
    return (*conversion_notes(tiff.metadata, source_format),
            *losses(target.suffix, target_format, tiff.metadata))
