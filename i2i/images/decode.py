"""Bytes of a file to pixels, by what the bytes are and not by the file's name.  Every error is a ValueError,
or what a decoder raises."""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from i2i.images.formats import DTYPES, Array, DecodedImage, from_pil, parse_dpi

for library in ("tifffile", "PIL"):
    # What they warn of is raised here, or of no account,
    logging.getLogger(library).addHandler(logging.NullHandler())
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)     # and what OpenCV warns of too.

ORIENTATION = 0x0112        # EXIF 2.3 and TIFF 6.0.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")     # The last two: more than 4 GB.
ALPHA = ("LA", "PA", "RGBA", "La", "RGBa")
GRAY = ("1", "L", "LA", "La", "F", "I;16", "I;16B", "I;16L", "I;16N")
PNG = b"\x89PNG\r\n\x1a\n"
NPY = b"\x93NUMPY"
FIRST = "animated, its first frame taken"
FEWEST = 16                 # Rows: fewer, before a longer last axis, are channels that come first.
_REDUCED, _MASK = 1, 4      # Bits of TIFF's NewSubfileType.
_ASSOCIATED, _UNASSOCIATED = 1, 2   # TIFF's ExtraSamples: alpha, colors multiplied by it or not.


def decode_file(data: bytes) -> DecodedImage:
    """An encoded picture as stored, upright (EXIF orientation applied)."""
    if data[:4] in TIFF:
        return _finite(_tiff(data))
    if data.startswith(NPY):
        return _finite(_npy(data))
    if data.startswith(PNG) and data[24:25] == b"\x10":             # IHDR's bit depth.
        return _png16(data)
    return _pillow(data)


def _pillow(data: bytes) -> DecodedImage:
    with open_image(data) as image:
        notes: tuple[str, ...] = ()
        if image.format in ("GIF", "PNG", "WEBP") and getattr(image, "is_animated", False):
            notes = (FIRST,)
        image.load()
        picture = from_pil(ImageOps.exif_transpose(image))
        return replace(picture, notes=(*notes, *picture.notes))


def open_image(data: bytes) -> Image.Image:
    """The header of a picture, unless it is a decompression bomb."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise _bomb() from None
        except UnidentifiedImageError:
            raise ValueError("not an image, or of an unknown format" if data else "empty file") from None


def _bomb() -> ValueError:
    return ValueError(f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, refused as a decompression bomb")


def check_pixels(pixels: int) -> None:
    """ValueError if a header speaks of more pixels than any picture has."""
    if Image.MAX_IMAGE_PIXELS and pixels > Image.MAX_IMAGE_PIXELS:
        raise _bomb()


def _finite(picture: DecodedImage) -> DecodedImage:
    if picture.array.dtype.kind == "f":
        strange = int((~np.isfinite(picture.array)).sum())
        if strange:
            raise ValueError(f"{strange:,} of {picture.array.size:,} values are not numbers (NaN or infinite)")
    return picture


def apply_orientation(array: Array, orientation: int) -> Array:
    """An array turned and mirrored as EXIF says: each of the eight is made of mirrorings and a transposition.
    EXIF 2.3, tag 0x0112"""
    if orientation in (3, 4, 6, 7):
        array = array[::-1]
    if orientation in (2, 3, 7, 8):
        array = array[:, ::-1]
    return np.ascontiguousarray(array.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else array)


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its pixels are read."""

    format: str
    width: int
    height: int
    gray: bool = False
    alpha: bool = False


def header(data: bytes) -> Header:
    """Format, size, and whether a picture has one channel, or alpha."""
    if data.startswith(NPY):
        shape, _ = npy_header(data)
        return Header("NPY", shape[1], shape[0], len(shape) == 2 or shape[2] == 1)
    try:
        with open_image(data) as image:
            return Header(str(image.format), image.width, image.height, image.mode in GRAY,
                          image.mode in ALPHA or "transparency" in image.info)
    except ValueError:
        if data[:4] not in TIFF:
            raise
    with tifffile.TiffFile(io.BytesIO(data)) as file:       # Channels that Pillow has no mode for.
        page = tiff_pages(file)[0]
        return Header("TIFF", page.imagewidth, page.imagelength)


# ---------------------------------------------------------------------------------------------- PNG of 16
# bits

def _png16(data: bytes) -> DecodedImage:
    """Pillow would make 8 bits of 16 where there is more than one channel; OpenCV does not, but takes half a
    file for a whole one."""
    open_image(data).verify()
    with open_image(data) as image:
        info, orientation, animated = image.info, image.getexif().get(ORIENTATION, 1), getattr(image,
                                                                                               "is_animated",
                                                                                               False)
    array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None or array.dtype != np.uint16:
        raise ValueError("this 16-bit PNG is damaged")
    gray, alpha = data[25] in (0, 4), array.ndim == 3 and array.shape[2] == 4        # IHDR's color type.
    if alpha:
        array = array[..., [0, 3] if gray else [2, 1, 0, 3]]
    elif array.ndim == 3:
        array = array[..., ::-1]
    elif "transparency" in info:
        array, alpha = np.stack([array, np.where(array == info["transparency"], 0, 65535).astype(np.uint16)],
                                2), True
    return DecodedImage(apply_orientation(array, orientation), alpha,
                        profile=info.get("icc_profile") or None, dpi=parse_dpi(info.get("dpi")),
                   notes=(FIRST,) if animated else ())


# ---------------------------------------------------------------------------------------------- NPY

def _npy(data: bytes) -> DecodedImage:
    """HW or HWC.  Its header is believed only if the bytes that follow are as many as it says."""
    shape, dtype = npy_header(data)
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if len(shape) == 3 and shape[0] < FEWEST <= shape[2]:
        raise ValueError(f"its shape {shape} looks as if channels came first; accepted: height x width, or "
                         "height x width x channels "
                         "(numpy.moveaxis(array, 0, -1))")
    array, notes = _accepted(array, dtype)
    return DecodedImage(array, notes=notes)


def npy_header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in a file, checked against its length."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1,
                                                                     0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read_header(file)
    except Exception:           # SyntaxError, TokenError, ValueError with half the file in it ...
        raise ValueError("its NPY header is damaged") from None
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never read")
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"its shape is {shape}; accepted: height x width, or height x width x channels")
    check_pixels(shape[0] * shape[1])
    there, said = len(data) - file.tell(), int(np.prod([float(side) for side in shape])) * dtype.itemsize
    if there != said:
        raise ValueError(f"holds {there:,} bytes of pixels and its header says {said:,}")
    return shape, dtype


def _accepted(array: Array, dtype: np.dtype[Any]) -> tuple[Array, tuple[str, ...]]:
    """In this machine's byte order; other floats become 32 bits, which is said; other types are refused by
    name."""
    if dtype.kind == "f" and dtype.itemsize != 4:
        return array.astype(np.float32), (f"{dtype.name}, read as float32",)
    if dtype.name not in DTYPES:
        raise ValueError(f"values of type {dtype.name} are not supported; accepted: {', '.join(DTYPES)}, and "
                         "other floats as float32")
    return np.ascontiguousarray(array, dtype.newbyteorder("=")), ()


# ---------------------------------------------------------------------------------------------- TIFF

def _tiff(data: bytes) -> DecodedImage:
    """One page of any type and number of channels; or several gray ones of one size and type, which become
    channels."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = tiff_pages(file)
        page = pages[0]
        check_pixels(page.imagewidth * page.imagelength)
        like = {(each.imagelength, each.imagewidth, each.samplesperpixel, each.dtype) for each in pages}
        if len(pages) > 1 and (len(like) > 1 or page.samplesperpixel > 1):
            sizes = sorted({f"{each.imagewidth}x{each.imagelength}x{each.samplesperpixel}" for each in pages})
            raise ValueError(f"has {len(pages)} pages ({', '.join(sizes)}); accepted: one page, or gray "
                             "pages of one size and type, "
                             "which become channels")
        if page.imagedepth > 1 or page.dtype is None:
            raise ValueError("is a volume, or of a type that is not known; accepted: one page, or gray pages "
                             "of one size and type")
        if len(pages) == 1 and _to_native(page):
            return _pillow(data)
        arrays = [_page(each, data, number) for number, each in enumerate(pages)]
        array = arrays[0] if len(pages) == 1 else np.stack([each[..., 0] for each in arrays], 2)
        return _channel_meaning(page, array, len(pages))


def tiff_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages of a file without thumbnails and masks."""
    pages = [page.aspage() for page in file.pages]
    return [page for page in pages if not int(page.subfiletype) & (_REDUCED | _MASK)] or pages[:1]


def _to_native(page: tifffile.TiffPage) -> bool:
    """Whether it is one of the kinds that Pillow has: 8 bits or fewer, no channels that are neither color nor
    alpha."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    return bits <= 8 and page.samplesperpixel <= 4 and page.dtype in (np.uint8, np.bool_) \
        and all(extra in (_ASSOCIATED, _UNASSOCIATED)
                for extra in page.extrasamples) and len(page.extrasamples) <= 1 \
        and page.samplesperpixel - len(page.extrasamples) == {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3,
                                                              8: 3}.get(int(page.photometric), 0)


def _page(page: tifffile.TiffPage, data: bytes, number: int) -> Array:
    """One page by tifffile; by OpenCV where a compression is missing there that it has.  -> HWC"""
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    try:
        array = page.asarray(maxworkers=1)      # Files are what is read at once.
        return array.transpose(1, 2, 0) if page.axes.startswith("S") else array.reshape(shape)
    except (KeyError, ValueError) as error:
        if "imagecodecs" not in str(error):
            raise
    pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[1]
    array = pages[number] if number < len(pages) else np.empty(0)
    # Of 12 bits OpenCV makes others.
    whole = page.dtype is not None and page.bitspersample == 8 * page.dtype.itemsize
    if not whole or array.dtype != page.dtype or array.size != np.prod(shape) or page.samplesperpixel not in (1, 3, 4):
        raise ValueError(f"its compression ({page.compression.name}, {page.bitspersample} bits) needs a "
                         "codec that is missing: "
                         "pip install imagecodecs")
    array = array.reshape(shape)
    return array[..., {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[page.samplesperpixel]]


def _channel_meaning(page: tifffile.TiffPage, array: Array, pages: int) -> DecodedImage:
    """The pixels of a page with what its tags say of them."""
    if int(page.photometric) == 5:
        raise ValueError(f"is CMYK of {page.dtype}; accepted: CMYK of 8 bits")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    array, notes = _accepted(array, array.dtype)
    if int(page.photometric) == 0 and array.dtype.kind == "u":      # White is zero.
        array = np.iinfo(array.dtype).max - array
    alpha = len(page.extrasamples) == 1 and page.extrasamples[0] in (_ASSOCIATED,
                                                                     _UNASSOCIATED) and array.shape[2] in (2,
                                                                                                           4)
    if alpha and page.extrasamples[0] == _ASSOCIATED:
        array = _unmultiplied(array)
    if pages > 1:
        notes = (*notes, f"{pages} pages, taken as channels")
    tags = page.tags
    orientation = tags[ORIENTATION].value if ORIENTATION in tags else 1
    profile = tags["InterColorProfile"].value if "InterColorProfile" in tags else None
    array = apply_orientation(array[..., 0] if array.shape[2] == 1 else array, int(orientation))
    return DecodedImage(array, alpha, profile=bytes(profile) if profile else None,
                        dpi=_tiff_resolution(page), notes=notes)


def _unmultiplied(array: Array) -> Array:
    """Colors that were multiplied by alpha, as they were."""
    top = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    alpha = array[..., -1:].astype(np.float64) / top
    color = np.divide(array[..., :-1], alpha, out=np.zeros(array[..., :-1].shape), where=alpha > 0)
    color = color if array.dtype.kind == "f" else np.rint(color).clip(0, top)
    return np.concatenate([color.astype(array.dtype), array[..., -1:]], 2)


def _tiff_resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    inches = {2: 1.0,
              3: 2.54}.get(int(page.tags["ResolutionUnit"].value) if "ResolutionUnit" in page.tags else 2)
    if inches is None or "XResolution" not in page.tags or "YResolution" not in page.tags:
        return None
    try:
        across, down = (value[0] / value[1] * inches
                        for value in (page.tags["XResolution"].value, page.tags["YResolution"].value))
    except (ZeroDivisionError, TypeError, IndexError):
        return None
    return parse_dpi((across, down))

