"""Image files: what is decoded, what is refused with which message, and the format of a side."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from i2i.data.config import DataConfig
from i2i.data.format_detection import inspect_dataset
from i2i.data.labeled import find_images
from i2i.data.loader import batches
from i2i.data.paired import find_paired
from i2i.data.sources import Unreadable, decode_bytes, load_image, open_source
from i2i.data.transforms import JointCropFlip, resize
from i2i.data.unpaired import find_unpaired
from i2i.errors import JobError, RequestError
from i2i.images.decode import read_header
from i2i.images.encode import FILE_FORMATS, encode, formats_for, losses
from i2i.images.format import Array, DecodedImage, ImageFormat

G = np.random.default_rng(0)
U8, U16 = G.integers(0, 256, (20, 30, 3), dtype=np.uint8), G.integers(0, 65536, (20, 30), dtype=np.uint16)
RGB16, RGBA16 = (G.integers(0, 65536, (20, 30, channels), dtype=np.uint16) for channels in (3, 4))
SEVEN = G.integers(0, 65536, (20, 30, 7), dtype=np.uint16)
FLOATS = G.normal(0, 100, (20, 30)).astype(np.float32)
GRAY, COLOR = Image.fromarray(U8[..., 0]), Image.fromarray(U8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pil(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tif(array: Array, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def npy(array: Array, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def png16(array: Array, color: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """An independent writer: no filter, one IDAT."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    every = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in every)


def pages(*arrays: Array) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for array in arrays:
            writer.write(array)
    return buffer.getvalue()


EXACT: dict[str, tuple[bytes, Array, bool]] = {        # File -> its pixels, and whether the last channel is alpha.
    "16-bit gray PNG": (png16(U16, 0), U16, False), "16-bit RGB PNG": (png16(RGB16, 2), RGB16, False),
    "16-bit gray and alpha PNG": (png16(RGB16[..., :2], 4), RGB16[..., :2], True), "16-bit RGBA PNG": (png16(RGBA16, 6), RGBA16, True),
    "16-bit gray PNG by Pillow": (pil(Image.fromarray(U16), "png"), U16, False),
    "16-bit TIFF by Pillow": (pil(Image.fromarray(U16), "tiff"), U16, False),
    "16-bit LZW TIFF": (pil(Image.fromarray(U16), "tiff", compression="tiff_lzw"), U16, False),
    "16-bit RGB LZW TIFF": (cv2.imencode(".tiff", RGB16[..., ::-1])[1].tobytes(), RGB16, False),
    "float TIFF": (tif(FLOATS), FLOATS, False), "float LZW TIFF": (pil(Image.fromarray(FLOATS), "tiff", compression="tiff_lzw"), FLOATS, False),
    "big-endian TIFF": (tif(U16, byteorder=">"), U16, False), "big TIFF": (tif(U16, bigtiff=True), U16, False),
    "7 channels together": (tif(SEVEN, photometric="minisblack", planarconfig="contig"), SEVEN, False),
    "7 channels apart, deflated": (tif(SEVEN.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate", compression="zlib"), SEVEN, False),
    "six pages": (tif(SEVEN[..., :6].transpose(2, 0, 1), photometric="minisblack"), SEVEN[..., :6], False),
    "8-bit, 7 channels": (tif((SEVEN >> 8).astype(np.uint8), photometric="minisblack", planarconfig="contig"), (SEVEN >> 8).astype(np.uint8), False),
    "RGB and infrared": (tif((RGBA16 >> 8).astype(np.uint8), photometric="rgb", extrasamples=["unspecified"]), (RGBA16 >> 8).astype(np.uint8), False),
    "RGBA TIFF": (tif((RGBA16 >> 8).astype(np.uint8), photometric="rgb", extrasamples=["unassalpha"]), (RGBA16 >> 8).astype(np.uint8), True),
    "16-bit RGBA TIFF": (tif(RGBA16, photometric="rgb", extrasamples=["unassalpha"]), RGBA16, True),
    "16-bit, white is zero": (tif(65535 - U16, photometric="miniswhite"), U16, False),
    "8-bit, white is zero": (tif(255 - U8[..., 0], photometric="miniswhite"), U8[..., 0], False),
    "NPY": (npy(U8), U8, False), "16-bit NPY": (npy(SEVEN), SEVEN, False), "float NPY": (npy(FLOATS), FLOATS, False),
    "big-endian Fortran NPY": (npy(np.asfortranarray(U16.astype(">u2"))), U16, False),
    "palette": (pil(COLOR.quantize(8), "png"), np.asarray(COLOR.quantize(8).convert("RGB")), False),
    "palette with a transparent color": (pil(COLOR.quantize(8), "png", transparency=2),
                                          np.dstack([np.asarray(COLOR.quantize(8).convert("RGB")), 255 * (np.asarray(COLOR.quantize(8)) != 2)]), True),
    "gray and alpha": (pil(Image.fromarray(U8[..., :2].copy(), "LA"), "png"), U8[..., :2], True),
    "1 bit": (pil(GRAY.convert("1"), "png"), 255 * np.asarray(GRAY.convert("1")), False),
    "1-bit fax TIFF": (pil(GRAY.convert("1"), "tiff", compression="group4"), 255 * np.asarray(GRAY.convert("1")), False),
    "GIF": (pil(COLOR.quantize(8), "gif"), np.asarray(COLOR.quantize(8).convert("RGB")), False)}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_of_the_file(name: str) -> None:
    data, pixels, alpha = EXACT[name]
    decoded = decode_bytes("x.png", data)
    assert np.array_equal(decoded.array, pixels)
    assert decoded.array.dtype == (pixels.dtype if pixels.dtype != np.int64 else np.uint8)
    assert decoded.array.dtype.isnative
    assert (decoded.alpha, decoded.notes if name != "six pages" else ()) == (alpha, ())


def test_a_transparent_color_in_16_bits() -> None:
    for array, color, key in ((U16, 0, U16[3, 4:5]), (RGB16, 2, RGB16[3, 4])):
        decoded = decode_bytes("x.png", png16(array, color, (b"tRNS", key.astype(">u2").tobytes())))
        assert decoded.alpha
        assert decoded.array[3, 4, -1] == 0
        assert (decoded.array[..., -1] == 0).sum() == (np.atleast_3d(array) == key).all(-1).sum()


def test_multiplied_alpha_is_divided_out() -> None:
    array = np.array([[[100, 50, 0, 32768], [0, 0, 0, 0], [7, 8, 9, 65535]]], np.uint16)
    decoded = decode_bytes("x.tif", tif(array, photometric="rgb", extrasamples=["assocalpha"]))
    assert decoded.array.tolist() == [[[200, 100, 0, 32768], [0, 0, 0, 0], [7, 8, 9, 65535]]]


NOTED = {
    "animated GIF": (pil(COLOR, "gif", save_all=True, append_images=[COLOR.rotate(180)]), "animated, only the first frame is used"),
    "animated WebP": (pil(COLOR, "webp", save_all=True, append_images=[COLOR.rotate(180)], lossless=True), "animated, only the first frame is used"),
    "animated PNG": (pil(COLOR, "png", save_all=True, append_images=[COLOR.rotate(180)]), "animated, only the first frame is used"),
    "CMYK": (pil(COLOR.convert("CMYK"), "tiff"), "CMYK, read as RGB without a profile"),
    "float64": (npy(FLOATS.astype(np.float64)), "float64, read as float32"), "float16": (npy(FLOATS.astype(np.float16)), "float16, read as float32"),
    "pages": (pages(U16, U16), "2 pages, used as channels")}


@pytest.mark.parametrize("name", NOTED)
def test_what_is_not_in_the_pixels_is_reported(name: str) -> None:
    data, note = NOTED[name]
    decoded = decode_bytes("x", data)
    assert decoded.notes == (note,)
    if name == "animated PNG":
        assert np.array_equal(decoded.array, U8)


LYING = npy(U16).replace(b"(20, 30), }  ", b"(2000, 3000), }"[:15])
REFUSED = {
    "32-bit integers": (tif(U16.astype(np.uint32)), "type uint32"), "signed 32 bits": (tif(U16.astype(np.int32)), "type int32"),
    "signed NPY": (npy(U16.astype(np.int64)), "type int64"), "bools": (npy(U16 > 9), "type bool"), "complex": (npy(U16 * 1j), "type complex128"),
    "Python objects": (npy(np.array([[None]], object), allow_pickle=True), "Python objects, which are never read"),
    "four axes": (npy(np.zeros((2, 3, 4, 5), np.uint8)), r"shape is \(2, 3, 4, 5\)"), "one axis": (npy(np.zeros(7, np.uint8)), r"shape is \(7,\)"),
    "channels first": (npy(np.zeros((7, 20, 30), np.float32)), r"moveaxis"), "NaN": (npy(np.array([[np.nan, 1]], np.float32)), "1 of 2 values are NaN or infinite"),
    "infinity": (tif(np.full((4, 4), np.inf, np.float32)), "16 of 16 values are NaN or infinite"),
    "half an NPY": (npy(U16)[:-7], "holds 1,193 bytes of pixels, but its header says 1,200"), "a lying header": (LYING, "NPY header|header says"),
    "half a 16-bit PNG": (png16(RGB16, 2)[:2000], "Truncated"), "half a TIFF": (tif(U16)[:-7], "failed to read"),
    "half a deflated TIFF": (tif(U16, compression="zlib")[:600], "is truncated: pixels are missing"),
    "colored pages": (pages(U8, U8), r"has 2 pages \(30x20x3\); accepted: one page, or gray pages of one size"),
    "pages of two sizes": (pages(U16, U16[:10]), "has 2 pages"), "pages of two types": (pages(U16, FLOATS), "has 2 pages"),
    "16-bit CMYK": (tif(RGBA16, photometric="separated"), "CMYK of uint16")}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_held_is_refused_by_name(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(Unreadable, match=reason) as error:
        decode_bytes("x.tif", data)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("x.tif: ")


def test_a_missing_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: object, **options: object) -> Array:
        raise KeyError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", missing)
    with pytest.raises(Unreadable, match=r"its compression \(ADOBE_DEFLATE, 16 bits\) needs a codec that is missing: pip install imagecodecs"):
        decode_bytes("x.tif", tif(SEVEN, photometric="minisblack", planarconfig="contig", compression="zlib"))


def test_bombs_of_every_format_are_refused() -> None:
    for data in (npy(U16), tif(U16), png16(RGB16, 2), tif(SEVEN, photometric="minisblack", planarconfig="contig"), pil(COLOR, "png"), pil(COLOR, "jpeg")):
        with pytest.raises(Unreadable, match="30 x 20 pixels are more than 599, which is refused as a decompression bomb; raise the limit by data.max_pixels or --max-pixels"):
            decode_bytes("x", data, 599)
        assert decode_bytes("x", data, 600).array.shape[:2] == (20, 30)


def bare_png(bits: int, color_type: int, row: bytes, transparent: bytes) -> bytes:
    """One row of four pixels, or two in color."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", 2 if color_type else 4, 1, bits, color_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("bits", "row"), [(1, b"\x50"), (2, b"\x1b"), (4, b"\x01\x23"), (8, bytes(range(4))), (16, np.arange(4, dtype=">u2").tobytes())])
def test_a_transparent_level_of_gray_is_one_of_the_file(bits: int, row: bytes) -> None:
    """Pillow stretches 2 and 4 bits to 8, but not this level."""
    level = 1 if bits == 1 else 2
    image = decode_bytes("x", bare_png(bits, 0, row, struct.pack(">H", level)))
    stretch = 1 if bits == 16 else 255 // (2 ** bits - 1)
    levels = [0, 1, 0, 1] if bits == 1 else [0, 1, 2, 3]
    assert image.array[0, :, 0].tolist() == [stretch * each for each in levels]
    assert (image.array[0, :, 1] == 0).tolist() == [each == level for each in levels]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_color_is_one_of_the_file(bits: int) -> None:
    row = np.arange(1, 7, dtype=">u2" if bits == 16 else "u1").tobytes()
    image = decode_bytes("x", bare_png(bits, 2, row, struct.pack(">3H", 4, 5, 6)))
    assert (image.array[0, :, 3] == 0).tolist() == [False, True]


def test_dropped_transparency_is_reported(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for i in range(3):
        rgba = np.random.default_rng(i).integers(0, 256, (40, 40, 4), dtype=np.uint8)
        rgba[..., 3] = 255 if i else rgba[..., 3]
        Image.fromarray(rgba).save(tmp_path / "d" / f"{i}.png")
    data = find_images(open_source(tmp_path / "d"))["train"]
    note = "transparency is composited over data.background; data.alpha=keep keeps it"
    assert inspect_dataset(data).notes == (f"{tmp_path}/d/0.png: {note}",)
    assert inspect_dataset(data, DataConfig(alpha="keep")).notes == ()
    for number, lost in ((0, ("is transparent, which the results are not",)), (1, ())):
        image = load_image(open_source(tmp_path / "d"), f"{number}.png")
        assert losses(".png", ImageFormat(3), image) == lost        # Which `translate` prints.
        assert losses(".png", ImageFormat(4, alpha=True), image) == ()
    (tmp_path / "d" / "0.png").unlink()         # The others are opaque.
    assert inspect_dataset(find_images(open_source(tmp_path / "d"))["train"]).notes == ()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow_for_every_format(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_bytes("x.png", pil(COLOR, "png", exif=exif)).array
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    wide = U8.astype(np.uint16) * 257
    assert np.array_equal(decode_bytes("x.png", png16(wide, 2, (b"eXIf", block))).array, upright.astype(np.uint16) * 257)
    tagged = tif(wide, photometric="rgb", extratags=[(0x0112, 3, 1, orientation, True)])
    assert np.array_equal(decode_bytes("x.tif", tagged).array, upright.astype(np.uint16) * 257)


# ---------------------------------------------------------------------------------------------- formats

SHAPES = [ImageFormat(1), ImageFormat(3), ImageFormat(2, alpha=True), ImageFormat(4, alpha=True), ImageFormat(4), ImageFormat(7), *(
    ImageFormat(channels, dtype, alpha=alpha) for dtype in ("uint16", "float32") for channels, alpha in ((1, False), (2, True), (3, False), (4, True), (4, False), (7, False)))]


def noise(format: ImageFormat, height: int = 20, width: int = 30) -> Array:
    values = np.random.default_rng(1).random((height, width, format.channels)) * {"uint8": 256, "uint16": 65536, "float32": 10}[format.dtype]
    return values.astype(format.dtype)[..., 0] if format.channels == 1 else values.astype(format.dtype)


@pytest.mark.parametrize("format", SHAPES, ids=str)
def test_what_a_format_holds_comes_back_from_it(format: ImageFormat) -> None:
    array, lossless = noise(format), 0
    for suffix, form in FILE_FORMATS.items():
        if form.supports(format) and form.name != "jpeg":
            decoded = decode_bytes(f"x{suffix}", encode(suffix, array, format))
            if form.name == "webp" and format.colors == 1:       # It has no gray.
                assert np.array_equal(decoded.array[..., :2], np.dstack([array[..., 0] if array.ndim == 3 else array] * 2))
                continue
            assert np.array_equal(decoded.array, array), suffix
            assert decoded.array.dtype == array.dtype
            assert decoded.alpha == (format.alpha and form.name != "npy")
            lossless += 1
    assert lossless >= 3
    assert "tif" in formats_for(format)
    assert "npy" in formats_for(format)


def test_what_formats_do_not_hold() -> None:
    assert formats_for(ImageFormat(3)) == ["png", "jpg", "bmp", "webp", "tif", "npy"]
    assert formats_for(ImageFormat(1, "uint16")) == ["png", "tif", "npy"]
    assert formats_for(ImageFormat(4)) == ["tif", "npy"]


@pytest.mark.parametrize("format", [ImageFormat(3), ImageFormat(4, alpha=True), ImageFormat(3, "uint16"), ImageFormat(3, "float32")], ids=str)
def test_resolutions_survive(format: ImageFormat) -> None:
    like = DecodedImage(np.empty(0), dpi=(300.0, 150.0))
    for suffix, form in FILE_FORMATS.items():
        if not form.supports(format):
            continue
        decoded = decode_bytes(f"x{suffix}", encode(suffix, noise(format), format, like))
        assert (decoded.dpi is not None) == (form.name in ("png", "jpeg", "bmp", "tiff")), suffix
        assert decoded.dpi is None or decoded.dpi == pytest.approx((300, 150), rel=1e-4)


# ---------------------------------------------------------------------------------------------- the format of a side

def sided(folder: Path, a: Sequence[bytes], b: Sequence[bytes], suffix: str = "tif") -> Path:
    for side, files in (("A", a), ("B", b)):
        (folder / f"train{side}").mkdir(parents=True)
        for i, data in enumerate(files):
            (folder / f"train{side}" / f"{i}.{suffix}").write_bytes(data)
    return folder


def formats_of(folder: Path, **config: object) -> tuple[ImageFormat, ImageFormat]:
    chosen = DataConfig(**config)
    facts = inspect_dataset(find_paired(open_source(folder), chosen.direction)["train"], chosen)
    return facts.a, facts.b


def test_formats_are_read_from_the_images_of_each_side(tmp_path: Path) -> None:
    folder = sided(tmp_path, [pil(COLOR, "tiff"), pil(GRAY, "tiff")], [tif(U16), tif(U16)])
    assert formats_of(folder) == (ImageFormat(3), ImageFormat(1, "uint16"))
    assert formats_of(folder, direction="ba") == (ImageFormat(1, "uint16"), ImageFormat(3))


@pytest.mark.parametrize(("highest", "found"), [(200, 255), (256, 1023), (1023, 1023), (4000, 4095), (16383, 16383), (16384, None), (65535, None)])
def test_the_range_of_16_bits_is_that_of_their_depth(tmp_path: Path, highest: int, found: int | None) -> None:
    low = np.arange(600, dtype=np.uint16).reshape(20, 30) % 100      # Of more colors than label maps have.
    high = low.copy()
    high[0, 0] = highest
    folder = sided(tmp_path, [tif(low), tif(high)], [pil(GRAY, "tiff")] * 2)
    assert formats_of(folder)[0] == ImageFormat(1, "uint16", (0, found) if found else None)
    assert formats_of(folder, a_range="full")[0] == ImageFormat(1, "uint16")
    assert formats_of(folder, a_range="5,500", b_range="0,100") == (ImageFormat(1, "uint16", (5, 500)), ImageFormat(1, "uint8", (0, 100)))


def test_the_range_of_floats_is_what_was_seen(tmp_path: Path) -> None:
    folder = sided(tmp_path, [tif(np.full((20, 30), value, np.float32)) for value in (-3, 8)], [tif(np.full((20, 30), 2.5, np.float32))] * 2)
    assert formats_of(folder) == (ImageFormat(1, "float32", (-3, 8)), ImageFormat(1, "float32", (2.5, 3.5)))
    assert formats_of(folder, a_range="-10,10")[0] == ImageFormat(1, "float32", (-10, 10))
    with pytest.raises(RequestError, match=r"data\.a_range=full cannot be used: .*0\.tif is float32"):
        formats_of(folder, a_range="full")


@pytest.mark.parametrize("text", ["9", "9,1", "a,b", "1,2,3", "nan,1", "", "0,inf"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"data\.b_range=.* cannot be used; accepted: auto, full, or the values"):
        DataConfig(b_range=text)


def test_what_is_no_background_is_refused() -> None:
    for background in ((1, 2), (256,), (-1,)):
        with pytest.raises(RequestError, match=r"data\.background"):
            DataConfig(background=background)


def test_alpha_is_dropped_or_kept_by_policy(tmp_path: Path) -> None:
    rgba = tif((RGBA16 >> 8).astype(np.uint8), photometric="rgb", extrasamples=["unassalpha"])
    folder = sided(tmp_path, [rgba, pil(GRAY, "tiff")], [pil(GRAY, "tiff")] * 2)
    assert formats_of(folder, background=(1, 2, 3)) == (ImageFormat(3, background=(1, 2, 3)), ImageFormat(1, background=(1, 2, 3)))
    assert formats_of(folder, alpha="keep") == (ImageFormat(4, alpha=True), ImageFormat(1))


def test_eight_bits_among_sixteen_are_scaled(tmp_path: Path) -> None:
    folder = sided(tmp_path, [tif(U16 >> 8), pil(GRAY, "tiff")], [pil(GRAY, "tiff")] * 2)
    assert formats_of(folder)[0] == ImageFormat(1, "uint16")        # Not 0 … 255, though none of the 16-bit ones holds more.


@pytest.mark.parametrize(("files", "message"), [
    ((tif(FLOATS), pil(GRAY, "tiff")), "is float32 and .*1.tif is uint8"), ((tif(U16), tif(FLOATS)), "is uint16 and .*1.tif is float32"),
    ((tif(SEVEN, photometric="minisblack", planarconfig="contig"), tif(U16)), "is of 7 channels and .*1.tif is of 1 channel")])
def test_sides_of_two_formats_are_refused_naming_both(tmp_path: Path, files: tuple[bytes, bytes], message: str) -> None:
    with pytest.raises(RequestError, match=rf"0\.tif {message}.*the images of one side must be of one kind"):
        formats_of(sided(tmp_path, files, [pil(GRAY, "tiff")] * 2))


def test_more_channels_than_can_be_resized_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"0\.npy has 513 channels; accepted: at most 512"):
        formats_of(sided(tmp_path, [npy(np.zeros((16, 16, 513), np.uint8))], [npy(U8[:16, :16])], "npy"))


def test_one_of_another_format_that_was_not_inspected_is_named(tmp_path: Path) -> None:
    folder = sided(tmp_path, [tif(U16)] * 3, [pil(GRAY, "tiff")] * 3)
    pairs = find_paired(open_source(folder))["train"]
    found = inspect_dataset(pairs)
    (folder / "trainA" / "1.tif").write_bytes(tif(FLOATS))
    stream = batches(pairs.for_training((16, 16), (16, 16), (found.a, found.b)), start=0, batch_size=3)
    with pytest.raises(JobError, match=r"trainA/1\.tif: is float32, and the images of its side are uint16"):
        next(stream)


def test_notes_are_reported_once_each_with_an_example(tmp_path: Path) -> None:
    folder = sided(tmp_path, [NOTED["animated GIF"][0]] * 3, [NOTED["CMYK"][0]] * 3)
    notes = inspect_dataset(find_paired(open_source(folder))["train"]).notes
    assert len(notes) == 2
    assert notes[0].endswith(".tif: animated, only the first frame is used")


def test_libraries_print_nothing_of_their_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Pillow logs an error for channels it has no mode for, which tifffile then reads; without a handler it would be printed."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert read_header(tif(SEVEN, planarconfig="contig", photometric="minisblack")).width == 30
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------------------------------------- variation

@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
@pytest.mark.parametrize("load", [(18, 36), (60, 120)], ids=["smaller", "larger"])
def test_jitter_of_any_format_is_that_of_each_channel(dtype: str, channels: int, load: tuple[int, int]) -> None:
    """A channel is resized, cropped and mirrored as if it were alone; a pair may be of two formats."""
    image, other = noise(ImageFormat(channels, dtype), 40, 80), noise(ImageFormat(1), 40, 80)
    move = JointCropFlip(load, crop=(16, 32))
    for seed in range(3):
        a, b = move([image, other], seed)
        assert (a.shape[:2], a.dtype.name, b.shape, b.dtype.name) == ((16, 32), dtype, (16, 32), "uint8")
        again, _ = move([image, other], seed)
        assert np.array_equal(a, again)
        for i in range(channels):
            alone, _ = move([np.ascontiguousarray(np.atleast_3d(image)[..., i]), other], seed)
            assert np.allclose(np.atleast_3d(a)[..., i], alone, atol=1 if dtype != "float32" else 1e-4)


@pytest.mark.parametrize("channels", [1, 3, 5, 7])
def test_whole_images_of_any_format_are_fitted(channels: int) -> None:
    for size in ((10, 15), (40, 60)):
        for dtype in ("uint8", "uint16", "float32"):
            image = noise(ImageFormat(channels, dtype))
            got = resize(image, size)
            assert got.shape == (size if channels == 1 else (*size, channels))
            assert got.dtype == image.dtype
            alone = resize(np.ascontiguousarray(np.atleast_3d(image)[..., -1]), size)
            assert np.allclose(np.atleast_3d(got)[..., -1], alone, rtol=0, atol=1 if dtype != "float32" else 1e-4)


@pytest.mark.parametrize("find", [find_paired, find_unpaired])
def test_a_stream_of_seven_channels_and_sixteen_bits(tmp_path: Path, find: object) -> None:
    seven = [npy(np.random.default_rng(i).integers(0, 4096, (40, 60, 7), dtype=np.uint16)) for i in range(3)]
    floats = [npy(np.random.default_rng(i).normal(0, 9, (40, 60)).astype(np.float32)) for i in range(3)]
    split = find(open_source(sided(tmp_path, seven, floats, "npy")))["train"]  # type: ignore[operator]
    found = inspect_dataset(split)
    assert found.a == ImageFormat(7, "uint16", (0, 4095))
    data = split.for_training((16, 32), (20, 40), (found.a, found.b))
    for batch in islice(batches(data, start=0, batch_size=2), 3):
        assert batch["a"].shape == (2, 7, 16, 32)
        assert batch["b"].shape == (2, 1, 16, 32)
        assert -1 <= batch["a"].min() < -0.2
        assert 0.2 < batch["a"].max() <= 1
        assert batch["b"].abs().max() < 1.5


# ------------------------------------------------------------------------------------------ masks and label maps

def label_map(seed: int, colors: int = 3, size: int = 40) -> Array:
    palette = np.random.default_rng(9).integers(0, 255, (colors, 3), np.uint8)
    y, x = np.mgrid[:size, :size]
    return palette[(y * 3 + x * (1 + seed)) // 17 % colors]


def colors_of(array: Array) -> set[bytes]:
    return set(map(bytes, np.unique(array.reshape(-1, 1 if array.ndim == 2 else array.shape[2]), axis=0)))


@pytest.mark.parametrize(("setting", "side"), [("auto", "a"), ("nearest", "a"), ("bicubic", "a"), ("bilinear", "a"), ("auto", "b")])
def test_label_maps_keep_their_colors_in_training_and_evaluation(tmp_path: Path, setting: str, side: str) -> None:
    photos = [npy(np.random.default_rng(i).integers(0, 256, (40, 40, 3), np.uint8)) for i in range(6)]
    maps = [npy(label_map(i)) for i in range(6)]
    sides = (maps, photos) if side == "a" else (photos, maps)
    train = find_paired(open_source(sided(tmp_path, *sides, suffix="npy")))["train"]
    summary = inspect_dataset(train, DataConfig(**{f"{side}_resize": setting}))
    formats = summary.a, summary.b
    of_maps, of_photos = formats if side == "a" else formats[::-1]
    kept = setting in ("auto", "nearest")
    assert (of_maps.resize, of_photos.resize) == ("nearest" if kept else setting, "bicubic")
    known = set.union(*(colors_of(label_map(i)) for i in range(6)))
    for dataset in (train.for_training((64, 64), (73, 70), formats), train.for_evaluation(formats, (96, 90)), train.for_evaluation(formats, (17, 23))):
        colors = set.union(*(colors_of(dataset.sample(i)[side]) for i in range(6)))
        assert (colors == known) is kept, len(colors)
        other = set.union(*(colors_of(dataset.sample(i)["b" if side == "a" else "a"]) for i in range(6)))
        assert len(other) > 1000
    assert ImageFormat.of({**vars(of_maps), "background": [255]}) == of_maps


def test_nearest_neighbors_are_the_nearest() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(resize(image, (6, 8), "nearest"), image.repeat(2, 0).repeat(2, 1))
    assert np.array_equal(resize(image.repeat(3, 0).repeat(3, 1), (3, 4), "nearest"), image)
    assert resize(np.zeros((5, 7, 9), np.uint16), (11, 3), "nearest").shape == (11, 3, 9)
    assert np.array_equal(resize(np.float32([[0, 8]]), (1, 4), "bilinear"), np.float32([[0, 2, 6, 8]]))


@pytest.mark.parametrize(("images", "found"), [
    ([label_map(i, 20) for i in range(4)], "nearest"), ([np.eye(40, dtype=np.uint8)] * 2, "nearest"), ([np.eye(40, dtype=np.uint16) * 60000] * 2, "nearest"),
    ([np.arange(1600, dtype=np.uint8).reshape(40, 40)] * 2, "bicubic"), ([np.full((40, 40), 10 * i, np.uint8) for i in range(16)], "bicubic"),
    ([np.eye(40, dtype=np.float32)] * 2, "bicubic"), ([np.add.outer(np.arange(40), np.arange(40)).astype(np.uint8)] * 2, "bicubic")],
    ids=["20 colors", "0 and 1", "16 bits", "256 levels", "constant", "floats", "79 levels"])
def test_few_exact_colors_are_label_maps(tmp_path: Path, images: list[Array], found: str) -> None:
    data = [npy(image) for image in images]
    assert formats_of(sided(tmp_path, data, data, "npy"))[0].resize == found


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_masks_of_0_and_1_get_a_hint(tmp_path: Path, dtype: str) -> None:
    mask = np.eye(40, dtype=dtype)
    photo = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    train = find_paired(open_source(sided(tmp_path, [npy(mask)] * 2, [npy(photo)] * 2, "npy")))["train"]
    (note,) = inspect_dataset(train).notes
    assert note.endswith("trainA/0.npy: the highest value of A is 1 of 255, nearly black; data.a_range=0,1 makes it white")
    assert inspect_dataset(train, DataConfig(a_range="0,1")).notes == ()
    assert "value of A" in inspect_dataset(find_paired(open_source(tmp_path), "ba")["train"], DataConfig(direction="ba")).notes[0]
