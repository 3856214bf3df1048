"""Any kind of image in, the same kind out, through the command line and the API; sizes; what a network that changes nothing returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torch import Tensor, nn

from i2i import load, registry
from i2i.config import to_dict
from i2i.data.sources import decode_bytes, open_source
from i2i.errors import RequestError
from i2i.images.encode import encode
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.inference.model import Model
from i2i.inference.model_file import model_header
from i2i.inference.translate import translate
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from tests.conftest import SMALL, Run

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


class Same(nn.Module):
    """A generator that changes nothing."""

    multiple = 16

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[-1] % self.multiple == x.shape[-2] % self.multiple == 0
        return x


Identity = Callable[..., Path]


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Identity:
    """Makes a model file of the generator that changes nothing, for images of a kind."""
    monkeypatch.setitem(registry._COMPONENTS["generator"], "same", Same)

    def make(kind: ImageFormat, target: ImageFormat | None = None) -> Path:
        recipe = Pix2Pix(generator=Spec("same"))
        header = model_header("pix2pix", to_dict(recipe), DataInfo((64, 64), kind.channels, (target or kind).channels), (kind, target or kind), direction="ab")
        file = tmp_path / "identity.safetensors"
        checkpoint.save(file, {"G.unused": torch.zeros(())}, {"kind": "model", **json.loads(json.dumps(header))})
        return file

    return make


def levels(kind: ImageFormat) -> Array:
    """Every level of an integer type at least once in every channel; a range of floats.  -> 256x257 of the kind"""
    if kind.dtype == "float32":
        values = np.random.default_rng(0).uniform(-3, 900, (256, 257, kind.channels)).astype(np.float32)
    else:
        top = np.iinfo(kind.dtype).max + 1
        ramp = np.arange(256 * 257) % top
        values = np.stack([np.roll(ramp, 1009 * i) for i in range(kind.channels)], 1).reshape(256, 257, kind.channels).astype(kind.dtype)
    return values[..., 0] if kind.channels == 1 else values


# ---------------------------------------------------------------------------------------------- nothing is lost

EVERY = [
    (ImageFormat(1), "x.png"), (ImageFormat(3), "x.png"), (ImageFormat(3), "x.bmp"), (ImageFormat(3), "x.webp"), (ImageFormat(3), "x.tif"), (ImageFormat(7), "x.tif"), (ImageFormat(2, alpha=True), "x.png"),
    (ImageFormat(4, alpha=True), "x.png"), (ImageFormat(4, alpha=True), "x.webp"), (ImageFormat(4, alpha=True), "x.tif"), (ImageFormat(4, alpha=True), "x.npy"), (ImageFormat(4), "x.tif"),
    (ImageFormat(1, "uint16"), "x.tif"), (ImageFormat(1, "uint16"), "x.png"), (ImageFormat(1, "uint16", (0, 4095)), "X.TIFF"), (ImageFormat(3, "uint16"), "x.png"),
    (ImageFormat(4, "uint16", alpha=True), "x.png"), (ImageFormat(7, "uint16"), "x.tif"), (ImageFormat(7, "uint16"), "x.npy"), (ImageFormat(7), "x.npy")]


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=str)
def test_every_level_of_every_channel_comes_back(identity: Identity, i2i: Run, tmp_path: Path, kind: ImageFormat, name: str) -> None:
    (tmp_path / "in").mkdir()
    image = levels(kind)
    (tmp_path / "in" / name).write_bytes(encode(Path(name).suffix, image, kind))
    result = i2i("translate", identity(kind), tmp_path / "in", "--out", "out", "--device", "cpu")
    assert result.code == 0, result.err
    picture = decode_bytes(name, (tmp_path / "out" / name).read_bytes())
    assert np.array_equal(picture.array, image)
    assert picture.array.dtype == image.dtype
    assert picture.alpha == (kind.alpha and not name.endswith(".npy"))


@pytest.mark.parametrize(("channels", "name"), [(1, "x.tif"), (7, "x.npy")])
def test_floats_keep_their_range(identity: Identity, i2i: Run, tmp_path: Path, channels: int, name: str) -> None:
    kind = ImageFormat(channels, "float32", (-3.0, 900.0))
    image = levels(kind)
    (tmp_path / name).write_bytes(encode(Path(name).suffix, image, kind))
    assert i2i("translate", identity(kind), tmp_path / name, "--out", "out", "--device", "cpu").code == 0
    got = decode_bytes(name, (tmp_path / "out" / name).read_bytes()).array
    assert got.dtype == np.float32
    assert np.abs(got - image).max() < 903 * 2**-22


def test_the_api_gives_what_it_was_given(identity: Identity) -> None:
    for kind in (ImageFormat(1), ImageFormat(3), ImageFormat(4, alpha=True), ImageFormat(2, alpha=True), ImageFormat(1, "uint16"), ImageFormat(7, "uint16"), ImageFormat(1, "float32", (-3, 900))):
        model, image = load(identity(kind), device="cpu"), levels(kind)
        got = model.translate(image)
        assert got.dtype == image.dtype
        assert np.allclose(got, image, rtol=0, atol=0 if kind.dtype != "float32" else 1e-3)
        if kind.channels != 7:
            before = Image.fromarray(image)
            after = model.translate(before)
            assert (after.mode, after.size) == (before.mode, before.size)
            assert np.array_equal(np.asarray(after), got)


def test_what_the_api_cannot_take_is_refused(identity: Identity) -> None:
    sixteen = load(identity(ImageFormat(3, "uint16")), device="cpu")
    with pytest.raises(RequestError, match="the results have 3 channels of uint16, which no PIL image holds; accepted: arrays"):
        sixteen.translate(Image.new("RGB", (20, 20)))
    assert sixteen.translate(np.full((20, 20, 3), 7, np.uint8)).max() == 7 * 257
    eight = load(identity(ImageFormat(3)), device="cpu")
    for image, told in ((np.zeros((4, 4), np.int16), "HW or HWC of uint8, uint16, float32"), (np.zeros((4, 4), np.uint16), "is uint16, and the images of its side"),
                        (np.full((4, 4), np.nan, np.float32), "NaN"), (Image.new("I", (4, 4)), "mode I"), (np.zeros((4, 4, 7), np.uint8), "7 channels")):
        with pytest.raises(RequestError, match=told):
            eight.translate(image)
    assert eight.translate(np.zeros((4, 4), ">u2").astype(np.uint8)).shape == (4, 4, 3)


# ---------------------------------------------------------------------------------------------- files

def test_a_format_that_cannot_hold_the_results_is_refused_before_anything_is_written(identity: Identity, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "b.jpg"):
        Image.new("RGB", (20, 20)).save(tmp_path / "in" / name)
    model = identity(ImageFormat(3), ImageFormat(3, "uint16"))
    result = i2i("translate", model, "in", "--out", "out", "--device", "cpu")
    assert result.code == 2
    assert "the results have 3 channels of uint16, which .jpg files such as b.jpg would not hold; accepted: --format png or tif or npy" in result.line
    assert not list((tmp_path / "out").iterdir())
    assert i2i("translate", model, "in", "--out", "out", "--device", "cpu", "--format", "tif").code == 0
    assert tifffile.imread(tmp_path / "out" / "b.tif").dtype == np.uint16
    assert "--format png" in i2i("translate", model, "in", "--out", "out", "--device", "cpu", "--format", "bmp").line


def test_a_gif_is_read_and_its_results_are_written_as_something_else(identity: Identity, i2i: Run, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    (tmp_path / "in").mkdir()
    for name in ("a.gif", "b.gif"):
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:])
    assert "a.gif" in i2i("translate", identity(ImageFormat(3)), "in", "--out", "out", "--device", "cpu").line
    result = i2i("translate", identity(ImageFormat(3)), "in", "--out", "out", "--device", "cpu", "--format", "png")
    assert result.code == 0
    assert result.err.strip() == "note: animated, only the first frame is used, such as a.gif"
    assert np.asarray(Image.open(tmp_path / "out" / "a.png"))[0, 0].tolist() == [255, 0, 0]


def test_resolution_survives_and_orientation_is_applied_once(identity: Identity, i2i: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        Image.new("RGB", (20, 30), "red").save(tmp_path / "in" / name, exif=exif, icc_profile=SRGB, dpi=(200, 200))
    assert i2i("translate", identity(ImageFormat(3)), "in", "--out", "out", "--device", "cpu").code == 0
    for name in ("a.png", "b.jpg", "c.tif", "d.webp"):
        after = Image.open(tmp_path / "out" / name)
        assert after.size == (30, 20)
        assert "icc_profile" not in after.info          # Which means sRGB.
        assert after.getexif().get(0x0112, 1) == 1
        assert name == "d.webp" or after.info["dpi"] == pytest.approx((200, 200), rel=1e-3)


def test_dropped_alpha_is_laid_over_the_background_of_training(identity: Identity, i2i: Run, tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(tmp_path / "x.png")
    assert i2i("translate", identity(ImageFormat(3, background=(1, 2, 3))), "x.png", "--out", "out", "--device", "cpu").code == 0
    after = np.asarray(Image.open(tmp_path / "out" / "x.png"))
    assert after[0, 0].tolist() == [1, 2, 3]


# ---------------------------------------------------------------------------------------------- training

def write(folder: Path, kind: ImageFormat, split: str, side: str, suffix: str, count: int = 3) -> None:
    (folder / f"{split}{side}").mkdir(parents=True)
    for i in range(count):
        g = np.random.default_rng([i, ord(side)])
        values = g.random((32, 48, kind.channels)) * {"uint8": 255, "uint16": 4000, "float32": 20}[kind.dtype]
        values[0, 0] = {"uint8": 255, "uint16": 4000, "float32": -5}[kind.dtype]
        image = (values[..., 0] if kind.channels == 1 else values).astype(kind.dtype)
        (folder / f"{split}{side}" / f"{i}{suffix}").write_bytes(encode(suffix, image, kind))


GRAY16 = ImageFormat(1, "uint16")
LEARNED = {      # Source kind and format, target kind and format, settings, the kinds that are found.
    "16-bit gray TIFF": (GRAY16, ".tif", GRAY16, ".tif", (), "1 channel of uint16, 0 … 4095 -> 1 channel of uint16, 0 … 4095"),
    "7-channel NPY": (ImageFormat(7, "uint16"), ".npy", ImageFormat(7), ".npy", ("data.size=16,32",), "7 channels of uint16, 0 … 4095 -> 7 channels of uint8"),
    "RGB to 16-bit gray": (ImageFormat(3), ".png", GRAY16, ".png", (), "3 channels of uint8 -> 1 channel of uint16, 0 … 4095"),
    "RGBA kept": (ImageFormat(4, alpha=True), ".png", ImageFormat(4, alpha=True), ".png", ("data.alpha=keep",), "4 channels of uint8, the last alpha -> "),
    "floats": (ImageFormat(1, "float32"), ".tif", ImageFormat(2, "float32"), ".tif", (), "1 channel of float32, -5 … ")}


@pytest.mark.parametrize("name", LEARNED)
def test_a_model_of_a_kind_makes_that_kind(i2i: Run, tmp_path: Path, name: str) -> None:
    source, ending, target, other, words, told = LEARNED[name]
    for split in ("train", "val", "test"):
        write(tmp_path / "data", source, split, "A", ending)
        write(tmp_path / "data", target, split, "B", other)
    plan = i2i("train", "pix2pix", "--data", "data", *SMALL, *words, "--dry-run")
    assert told in plan.out, plan.err
    result = i2i("train", "pix2pix", "--data", "data", "--out", "run", "--device", "cpu", "train.images=8", *SMALL, *words)
    assert result.code == 0, result.err
    assert np.asarray(Image.open(next((tmp_path / "run" / "samples").glob("*.png")))).ndim == 3
    assert "warning" not in result.err
    made = "png" if target.dtype == "uint8" and target.channels != 7 else other[1:]
    assert i2i("translate", "run", "data/testA", "--out", "out", "--device", "cpu", "--format", made).code == 0
    for i in range(3):
        picture = decode_bytes("x", (tmp_path / "out" / f"{i}.{made}").read_bytes())
        assert (picture.array.shape[:2], picture.array.dtype.name, picture.channels) == ((32, 48), target.dtype, target.channels)
        assert picture.alpha == target.alpha
        assert picture.array.std() > 0
        assert picture.array.max() <= (4095 if target.dtype == "uint16" else 255)
    judged = i2i("evaluate", "run", "--metrics", "l1,psnr,ssim", "--json", "r.json", "--sheet", "s.png", "--device", "cpu")
    assert judged.code == 0, judged.err
    scores = json.loads((tmp_path / "r.json").read_text())["scores"]
    assert 0 < scores["model"]["l1"] < 255
    assert ("copy the input" in scores) == (name != "floats")
    assert Image.open(tmp_path / "s.png").mode == "RGB"


def test_held_out_pairs_of_another_kind_are_not_judged_by(i2i: Run, tmp_path: Path) -> None:
    for split, kind in (("train", ImageFormat(1)), ("val", ImageFormat(1, "float32"))):
        for side in "AB":
            write(tmp_path / "data", kind, split, side, ".tif")
    plan = i2i("train", "pix2pix", "--data", "data", *SMALL, "--dry-run")
    assert "not while training: there are no val pairs" in plan.out, plan.err


def test_sets_of_other_kinds_are_judged_in_8_bit_levels(i2i: Run, tmp_path: Path) -> None:
    for side in "AB":
        for kind, ending in ((ImageFormat(1, "uint16"), ".tif"), (ImageFormat(7), ".npy"), (ImageFormat(1, "float32"), ".tif")):
            write(tmp_path / f"{kind.channels}{kind.dtype}", kind, "x", side, ending)
    for folder, expected in (("1uint16", 4000 / 3 / 257), ("7uint8", 255 / 3)):
        result = i2i("evaluate", "--real", f"{folder}/xA", "--fake", f"{folder}/xB", "--metrics", "l1,color", "--json", "r.json", "--no-cache")
        assert result.code == 0, result.err
        data = json.loads((tmp_path / "r.json").read_text())
        assert data["results"]["l1"]["value"] == pytest.approx(expected, rel=0.1)
        assert data["stamp"]["real_formats"] == ["TIFF" if folder == "1uint16" else "NPY"]
    result = i2i("evaluate", "--real", "1float32/xA", "--fake", "1float32/xB", "--metrics", "l1")
    assert result.code == 1
    assert "is float32, which has no fixed range" in result.line


def test_a_run_keeps_its_formats_when_it_is_resumed(i2i: Run, tmp_path: Path) -> None:
    for side in "AB":
        write(tmp_path / "data", ImageFormat(1, "float32"), "train", side, ".npy")
    assert i2i("train", "pix2pix", "--data", "data", "--out", "run", "--device", "cpu", "train.images=8", *SMALL).code == 0
    before = load(tmp_path / "run", "cpu").formats
    assert before["a"].limits[0] == -5
    np.save(tmp_path / "data" / "trainA" / "0.npy", np.full((32, 48), 1e6, np.float32))
    again = resuming.reopen_job(RunFolder(tmp_path / "run"))
    assert again.formats == (before["a"], before["b"])
    assert again.summary.notes == ()


def test_a_model_of_before_formats_had_ranges_is_read(trained: Path, tmp_path: Path) -> None:
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    old = {side: {"channels": kind["channels"], "dtype": kind["dtype"]} for side, kind in header["formats"].items()}
    checkpoint.save(tmp_path / "old.safetensors", tensors, {**header, "kind": "model", "formats": old})
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(load(tmp_path / "old.safetensors", "cpu").translate(image), load(trained, "cpu").translate(image))


# ---------------------------------------------------------------------------------------------- sizes

@pytest.fixture(scope="module")
def tiny() -> dict[str, Model]:
    """The smallest U-Net and ResNet, with random weights."""
    return {name: made(Spec(name, options)) for name, options in (("unet", {"width": 1}), ("resnet", {"width": 1, "blocks": 1}))}


def made(generator: Spec) -> Model:
    recipe, info = Pix2Pix(generator=generator), DataInfo((256, 256), 1, 1)
    modules = recipe.modules(info)
    modules = nn.ModuleDict({key: modules[key] for key in recipe.ema_modules})
    return Model(recipe, modules, model_header("pix2pix", to_dict(recipe), info, (ImageFormat(1), ImageFormat(1))), torch.device("cpu"))


LEAST, MOST, AREA = 17, 4096, 2**18      # Sides that a picture may have, and pixels of those that are drawn at random.


def between(low: int, high: int) -> st.SearchStrategy[int]:
    """Sides of every order of magnitude alike."""
    return st.floats(0, 1).map(lambda u: min(high, round(low * (high / low) ** u)))


SIZES = between(LEAST, MOST).flatmap(lambda one: st.permutations([one, 0]).flatmap(
    lambda sides: between(LEAST, min(MOST, AREA // one)).map(lambda other: tuple(side or other for side in sides))))
CORNERS = ((LEAST, LEAST), (LEAST, MOST), (MOST, LEAST))
CARRIERS = ((ImageFormat(1), "x.png"), (ImageFormat(3), "x.bmp"), (ImageFormat(1, "uint16", (0, 4095)), "x.tif"), (ImageFormat(7), "x.npy"))


def assert_comes_back(model: Path, i2i: Run, kind: ImageFormat, name: str, size: tuple[int, int]) -> None:
    """A picture of random values goes through the command and returns as it was, in every pixel."""
    shape = (*size, kind.channels) if kind.channels > 1 else size
    image = np.random.default_rng(size).integers(0, kind.limits[1] + 1, shape).astype(kind.dtype)
    Path(name).write_bytes(encode(Path(name).suffix, image, kind))
    result = i2i("translate", model, name, "--out", "out", "--device", "cpu")
    assert result.code == 0, result.err
    assert np.array_equal(decode_bytes(name, Path("out", name).read_bytes()).array, image)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=SIZES, carrier=st.sampled_from(CARRIERS), multiple=st.sampled_from((4, 256)))       # What the ResNet and the deepest U-Net need.
@example(size=CORNERS[0], carrier=CARRIERS[0], multiple=256)
@example(size=CORNERS[1], carrier=CARRIERS[1], multiple=256)
@example(size=CORNERS[2], carrier=CARRIERS[2], multiple=256)
def test_any_size_comes_back_from_the_command_unchanged(identity: Identity, i2i: Run, monkeypatch: pytest.MonkeyPatch, multiple: int,
                                                        size: tuple[int, int], carrier: tuple[ImageFormat, str]) -> None:
    monkeypatch.setattr(Same, "multiple", multiple)
    assert_comes_back(identity(carrier[0]), i2i, *carrier, size)


def test_the_sizes_that_are_drawn_are_of_every_magnitude() -> None:
    drawn: list[tuple[int, int]] = []

    @settings(max_examples=200, database=None, derandomize=True)
    @given(SIZES)
    def draw(size: tuple[int, int]) -> None:
        drawn.append(size)

    draw()
    sides = np.array(drawn)
    assert sides.min() <= 2 * LEAST
    assert sides.max() >= MOST / 2       # The extremes themselves are examples of the test above.
    assert (sides[:, 0] * sides[:, 1]).max() <= AREA
    for low in (17, 64, 256, 1024):
        assert (((sides >= low) & (sides < 4 * low)).mean(0) > 0.04).all(), low


@pytest.mark.slow
@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier[1])
def test_4096_pixels_each_way_come_back_unchanged(identity: Identity, i2i: Run, carrier: tuple[ImageFormat, str]) -> None:
    assert_comes_back(identity(carrier[0]), i2i, *carrier, (MOST, MOST))


@settings(max_examples=15, deadline=None)
@given(SIZES)
@example(CORNERS[0])
@example(CORNERS[1])
@example(CORNERS[2])
@example((256, 256))
@example((257, 511))
def test_networks_translate_any_size(tiny: dict[str, Model], size: tuple[int, int]) -> None:
    image = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    for name, model in tiny.items():
        assert model.translate(image).shape == size, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "resnet"])
def test_a_network_translates_4096_by_4096_pixels(tiny: dict[str, Model], tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4096, 4096), dtype=np.uint8)).save(tmp_path / "in" / "x.tif")
    report = translate(tiny[name], open_source(tmp_path / "in"), tmp_path / "out")
    assert (report.done, report.failed) == (1, [])
    assert Image.open(tmp_path / "out" / "x.tif").size == (4096, 4096)
    assert DecodedImage(np.asarray(Image.open(tmp_path / "out" / "x.tif"))).channels == 1
