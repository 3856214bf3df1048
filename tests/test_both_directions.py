"""CycleGAN from the command line to files: trained, both directions, imported, judged where it can be, refused where it cannot."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2i as package
from i2i import load
from i2i.runs.folder import RunFolder
from tests.conftest import CYCLE, REFERENCE, Run, two_styles

RESNET = REFERENCE / "networks" / "resnet_9blocks_instance_ngf8_net.pth"
SMALLER = REFERENCE / "networks" / "resnet_6blocks_batch_ngf8_net.pth"


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished CycleGAN run."""
    base = tmp_path_factory.mktemp("cycle")
    return package.train("cyclegan", *CYCLE, "train.images=24", "generator.width=8", data=two_styles(base / "data"), out=base / "run", device="cpu")


def test_train_then_translate_both_ways(sides: Path, i2i: Run) -> None:
    result = i2i("train", "cyclegan", *CYCLE, "--data", sides, "--out", "run", "--epochs", 2, "--device", "cpu")
    assert result.code == 0, result.err
    assert "7 + 5 images to learn from" in result.out
    assert "14/14 images" in result.out
    sheet = np.asarray(Image.open("run/samples/00000014.png"))
    assert sheet.shape == (2 + 34, 2 + 34 * 12, 3)          # Three test pairs, four pictures each.
    for i in range(3):
        a, b = (np.asarray(Image.open(sides / f"test{side}" / f"{i}.png")) for side in "AB")
        left = 2 + 34 * 4 * i
        assert np.array_equal(sheet[2:34, left:left + 32], a)
        assert np.array_equal(sheet[2:34, left + 68:left + 100], b)
    for direction, side, place in (("ab", "A", 34), ("ba", "B", 102)):
        assert i2i("translate", "run", sides / f"test{side}", "--out", direction, "--direction", direction, "--device", "cpu").code == 0
        for i in range(3):
            left = 2 + 34 * 4 * i + place
            assert np.array_equal(np.asarray(Image.open(f"{direction}/{i}.png")), sheet[2:34, left:left + 32])
    assert i2i("translate", "run", sides / "testA", "--out", "default", "--device", "cpu").code == 0
    assert Path("default/0.png").read_bytes() == Path("ab/0.png").read_bytes()
    assert i2i("evaluate", "run", "--device", "cpu").code == 0       # testA and testB have the same names.


def test_the_model_file_holds_both(cycle: Path) -> None:
    model = load(cycle / "model.safetensors", device="cpu")
    assert set(model.modules) == {"G_ab", "G_ba"}
    x = torch.rand(1, 3, 37, 50) * 2 - 1
    with torch.no_grad():
        for direction in ("ab", "ba"):
            inside = torch.rand(2, 3, 32, 32) * 2 - 1
            assert torch.equal(model.translate(inside, direction=direction), model.modules[f"G_{direction}"](inside))
    there, back = model.translate(x), model.translate(x, direction="ba")
    assert there.shape == back.shape == x.shape
    assert not torch.equal(there, back)
    picture = Image.new("L", (21, 33), 90)
    one, two = model.translate([picture, picture], direction="ba")
    assert (one.size, one.mode, one.tobytes()) == (picture.size, "RGB", two.tobytes())


def test_each_way_is_judged_by_its_own_targets(cycle: Path, i2i: Run, tmp_path: Path) -> None:
    """What `evaluate MODEL` says of a way is what it says of that way's files; the inputs copied are at one distance both ways."""
    data = cycle.parent / "data"
    told = {}
    for direction in ("ab", "ba"):
        result = i2i("evaluate", cycle, "--direction", direction, "--metrics", "l1", "--json", f"{direction}.json", "--sheet", f"{direction}.png", "--device", "cpu")
        assert result.code == 0, result.err
        told[direction] = json.loads(Path(f"{direction}.json").read_text())
        assert told[direction]["direction"] == direction
        source, target = (data / f"test{side.upper()}" for side in direction)
        assert i2i("translate", cycle, source, "--out", f"out-{direction}", "--direction", direction, "--device", "cpu").code == 0
        assert i2i("evaluate", "--real", target, "--fake", f"out-{direction}", "--metrics", "l1", "--json", "sets.json").code == 0
        sets = json.loads(Path("sets.json").read_text())["results"]["l1"]["value"]
        assert told[direction]["scores"]["model"]["l1"] == pytest.approx(sets, rel=1e-4)       # Batches round otherwise.
        sheet = np.asarray(Image.open(f"{direction}.png"))
        for i in range(3):
            for column, folder in enumerate((source, Path(f"out-{direction}"), target)):
                left = 2 + 34 * (3 * i + column)
                assert np.abs(sheet[2:34, left:left + 32].astype(int) - np.asarray(Image.open(folder / f"{i}.png"))).max() <= 1
    ab, ba = told["ab"], told["ba"]
    assert ab["scores"]["copy the input"]["l1"] == pytest.approx(ba["scores"]["copy the input"]["l1"])
    assert ab["scores"]["model"]["l1"] != ba["scores"]["model"]["l1"]
    assert ab["stamp"]["real"] != ba["stamp"]["real"]
    assert "not comparable with ba.json: real is" in i2i("evaluate", cycle, "--metrics", "l1", "--against", "ba.json", "--device", "cpu").line
    assert i2i("evaluate", cycle, "--metrics", "l1", "--against", "ab.json", "--device", "cpu").code == 0


def test_targets_are_told_apart_by_their_own_files(tmp_path: Path, i2i: Run) -> None:
    """A run from B to A has A as its targets: a result from before one of them changed is not compared."""
    data = two_styles(tmp_path / "data")
    assert i2i("train", "cyclegan", *CYCLE, "direction=ba", "train.images=4", "--data", data, "--out", "run", "--device", "cpu").code == 0
    assert i2i("evaluate", "run", "--metrics", "l1", "--json", "old.json", "--device", "cpu").code == 0
    image = Image.open(data / "testB" / "0.png")
    image.putpixel((0, 0), (9, 9, 9))
    image.save(data / "testB" / "0.png")
    assert i2i("evaluate", "run", "--metrics", "l1", "--against", "old.json", "--device", "cpu").code == 0
    image.save(data / "testA" / "0.png")
    assert i2i("evaluate", "run", "--metrics", "l1", "--against", "old.json", "--device", "cpu").code == 2


@pytest.mark.parametrize("direction", ["ba", "up"])
def test_a_model_of_one_way_is_not_judged_the_other(trained: Path, i2i: Run, direction: str, tmp_path: Path) -> None:
    result = i2i("evaluate", trained, "--direction", direction, "--metrics", "l1")
    assert result.code == 2
    assert f"direction {direction} is none that this pix2pix model has learned; accepted: ab" in result.line
    assert "--direction ba belongs to i2i evaluate MODEL" in i2i("evaluate", "--real", tmp_path, "--fake", tmp_path, "--direction", "ba").line


@pytest.mark.parametrize("direction", ["ba", "up"])
def test_a_model_of_one_way_refuses_the_other(trained: Path, strips: Path, i2i: Run, direction: str) -> None:
    result = i2i("translate", trained, strips / "test", "--half", "left", "--out", "out", "--direction", direction)
    assert result.code == 2
    assert f"direction {direction} is none that this pix2pix model has learned; accepted: ab" in result.line
    assert not Path("out").exists()


def test_a_direction_nobody_knows(cycle: Path, i2i: Run, sides: Path) -> None:
    result = i2i("translate", cycle, sides / "testA", "--out", "out", "--direction", "aa")
    assert result.code == 2
    assert "accepted: ab or ba" in result.line


def test_without_data_it_trains_on_the_bundled_sets(i2i: Run) -> None:
    result = i2i("train", "cyclegan", "--dry-run")
    assert result.code == 0, result.err
    for words in ("lorelei-hair-64", "two folders, unpaired: 800 + 800 images train, 160 pairs test", "160,000 steps of 1 (200 epochs)", "not while training",
                  "7,837,699 parameters", "pool_a", "1x3x64x64 -> 1x1x6x6"):
        assert words in result.out, words


def test_held_out_pairs_judge_and_others_do_not(tmp_path: Path, i2i: Run) -> None:
    two_styles(tmp_path / "paired", "val")
    assert i2i("train", "cyclegan", *CYCLE, "train.images=12", "--data", "paired", "--out", "one", "--device", "cpu").code == 0
    assert json.loads(Path("one/metrics.jsonl").read_text().splitlines()[-1])["n"] == 3
    assert json.loads(Path("one/verdict.json").read_text())["best"]["metric"] == "l1"
    assert Path("one/best.safetensors").exists()
    two_styles(tmp_path / "other", "val")
    for path in (tmp_path / "other" / "valB").iterdir():
        path.rename(path.with_name(f"b{path.name}"))
    two_styles(tmp_path / "large", "val")
    for path in (tmp_path / "large" / "valB").iterdir():
        Image.open(path).resize((40, 40)).save(path)
    for folder, judged in (("other", False), ("large", True)):      # Partners of two sizes are held against each other at the training size.
        result = i2i("train", "cyclegan", *CYCLE, "train.images=12", "--data", folder, "--out", f"run-{folder}", "--device", "cpu")
        assert result.code == 0, result.err
        assert Path(f"run-{folder}/metrics.jsonl").exists() == judged
        plan = i2i("train", "cyclegan", *CYCLE, "--data", folder, "--dry-run").out
        assert ("not while training: there are no val pairs" in plan) != judged
    result = i2i("evaluate", "run-other", "--split", "val")
    assert result.code == 2
    assert "are not pairs" in result.line


def test_strips_train_it_too(strips: Path, i2i: Run) -> None:
    result = i2i("train", "cyclegan", *CYCLE, "train.images=8", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert "A|B strips, taken apart: 10 + 10 images train, 3 pairs val, 4 pairs test" in i2i("train", "cyclegan", *CYCLE, "--data", strips, "--dry-run").out


def test_sides_of_different_channels(tmp_path: Path, i2i: Run) -> None:
    folder = two_styles(tmp_path / "gray")
    for path in (*(folder / "trainA").iterdir(), *(folder / "testA").iterdir()):
        Image.open(path).convert("L").save(path)
    refused = i2i("train", "cyclegan", *CYCLE, "lambda_identity=0.5", "train.images=4", "--data", folder, "--out", "run")
    assert refused.code == 2
    assert "lambda_identity=0.5 cannot be used" in refused.line
    result = i2i("train", "cyclegan", *CYCLE, "train.images=4", "--data", folder, "--out", "run", "--device", "cpu")
    assert result.code == 0
    assert "lambda_identity is 0 by default: the sides differ in channels, 1 and 3" in result.out
    assert json.loads(Path("run/config.json").read_text())["recipe"]["settings"]["lambda_identity"] == 0
    assert i2i("train", "cyclegan", *CYCLE, "train.images=4", "--data", folder, "--out", "run", "--device", "cpu").code == 0      # The same command.
    for direction, side, mode in (("ab", "A", "RGB"), ("ba", "B", "L")):
        assert i2i("translate", "run", folder / f"test{side}", "--out", direction, "--direction", direction, "--device", "cpu").code == 0
        assert Image.open(f"{direction}/0.png").mode == mode


@pytest.mark.parametrize("words", [["penalty=wgan-gp", "penalty.weight=10", "adversarial=wasserstein"], ["penalty=r1", "train.precision=bf16"]])
@pytest.mark.parametrize("recipe", ["cyclegan", "pix2pix"])
def test_penalties_by_name(strips: Path, i2i: Run, recipe: str, words: list[str]) -> None:
    own = CYCLE if recipe == "cyclegan" else [word for word in CYCLE if not word.startswith(("pool", "generator.blocks"))] + ["discriminator.norm=instance"]
    result = i2i("train", recipe, *own, *words, "train.images=6", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert RunFolder("run").states()


def test_wrong_requests_are_one_line(sides: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "half" / "trainA").mkdir(parents=True)
    (tmp_path / "half" / "trainB").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "half" / "trainA" / "0.png")
    for words, expected in ((["--data", tmp_path / "half"], "has only one side (trainA); both are needed"), (["penalty=wgangp"], "did you mean 'wgan-gp'"),
                            (["penalty=wgan-gp", "penalty.wieght=3"], "did you mean 'weight'"), (["penalty=r1", "penalty.gamma=-1"], "0 or more"),
                            (["penalty=wgan-gp", "discriminator.norm=batch"], "Gulrajani"), (["pool=-1"], "0 or more"),
                            (["lambda_cycle=3"], "did you mean 'lambda_cycle_")):
        data = [] if "--data" in words else ["--data", sides]
        result = i2i("train", "cyclegan", *words, *data, "--epochs", 1, "--dry-run")
        assert result.code == 2, words
        assert expected in result.line


def test_two_official_generators_become_one_model(i2i: Run, tmp_path: Path) -> None:
    result = i2i("convert", "--ab", RESNET, "--ba", RESNET, "--out", "both.safetensors")
    assert result.code == 0, result.err
    assert i2i("convert", RESNET, "--out", "one.safetensors").code == 0
    both, one = load("both.safetensors", device="cpu"), load("one.safetensors", device="cpu")
    x = torch.rand(1, 3, 64, 72) * 2 - 1
    for direction in ("ab", "ba"):
        assert torch.equal(both.translate(x, direction=direction), one.translate(x))
    tensors = torch.load(RESNET, weights_only=True)
    torch.save({key: value * 1.1 for key, value in tensors.items()}, tmp_path / "b.pth")
    (tmp_path / "a.pth").write_bytes(RESNET.read_bytes())
    assert i2i("convert", "--ab", "a.pth", "--ba", "b.pth").code == 0
    mixed = load("cyclegan.safetensors", device="cpu")
    assert torch.equal(mixed.translate(x), one.translate(x))
    assert not torch.equal(mixed.translate(x, direction="ba"), one.translate(x))


def test_what_cannot_be_imported_together(i2i: Run) -> None:
    for words in ([], [RESNET, "--ab", RESNET, "--ba", RESNET], ["--ab", RESNET], ["--ba", RESNET], [RESNET, "--ba", RESNET]):
        result = i2i("convert", *words)
        assert result.code == 2, words
        assert "i2i convert --ab FILE --ba FILE" in result.line
    result = i2i("convert", "--ab", RESNET, "--ba", SMALLER, "--out", "x.safetensors")
    assert result.code == 2
    assert "accepted: two generators of one CycleGAN" in result.line
    assert not Path("x.safetensors").exists()
