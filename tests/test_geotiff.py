"""Pixels that a GeoTIFF declares as without data set no range and stay without data; where an image lies on Earth goes from input to result."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from i2i.data.format_detection import detect_format, inspect_dataset
from i2i.data.paired import find_paired
from i2i.data.sources import Unreadable, decode_bytes, open_source
from i2i.images.encode import encode, losses
from i2i.images.format import Array, ImageFormat
from i2i.images.geotiff import GEOREFERENCE, NODATA
from tests.conftest import Run
from tests.test_translate_kinds import Identity, identity  # noqa: F401 - a fixture.

PLACE = ((33550, "d", 3, (10.0, 10.0, 0.0), True), (33922, "d", 6, (0.0, 0.0, 0.0, 5e5, 4.6e6, 0.0), True), (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), True),
         (34737, "s", 0, "WGS 84|", True))


def tiff(array: Array, nodata: str = "", *tags: tuple[object, ...], **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, extratags=(*tags, *([(NODATA, "s", 0, nodata, True)] if nodata else [])), **options)
    return buffer.getvalue()


def elevation(seed: int = 0, gap: float = -9999, dtype: str = "float32") -> Array:
    array = np.random.default_rng(seed).uniform(100, 355, (32, 48)).astype(dtype)
    array[:8, :8] = gap
    return array


DECLARED: dict[str, tuple[Array, str]] = {
    "-9999": (elevation(), "-9999"), "with decimals": (elevation(), "-9999.0\0"), "not a number": (elevation(gap=np.nan), "nan"), "Nan with blanks": (elevation(gap=np.nan), " NaN "),
    "the lowest float, rounded": (elevation(gap=-3.4028234663852886e38), "-3.40282346638529e+38"), "signed 16 bits": (elevation(gap=-32768, dtype="int16"), "-32768"),
    "16 bits": (elevation(gap=65535, dtype="uint16"), "65535"), "for each channel": (elevation(), "-9999 -9999 "), "double": (elevation(gap=-9999, dtype="float64"), "-9999")}


@pytest.mark.parametrize("name", DECLARED)
def test_what_is_declared_as_without_data_sets_no_range(name: str) -> None:
    array, nodata = DECLARED[name]
    image = decode_bytes("x.tif", tiff(array, nodata))
    gap = np.zeros(array.shape, bool)
    gap[:8, :8] = True
    assert image.missing is not None
    assert np.array_equal(image.missing, gap)
    assert np.array_equal(image.array[~gap], array[~gap].astype(image.array.dtype))
    mean = array[~gap].mean(dtype=np.float64)
    assert np.allclose(image.array[gap], mean, atol=0.5 if image.array.dtype.kind == "u" else 1e-2)
    low, high = detect_format([image], True, (255,), "data.a_range", "auto").limits
    assert (low, high) == ((0, 1023) if array.dtype == np.uint16 else (image.array[~gap].min(), image.array[~gap].max()))


def test_eight_bits_that_pillow_decodes_are_alike() -> None:
    array = np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)
    array[5:, 20:] = 0
    array[0, 0, 0] = 0          # One channel of three: filled, and not without data.
    image = decode_bytes("x.tif", tiff(array, "0", photometric="rgb"))
    assert image.missing is not None
    assert image.missing.sum() == 15 * 10
    assert image.array[image.missing].min() > 100
    assert image.array[0, 0, 0] > 100
    assert np.array_equal(image.array[0, 0, 1:], array[0, 0, 1:])


def test_alpha_is_no_data_of_its_own() -> None:
    array = np.random.default_rng(0).integers(1, 256, (20, 30, 4), dtype=np.uint8)
    array[:4] = 0
    image = decode_bytes("x.tif", tiff(array, "0", photometric="rgb", extrasamples=["unassalpha"]))
    assert image.alpha
    assert image.missing is not None
    assert image.missing.sum() == 4 * 30
    assert np.array_equal(image.array[..., 3], array[..., 3])


def test_a_tile_without_any_data_is_read_and_sets_no_range() -> None:
    empty = decode_bytes("x.tif", tiff(np.full((32, 48), -9999, np.float32), "-9999"))
    assert empty.missing is not None
    assert empty.missing.all()
    full = decode_bytes("y.tif", tiff(elevation(), "-9999"))
    assert detect_format([empty, full], True, (255,), "data.a_range", "auto") == detect_format([full], True, (255,), "data.a_range", "auto")
    assert detect_format([empty], True, (255,), "data.a_range", "auto").range == (0, 1)


@pytest.mark.parametrize("nodata", ["none", "", "-1", "300", "1e400", "-9999"])
def test_a_value_that_means_nothing_changes_nothing(nodata: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    image = decode_bytes("x.tif", tiff(array, nodata))
    assert np.array_equal(image.array, array)
    assert image.missing is None


def test_what_is_not_declared_is_still_refused() -> None:
    for nodata in ("", "-9999"):
        with pytest.raises(Unreadable, match="64 of 1,536 values are NaN or infinite; accepted: finite values, and what a GeoTIFF declares as nodata"):
            decode_bytes("x.tif", tiff(elevation(gap=np.nan), nodata))


# ---------------------------------------------------------------------------------------------- results

def tags(data: bytes) -> dict[int, object]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        found = file.pages.first.tags
        return {code: found[code].value for code in (*GEOREFERENCE, NODATA) if code in found}


@pytest.mark.parametrize(("array", "nodata"), [(elevation(), "-9999"), (elevation(gap=np.nan), "nan"), (elevation(gap=0, dtype="uint16"), "0"),
                                               (np.dstack([elevation(gap=0, dtype="uint16") % 256] * 3).astype(np.uint8), "0"), (np.dstack([elevation()] * 5), "-9999")])
def test_a_translation_lies_where_its_input_lies_and_lacks_the_same(array: Array, nodata: str, identity: Identity, i2i: Run, tmp_path: Path) -> None:  # noqa: F811
    data = tiff(array, nodata, *PLACE, photometric="rgb" if array.shape[2:] == (3,) else "minisblack", planarconfig="contig" if array.ndim == 3 else None)
    (tmp_path / "x.tif").write_bytes(data)
    channels = array.shape[2] if array.ndim == 3 else 1
    model = identity(ImageFormat(channels, array.dtype.name, (100, 355) if array.dtype == np.float32 else None))
    assert i2i("translate", model, "x.tif", "--out", "out", "--device", "cpu").code == 0
    result = (tmp_path / "out" / "x.tif").read_bytes()
    if nodata == "nan":
        assert tags(result).pop(NODATA) == "nan"
        assert {**tags(result), NODATA: 0} == {**tags(data), NODATA: 0}
    else:
        assert tags(result) == tags(data)
    assert np.allclose(tifffile.imread(io.BytesIO(result)), array, atol=1e-3, equal_nan=True)
    assert Image.open(tmp_path / "out" / "x.tif").size == (48, 32) if channels in (1, 3) else True


def test_what_a_result_cannot_hold_is_reported(identity: Identity, i2i: Run, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "x.tif").write_bytes(tiff(elevation(), "-9999", *PLACE))
    done = i2i("translate", identity(ImageFormat(1, "float32", (100, 355)), ImageFormat(1)), "x.tif", "--out", "out", "--format", "png", "--device", "cpu")
    assert done.code == 0
    assert "note: has a georeference, which .png files do not hold, such as x.tif" in done.err
    assert "note: has pixels without data (-9999), which uint8 does not hold, such as x.tif" in done.err
    done = i2i("translate", identity(ImageFormat(1, "float32", (100, 355))), "x.tif", "--out", "out", "--device", "cpu")
    assert "note" not in done.err


def test_a_half_and_a_turned_image_do_not_lie_there(identity: Identity, i2i: Run, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "x.tif").write_bytes(tiff(elevation(), "-9999", *PLACE))
    model = identity(ImageFormat(1, "float32", (100, 355)))
    for half, gaps in (("left", 64), ("right", 0)):
        assert i2i("translate", model, "x.tif", "--out", half, "--half", half, "--device", "cpu").code == 0
        result = (tmp_path / half / "x.tif").read_bytes()
        assert tags(result) == {NODATA: "-9999"}
        assert (tifffile.imread(io.BytesIO(result)) == -9999).sum() == gaps
    turned = decode_bytes("x.tif", tiff(elevation(), "-9999", *PLACE, (0x0112, 3, 1, 6, True)))
    assert turned.tags == ()
    assert turned.missing is not None
    assert turned.missing[:8, -8:].all()


def test_a_result_of_another_size_takes_nothing_over() -> None:
    like = decode_bytes("x.tif", tiff(elevation(), "-9999", *PLACE))
    assert tags(encode(".tif", np.ones((16, 24), np.float32), ImageFormat(1, "float32", (0, 1)), like)) == {}
    assert losses(".tif", ImageFormat(1, "float32", (0, 1)), like) == ()


def test_training_and_check_see_the_range_without_it(i2i: Run, tmp_path: Path) -> None:
    for side in "AB":
        (tmp_path / "dem" / f"train{side}").mkdir(parents=True)
        for i in range(4):
            (tmp_path / "dem" / f"train{side}" / f"{i}.tif").write_bytes(tiff(elevation(i + 9 * (side == "B"), gap=np.nan), "nan"))
    low, high = inspect_dataset(find_paired(open_source(tmp_path / "dem"))["train"]).a.limits
    assert 100 <= low < 102
    assert 353 < high <= 355
    done = i2i("data", "check", tmp_path / "dem")
    assert done.code == 0, done.out
    assert "damaged" not in done.out


@pytest.mark.parametrize(("gap", "nodata", "found"), [(-9999, "", True), (1e20, "", True), (-9999, "-9999", False), (20, "", False)])
def test_a_check_asks_about_a_value_far_from_all_others(tmp_path: Path, i2i: Run, gap: float, nodata: str, found: bool) -> None:
    (tmp_path / "d").mkdir()
    for i in range(3):
        (tmp_path / "d" / f"{i}.tif").write_bytes(tiff(elevation(i, gap), nodata))
    np.save(tmp_path / "d" / "two.npy", np.eye(32, dtype=np.float32))       # Of two values none is far from the others.
    out = i2i("data", "check", tmp_path / "d").out
    assert (f"warning  3 images of floats with a value far from all others: missing data that are not declared?\n         such as 0.tif: {gap:g}; gdal_edit.py -a_nodata {gap:g} FILE declares it" in out) is found
    assert ("far from all others" in out) is found


@pytest.mark.parametrize("pack", [tiff, lambda array: npy(array)], ids=["TIFF", "NPY"])
@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_signed_integers_are_read_as_they_are(pack: Callable[[Array], bytes], dtype: str) -> None:
    """As of computed tomography, in Hounsfield units."""
    info = np.iinfo(dtype)
    array = np.linspace(info.min, info.max, 32 * 48).round().astype(dtype).reshape(32, 48)
    image = decode_bytes("x", pack(array))
    assert image.array.dtype == np.float32
    assert np.array_equal(image.array, array)
    assert image.notes == (f"{dtype}, read as float32",)


def npy(array: Array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
