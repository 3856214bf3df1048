"""A file of which the end is missing, cut off or filled with zeros, is damaged in every format that can tell; whole files never are."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from i2i.data.sources import Unreadable, decode_bytes
from i2i.images.encode import encode
from i2i.images.format import ImageFormat
from i2i.images.pil import extensions
from tests.conftest import Run

extensions()        # Registers HEIC.


def photograph(size: int = 160) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    waves = 128 + 60 * np.sin(x / 20)[..., None] + 40 * np.cos(y / 15)[..., None]
    return (waves + np.random.default_rng(0).normal(0, 8, (size, size, 3))).clip(0, 255).astype(np.uint8)


def encoded(form: str, array: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph() if array is None else array).save(buffer, form, **options)
    return buffer.getvalue()


def tiff(compression: str, dtype: str) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, photograph().astype(dtype), photometric="rgb", compression=compression)
    return buffer.getvalue()


def thumbnailed() -> bytes:
    """With a small JPEG, that ends in a marker of its own, in its EXIF data."""
    exif = Image.Exif()
    exif[0x010F] = encoded("JPEG", photograph(32)).decode("latin-1")
    return encoded("JPEG", exif=exif)


TELLING = {
    "JPEG": encoded("JPEG"), "progressive JPEG": encoded("JPEG", progressive=True), "optimized JPEG": encoded("JPEG", optimize=True),
    "JPEG with restarts": encoded("JPEG", restart_marker_rows=1), "JPEG with a thumbnail": thumbnailed(), "gray JPEG": encoded("JPEG", photograph()[..., 0]),
    "PNG": encoded("PNG"), "palette PNG": encoded("PNG", photograph()[..., 0]), "16-bit PNG": encode(".png", photograph().astype(np.uint16) * 257, ImageFormat(3, "uint16")),
    "GIF": encoded("GIF"), "lossless WebP": encoded("WEBP", lossless=True), "JPEG 2000": encoded("JPEG2000"), "AVIF": encoded("AVIF", speed=8), "HEIC": encoded("HEIF"), **({"QOI": encoded("QOI")} if "QOI" in Image.SAVE else {}),
    "LZW TIFF": encoded("TIFF", compression="tiff_lzw"), "deflate TIFF": encoded("TIFF", compression="tiff_adobe_deflate"), "PackBits TIFF": encoded("TIFF", compression="packbits"),
    "deflate TIFF, directory first": tiff("zlib", "uint8"), "16-bit deflate TIFF": tiff("zlib", "uint16"), "LZMA TIFF": tiff("lzma", "uint8")}
RAW = {"BMP": encoded("BMP"), "TGA": encoded("TGA"), "PPM": encoded("PPM"), "TIFF": encoded("TIFF"), "DDS": encoded("DDS"), "lossy WebP": encoded("WEBP")}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("name", TELLING)
def test_a_missing_end_is_noticed(name: str, share: float) -> None:
    data = TELLING[name]
    assert decode_bytes("x", data).array.shape[0] == 160
    kept = int(share * len(data))
    for damaged in (data[:kept], data[:kept] + bytes(len(data) - kept)):
        with pytest.raises(Unreadable) as error:
            decode_bytes("x", damaged)
        assert "index out of range" not in error.value.reason


@pytest.mark.parametrize("name", RAW)
def test_where_zeros_are_pixels_only_a_cut_is_noticed(name: str) -> None:
    data = RAW[name]
    kept = int(0.9 * len(data))
    assert decode_bytes("x", data[:kept] + bytes(len(data) - kept)).array.shape == (160, 160, 3)
    with pytest.raises(Unreadable):
        decode_bytes("x", data[:kept])


def test_a_lossy_webp_of_which_half_is_missing_is_noticed() -> None:
    data = RAW["lossy WebP"]
    with pytest.raises(Unreadable, match="truncated"):
        decode_bytes("x", data[:len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_of_an_mpo_only_the_first_image_counts() -> None:
    data = encoded("MPO", save_all=True, append_images=[Image.fromarray(photograph(64))])
    assert decode_bytes("x", data[:-100]).array.shape == (160, 160, 3)
    with pytest.raises(Unreadable, match="truncated"):
        decode_bytes("x", data[:len(data) // 2])


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "HEIF", *(["QOI"] if "QOI" in Image.SAVE else []), "PNG"])
@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("share", [0, 1, 8])
def test_large_areas_of_one_color_are_whole(form: str, level: int, share: int) -> None:
    """Such files end in more zeros than others: lossy WebP in up to 5 %."""
    array = np.full((600, 600, 3), level, np.uint8)
    if share:
        array[:600 // 8 * share // 2] = photograph(600)[:600 // 8 * share // 2]
    for options in ({}, {"lossless": True}) if form == "WEBP" else ({"speed": 10},) if form == "AVIF" else ({},):
        assert decode_bytes("x", encoded(form, array, **options)).array.shape == (600, 600, 3)


def test_what_follows_a_whole_file_does_not_matter() -> None:
    for name in ("JPEG", "PNG", "GIF"):
        assert decode_bytes("x", TELLING[name] + bytes(50)).array.shape == (160, 160, 3)
    assert decode_bytes("x", TELLING["AVIF"] + (200).to_bytes(4, "big") + b"free" + bytes(192)).array.shape == (160, 160, 3)


def test_data_check_calls_it_damaged(i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for i in range(4):
        data = encoded("JPEG", np.roll(photograph(), 30 * i, 0))
        (tmp_path / "d" / f"{i}.jpg").write_bytes(data if i != 3 else data[:len(data) // 2] + bytes(len(data) - len(data) // 2))
    done = i2i("data", "check", tmp_path / "d")
    assert done.code == 1
    assert "3.jpg: is truncated: its end is missing" in done.out
