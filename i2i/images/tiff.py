"""Decoding of TIFF files of any type and number of channels."""

import io

import cv2
import numpy as np
import tifffile

from i2i.images.color import to_srgb
from i2i.images.format import Array, DecodedImage, to_supported_dtype
from i2i.images.memory import reserve_memory
from i2i.images.pil import ORIENTATION, apply_orientation, check_pixels, parse_dpi
from i2i.images.truncation import ends_in_zeros

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")     # The last two: BigTIFF.
UNCOMPRESSED = 1            # Value of Compression.
REDUCED, MASK = 1, 4                # Bits of NewSubfileType: a thumbnail, a mask.
ASSOCIATED, UNASSOCIATED = 1, 2     # ExtraSamples: alpha with colors multiplied by it, or not.
WHITE_IS_ZERO, CMYK = 0, 5          # Values of PhotometricInterpretation.
# PhotometricInterpretation -> color channels, for those that Pillow reads.
COLOR_CHANNELS = {WHITE_IS_ZERO: 1, 1: 1, 2: 3, 3: 1, CMYK: 4, 6: 3, 8: 3}


def decode(data: bytes, max_pixels: int | None) -> DecodedImage | None:
    """Decode one page of any type and number of channels, or several gray pages of one size and type, which
    become channels.  None: Pillow can decode it."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = image_pages(file)
        if not pages or not pages[0].imagewidth:
            raise ValueError("is truncated: its directory is missing")
        page = pages[0]
        check_pixels(page.imagewidth, page.imagelength, max_pixels)
        layouts = {(each.imagelength, each.imagewidth, each.samplesperpixel, each.dtype) for each in pages}
        if len(pages) > 1 and (len(layouts) > 1 or page.samplesperpixel > 1):
            sizes = sorted({f"{each.imagewidth}x{each.imagelength}x{each.samplesperpixel}" for each in pages})
            raise ValueError(f"has {len(pages)} pages ({', '.join(sizes)}); accepted: one page, or gray "
                             "pages of one size and type, which become channels")
        if page.imagedepth > 1 or page.dtype is None:
            raise ValueError("is a volume, or of an unknown type; accepted: one page, or gray pages of one "
                             "size and type")
        for each in pages:
            _check_segments(each, data)
        if len(pages) == 1 and _pillow_supports(page):
            return None
        bytes_per_pixel = 3 * page.dtype.itemsize * page.samplesperpixel * len(pages)
        with reserve_memory(page.imagewidth, page.imagelength, bytes_per_pixel):
            arrays = [_read_page(each, data, number) for number, each in enumerate(pages)]
            array = arrays[0] if len(pages) == 1 else np.stack([each[..., 0] for each in arrays], 2)
            return interpret(page, array, len(pages))


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the first page."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = image_pages(file)[0]
        return page.imagewidth, page.imagelength


def dtype(data: bytes) -> str:
    """The type of the values of the first page."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return str(image_pages(file)[0].dtype)


def image_pages(file: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """The pages of a file without thumbnails and masks."""
    pages = [page.aspage() for page in file.pages]
    return [page for page in pages if not int(page.subfiletype) & (REDUCED | MASK)] or pages[:1]


def _check_segments(page: tifffile.TiffPage, data: bytes) -> None:
    """Raise ValueError if compressed strips or tiles are cut off or end in zeros, which libtiff decodes."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        segment = data[offset:offset + count]
        if page.compression != UNCOMPRESSED and (len(segment) < count or ends_in_zeros(segment)):
            raise ValueError("is truncated: pixels are missing")


def _pillow_supports(page: tifffile.TiffPage) -> bool:
    """Whether it has at most 8 bits, and no channels that are neither color nor alpha."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    extra = page.extrasamples
    return (bits <= 8 and page.samplesperpixel <= 4 and page.dtype in (np.uint8, np.bool_)
            and len(extra) <= 1 and set(extra) <= {ASSOCIATED, UNASSOCIATED}
            and page.samplesperpixel - len(extra) == COLOR_CHANNELS.get(int(page.photometric), 0))


def _read_page(page: tifffile.TiffPage, data: bytes, number: int) -> Array:
    """Read a page with tifffile, or with OpenCV if tifffile lacks its compression.  Returns (H, W, C)."""
    shape = (page.imagelength, page.imagewidth, page.samplesperpixel)
    try:
        array = page.asarray(maxworkers=1)      # Loader workers already read in parallel.
        return array.transpose(1, 2, 0) if page.axes.startswith("S") else array.reshape(shape)
    except (KeyError, ValueError) as error:
        if "imagecodecs" not in str(error):
            raise
    pages = cv2.imdecodemulti(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[1]
    array = pages[number] if number < len(pages) else np.empty(0)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}.get(page.samplesperpixel)
    # OpenCV rescales 12 bits.
    whole = page.dtype is not None and page.bitspersample == 8 * page.dtype.itemsize
    if not whole or array.dtype != page.dtype or array.size != np.prod(shape) or order is None:
        raise ValueError(f"its compression ({page.compression.name}, {page.bitspersample} bits) needs a "
                         "codec that is missing: pip install imagecodecs")
    return array.reshape(shape)[..., order]


def interpret(page: tifffile.TiffPage, array: Array, pages: int) -> DecodedImage:
    """Apply the tags of a page to its pixels."""
    photometric, extra, tags = int(page.photometric), page.extrasamples, page.tags
    if photometric == CMYK:
        raise ValueError(f"is CMYK of {page.dtype}; accepted: CMYK of 8 bits")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    array, notes = to_supported_dtype(array)
    if photometric == WHITE_IS_ZERO and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
    alpha = len(extra) == 1 and extra[0] in (ASSOCIATED, UNASSOCIATED) and array.shape[2] in (2, 4)
    if alpha and extra[0] == ASSOCIATED:
        array = _unmultiply(array)
    if pages > 1:
        notes = (*notes, f"{pages} pages, used as channels")
    array = apply_orientation(array[..., 0] if array.shape[2] == 1 else array,
                              int(tags.valueof(ORIENTATION, 1)))
    image = DecodedImage(array, alpha, dpi=_resolution(page), notes=notes)
    return to_srgb(image, bytes(tags.valueof("InterColorProfile", b"")))


def _unmultiply(array: Array) -> Array:
    """Divide colors by their alpha."""
    white = 1.0 if array.dtype.kind == "f" else float(np.iinfo(array.dtype).max)
    alpha = array[..., -1:].astype(np.float64) / white
    color = np.divide(array[..., :-1], alpha, out=np.zeros(array[..., :-1].shape), where=alpha > 0)
    color = color if array.dtype.kind == "f" else np.rint(color).clip(0, white)
    return np.concatenate([color.astype(array.dtype), array[..., -1:]], 2)


def _resolution(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Pixels per inch."""
    try:
        factor = {2: 1.0, 3: 2.54}[int(page.tags.valueof("ResolutionUnit", 2))]
        across, down = (page.tags[name].value for name in ("XResolution", "YResolution"))
        return parse_dpi((across[0] / across[1] * factor, down[0] / down[1] * factor))
    except (KeyError, ZeroDivisionError, TypeError, IndexError):
        return None
