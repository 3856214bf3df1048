"""Translators one after the other: what a chain makes is what two folder jobs make, but for the rounding between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import i2i as package
from i2i import Chain, load, registry
from i2i.config import to_dict
from i2i.data.sources import decode_bytes
from i2i.errors import RequestError
from i2i.images.convert import convert_tensors, convert_to, to_array, to_tensor
from i2i.images.encode import encode
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.runs import checkpoint
from tests.conftest import CYCLE, SMALL, Run, drawing


class Affine(nn.Module):
    """A generator of known slope: `gain` times the mean of the source's channels, plus `shift`."""

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int], *, gain: float = 1.0, shift: float = 0.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_channels, self.gain, self.shift = out_channels, gain, shift
        self.unused = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        same = x if x.shape[1] == self.out_channels else x.mean(1, keepdim=True).expand(-1, self.out_channels, -1, -1)
        return self.dropout(self.gain * same + self.shift)


Make = Callable[..., Path]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Writes a model file of an affine generator between two kinds of images."""
    monkeypatch.setitem(registry._COMPONENTS["generator"], "affine", Affine)

    def write(name: str, source: ImageFormat, target: ImageFormat | None = None, **options: float) -> Path:
        target = target or source
        recipe = Pix2Pix(generator=Spec("affine", options))
        header = model_header("pix2pix", to_dict(recipe), DataInfo((64, 64), source.channels, target.channels), (source, target), direction="ab")
        checkpoint.save(tmp_path / name, {"G.unused": torch.zeros(())}, {"kind": "model", **json.loads(json.dumps(header))})
        return tmp_path / name

    return write


# ---------------------------------------------------------------------------------------------- between two kinds

KINDS = [ImageFormat(1), ImageFormat(3), ImageFormat(4, alpha=True), ImageFormat(2, alpha=True), ImageFormat(1, "uint16"), ImageFormat(3, "uint16"), ImageFormat(1, "uint16", (0, 4095)),
         ImageFormat(3, "uint16", (100, 5000)), ImageFormat(4, "uint16", alpha=True), ImageFormat(1, "float32", (-3, 900)), ImageFormat(3, "float32", (0, 1)), ImageFormat(7),
         ImageFormat(3, background=(10, 200, 30)), ImageFormat(3, "uint8", (20, 180)), ImageFormat(1, "float32", (10, 20)), ImageFormat(4, "float32", (0, 1), alpha=True)]


@given(st.sampled_from(KINDS), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
@example(ImageFormat(1, "float32", (-3, 900)), ImageFormat(4, "float32", (0, 1), alpha=True), 168)
@settings(max_examples=150, deadline=None)
def test_what_is_carried_is_what_was_written_and_read_but_for_rounding(made: ImageFormat, taken: ImageFormat, seed: int) -> None:
    """Of values also beyond what the kind holds, as networks without a bound make them.  Rounding: a level of what was written, another for luma and alpha."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(made.channels, 5, 6, generator=g) * 2.6 - 1.3
    try:
        read = to_tensor(convert_to(DecodedImage(to_array(x, made), made.alpha), taken), taken)
    except ValueError:
        with pytest.raises(ValueError, match="cannot become|the images of its side"):
            convert_tensors(x[None], made, taken)
        return
    level = (257 if made.dtype != taken.dtype else 1) if made.dtype != "float32" else 0.0
    # Of float32: levels of (-3, 900) that are taken for (0, 1) are values of up to 1,700.
    rounding = max(1e-4, 4 * torch.finfo(torch.float32).eps * read.abs().max().item())
    (bottom, top), steps = taken.limits, 0.51 if made.colors == taken.colors and made.alpha == taken.alpha else 2.1
    assert (convert_tensors(x[None], made, taken)[0] - read).abs().max() <= steps * level * 2 / (top - bottom) + rounding


def test_what_fits_as_it_is_is_not_touched() -> None:
    x = torch.rand(2, 3, 4, 4) * 2 - 1
    for kind in (ImageFormat(3), ImageFormat(3, "uint16"), ImageFormat(3, "uint16", (0, 4095)), ImageFormat(3, "float32", (-3, 7))):
        assert torch.equal(convert_tensors(x, kind, kind), x)
    assert torch.equal(convert_tensors(x, ImageFormat(3), ImageFormat(3, "uint16")), x)


# ---------------------------------------------------------------------------------------------- folder jobs

@pytest.mark.parametrize(("source", "middle", "target", "suffix"), [
    (ImageFormat(3), ImageFormat(3, "float32", (0, 1)), ImageFormat(3), ".npy"), (ImageFormat(3), ImageFormat(3, "uint16"), ImageFormat(1, "uint16"), ".tif"),
    (ImageFormat(1, "uint16", (0, 4095)), ImageFormat(1, "float32", (0, 900)), ImageFormat(1, "uint16", (0, 4095)), ".tif")], ids=str)
def test_a_chain_is_the_two_step_job_without_rounding(make: Make, i2i: Run, tmp_path: Path, source: ImageFormat, middle: ImageFormat, target: ImageFormat, suffix: str) -> None:
    """Through files of floats, or of 16 bits; the second translator triples differences, so half a level between the two becomes one and a half."""
    first, second = make("first", source, middle, gain=0.3, shift=0.1), make("second", middle, target, gain=3, shift=-0.3)
    (tmp_path / "in").mkdir()
    for i, size in enumerate(((20, 33), (16, 16), (1, 5))):
        values = np.random.default_rng(i).integers(0, source.limits[1] + 1, (*size, source.channels)).astype(source.dtype)
        (tmp_path / "in" / f"{i}{suffix}").write_bytes(encode(suffix, values[..., 0] if source.channels == 1 else values, source))
    args = ("--device", "cpu")
    assert i2i("translate", first, "in", "--out", "one", *args).code == 0
    assert i2i("translate", second, "one", "--out", "two", *args).code == 0
    result = i2i("translate", first, "in", "--chain", second, "--out", "chained", *args)
    assert result.code == 0, result.err
    assert "3 translated" in result.out
    for i in range(3):
        two, chained = (decode_bytes("x" + suffix, (tmp_path / folder / f"{i}{suffix}").read_bytes()).array.astype(float) for folder in ("two", "chained"))
        assert two.shape == chained.shape
        assert np.ptp(chained) > 0.3 * target.limits[1] or chained.size < 100
        assert np.abs(two - chained).max() <= (1 if middle.dtype == "float32" else 2)


def test_nothing_is_rounded_between(make: Make, i2i: Run, tmp_path: Path) -> None:
    """255 levels pressed into 26 and drawn out again: through files of 8 bits 230 are lost, in a chain none."""
    press, draw = make("press", ImageFormat(1), gain=0.1), make("draw", ImageFormat(1), gain=10)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    assert i2i("translate", press, "ramp.png", "--chain", draw, "--out", "chained", "--device", "cpu").code == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "chained" / "ramp.png")), ramp)
    assert i2i("translate", press, "ramp.png", "--out", "one", "--device", "cpu").code == 0
    assert i2i("translate", draw, "one", "--out", "two", "--device", "cpu").code == 0
    assert len(np.unique(np.asarray(Image.open(tmp_path / "two" / "ramp.png")))) < 30


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small trained translators: a pix2pix, with dropout and batch norm, and a CycleGAN."""
    base = tmp_path_factory.mktemp("chained")
    for side in "AB":
        (base / "data" / f"train{side}").mkdir(parents=True)
    for i in range(4):
        for side, part in zip("AB", np.split(drawing(i), 2, 1), strict=True):
            Image.fromarray(part).save(base / "data" / f"train{side}" / f"{i}.png")
    return {recipe: package.train(recipe, *args, "train.images=8", data=base / "data", out=base / recipe, device="cpu")
            for recipe, args in {"pix2pix": SMALL, "cyclegan": CYCLE}.items()}


def test_a_chain_of_trained_models(models: dict[str, Path], i2i: Run, tmp_path: Path) -> None:
    """By the API and by the command line, image by image and in batches, with statistics and seeds."""
    one, other = (load(path, device="cpu") for path in models.values())
    chain = Chain(one, (other, "ba"), one)
    (tmp_path / "in").mkdir()
    pictures = {f"{i}.png": drawing(i)[: 20 + i, :30] for i in range(5)}
    for name, array in pictures.items():
        Image.fromarray(array).save(tmp_path / "in" / name)
    args = ("translate", models["pix2pix"], "in", "--chain", f"{models['cyclegan']}:ba", "--chain", models["pix2pix"], "--device", "cpu")
    assert i2i(*args, "--out", "out", "--batch", 3).code == 0
    for name, array in pictures.items():
        x = to_tensor(array)
        by_hand = one(other(one(x[None]).clamp(-1, 1), direction="ba").clamp(-1, 1))[0]
        assert torch.equal(chain.translate(x), by_hand)
        assert not torch.equal(chain.translate(x, seed=3), by_hand)
        got = np.asarray(Image.open(tmp_path / "out" / name)).astype(int)
        assert np.abs(got - to_array(by_hand, ImageFormat(3))).max() <= 1
        assert np.array_equal(chain.translate(array), np.asarray(chain.translate(Image.fromarray(array))))
    for out, more in (("image", ["--statistics", "image"]), ("seed", ["--seed", 3]), ("seed again", ["--seed", 3])):
        assert i2i(*args, "--out", out, *more).code == 0
    plain, image, seed, again = ((tmp_path / out / "4.png").read_bytes() for out in ("out", "image", "seed", "seed again"))
    assert plain != image
    assert seed == again


def test_stages_draw_different_dropout(make: Make) -> None:
    kind = ImageFormat(3, "float32", (-1, 1))
    drops = [load(make(name, kind, dropout=0.5, shift=1.0), device="cpu") for name in ("one", "other")]
    x = torch.zeros(1, 3, 32, 32)
    alone, chained = drops[0](x, seed=5), Chain(*drops)(x, seed=5)
    kept = (chained != 2.0).float().mean()              # 2 where the second drops nothing of what the first has dropped ...
    assert torch.equal(alone, Chain(drops[0])(x, seed=5))
    assert (chained == 0).float().mean() == pytest.approx(0.5, abs=0.05)
    assert 0.2 < ((chained == 2) & (alone == 0)).float().mean() < 0.3 < kept


def test_what_is_there_is_left_out_and_formats_are_the_last_ones(make: Make, i2i: Run, tmp_path: Path) -> None:
    first, second = make("first", ImageFormat(3)), make("second", ImageFormat(3), ImageFormat(3, "uint16"))
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(drawing(1)).save(tmp_path / "in" / name)
    args = ("translate", first, "in", "--chain", second, "--out", "out", "--device", "cpu")
    assert "3 channels of uint16" in i2i(*args).line
    assert i2i(*args, "--format", "png").code == 0
    (tmp_path / "out" / "a.png").unlink()
    assert "1 translated, 1 there already" in i2i(*args, "--format", "png", "--skip-existing").out


# ---------------------------------------------------------------------------------------------- refused

def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_written(make: Make, i2i: Run, tmp_path: Path) -> None:
    Image.fromarray(drawing(0)).save(tmp_path / "x.png")
    color, deep, many = make("color", ImageFormat(3)), make("deep", ImageFormat(3), ImageFormat(3, "uint16")), make("many", ImageFormat(3), ImageFormat(7))
    for stages, message in (([deep, "--chain", color], "translator 2 of the chain takes 3 channels of uint8, which 3 channels of uint16, as the one before makes"),
                         ([color, "--chain", many, "--chain", color], "translator 3 of the chain takes 3 channels of uint8, which 7 channels"),
                         ([color, "--chain", f"{color}:ba"], "direction ba is none that this pix2pix model has learned"),
                         ([color, "--chain", "nothing"], "nothing does not exist"), ([color, "--chain", "nothing:ba"], "nothing does not exist"),
                         ([color, "--chain", color, "--direction", "ba"], "direction ba"), ([color, "--chain", ""], "is")):
        result = i2i("translate", stages[0], "x.png", "--out", "out", "--device", "cpu", *stages[1:])
        assert result.code == 2, message
        assert message in result.line
        assert not (tmp_path / "out").exists()
    with pytest.raises(RequestError, match="one or more"):
        Chain()
    with pytest.raises(RequestError, match="a direction of its own"):
        Chain(load(color, device="cpu")).translate(drawing(0), direction="ba")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(RequestError, match=r"^'runs/sketch' is no model; accepted: i2i\.load\(PATH\) of each$"):
        Chain("runs/sketch")        # type: ignore[arg-type]


def test_a_name_that_ends_like_a_direction_is_a_name(make: Make, i2i: Run, tmp_path: Path) -> None:
    first, second = make("first", ImageFormat(1)), make("second:ba", ImageFormat(1), shift=0.5)
    image: Array = np.full((16, 16), 100, np.uint8)
    Image.fromarray(image).save(tmp_path / "x.png")
    assert i2i("translate", first, "x.png", "--chain", second, "--out", "out", "--device", "cpu").code == 0
    assert np.asarray(Image.open(tmp_path / "out" / "x.png"))[0, 0] == 164
