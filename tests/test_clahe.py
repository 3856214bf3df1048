"""CLAHE: what it does to levels, that it is OpenCV's at 8 bits and has a limit at every depth, and that a model meets it everywhere alike."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import i2i as package
from i2i import Chain, load
from i2i.data.format_detection import inspect_dataset
from i2i.data.sources import decode_bytes
from i2i.errors import RequestError
from i2i.evaluation.evaluate_model import _translate, evaluate_model
from i2i.evaluation.request import EvaluationRequest
from i2i.images.clahe import MIN_TILE_SIZE, clahe_levels
from i2i.images.convert import apply_clahe, apply_clahe_to_tensors, convert_to, to_tensor
from i2i.images.encode import encode
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.inference.integrations import Translate
from i2i.registry import Spec
from i2i.training import job as jobs
from i2i.training import train as training
from tests.conftest import CYCLE, SMALL, Run
from tests.planted_collapse import pictures


def xray(seed: int, height: int = 96, width: int = 80) -> Array:
    """Smooth shapes of low contrast in gray, with a little noise.  -> HW in [0, 1], all within 0.4 … 0.55"""
    g = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(g.normal(0, 1, (height, width)), (0, 0), 5)
    smooth = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-9)
    return np.clip(0.4 + 0.14 * smooth + g.normal(0, 0.002, (height, width)), 0.4, 0.55)


def of(kind: ImageFormat, levels: Array) -> Array:
    low, high = kind.limits
    values = low + levels * (high - low)
    return (values if kind.dtype == "float32" else np.rint(values)).astype(kind.dtype)


def spread(array: Array, kind: ImageFormat) -> float:
    return float(array.astype(float).std()) / (kind.limits[1] - kind.limits[0])


GRAY = [ImageFormat(1), ImageFormat(1, "uint16"), ImageFormat(1, "uint16", (0, 4095)), ImageFormat(1, "float32", (-5.0, 20.0)), ImageFormat(1, "uint8", (50, 200))]


@given(st.integers(16, 120), st.integers(16, 120), st.integers(1, 9), st.sampled_from([1.0, 1.5, 2.0, 3.3, 40.0, 1000.0]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_at_8_bits_it_is_opencvs(height: int, width: int, tiles: int, clip: float, seed: int) -> None:
    """To the level, but for how .5 is rounded; with as many tiles as there are 16 pixels for."""
    g = np.random.default_rng(seed)
    image = (255 * xray(seed, height, width) ** g.uniform(0.3, 3) * g.uniform(0.2, 1)).astype(np.uint8)
    down, across = (max(1, min(tiles, side // MIN_TILE_SIZE)) for side in image.shape)
    theirs = cv2.createCLAHE(clip, (across, down)).apply(image)
    ours = apply_clahe(image, ImageFormat(1, clahe=clip, clahe_tiles=tiles))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("kind", GRAY, ids=str)
def test_the_limit_limits_at_every_depth(kind: ImageFormat) -> None:
    """More contrast with each higher limit, nothing of 12 bits beyond 4,095; OpenCV's 16 bits have no limit at all."""
    flat = of(kind, xray(1, 192, 160))
    made = [apply_clahe(flat, ImageFormat(1, kind.dtype, kind.range, clahe=clip)) for clip in (1, 2, 4, 10, 100)]
    spreads = [spread(flat, kind), *(spread(each, kind) for each in made)]
    assert all(later > 1.1 * earlier for earlier, later in pairwise(spreads[1:]))
    assert spreads[2] > 1.8 * spreads[0]                # A clip of 2 is a little more than doubling,
    assert spreads[5] > 5 * spreads[0]                  # without a limit the range is filled.
    for each in made:
        assert each.dtype == flat.dtype
        assert kind.limits[0] <= each.min() <= each.max() <= kind.limits[1]
    sixteen = of(ImageFormat(1, "uint16"), xray(1))
    low, high = (cv2.createCLAHE(clip, (8, 8)).apply(sixteen) for clip in (2, 10))
    assert np.array_equal(low, high)


def test_depths_agree_and_gradations_stay() -> None:
    """16 bits and floats are what 8 bits are, but finer: a ramp of 4,096 levels keeps them apart and in their order."""
    image = of(ImageFormat(1), xray(2))
    eight = apply_clahe(image, ImageFormat(1, clahe=3)).astype(float)
    sixteen = apply_clahe(image.astype(np.uint16) * np.uint16(257), ImageFormat(1, "uint16", clahe=3)) / 257
    floats = apply_clahe(image.astype(np.float32) / 255, ImageFormat(1, "float32", (0, 1), clahe=3)) * 255
    assert np.abs(eight - sixteen).max() <= 0.51
    assert np.abs(eight - floats).max() <= 0.51
    ramp = np.tile(np.arange(1000, 3048, 4, dtype=np.uint16), (64, 1))
    out = apply_clahe(ramp, ImageFormat(1, "uint16", (0, 4095), clahe=2, clahe_tiles=1))
    assert (np.diff(out[0].astype(int)) > 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 5), (15, 17), (16, 33), (31, 200), (64, 64)])
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_what_is_constant_stays_constant(size: tuple[int, int], level: float) -> None:
    """Of every size; nearly at its level, as what is clipped is dealt out evenly."""
    for kind in GRAY:
        out = apply_clahe(of(kind, np.full(size, level)), ImageFormat(1, kind.dtype, kind.range, clahe=2))
        assert out.shape == size
        assert np.ptp(out.astype(float)) <= 1e-5
        if min(size) >= MIN_TILE_SIZE:
            assert abs((float(out.flat[0]) - kind.limits[0]) / (kind.limits[1] - kind.limits[0]) - level) < 0.02


@pytest.mark.parametrize("kind", [ImageFormat(3), ImageFormat(3, "uint16"), ImageFormat(3, "float32", (-1, 1))], ids=str)
def test_colors_keep_their_hue_and_gain_lightness(kind: ImageFormat) -> None:
    tint = np.array([0.5, 0.3, 0.2])
    image = of(kind, 0.2 + 0.5 * xray(3)[..., None] * tint)
    made = apply_clahe(image, ImageFormat(3, kind.dtype, kind.range, clahe=4))
    (low, high) = kind.limits
    before, after = (cv2.cvtColor(((each - low) / (high - low)).astype(np.float32), cv2.COLOR_RGB2LAB) for each in (image, made))
    assert after[..., 0].std() > 1.8 * before[..., 0].std()
    assert np.abs(after[..., 1:] - before[..., 1:]).max() < 3


def test_alpha_stays_and_many_channels_are_equalized_each_by_itself() -> None:
    gray, opacity = of(ImageFormat(1), xray(4)), np.random.default_rng(0).integers(0, 256, (96, 80), dtype=np.uint8)
    made = apply_clahe(np.dstack([gray, gray, gray, opacity]), ImageFormat(4, alpha=True, clahe=2))
    assert np.array_equal(made[..., 3], opacity)
    many = np.dstack([of(ImageFormat(1), xray(i)) for i in range(5)])
    made = apply_clahe(many, ImageFormat(5, clahe=2))
    assert all(np.array_equal(made[..., i], apply_clahe(many[..., i], ImageFormat(1, clahe=2))) for i in range(5))


def test_off_is_off() -> None:
    image = of(ImageFormat(3), np.dstack([xray(i) for i in range(3)]))
    assert apply_clahe(image, ImageFormat(3)) is image
    assert np.shares_memory(convert_to(DecodedImage(image), ImageFormat(3)), image)
    x = to_tensor(image)[None]
    assert apply_clahe_to_tensors(x, ImageFormat(3)) is x
    assert "CLAHE" not in str(ImageFormat(3))
    assert "CLAHE 2 in 8x8 tiles" in str(ImageFormat(3, clahe=2.0))
    assert ImageFormat.of({"channels": 1, "dtype": "uint8", "range": None, "alpha": False, "background": [255]}) == ImageFormat(1)       # A file of before.


def test_values_beyond_the_range_end_at_it() -> None:
    out = clahe_levels(np.clip(xray(0) * 3 - 1, 0, 1), 4, 8)
    assert 0 <= out.min() <= out.max() <= 1
    made = apply_clahe(np.array([[-9.0, 0.2, 40.0]], np.float32), ImageFormat(1, "float32", (0, 1), clahe=2))
    assert 0 <= made.min() <= made.max() <= 1


# ---------------------------------------------------------------------------------------------- in training and after

@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of low contrast, 12 bits in 16, 64x48."""
    root = tmp_path_factory.mktemp("scans")
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for side in "AB":
            (root / f"{split}{side}").mkdir()
            for i in range(count):
                image = of(ImageFormat(1, "uint16", (0, 4095)), xray(10 * i + (side == "B"), 48, 64))
                (root / f"{split}{side}" / f"{i}.tif").write_bytes(encode(".tif", image, ImageFormat(1, "uint16")))
    return root


WORDS = (*SMALL[:3], "train.batch_size=2", "train.images=4", "data.clahe=3", "data.clahe_tiles=2", "data.size=48,64", "data.load_size=48,64", "data.flip=false")


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package.train("pix2pix", *WORDS, data=scans, out=tmp_path_factory.mktemp("equalized") / "run", device="cpu")


def test_a_model_meets_equalized_pictures_everywhere(scans: Path, run: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training, sample grids, judging, the alarm, translate (files, arrays, tensors), evaluate and albumentations: the same levels."""
    kind = ImageFormat(1, "uint16", (0, 4095), clahe=3.0, clahe_tiles=2)
    job = jobs.prepare("pix2pix", WORDS, data=scans)
    assert job.formats == (kind, kind)
    assert load(run, device="cpu").formats == {"a": kind, "b": kind}
    assert json.loads((run / "config.json").read_text())["formats"]["a"]["clahe"] == 3.0

    def expected(split: str, side: str, i: int) -> torch.Tensor:
        raw = decode_bytes("x.tif", (scans / f"{split}{side}" / f"{i}.tif").read_bytes()).array
        made = apply_clahe(raw, kind)
        assert spread(made, kind) > 2 * spread(raw, kind)
        return to_tensor(made, kind)

    from i2i.runs.folder import RunFolder
    from i2i.training.distributed import Runtime
    runtime, whole = Runtime(device="cpu"), {side: [expected("train", side, i) for i in range(6)] for side in "AB"}
    batch = next(training.job_batches(job, runtime, 0))
    for side in "ab":
        assert all(any(torch.equal(image, known) for known in whole[side.upper()]) for image in batch[side])
    assert torch.equal(training.fixed_samples(job)["a"][0], expected("val", "A", 0))
    alarm = training.make_collapse_detector(job, runtime.device, RunFolder(tmp_path), lambda: None, print)      # type: ignore[arg-type, return-value]
    assert alarm is not None
    assert torch.equal(next(alarm.quick.batches())[1]["b"][0], whole["B"][0])

    seen: list[torch.Tensor] = []
    model = load(run, device="cpu")
    forward = type(model).__call__

    def spy(self: object, images: torch.Tensor, **more: object) -> torch.Tensor:
        seen.append(images)
        return forward(self, images, **more)            # type: ignore[arg-type]

    monkeypatch.setattr(type(model), "__call__", spy)
    raw, wanted = decode_bytes("x.tif", (scans / "testA" / "1.tif").read_bytes()).array, expected("test", "A", 1)
    model.translate(raw)
    model.translate(to_tensor(raw, kind))
    albumentations.Compose([Translate(run, p=1.0)])(image=raw)
    Chain(model).translate(raw)
    assert i2i("translate", run, scans / "testA" / "1.tif", "--out", "out", "--device", "cpu").code == 0
    assert len(seen) == 5
    for images in seen:
        assert (images[0] - wanted).abs().max() < 2.1 / 4095
    pairs = list(_translate(model, job.splits["test"], range(2), "ab"))       # type: ignore[arg-type]
    assert torch.equal(seen[6][0], wanted)
    assert (to_tensor(pairs[1].target) - expected("test", "B", 1)).abs().max() < 1.1 / 255


def test_evaluate_does_not_equalize_twice(run: Path, scans: Path) -> None:
    """Inputs that are copied are held against the targets, both equalized once."""
    model, pairs = load(run, device="cpu"), jobs.prepare("pix2pix", WORDS, data=scans).splits["test"]
    judged = evaluate_model(model, pairs, (), EvaluationRequest(metrics=(Spec("l1"),), explicit=True))      # type: ignore[arg-type]
    kind = model.formats["a"]
    arrays = [[apply_clahe(decode_bytes("x.tif", (scans / f"test{side}" / f"{i}.tif").read_bytes()).array, kind) / 4095 * 255 for side in "AB"] for i in range(3)]
    copied = np.mean([np.abs(np.rint(a) - np.rint(b)).mean() for a, b in arrays])
    assert judged["copy the input"]["results"]["l1"]["value"] == pytest.approx(copied, abs=0.05)


def test_sides_follow_the_data(scans: Path, tmp_path: Path) -> None:
    for words, told in ((["data.clahe_sides=a"], (3.0, 0.0)), (["data.clahe_sides=b"], (0.0, 3.0)), (["data.clahe_sides=a", "data.direction=ba"], (0.0, 3.0))):
        job = jobs.prepare("pix2pix", (*WORDS, *words), data=scans)
        assert tuple(kind.clahe for kind in job.formats) == told
    job = jobs.prepare("cyclegan", (*CYCLE[:4], "data.clahe=2"), data=scans)
    assert {kind.clahe for kind in job.formats} == {2.0}
    faces = pictures(tmp_path / "data", ("train", 12))
    assert jobs.prepare("dcgan", ("data.clahe=2", "data.clahe_sides=b"), data=faces).formats[1].clahe == 2.0
    with pytest.raises(RequestError, match="learn the images of b"):
        jobs.prepare("dcgan", ("data.clahe=2", "data.clahe_sides=a"), data=faces)
    assert inspect_dataset(job.splits["train"]).a.clahe == 0


@pytest.mark.parametrize(("word", "told"), [("data.clahe=0.5", "1 or more"), ("data.clahe=-1", "1 or more"), ("data.clahe=inf", "a number"),
                                            ("data.clahe_tiles=0", "1 to 64"), ("data.clahe_sides=c", "both"), ("data.clahe=x", "data.clahe")])
def test_wrong_settings_are_one_line(scans: Path, i2i: Run, word: str, told: str) -> None:
    result = i2i("train", "pix2pix", "--data", scans, word, "--dry-run")
    assert result.code == 2
    assert told in result.line


def test_a_run_goes_on_with_what_it_began_with(run: Path, i2i: Run) -> None:
    result = i2i("train", "--resume", run, "data.clahe=2")
    assert result.code == 2
    assert "clahe is 3.0" in result.line
    assert i2i("train", "--resume", run, "--device", "cpu").code == 0
