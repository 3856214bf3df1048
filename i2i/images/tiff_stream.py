"""TIFF files that are read and written in pieces, never whole in memory."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile

from i2i.images.encode import tiff_options
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.geotiff import NODATA, georeference
from i2i.images.pil import ORIENTATION, check_pixels
from i2i.images.tiff import ASSOCIATED, SIGNATURES, image_pages, interpret

TILE = 256              # Height and width of the tiles that are written.
MAX_SEGMENT = 1 << 26   # Bytes of a strip or tile; larger ones are no pieces.
CLASSIC = 2**32 - 2**25     # Bytes that a TIFF of 32-bit offsets holds with its directory.
READABLE = (0, 1, 2, 6)     # PhotometricInterpretation: gray, inverted or not, RGB, and YCbCr of JPEG.


class TiffRows:
    """The rows of a TIFF of one page in strips or tiles.

    Attributes:
        height, width: pixels.
        metadata: what decoding the whole file says, without pixels.
    """

    def __init__(self, file: tifffile.TiffFile, page: tifffile.TiffPage, notes: tuple[str, ...]) -> None:
        self.file, self.page = file, page
        self.height, self.width = page.imagelength, page.imagewidth
        self.segments: dict[int, tuple[Array, int, int, int]] = {}     # Of the rows that were read last.
        tags = georeference(page.tags)
        first = self.read(0, 1)
        self.metadata = replace(first, array=first.array[:0], tags=tags, notes=(*first.notes, *notes))

    def read(self, low: int, high: int) -> DecodedImage:
        """Rows as `decode_file` has them.  ValueError if they are damaged or not finite."""
        rows = np.zeros((high - low, self.width, self.page.samplesperpixel), self.page.dtype)
        kept = {}
        for index in self._indices(low, high):
            data, top, left, sample = kept[index] = self.segments.get(index) or self._decode(index)
            a, b = max(low, top), min(high, top + len(data))
            if a < b:
                columns, samples = slice(left, left + data.shape[1]), slice(sample, sample + data.shape[2])
                rows[a - low:b - low, columns, samples] = data[a - top:b - top]
        self.segments = kept
        image = interpret(self.page, rows, 1)
        if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
            raise ValueError(f"values of rows {low} to {high} are NaN or infinite; accepted: finite values")
        return image

    def _indices(self, low: int, high: int) -> Iterator[int]:
        page = self.page
        length = page.tilelength if page.is_tiled else page.rowsperstrip
        across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        down = -(-page.imagelength // length)
        for plane in range(page.samplesperpixel if page.planarconfig == 2 else 1):
            start = plane * down * across
            yield from range(start + low // length * across, start + -(-high // length) * across)

    def _decode(self, index: int) -> tuple[Array, int, int, int]:
        """The pixels of a strip or tile, (rows, columns, samples), and where they begin."""
        page, handle = self.page, self.file.filehandle
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        if len(data) < page.databytecounts[index]:
            raise ValueError("is truncated: pixels are missing")
        segment, (sample, _, top, left, _), _ = page.decode(data, index, jpegtables=page.jpegtables)
        if segment is None:
            raise ValueError("is truncated: pixels are missing")
        return segment[0, :self.height - top, :self.width - left], top, left, sample

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def open_rows(path: Path, max_pixels: int | None) -> TiffRows | None:
    """Open a TIFF for reading rows; None for files that are not TIFF, or have to be decoded whole.

    ValueError if it has more than `max_pixels`.
    """
    with open(path, "rb") as head:
        if head.read(4) not in SIGNATURES:
            return None
    file = rows = None
    try:
        file = tifffile.TiffFile(path)
        pages = image_pages(file)
        page = pages[0]
        check_pixels(page.imagewidth, page.imagelength, max_pixels)
        levels = len(file.pages) - len(pages) + len(page.subifds or ())
        notes = (f"has {levels} smaller copies or masks, which the result has not",) if levels else ()
        if len(pages) == 1 and _in_pieces(page):
            rows = TiffRows(file, page, notes)
    except ValueError as error:
        if not isinstance(error, tifffile.TiffFileError):
            raise
    except Exception:       # No page, tags of wrong types, a missing codec: decoding says what is wrong.
        rows = None
    finally:
        if rows is None and file is not None:
            file.close()
    return rows


def _in_pieces(page: tifffile.TiffPage) -> bool:
    pixels = page.tilelength * page.tilewidth if page.is_tiled else page.rowsperstrip * page.imagewidth
    whole_bytes = page.dtype is not None and page.bitspersample == 8 * page.dtype.itemsize
    return (whole_bytes and int(page.photometric) in READABLE and page.imagedepth == 1
            and NODATA not in page.tags and ASSOCIATED not in page.extrasamples
            and int(page.tags.valueof(ORIENTATION, 1)) == 1
            and pixels * page.samplesperpixel * page.dtype.itemsize <= MAX_SEGMENT)


def write_rows(path: Path, rows: Iterator[Array], height: int, width: int, format: ImageFormat,
               like: DecodedImage) -> None:
    """Write a tiled TIFF, BigTIFF from 4 GB of pixels on, as its rows are made.

    Args:
        rows: (rows, W) or (rows, W, C) after another.
        like: takes the resolution and georeference from this image.
    """
    channels = (format.channels,) if format.channels > 1 else ()
    size = height * width * format.channels * np.dtype(format.dtype).itemsize
    with tifffile.TiffWriter(path, bigtiff=size > CLASSIC) as writer:
        writer.write(_tiles(rows, height), shape=(height, width, *channels), dtype=format.dtype,
                     tile=(TILE, TILE), **tiff_options(format, like.dpi, like.tags))


def _tiles(rows: Iterator[Array], height: int) -> Iterator[Array]:
    waiting: list[Array] = []
    done = 0
    for part in rows:
        waiting.append(part)
        count = sum(map(len, waiting))
        while count >= TILE or (waiting and done + count == height):
            joined = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            band, rest = joined[:TILE], joined[TILE:]
            for left in range(0, band.shape[1], TILE):
                yield np.ascontiguousarray(band[:, left:left + TILE])
            waiting, done, count = [rest] if len(rest) else [], done + len(band), len(rest)
