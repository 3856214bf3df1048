"""Every image is sRGB once it is read, whatever its profile and number of bits; results have no profile, which means sRGB."""

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from i2i.data.sources import decode_bytes
from i2i.images.color import profile_name
from i2i.images.decode import read_header
from i2i.images.format import Array, ImageFormat
from i2i.images.pil import from_pil
from tests.conftest import Run
from tests.data.test_formats import png16
from tests.test_translate_kinds import Identity, identity  # noqa: F401 - a fixture.

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Red, green and blue in CIE XYZ under D50: Apple's Display P3, Adobe RGB (1998), ROMM RGB.
P3 = ((.51512, .24120, -.00105), (.29198, .69225, .04189), (.15710, .06657, .78407))
ADOBE = ((.60974, .31111, .01947), (.20528, .62567, .06087), (.14919, .06322, .74457))
PROPHOTO = ((.79767, .28804, 0), (.13519, .71188, 0), (.03134, .00009, .82491))


def profile(name: str, colorants: tuple[tuple[float, ...], ...] | None = None, gamma: float | None = None) -> bytes:
    """LittleCMS's sRGB profile with other primaries, curves and name."""
    data = bytearray(SRGB)
    entries = [struct.unpack_from(">4sII", data, 132 + 12 * i) for i in range(data[131])]
    for tag, start, size in entries:
        if colorants and tag in (b"rXYZ", b"gXYZ", b"bXYZ"):
            data[start + 8:start + 20] = struct.pack(">3i", *(round(value * 65536) for value in colorants[b"rgb".index(tag[:1])]))
        if gamma and tag == b"rTRC":        # Shared by all three.
            data[start + 8:start + 16] = struct.pack(">HHi", 0, 0, round(gamma * 65536))
        if tag == b"desc":
            text = name.encode("utf-16-be").ljust(size - 28, b"\0")[:size - 28]
            data[start + 28:start + size] = text
            data[start + 20:start + 24] = struct.pack(">I", len(name) * 2)
    return bytes(data)


PROFILES = {"Display P3": profile("Display P3", P3), "Adobe RGB": profile("Adobe RGB", ADOBE, 563 / 256), "ROMM RGB": profile("ROMM RGB", PROPHOTO, 1.8)}


def scene(seed: int = 0) -> Array:
    return np.kron(np.random.default_rng(seed).integers(60, 200, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def tagged(array: Array, icc: bytes, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, icc_profile=icc, **options)
    return buffer.getvalue()


def in_colors_of(icc: bytes, array: Array) -> Array:
    """An sRGB image in the colors of a profile."""
    return np.asarray(ImageCms.profileToProfile(Image.fromarray(array), ImageCms.createProfile("sRGB"), io.BytesIO(icc), ImageCms.Intent.RELATIVE_COLORIMETRIC))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("pack", [tagged, lambda array, icc: tagged(array, icc, "TIFF"), lambda array, icc: tagged(array, icc, "WEBP", lossless=True)], ids=["PNG", "TIFF", "WebP"])
def test_the_same_scene_by_any_profile_is_the_same_image(name: str, pack: Callable[[Array, bytes], bytes]) -> None:
    other = in_colors_of(PROFILES[name], scene())
    assert np.abs(other.astype(int) - scene()).max() > 5
    image = decode_bytes("x", pack(other, PROFILES[name]))
    assert np.abs(image.array.astype(int) - scene()).max() <= 3         # Rounded twice, where curves are steep.
    assert np.abs(image.array.astype(int) - scene()).mean() < 0.7
    assert image.notes == (f"{name}, converted to sRGB",)
    assert read_header(pack(other, PROFILES[name])).profile == name


@pytest.mark.parametrize("name", PROFILES)
def test_sixteen_bits_agree_with_eight_and_keep_their_gradations(name: str) -> None:
    other = in_colors_of(PROFILES[name], scene())
    by_eight = decode_bytes("x", tagged(other, PROFILES[name])).array.astype(int)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, other.astype(np.uint16) * 257, photometric="rgb", iccprofile=PROFILES[name])
    chunk = b"ICC Profile\0\0" + zlib.compress(PROFILES[name])
    for data in (buffer.getvalue(), png16(other.astype(np.uint16) * 257, 2, (b"iCCP", chunk))):
        image = decode_bytes("x", data)
        assert image.array.dtype == np.uint16
        assert np.abs(image.array / 257 - by_eight).max() < 1
        assert image.notes == (f"{name}, converted to sRGB",)
    ramp = np.repeat(np.arange(20_000, 24_096, dtype=np.uint16).reshape(64, 64, 1), 3, 2)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, ramp, photometric="rgb", iccprofile=PROFILES[name])
    assert len(np.unique(decode_bytes("x", buffer.getvalue()).array[..., 1])) > 3000


def test_the_conversion_is_that_of_the_definitions() -> None:
    """Display P3 has the curve of sRGB; Adobe RGB (1998) has the exponent 563/256.  Green that is in both gamuts, worked out by hand from their matrices (CIE XYZ, D50)."""
    to_srgb = np.linalg.inv([[0.436066, 0.385147, 0.143066], [0.222488, 0.716873, 0.060608], [0.013916, 0.097076, 0.714096]])
    level = np.array([100, 150, 120]) / 255
    for name, colorants, linear in (("Display P3", P3, ((level + 0.055) / 1.055) ** 2.4), ("Adobe RGB", ADOBE, level ** (563 / 256))):
        light = to_srgb @ np.array(colorants).T @ linear
        expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)
        got = decode_bytes("x", tagged(np.full((4, 4, 3), [100, 150, 120], np.uint8), PROFILES[name])).array[0, 0]
        assert np.abs(got - expected).max() <= 1


def test_srgb_stays_as_it_is() -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for icc in (SRGB, profile("sRGB of another maker")):
        image = decode_bytes("x", tagged(array, icc))
        assert np.array_equal(image.array, array)
        assert image.notes == ()
        assert profile_name(icc) == ""


def test_alpha_and_gray_are_kept() -> None:
    rgba = np.dstack([scene(), np.random.default_rng(1).integers(0, 256, scene().shape[:2])]).astype(np.uint8)
    image = decode_bytes("x", tagged(rgba, PROFILES["Display P3"]))
    assert image.alpha
    assert np.array_equal(image.array[..., 3], rgba[..., 3])
    assert np.array_equal(image.array[..., :3], decode_bytes("x", tagged(scene(), PROFILES["Display P3"])).array)
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(decode_bytes("x", tagged(gray, PROFILES["Display P3"])).array, gray)      # Of the curve of sRGB.
    lighter = decode_bytes("x", tagged(gray, PROFILES["ROMM RGB"]))
    assert lighter.array.shape == (16, 16)
    expected = 255 * (1.055 * (128 / 255) ** (1.8 / 2.4) - 0.055)
    assert abs(int(lighter.array[8, 0]) - expected) <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_profile_of_gray(dtype: str) -> None:
    """Gray with an exponent of 1.8, in a profile written by hand (ICC.1:2001)."""
    parts = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 10) + b"Gray g1.8\0" + bytes(78), b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
             b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.8 * 256)) + bytes(2)}
    table, body, offset = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for tag, content in parts.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", tag, offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", 132 + len(table) - 4 + len(body), b"lcms", 0x02100000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061) + bytes(48)
    icc = header[:128] + table + body
    gray = (np.arange(256).reshape(16, 16) * (257 if dtype == "uint16" else 1)).astype(dtype)
    image = decode_bytes("x", tagged(gray, icc, "TIFF"))
    assert image.notes == ("Gray g1.8, converted to sRGB",)
    assert image.array.dtype == dtype
    assert abs(image.array[8, 0] / (257 if dtype == "uint16" else 1) - 255 * (1.055 * (128 / 255) ** (1.8 / 2.4) - 0.055)) <= 1


def test_what_cannot_be_converted_is_said() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, scene().astype(np.float32), photometric="rgb", iccprofile=PROFILES["Display P3"])
    image = decode_bytes("x", buffer.getvalue())
    assert np.array_equal(image.array, scene())
    assert image.notes == ("Display P3, not converted to sRGB: float32",)
    for damaged in (b"no profile", SRGB[:200]):
        image = decode_bytes("x", tagged(scene(), damaged))
        assert np.array_equal(image.array, scene())
        assert image.notes == ("its color profile is damaged and was not used",)


def test_one_transform_serves_many_threads() -> None:
    files = [tagged(scene(i), PROFILES[name]) for i in range(12) for name in PROFILES]
    alone = [decode_bytes("x", data).array for data in files]
    profile_name.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for one, other in zip(alone, pool.map(lambda data: decode_bytes("x", data).array, files), strict=True):
            assert np.array_equal(one, other)


def test_an_image_from_pillow_is_converted_too() -> None:
    opened = Image.open(io.BytesIO(tagged(in_colors_of(PROFILES["Display P3"], scene()), PROFILES["Display P3"])))
    assert np.abs(from_pil(opened).array.astype(int) - scene()).max() <= 3


# ---------------------------------------------------------------------------------------------- commands

@pytest.fixture
def phone(tmp_path: Path) -> Path:
    (tmp_path / "p3").mkdir()
    (tmp_path / "srgb").mkdir()
    for i in range(6):
        (tmp_path / "p3" / f"{i}.png").write_bytes(tagged(in_colors_of(PROFILES["Display P3"], scene(i)), PROFILES["Display P3"]))
        Image.fromarray(scene(i)).save(tmp_path / "srgb" / f"{i}.png")
    return tmp_path


def test_translate_says_it_and_tags_no_result(phone: Path, identity: Identity, i2i: Run) -> None:  # noqa: F811
    done = i2i("translate", identity(ImageFormat(3)), "p3", "--out", "out", "--device", "cpu")
    assert done.code == 0
    assert "note: Display P3, converted to sRGB, such as 0.png" in done.err
    for i in range(6):
        result = Image.open(phone / "out" / f"{i}.png")
        assert "icc_profile" not in result.info
        assert np.abs(np.asarray(result).astype(int) - scene(i)).max() <= 3


def test_evaluate_sees_no_difference_and_says_it(phone: Path, i2i: Run) -> None:
    done = i2i("evaluate", "--real", phone / "srgb", "--fake", phone / "p3", "--metrics", "l1,psnr", "--json", phone / "x.json")
    assert done.code == 0, done.err
    assert "warning: 6 of 6 fakes have the color profile Display P3: converted to sRGB" in done.err
    l1 = float(next(line.split()[1] for line in done.out.splitlines() if line.startswith("l1")))
    assert l1 < 0.7


def test_data_check_and_training_say_it(phone: Path, i2i: Run) -> None:
    assert "Display P3, converted to sRGB" in i2i("data", "check", phone / "p3").out
    assert "Display P3, converted to sRGB" in i2i("train", "dcgan", "--data", phone / "p3", "--dry-run", "--device", "cpu").out
