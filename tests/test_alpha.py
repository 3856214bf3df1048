"""Alpha of inputs that results keep though the model makes none."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i import load
from i2i.images.convert import add_alpha, composite_over
from i2i.images.decode import decode_file
from i2i.images.format import ImageFormat
from tests.conftest import Run, drawing

COLOR = drawing(1)[:17, 32:64]
ALPHA = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (17, 1))


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Transparent pictures, one with an opaque neighbor."""
    folder = tmp_path / "in"
    folder.mkdir()
    transparent = Image.fromarray(np.dstack([COLOR, ALPHA]))
    transparent.save(folder / "a.png")
    transparent.save(folder / "b.webp", lossless=True, exact=True)
    transparent.save(folder / "c.tif")
    Image.fromarray(COLOR).save(folder / "opaque.jpg")
    return folder


def test_alpha_is_carried_to_files_that_hold_it(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    assert i2i("translate", trained, inputs, "--out", "dropped", "--device", "cpu").code == 0
    result = i2i("translate", trained, inputs, "--out", "carried", "--alpha", "carry", "--device", "cpu")
    assert result.code == 0
    assert result.err == "note: transparent, composited over the background, such as a.png\n"
    expected = load(trained, device="cpu").translate(composite_over(np.dstack([COLOR, ALPHA])))
    for name in ("a.png", "b.webp", "c.tif"):
        image = decode_file((tmp_path / "carried" / name).read_bytes())
        assert image.alpha
        assert np.array_equal(image.array[..., 3], ALPHA), name
        assert np.abs(image.array[..., :3].astype(int) - expected).max() <= 1, name
        assert decode_file((tmp_path / "dropped" / name).read_bytes()).channels == 3
    assert (tmp_path / "carried" / "opaque.jpg").read_bytes() == (tmp_path / "dropped" / "opaque.jpg").read_bytes()


def test_the_half_of_a_strip_has_its_half_of_the_alpha(trained: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.dstack([drawing(2), np.tile(np.arange(64, dtype=np.uint8), (32, 1))])).save(tmp_path / "in" / "a.png")
    assert i2i("translate", trained, "in", "--out", "out", "--half", "right", "--alpha", "carry", "--device", "cpu").code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.png"))[0, :, 3], np.arange(32, 64))


def test_formats_without_alpha_are_refused_or_named(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    result = i2i("translate", trained, inputs, "--out", "out", "--alpha", "carry", "--format", "jpg", "--device", "cpu")
    assert result.code == 2
    assert result.line == "error: --alpha carry: .jpg files hold no alpha; accepted: --format png or webp or tif"
    (inputs / "d.bmp").write_bytes(bmp_with_alpha())
    result = i2i("translate", trained, inputs / "d.bmp", "--out", "out", "--alpha", "carry", "--device", "cpu")
    assert "note: is transparent, which the results are not, such as d.bmp" in result.err


def bmp_with_alpha() -> bytes:
    """A bitmap with a V4 header, whose masks say where alpha is."""
    import struct
    pixels = np.dstack([COLOR[::-1, :, ::-1], ALPHA]).tobytes()
    header = struct.pack("<IiiHHIIiiII4I", 108, 32, 17, 1, 32, 3, len(pixels), 2835, 2835, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(pixels), 0, 0, 14 + len(header)) + header + pixels


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_animated_images_carry_it_frame_by_frame(trained: Path, i2i: Run, tmp_path: Path, suffix: str) -> None:
    images = [Image.fromarray(np.dstack([np.roll(COLOR, 4 * i, 1), np.roll(255 * (ALPHA > 128).astype(np.uint8), i, 1)])) for i in range(3)]
    images[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=images[1:], duration=40, lossless=True, disposal=2, exact=True)
    assert i2i("translate", trained, f"a.{suffix}", "--out", "out", "--alpha", "carry", "--device", "cpu").code == 0
    before, after = (Image.open(folder / f"a.{suffix}") for folder in (tmp_path, tmp_path / "out"))
    for i in range(3):
        before.seek(i)
        after.seek(i)
        assert np.array_equal(*(np.asarray(image.convert("RGBA"))[..., 3] for image in (before, after)))
        assert np.asarray(after.convert("RGBA"))[..., 3].min() == 0


@pytest.mark.parametrize(("format", "white"), [(ImageFormat(1), 255), (ImageFormat(3, "uint16"), 65535), (ImageFormat(3, "float32", (-3, 900)), 1.0)])
def test_opaque_is_the_white_of_the_result(format: ImageFormat, white: float) -> None:
    array = np.zeros((17, 32, 3) if format.channels == 3 else (17, 32), format.dtype)
    made, wider = add_alpha(array, format, np.full((17, 32), 255, np.uint8))
    assert (made[..., -1] == white).all()
    assert (made.dtype, wider.channels, wider.colors, wider.alpha) == (array.dtype, format.channels + 1, format.colors, True)
    assert add_alpha(array, format, None)[0] is array
