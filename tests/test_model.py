"""A model from one file: any size, deterministic, the types that came."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from i2i import Chain, Mixed, Model, load, registry, train
from i2i.config import to_dict
from i2i.errors import RequestError
from i2i.images.convert import make_grid
from i2i.images.format import ImageFormat
from i2i.inference.model_file import model_header
from i2i.nets.padding import pad_to_multiple
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.registry import Spec
from i2i.runs import checkpoint
from tests.conftest import CYCLE, SMALL, drawing


@pytest.fixture(scope="module")
def model(trained: Path) -> Model:
    return load(trained, device="cpu")


def test_the_file_alone_is_enough(trained: Path, tmp_path: Path, model: Model) -> None:
    shutil.copy(trained / "model.safetensors", tmp_path / "moved.safetensors")
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(load(tmp_path / "moved.safetensors", device="cpu").translate(x), model.translate(x))


def test_it_gives_the_sample_grid_again(trained: Path, model: Model) -> None:
    """The validation image of training is what inference gives: averaged weights, same statistics, no dropout."""
    sheet = np.asarray(Image.open(trained / "samples" / "00000024.png"))
    source, shown = sheet[2:34, 2:34], sheet[2:34, 36:68]
    assert np.array_equal(source, drawing(50)[:, :32])
    assert np.array_equal(model.translate(source), shown)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_comes_back(trained: Path, height: int, width: int) -> None:
    model = load(trained, device="cpu")
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert model.translate(image).shape == (height, width, 3)


def test_types_come_back(model: Model) -> None:
    array = drawing(1)[:, :32]
    out = model.translate(array)
    assert out.dtype == np.uint8
    picture = model.translate(Image.fromarray(array))
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), out)
    tensor = torch.from_numpy(array.transpose(2, 0, 1).copy()) / 127.5 - 1
    assert model.translate(tensor).shape == (3, 32, 32)
    assert np.array_equal(((model.translate(tensor) + 1) * 127.5).round().numpy().astype(np.uint8).transpose(1, 2, 0), out)
    assert model.translate(tensor[None]).shape == (1, 3, 32, 32)
    assert [x.shape for x in model.translate([array, array[:20]])] == [(32, 32, 3), (20, 32, 3)]
    assert model.translate(array[..., 0]).shape == (32, 32, 3)      # Gray in: repeated to color.


def test_it_is_deterministic_and_a_seed_draws_dropout(model: Model) -> None:
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.translate(x), model.translate(x))
    assert torch.equal(model.translate(x, seed=1), model.translate(x, seed=1))
    assert not torch.equal(model.translate(x, seed=1), model.translate(x, seed=2))
    assert not torch.equal(model.translate(x, seed=1), model.translate(x))
    before = model.translate(x)
    model.translate(x, seed=3)
    assert torch.equal(model.translate(x), before)


def test_an_image_does_not_depend_on_its_neighbors(model: Model) -> None:
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(model.translate(x), torch.cat([model.translate(image[None]) for image in x]), atol=1e-5, rtol=1e-5)


def test_the_statistics_of_batch_norms_can_be_chosen(strips: Path, tmp_path: Path) -> None:
    import i2i
    alone = i2i.train("pix2pix", *SMALL, "train.batch_size=1", "train.images=4", data=strips, out=tmp_path / "alone", device="cpu")
    single = load(alone, device="cpu")
    assert single.statistics == "running"
    sheet = np.asarray(Image.open(alone / "samples" / "00000004.png"))
    assert np.array_equal(single.translate(sheet[2:34, 2:34]), sheet[2:34, 36:68])
    x = torch.rand(1, 3, 32, 32)
    running = single.translate(x)
    single.statistics = "image"
    image = single.translate(x)
    assert not torch.equal(running, image)
    torch.testing.assert_close(single.translate(torch.cat([x, -x]))[:1], image, atol=1e-5, rtol=1e-5)
    single.statistics = "running"
    assert torch.equal(single.translate(x), running)
    with pytest.raises(RequestError, match="running or image"):
        single.statistics = "batch"


@pytest.mark.parametrize("bad", [torch.rand(4, 8, 8), torch.rand(8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), np.zeros((8, 8, 3)),
                                 np.zeros((8, 8, 5), np.uint8), np.zeros((0, 8, 3), np.uint8), "a.png", 3])
def test_what_is_no_image_is_refused(model: Model, bad: object) -> None:
    with pytest.raises(RequestError):
        model.translate(bad)


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 32]))
def test_reflection_keeps_the_middle_and_mirrors_the_rest(height: int, width: int, multiple: int) -> None:
    x = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    out, top, left = pad_to_multiple(x, multiple)
    assert out.shape[2] % multiple == out.shape[3] % multiple == 0
    assert out.shape[2] - height < multiple
    assert torch.equal(out[..., top:top + height, left:left + width], x)
    bottom, right = out.shape[2] - height - top, out.shape[3] - width - left
    if max(top, bottom) < height and max(left, right) < width:
        assert torch.equal(out, F.pad(x, (left, right, top, bottom), mode="reflect"))


def test_reflection_reaches_a_smallest_size() -> None:
    assert pad_to_multiple(torch.zeros(1, 1, 1, 3), 4, 16)[0].shape == (1, 1, 16, 16)


def broken(header: dict[str, object], **changes: object) -> dict[str, object]:
    return json.loads(json.dumps(header)) | changes


def test_files_that_are_no_model_are_reported(trained: Path, tmp_path: Path) -> None:
    tensors, header = checkpoint.load(trained / "model.safetensors", "model")
    cases = {
        "state of a run": (trained / "state-00000024.safetensors", "holds a state, not a model"),
        "unknown recipe": (broken(header, recipe={"name": "pix3pix", "settings": {}}), "no recipe is called 'pix3pix'"),
        "no recipe": (broken(header, recipe={}), "does not hold the model"),
        "other width": (broken(header, recipe={"name": "pix2pix", "settings": {"generator": {"name": "unet", "options": {"width": 9}}}}), "does not hold the model"),
        "other option": (broken(header, recipe={"name": "pix2pix", "settings": {"generator": {"name": "unet", "options": {"color": 9}}}}), "no option 'color'")}
    for name, (content, words) in cases.items():
        path = content if isinstance(content, Path) else tmp_path / f"{name}.safetensors"
        if isinstance(content, dict):
            checkpoint.save(path, tensors, content)
        with pytest.raises(RequestError, match=words) as error:
            load(path)
        assert "\n" not in str(error.value), name
    with pytest.raises(RequestError, match=r"without model\.safetensors"):
        load(tmp_path)
    with pytest.raises(RequestError, match="does not exist"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(RequestError, match="--device tpu is not known"):
        load(trained, device="tpu")


def test_a_model_says_what_it_is(model: Model, noisy: dict[str, Path]) -> None:
    assert repr(model) == "Model(pix2pix: 3 channels of uint8, label maps -> 3 channels of uint8, label maps, ab, 32x32, 24 images seen, on cpu)"
    assert repr(Chain(model, (model, "ab"))) == f"Chain({model!r}, {model!r})"
    assert repr(load(noisy["classes"], device="cpu")) == "Model(gan: noise -> 3 channels of uint8, label maps, 3 classes, 32x32, 160 images seen, on cpu)"


@pytest.mark.parametrize("seed", ["a", -1, 1.5, [1]])
def test_seeds_and_numbers_that_are_none_are_refused(model: Model, noisy: dict[str, Path], seed: Any) -> None:
    generator, image = load(noisy["plain"], device="cpu"), np.zeros((32, 32, 3), np.uint8)
    for call in (lambda: model.translate(image, seed=seed), lambda: generator.generate(1, seed=seed), lambda: generator.noise(seed, [0]),
                 lambda: Mixed([image], noisy["plain"], 0.5, seed=seed)[0]):
        with pytest.raises(RequestError, match=rf"seed={re.escape(str(seed))} cannot be used; accepted: an integer, 0 or more"):
            call()
    for key, numbers in (("n", {"n": seed}), ("batch_size", {"n": 1, "batch_size": seed})):
        with pytest.raises(RequestError, match=f"{key}=.* cannot be used; accepted: an integer, 1 or more"):
            generator.generate(**numbers)
    assert np.array_equal(model.translate(image, seed=np.int64(3)), model.translate(image, seed=3))


def test_a_notebook_shows_what_a_generator_makes(model: Model, noisy: dict[str, Path]) -> None:
    for name, columns in (("plain", 6), ("classes", 3)):
        png = load(noisy[name], device="cpu")._repr_png_()
        assert png is not None
        image = Image.open(io.BytesIO(png))
        assert image.mode == "RGB"
        assert image.size == make_grid([[torch.zeros(3, 32, 32)] * columns] * 3).shape[1::-1]


def test_a_notebook_shows_the_sample_grid_of_a_translators_run(trained: Path, tmp_path: Path) -> None:
    """That of its number of images: a model of an earlier moment does not show later ones, and a model alone shows none."""
    newest = (trained / "samples" / "00000024.png").read_bytes()
    assert load(trained, device="cpu")._repr_png_() == newest
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    tensors, header = checkpoint.load(run / "model.safetensors", "model")
    checkpoint.save(run / "model.safetensors", tensors, header | {"images": 20})
    assert load(run, device="cpu")._repr_png_() == (run / "samples" / "00000016.png").read_bytes()
    alone = shutil.copy(trained / "model.safetensors", tmp_path / "alone.safetensors")
    assert load(alone, device="cpu")._repr_png_() is None
    shutil.rmtree(run / "samples")
    assert load(run, device="cpu")._repr_png_() is None


def test_a_notebook_shows_both_directions_of_a_cyclegan(sides: Path, tmp_path: Path) -> None:
    run = train("cyclegan", *CYCLE, "train.images=2", data=sides, out=tmp_path / "run", device="cpu")
    assert load(run, device="cpu")._repr_png_() == (run / "samples" / "00000002.png").read_bytes()


def test_a_path_gives_the_picture_of_its_file(model: Model, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    picture.save(tmp_path / "x.png")
    want = np.asarray(model.translate(picture))
    for path in (tmp_path / "x.png", str(tmp_path / "x.png")):
        assert np.array_equal(np.asarray(model.translate(path)), want)
    both = model.translate([tmp_path / "x.png"] * 2)
    assert [type(each) for each in both] == [Image.Image] * 2
    with pytest.raises(RequestError, match=r"nothing\.png cannot be read: No such file"):
        model.translate(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(RequestError, match=r"text\.png: "):
        model.translate(tmp_path / "text.png")


@pytest.mark.parametrize("generator", registry.names("noise_generator"))
def test_every_generator_from_noise_is_loaded(generator: str, tmp_path: Path) -> None:
    options = {"layers": 1, "width": 8} if generator == "mlp" else {"width": 4}
    recipe = GAN(generator=Spec(generator, options))
    info = DataInfo((32, 32), 3, 3)
    torch.manual_seed(0)
    networks = recipe.modules(info)
    header = model_header("gan", to_dict(recipe), info, (ImageFormat(3), ImageFormat(3)))
    tensors = {f"{name}.{key}": tensor for name in recipe.ema_modules for key, tensor in networks[name].state_dict().items()}
    checkpoint.save(tmp_path / "x.safetensors", tensors, {"kind": "model", **json.loads(json.dumps(header))})
    assert load(tmp_path / "x.safetensors", device="cpu").generate(2).shape == (2, 3, 32, 32)
