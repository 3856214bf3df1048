"""Translation of label maps: their classes are found in the data, kept in the model, and what G and D see is the papers'."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from i2i import load
from i2i.config import override, parse_assignments
from i2i.data.palette import distinct_colors
from i2i.errors import RequestError
from i2i.images.convert import palette_values, to_tensor
from i2i.images.format import ImageFormat
from i2i.inference.memory import bytes_per_pixel
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress
from i2i.training.job import prepare
from i2i.training.resume import reopen_job

COLORS = ((0, 0, 0), (0, 0, 255), (9, 200, 30), (255, 255, 255))
TINY = ("generator.width=2", "discriminator.width=2", "discriminator.layers=1", "train.batch_size=2", "train.images=8", "train.log_every=4", "train.checkpoint_every=4")
SPADE = ("generator=spade", "generator.hidden=4", "discriminator=multiscale", "adversarial=hinge", "feature_matching=layers", "lambda_l1=0", "source_encoding=one-hot")


def label_map(index: int, side: int = 32) -> np.ndarray:
    """Boxes of the first three colors; the fourth is in one pixel of map 5 alone."""
    g = np.random.default_rng(index)
    classes = np.kron(g.integers(0, 3, (4, 4)), np.ones((side // 4, side // 4), int))
    if index == 5:
        classes[3, 3] = 3
    return np.array(COLORS, np.uint8)[classes]


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Twenty label maps of 32x32 beside pictures of other colors, and two to test."""
    for split, first, count in (("train", 0, 20), ("test", 100, 2)):
        (tmp_path / "maps" / split).mkdir(parents=True)
        for i in range(first, first + count):
            labels = label_map(i)
            Image.fromarray(np.concatenate([labels, 255 - labels // 2], 1)).save(tmp_path / "maps" / split / f"{i:03}.png")
    return tmp_path / "maps"


def test_the_objective_on_label_maps_is_spades() -> None:
    """Hinge loss and feature matching, each the mean over two scales; G sees classes and edges, D those beside the image (Park et al. 2019, section 3 and appendix A)."""
    values = torch.tensor(COLORS) / 127.5 - 1
    info = DataInfo((32, 32), 4, 3, a_colors=tuple(map(tuple, values.tolist())))
    recipe = override(Pix2Pix(), parse_assignments([*SPADE, *TINY[:3], "instance_channel=true", "generator.spectral_norm=false"]))
    torch.manual_seed(0)
    classes, instances = torch.randint(0, 4, (2, 32, 32)), torch.randint(0, 3, (2, 32, 32))
    x = {"a": torch.cat([values[classes].permute(0, 3, 1, 2), instances[:, None] / 127.5 - 1], 1), "b": torch.rand(2, 3, 32, 32) * 2 - 1}
    m = recipe.modules(info)
    seen = {}
    recipe.step(m, x, Progress(0, 2, 1000), lambda player, loss, /, **logs: seen.update({player: loss}))

    edges = torch.zeros(2, 1, 32, 32)
    for n, i, j in np.ndindex(2, 32, 32):
        near = [(i + di, j + dj) for di, dj in ((0, 1), (1, 0), (0, -1), (-1, 0)) if 0 <= i + di < 32 and 0 <= j + dj < 32]
        edges[n, 0, i, j] = float(any(instances[n, i, j] != instances[n, y, x] for y, x in near))
    labels = torch.cat([F.one_hot(classes, 4).permute(0, 3, 1, 2).float(), edges], 1)
    fake = m["G"](labels)
    d = gan = matching = 0
    for real_logits, fake_logits in zip(m["D"](torch.cat([labels, x["b"]], 1)), m["D"](torch.cat([labels, fake], 1)), strict=True):
        d += F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        gan -= fake_logits.mean()
    for real_maps, fake_maps in zip(m["D"].features(torch.cat([labels, x["b"]], 1)), m["D"].features(torch.cat([labels, fake], 1)), strict=True):
        matching += sum((r - f).abs().mean() for r, f in zip(real_maps, fake_maps, strict=True))
    assert seen["D"].item() == pytest.approx(d.item() / 2 / 2, rel=1e-5)
    assert seen["G"].item() == pytest.approx((gan / 2 + 10 * matching / 2).item(), rel=1e-5)
    torch.testing.assert_close(recipe.generate(m.eval(), x)["fake_b"], m["G"](labels))


def test_all_colors_of_the_training_images_are_found(maps: Path) -> None:
    job = prepare("pix2pix", ["source_encoding=one-hot"], data=maps, epochs=1)
    assert job.summary.a.palette == COLORS
    assert str(job.summary.a) == "3 channels of uint8, label maps of 4 colors"
    assert "A is label maps of 4 colors, which become one channel each" in job.notes
    assert job.summary.b.palette is None
    assert torch.equal(torch.tensor(job.info.a_colors), to_tensor(np.array(COLORS, np.uint8)[:, None])[..., 0].T)
    assert prepare("pix2pix", ["source_encoding=auto", "data.direction=ba"], data=maps, epochs=1).summary.a.palette == tuple(
        sorted(tuple(255 - level // 2 for level in color) for color in COLORS))
    assert prepare("pix2pix", data=maps, epochs=1).summary.a.palette is None


@pytest.mark.parametrize(("array", "palette", "values"), [
    (np.kron([[0, 1], [2, 7]], np.ones((16, 16))).astype(np.uint8), ((0,), (1,), (2,), (7,)), [0, 1 / 255, 2 / 255, 7 / 255]),
    (np.kron([[0, 1], [2, 700]], np.ones((16, 16))).astype(np.uint16), ((0,), (1,), (2,), (700,)), [0, 1 / 1023, 2 / 1023, 700 / 1023])])
def test_index_maps_are_label_maps(array: np.ndarray, palette: tuple[tuple[int, ...], ...], values: list[float], tmp_path: Path) -> None:
    for side, image in (("A", array), ("B", np.full((32, 32), 9, np.uint8))):
        (tmp_path / f"train{side}").mkdir()
        Image.fromarray(image).save(tmp_path / f"train{side}" / "0.png")
    job = prepare("pix2pix", ["source_encoding=auto"], data=tmp_path, epochs=1)
    assert job.summary.a.palette == palette
    assert [color[0] for color in job.info.a_colors] == pytest.approx([2 * value - 1 for value in values], abs=1e-6)


def test_photographs_keep_their_channels_unless_classes_are_demanded(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)).save(tmp_path / "train" / "0.png")
    job = prepare("pix2pix", ["source_encoding=auto", *TINY[:2]], data=tmp_path, epochs=1)
    assert job.info.a_colors == ()
    assert "A is not label maps of at most 256 exact colors, so that its channels stay as they are" in job.notes
    assert job.recipe.modules(job.info)["E"].out_channels == 3
    for words in ([], ["data.a_resize=nearest"]):       # Of 1,024 colors.
        job = prepare("pix2pix", ["source_encoding=one-hot", *words, *TINY[:2]], data=tmp_path, epochs=1)
        with pytest.raises(RequestError, match="source_encoding=one-hot cannot be used; accepted: channels where .* at most 256 exact colors"):
            job.recipe.modules(job.info)
    with pytest.raises(RequestError, match="instance_channel=true cannot be used; accepted: false where the source has one channel"):
        override(Pix2Pix(), [("instance_channel", "true")]).modules(DataInfo((32, 32), 1, 3))


def test_a_run_on_label_maps_from_the_command_line(i2i, maps: Path, tmp_path: Path) -> None:
    """It trains, resumes bit for bit, and translates files of any size with the classes of its header; a color between two is that of the nearest."""
    line = ("train", "pix2pix", *SPADE, *TINY, "--data", maps, "--device", "cpu", "--out")
    for out in ("whole", "cut"):
        result = i2i(*line, out)
        assert result.code == 0, result.err
    assert "A is label maps of 4 colors" in result.out + result.err
    cut = RunFolder(tmp_path / "cut")
    cut.state(8).unlink()
    assert i2i("train", "--resume", "cut", "--device", "cpu").code == 0
    for file, kind in ((cut.state(8), "state"), (cut.model, "model")):
        (ours, header), (theirs, other) = (checkpoint.load(tmp_path / out / file.name, kind) for out in ("cut", "whole"))
        assert header == other
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert header["formats"]["a"]["palette"] == [list(color) for color in COLORS]
    assert torch.equal(ours["E.one_hot.colors"], torch.tensor(COLORS) / 127.5 - 1)

    model = load("whole", device="cpu")
    assert "label maps of 4 colors" in repr(model)
    labels = label_map(7, 48)[:, :40]
    noisy = np.clip(labels.astype(int) + np.random.default_rng(0).integers(-4, 5, labels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(labels).save("one.png")
    assert i2i("translate", "whole", "one.png", "--out", "done").code == 0
    written = np.asarray(Image.open("done/one.png"))
    assert written.shape == (48, 40, 3)
    assert np.array_equal(written, model.translate(labels))
    assert np.array_equal(written, model.translate(noisy))
    assert torch.equal(*(model(to_tensor(image)[None]) for image in (labels, noisy)))
    assert not np.array_equal(written, model.translate(label_map(8, 48)[:, :40]))

    for path in (maps / "train").iterdir():         # Whatever the images are now, the classes are those of the run.
        Image.new("RGB", (64, 32)).save(path)
    assert reopen_job(cut).summary.a.palette == COLORS


def test_memory_is_estimated_with_one_channel_for_each_class() -> None:
    recipe = override(Pix2Pix(), parse_assignments(["source_encoding=auto", "generator.width=1"]))
    few, many = (DataInfo((32, 32), 1, 1, a_colors=tuple((i / 100,) for i in range(n))) for n in (2, 100))
    taken = [bytes_per_pixel(recipe, info, "a", 32) for info in (few, many)]
    assert taken[1] - taken[0] > 98 * 4         # The classes in float32, at least.


def test_images_that_cannot_be_read_have_no_colors_and_too_many_colors_end_the_search(maps: Path, tmp_path: Path) -> None:
    (maps / "train" / "005.png").write_bytes(b"broken")
    assert prepare("pix2pix", ["source_encoding=one-hot", "data.on_error=skip"], data=maps, epochs=1).summary.a.palette == COLORS[:3]
    image = np.arange(300, dtype=np.uint16).reshape(20, 15)
    assert distinct_colors(image, 1) == {(i,) for i in range(300)}
    assert distinct_colors(np.stack([image, image % 2], 2), 2) == {(i, i % 2) for i in range(300)}
    assert distinct_colors(np.stack([image % 2, image], 2), 1) == {(0,), (1,)}
    for i in range(20):         # 320 colors in all; each image has sixteen of them.
        labels = np.zeros((32, 64, 3), np.uint8)
        labels[:, :32, 0], labels[:, :32, 1] = np.arange(32) // 2, i
        Image.fromarray(labels).save(maps / "train" / f"{i:03}.png")
    job = prepare("pix2pix", ["source_encoding=auto", "data.a_resize=nearest"], data=maps, epochs=1)
    assert job.summary.a.palette is None
    assert job.info.a_colors == ()


def test_edges_come_from_an_instance_channel(i2i, tmp_path: Path) -> None:
    """A second channel of NPY files: 16-bit numbers of instances, here the index of the class times 1000 and more."""
    for side in "AB":
        (tmp_path / "inst" / f"train{side}").mkdir(parents=True)
    g = np.random.default_rng(0)
    for i in range(4):
        classes = np.kron(g.integers(0, 3, (4, 4)), np.ones((8, 8), int))
        both = np.stack([classes, classes * 1000 + g.integers(0, 3, (32, 32))], 2).astype(np.uint16)
        np.save(tmp_path / "inst" / "trainA" / f"{i}.npy", both)
        Image.fromarray((classes * 80).astype(np.uint8)).save(tmp_path / "inst" / "trainB" / f"{i}.png")
    words = (*SPADE, *TINY, "instance_channel=true", "data.a_resize=nearest", "--data", "inst", "--device", "cpu", "--out", "run")
    result = i2i("train", "pix2pix", *words)
    assert result.code == 0, result.err
    model = load("run", device="cpu")
    assert model.formats["a"].palette == ((0,), (1,), (2,))
    assert model.modules["E"].out_channels == 4
    plain = both.copy()
    plain[..., 1] = 0
    with_edges, without = (model(to_tensor(image, model.formats["a"])[None]) for image in (both, plain))
    assert not torch.allclose(with_edges, without, atol=1e-6)


@pytest.mark.parametrize("change", [{"palette": [[0, 0, 0]]}, {"palette": [[0, 0], [1]]}, {"palette": [["x"]]}, {"palette": []}, {"palette": None}])
def test_a_header_with_another_palette_is_refused(i2i, maps: Path, tmp_path: Path, change: dict[str, object]) -> None:
    job = prepare("pix2pix", [*SPADE, *TINY], data=maps)
    header = json.loads(json.dumps(job.header()))
    header["formats"]["a"] |= change
    networks = job.recipe.modules(job.info)
    tensors = {f"{name}.{key}": tensor for name in job.recipe.ema_modules for key, tensor in networks[name].state_dict().items()}
    checkpoint.save(tmp_path / "m.safetensors", tensors, {**header, "kind": "model"})
    with pytest.raises(RequestError, match="does not hold the model its header describes"):
        load(tmp_path / "m.safetensors", device="cpu")


def test_the_values_of_a_palette_are_those_of_the_images() -> None:
    for format, colors in ((ImageFormat(1, "uint16", (0, 4095), palette=((3,), (4095,))), [[3], [4095]]), (ImageFormat(2, "float32", (-5.0, 9.0), palette=((-1.5, 2.0),)), [[-1.5, 2]])):
        image = to_tensor(np.array(colors, format.dtype)[:, None], format)
        assert torch.equal(torch.tensor(palette_values(format)), image[..., 0].T)
        assert ImageFormat.of(json.loads(json.dumps(vars(format)))) == format
    assert palette_values(ImageFormat()) == ()
