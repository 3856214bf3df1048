"""Files of which the end is missing: an interrupted download or copy may leave the rest of a file filled with
zeros, which many decoders take for pixels."""

import re
import struct
from collections.abc import Iterator

# A marker that is neither an escaped 255 nor a restart (ITU-T T.81, B.1.1).
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
JPEG_END = 0xD9
# Compressed data end in at most 2 zeros, lossy WebP of one color in up to 5 % of them.
ZERO_TAIL, LOSSY_WEBP_TAIL = 64, 1024
# Height, width, flags of the pixel format and bits per pixel; then, from DDS_PIXELS on, the pixels.
DDS_HEADER, DDS_RGB, DDS_PIXELS = struct.Struct("<12x2I60xI4xI"), 0x40, 128
ISO_MEDIA = (b"ftypavif", b"ftypavis", b"ftypheic", b"ftypheix", b"ftypmif1")


def check_end(data: bytes) -> None:
    """Raise ValueError if the end of a JPEG, WebP, AVIF, HEIC, QOI or uncompressed DDS file is missing.

    Decoders notice it in PNG, GIF and JPEG 2000, and in DDS from Pillow 13.  In what is not compressed (BMP,
    TGA, PPM, NPY …) zeros are black pixels.
    """
    if data.startswith(b"\xff\xd8\xff"):
        missing = not _jpeg_ends(data)
    elif data[8:12] == b"WEBP":
        missing = any(ends_in_zeros(chunk) if kind == b"VP8L" else
                      ends_in_zeros(chunk, max(LOSSY_WEBP_TAIL, len(chunk) // 4))
                      for kind, chunk in _riff_chunks(data) if kind in (b"VP8L", b"VP8 "))
    elif data[4:12] in ISO_MEDIA:       # Another box at the end may be padding.
        missing = ends_in_zeros(data) and _last_box(data) in (b"mdat", bytes(4))
    elif data.startswith(b"DDS ") and len(data) >= DDS_HEADER.size:
        height, width, flags, bits = DDS_HEADER.unpack_from(data)
        missing = bool(flags & DDS_RGB) and len(data) < DDS_PIXELS + height * width * bits // 8
    else:
        missing = data.startswith(b"qoif") and b"\0\0\0\0\0\0\0\1" not in data[-64:]
    if missing:
        raise ValueError("is truncated: its end is missing")


def ends_in_zeros(data: bytes, count: int = ZERO_TAIL) -> bool:
    """Whether so many bytes at the end are 0."""
    return len(data) >= count and not any(data[-count:])


def _jpeg_ends(data: bytes) -> bool:
    """Whether there is an end-of-image marker after the segments, thumbnails in which have one, too."""
    position = 2
    while found := JPEG_MARKER.search(data, position):
        if found[1][0] == JPEG_END:
            return True
        position = found.end() + int.from_bytes(data[found.end():found.end() + 2], "big")
    return False


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WebP file."""
    position = 12
    while position + 8 <= len(data):
        size = int.from_bytes(data[position + 4:position + 8], "little")
        yield data[position:position + 4], data[position + 8:position + 8 + size]
        position += 8 + size + size % 2


def _last_box(data: bytes) -> bytes:
    """The type of the last box of an ISO base media file (ISO/IEC 14496-12, 4.2)."""
    position, kind = 0, b""
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position:position + 4], "big"), data[position + 4:position + 8]
        size = int.from_bytes(data[position + 8:position + 16], "big") if size == 1 else size
        position += max(size, 8) if size else len(data)
    return kind
