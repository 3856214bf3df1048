"""The colors that a file declares otherwise than by a profile; they are named in a note and not converted."""

import contextlib
import struct

from PIL import Image

# Codes of ITU-T H.273, in PNG's cICP and the nclx boxes of AVIF and HEIC; others are nearly those of sRGB.
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
TRANSFERS = {4: "gamma 2.2", 5: "gamma 2.8", 8: "linear", 16: "HDR by PQ", 18: "HDR by HLG"}
SRGB_GAMMA = 1 / 2.2
SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)     # White, red, green and blue.
TOLERANCE = 0.01            # Of chromaticities, and of the gamma by four times as much.
GRAY_TYPES = (0, 4)         # PNG's color types.
NCLX = b"colrnclx"
EXIF_IFD, INTEROPERABILITY_IFD, COLOR_SPACE, INDEX = 0x8769, 0xA005, 0xA001, 1
ADOBE_RGB = 2               # Value of ColorSpace; the standard has it as the index "R03" (DCF 2.0).


def declared_space(data: bytes, image: Image.Image) -> str:
    """The colors that an opened file without a profile declares, for people; "" if they are those of sRGB."""
    if data.startswith(b"\x89PNG"):
        return _png_space(data)
    if (start := data.find(NCLX, 0, 1 << 16)) >= 0:
        return _coded_space(*struct.unpack_from(">HH", data[start + len(NCLX):].ljust(4, b"\0")))
    with contextlib.suppress(Exception):    # Broken metadata break no image.
        if "exif" not in image.info:
            return ""
        exif = image.getexif()
        if exif.get_ifd(EXIF_IFD).get(COLOR_SPACE) == ADOBE_RGB:
            return "Adobe RGB (by EXIF)"
        # The last to be asked for: Pillow raises KeyError where it is absent.
        if str(exif.get_ifd(INTEROPERABILITY_IFD).get(INDEX, "")).strip("\0 ") == "R03":
            return "Adobe RGB (by EXIF)"
    return ""


def _png_space(data: bytes) -> str:
    """By the chunks before the pixels, in the order in which they count (PNG 3rd edition, 4.3)."""
    chunks: dict[bytes, bytes] = {}
    position = 8
    while position + 8 <= len(data) and (name := data[position + 4:position + 8]) != b"IDAT":
        length = int.from_bytes(data[position:position + 4], "big")
        chunks[name] = data[position + 8:position + 8 + length]
        position += length + 12
    if len(code := chunks.get(b"cICP", b"")) == 4:
        return _coded_space(code[0], code[1])
    if b"sRGB" in chunks:
        return ""
    found = []
    gamma = int.from_bytes(chunks.get(b"gAMA", b""), "big") / 100_000
    if gamma and abs(gamma - SRGB_GAMMA) > 4 * TOLERANCE:
        found.append(f"gAMA {gamma:g}")
    if len(points := chunks.get(b"cHRM", b"")) == 32 and data[25] not in GRAY_TYPES:
        pairs = zip(struct.unpack(">8I", points), SRGB_CHROMATICITIES, strict=True)
        if any(abs(value / 100_000 - usual) > TOLERANCE for value, usual in pairs):
            found.append("primaries of its own (cHRM)")
    return " and ".join(found)


def _coded_space(primaries: int, transfer: int) -> str:
    return ", ".join(filter(None, (PRIMARIES.get(primaries), TRANSFERS.get(transfer))))
