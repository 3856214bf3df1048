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
    assert read_header(pack(other, PROFILES[name])).colors == f"{name}, converted to sRGB"


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


def test_what_cannot_be_converted_is_reported() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, scene().astype(np.float32), photometric="rgb", iccprofile=PROFILES["Display P3"])
    image = decode_bytes("x", buffer.getvalue())
    assert np.array_equal(image.array, scene())
    assert image.notes == ("Display P3, not converted to sRGB: float32",)
    for damaged in (b"no profile", SRGB[:200]):
        image = decode_bytes("x", tagged(scene(), damaged))
        assert np.array_equal(image.array, scene())
        assert image.notes == ("its color profile is damaged and was not used",)


def table_profile(space: bytes, name: str) -> bytes:
    """A profile with a table (lut16Type, ICC.1:2001, 6.5.8) in place of curves: ink or light by half the usual amount, in CIELAB."""
    channels = len(space.strip())
    axes = np.meshgrid(*[np.linspace(0, 1, 9 if channels == 3 else 5)] * channels, indexing="ij")
    levels = np.stack([axis.ravel() for axis in axes], 1)
    light = levels if channels == 3 else 1 - np.minimum(1, levels[:, :3] + levels[:, 3:])
    gray, red = light.mean(1), light[:, 0] - light[:, 1]
    lab = np.stack([100 * gray ** 0.8, 40 * red, 30 * (light.mean(1) - light[:, 2])], 1)
    table = np.stack([lab[:, 0] / 100 * 0xFF00, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], 1).round().astype(">u2")
    lut = b"mft2" + bytes(4) + bytes([channels, 3, len(axes[0]), 0]) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9))) + struct.pack(">HH", 2, 2)
    lut += struct.pack(">HH", 0, 65535) * channels + table.tobytes() + struct.pack(">HH", 0, 65535) * 3
    parts = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name.encode() + bytes(79), b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061), b"A2B0": lut, b"A2B1": lut}
    entries, body, offset = struct.pack(">I", len(parts)), b"", 132 + 12 * len(parts)
    for tag, content in parts.items():
        content += bytes(-len(content) % 4)
        entries += struct.pack(">4sII", tag, offset + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", 128 + len(entries) + len(body), b"lcms", 0x02100000, b"scnr" if channels == 3 else b"prtr", space, b"Lab ") + bytes(12) + b"acsp" + bytes(28)
    return (header + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + entries + body


def test_cmyk_is_converted_by_its_profile() -> None:
    icc = table_profile(b"CMYK", "four inks")
    inks = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 4)), np.ones((4, 4, 1))).astype(np.uint8)
    image = Image.fromarray(inks, "CMYK")
    expected = np.asarray(ImageCms.profileToProfile(image, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"))
    assert np.abs(expected.astype(int) - np.asarray(image.convert("RGB"))).mean() > 15
    for form, options in (("TIFF", {}), ("JPEG", {"quality": 100, "subsampling": 0})):
        buffer = io.BytesIO()
        image.save(buffer, form, icc_profile=icc, **options)
        decoded = decode_bytes("x", buffer.getvalue())
        assert np.abs(decoded.array.astype(int) - expected).mean() < 2
        assert decoded.notes == ("CMYK, converted to sRGB by its profile",)
        assert read_header(buffer.getvalue()).colors == decoded.notes[0]
    for profiled, note in ((None, "CMYK, read as RGB without a profile"), (icc[:300], "CMYK, read as RGB: its profile is damaged"), (SRGB, "CMYK, read as RGB: its profile is damaged")):
        buffer = io.BytesIO()
        image.save(buffer, "TIFF", **({"icc_profile": profiled} if profiled else {}))
        decoded = decode_bytes("x", buffer.getvalue())
        assert np.array_equal(decoded.array, np.asarray(image.convert("RGB")))
        assert decoded.notes == (note,)
        assert read_header(buffer.getvalue()).colors == note


def test_profiles_by_tables_are_applied_to_8_bits_and_named_for_16() -> None:
    icc = table_profile(b"RGB ", "a scanner")
    eight = tagged(scene(), icc)
    assert decode_bytes("x", eight).notes == (read_header(eight).colors,) == ("a scanner, converted to sRGB",)
    assert np.abs(decode_bytes("x", eight).array.astype(int) - scene()).mean() > 5
    buffer, sixteen = io.BytesIO(), scene().astype(np.uint16) * 257
    tifffile.imwrite(buffer, sixteen, photometric="rgb", iccprofile=icc)
    for data in (buffer.getvalue(), png16(sixteen, 2, (b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))):
        decoded = decode_bytes("x", data)
        assert np.array_equal(decoded.array, sixteen)
        assert decoded.notes == (read_header(data).colors,) == ("a scanner, not converted to sRGB: uint16",)


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with further chunks after its header."""
    added = b"".join(struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content)) for name, content in chunks)
    return data[:33] + added + data[33:]


SRGB_POINTS = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_POINTS = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


@pytest.mark.parametrize(("chunks", "found"), [
    ([(b"gAMA", 45455)], ""), ([(b"gAMA", 100000)], "gAMA 1"), ([(b"gAMA", 55556)], "gAMA 0.55556"), ([(b"gAMA", 0)], ""), ([(b"gAMA", 45455), (b"cHRM", SRGB_POINTS)], ""),
    ([(b"cHRM", P3_POINTS)], "primaries of its own (cHRM)"), ([(b"gAMA", 100000), (b"cHRM", P3_POINTS)], "gAMA 1 and primaries of its own (cHRM)"),
    ([(b"sRGB", b"\0"), (b"gAMA", 100000)], ""), ([(b"cICP", bytes([1, 13, 0, 1]))], ""), ([(b"cICP", bytes([9, 16, 0, 1]))], "BT.2020, HDR by PQ"), ([(b"cICP", bytes([12, 13, 0, 1]))], "Display P3"),
    ([(b"cICP", bytes([1, 8, 0, 1])), (b"sRGB", b"\0")], "linear"), ([(b"cICP", b"\1")], "")])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colors_that_a_png_declares_without_a_profile_are_named(chunks: list[tuple[bytes, object]], found: str, dtype: str) -> None:
    packed = [(name, content if isinstance(content, bytes) else struct.pack(f">{len(np.atleast_1d(content))}I", *np.atleast_1d(content))) for name, content in chunks]
    plain = tagged(scene(), b"") if dtype == "uint8" else png16(scene().astype(np.uint16) * 257, 2)
    data = with_chunks(plain, *packed)
    decoded = decode_bytes("x", data)
    assert np.array_equal(decoded.array, decode_bytes("x", plain).array)
    assert decoded.notes == ((f"{found}, not converted to sRGB",) if found else ())
    assert read_header(data).colors == "".join(decoded.notes)
    profiled = decode_bytes("x", with_chunks(tagged(scene(), PROFILES["Display P3"]), *packed))
    assert profiled.notes == ("Display P3, converted to sRGB",)


def test_primaries_of_gray_mean_nothing() -> None:
    data = with_chunks(tagged(scene()[..., 0], b""), (b"cHRM", struct.pack(">8I", *P3_POINTS)))
    assert decode_bytes("x", data).notes == ()


@pytest.mark.parametrize(("exif", "noted"), [("R03", True), ("R98", False), (2, True), (1, False), (65535, False), ("broken", False)])
def test_adobe_rgb_that_only_exif_declares_is_named(exif: str | int, noted: bool) -> None:
    tags = Image.Exif()
    if isinstance(exif, str):
        tags.get_ifd(0x8769)[0xA005] = {1: exif}
    else:
        tags.get_ifd(0x8769)[0xA001] = exif
    buffer = io.BytesIO()
    block = tags.tobytes()
    if exif == "broken":        # Its pointer to the table leads out of the file.
        place = block.index(b"\x87\x69")
        block = block[:place + 8] + b"\x7f\xff\xff\xf0" + block[place + 12:]
    Image.fromarray(scene()).save(buffer, "JPEG", exif=block)
    decoded = decode_bytes("x", buffer.getvalue())
    assert decoded.notes == (("Adobe RGB (by EXIF), not converted to sRGB",) if noted else ())
    assert read_header(buffer.getvalue()).colors == "".join(decoded.notes)


def test_hdr_in_avif_is_named() -> None:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, "AVIF", speed=10)
    data = buffer.getvalue()
    start = data.index(b"colrnclx") + 8
    assert decode_bytes("x", data).notes == ()
    hdr = data[:start] + struct.pack(">HH", 9, 16) + data[start + 4:]
    assert decode_bytes("x", hdr).notes == ("BT.2020, HDR by PQ, not converted to sRGB",)


def test_curves_that_only_littlecms_reads_change_no_16_bits() -> None:
    icc = bytearray(PROFILES["Adobe RGB"])
    start = next(at for tag, at, size in (struct.unpack_from(">4sII", icc, 132 + 12 * i) for i in range(icc[131])) if tag == b"rTRC")
    icc[start + 8:start + 10] = b"\0\x63"         # A kind of curve that does not exist.
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, scene().astype(np.uint16) * 257, photometric="rgb", iccprofile=bytes(icc))
    assert np.array_equal(decode_bytes("x", buffer.getvalue()).array, scene().astype(np.uint16) * 257)


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
    assert "warning: 6 of 6 fakes: Display P3, converted to sRGB" in done.err
    l1 = float(next(line.split()[1] for line in done.out.splitlines() if line.startswith("l1")))
    assert l1 < 0.7


def test_data_check_and_training_say_it(phone: Path, i2i: Run) -> None:
    assert "Display P3, converted to sRGB" in i2i("data", "check", phone / "p3").out
    assert "Display P3, converted to sRGB" in i2i("train", "dcgan", "--data", phone / "p3", "--dry-run", "--device", "cpu").out
