"""`i2i worth`: what is known to help helps, what is known to hurt hurts, jobs are continued, and bad input is said in one line."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.errors import RequestError
from i2i.evaluation import worth_trainings
from i2i.evaluation.worth import measure_worth
from i2i.evaluation.worth_classifier import Schedule, flip_and_crop
from i2i.evaluation.worth_sets import LabeledImages, choose, hold_out
from i2i.evaluation.worth_trainings import (
    REAL,
    Comparison,
    Sets,
    Training,
    added,
    main_ratio,
    run_training,
    training_images,
)
from i2i.metrics.classification import paired_gain
from i2i.metrics.feature_networks import frozen_network
from i2i.metrics.networks.timm_models import make_classifier
from tests.conftest import Run, drawn_strips

CLASSES = ("left", "right", "level")
SLOPES = ((1, 1), (1, -1), (1, 0))
SIDE = 12


def gratings(count: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """`count` noisy gratings of each class, told by their direction."""
    draw = np.random.default_rng(seed)
    labels = np.tile(np.arange(classes), count)
    y, x = np.mgrid[:SIDE, :SIDE]
    waves = [np.sin((SLOPES[label][0] * y + SLOPES[label][1] * x) * 1.1 + draw.uniform(0, 6.3)) for label in labels]
    levels = 128 + 40 * np.stack(waves) + draw.normal(0, 80, (len(labels), SIDE, SIDE))
    return np.repeat(levels.clip(0, 255).astype(np.uint8)[..., None], 3, 3), labels


def labeled(pixels: np.ndarray, labels: np.ndarray, name: str = "x") -> LabeledImages:
    names = [f"{name}/{i}" for i in range(len(labels))]
    return LabeledImages(pixels, labels.astype(np.int64), names, names)


def save(folder: Path, pixels: np.ndarray, labels: np.ndarray, names: tuple[str, ...] = CLASSES) -> Path:
    for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        (folder / names[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / names[label] / f"{i:03}.png")
    return folder


TRAIN, TEST, OTHERS = gratings(8, 0), gratings(40, 1), gratings(32, 2)
NOISE = np.random.default_rng(3).integers(0, 256, OTHERS[0].shape).astype(np.uint8)
FAKES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "copies": (np.concatenate([TRAIN[0]] * 4), np.concatenate([TRAIN[1]] * 4)), "held out": OTHERS, "noise": (NOISE, OTHERS[1]),
    "shuffled": (OTHERS[0], np.random.default_rng(4).permutation(OTHERS[1]))}
FOUR = added(Fraction(4))
SCHEDULE = Schedule(60, 16)


def sets_of(name: str) -> Sets:
    return Sets(labeled(*TRAIN), labeled(*TEST), labeled(*FAKES[name], name), None, CLASSES)


def correct(sets: Sets, condition: worth_trainings.Condition) -> np.ndarray:
    return np.array([run_training(sets, Training(condition, 100, seed), SCHEDULE)["answers"] for seed in range(3)]) == TEST[1]


@pytest.fixture(scope="module")
def without_fakes() -> np.ndarray:
    return correct(sets_of("copies"), REAL)


@pytest.mark.parametrize(("name", "low", "high"), [("copies", -0.06, 0.06), ("held out", 0.05, 1), ("noise", -1, -0.1), ("shuffled", -1, -0.1)])
def test_known_cases(name: str, low: float, high: float, without_fakes: np.ndarray) -> None:
    gain = paired_gain(correct(sets_of(name), FOUR), without_fakes, TEST[1])
    assert low < gain.value < high
    below, above = gain.interval()
    assert {"copies": below < 0.02 and above > -0.02, "held out": below > 0}.get(name, above < 0)


def test_trainings_are_nested_stratified_and_of_the_numbers_asked_for() -> None:
    sets = sets_of("held out")
    smaller, larger = (choose(sets.real, np.full(3, count), 7) for count in (2, 5))
    assert set(smaller) < set(larger)
    pixels, labels = training_images(sets, Training(added(Fraction(1, 2)), 50, 0))
    assert len(pixels) == 3 * (4 + 2)
    assert np.bincount(labels).tolist() == [6, 6, 6]
    _, half = training_images(sets, Training(REAL, 50, 0))
    assert labels[:12].tolist() == half.tolist()
    assert main_ratio([Fraction("1/4"), Fraction(2), Fraction(4)]) == 2


def test_a_training_is_a_function_of_its_seed() -> None:
    answers = [run_training(sets_of("held out"), Training(FOUR, 100, seed), Schedule(5, 16))["answers"] for seed in (0, 0, 1)]
    assert answers[0] == answers[1] != answers[2]


def test_flips_and_crops_move_and_mirror_an_image() -> None:
    image = np.tile(np.arange(16, dtype=np.uint8)[None, None, :, None], (200, 16, 1, 3))
    found = flip_and_crop(image, np.random.default_rng(0))
    rising = (np.diff(found[:, 0, 4:12, 0].astype(int)) == 1).all(1)
    assert found.shape == image.shape
    assert 70 < rising.sum() < 130
    assert set(found[rising][:, 0, 8, 0].tolist()) == {6, 7, 8, 9, 10}


def test_a_quarter_of_each_class_is_held_out() -> None:
    train, test = hold_out(labeled(*TRAIN), 0)
    assert (len(train), test.counts(3).tolist()) == (18, [2, 2, 2])
    assert not set(train.digests) & set(test.digests)


def test_a_job_that_was_cut_off_is_continued_and_more_seeds_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets, made = sets_of("held out"), list[tuple[str, float, int]]()
    original = worth_trainings.run_training

    def counted(sets: Sets, training: Training, schedule: Schedule) -> dict[str, object]:
        made.append(training.key)
        if len(made) == 4:
            raise KeyboardInterrupt
        return original(sets, training, schedule)

    monkeypatch.setattr(worth_trainings, "run_training", counted)
    few = Comparison(Schedule(2, 8), (100.0,), (Fraction(1),), 2)
    with pytest.raises(KeyboardInterrupt):
        measure_worth(sets, few, tmp_path / "cut")
    outcome = measure_worth(sets, few, tmp_path / "cut")
    assert len(made) == 4 + 7       # Ten: five conditions, two seeds; the one that was cut off began twice.
    monkeypatch.setattr(worth_trainings, "run_training", original)
    assert outcome == measure_worth(sets, few, tmp_path / "whole")
    assert measure_worth(sets, Comparison(Schedule(2, 8), (100.0,), (Fraction(1),), 3), tmp_path / "cut")["seeds"] == 3
    with pytest.raises(ValueError, match="holds trainings of another comparison: updates is 2 there and 3 here; choose another --out"):
        measure_worth(sets, Comparison(Schedule(3, 8), (100.0,), (Fraction(1),), 2), tmp_path / "cut")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("worth")
    for split, pixels in (("train", TRAIN), ("test", TEST)):
        save(base / "data" / split, *pixels)
    save(base / "fake", *FAKES["held out"])
    return base


QUICK = ("--updates", 2, "--seeds", 2, "--device", "cpu")


def test_the_command_prints_a_plan_the_table_and_a_sentence_and_writes_json_and_a_plot(i2i: Run, data: Path) -> None:
    words = ("worth", "--real", data / "data", "--fake", data / "fake", *QUICK, "--ratios", "1/4,2,8", "--shares", "50,100")
    planned = i2i(*words, "--dry-run")
    assert planned.out.startswith("plan: up to 26 trainings of 2 updates of 64 images of 12x12, on 24 real images of 3 classes, tested on 120: about ")
    assert not Path("worth").exists()
    found = i2i(*words)
    assert found.code == 0, found.err
    assert "at 100 % of the real images, 8 fake to a real image is left out: class left has 32 fakes, and 64 would do" in found.err
    assert "the fakes are the same: they know of the real images that are left out" in found.err
    outcome = json.loads(Path("worth/results.json").read_text())
    assert found.out.splitlines()[-2] == outcome["sentence"]
    assert [row["condition"] for row in outcome["conditions"] if row["share"] == 100] == [
        "real", "real, flips and crops", "real + 1/4 fake", "real + 2 fake", "real, flips and crops + 2 fake", "fakes alone"]
    assert [verdict["ratio"] for verdict in outcome["verdicts"]] == ["2", "2"]
    for row in outcome["conditions"]:
        assert set(row["recall"]) == set(CLASSES)
        assert row["mean_recall"]["value"] == pytest.approx(np.mean(list(row["recall"].values())))
        assert "gain" not in row or row["gain"]["low"] <= row["gain"]["value"] <= row["gain"]["high"]
    assert 0 <= outcome["trained_on_real_tested_on_fakes"]["value"] <= 1
    picture = ElementTree.parse("worth/worth.svg").getroot()
    circles = picture.findall(".//{*}circle")
    gains = sum("gain" in row for row in outcome["conditions"])
    assert len(circles) == len(outcome["conditions"]) + gains + 7 + 6       # A point each, and the legends.
    assert "real, flips and crops + 2 fake" in "".join(picture.itertext())


def test_a_backbone_of_timm_is_trained_too(i2i: Run, data: Path) -> None:
    words = ("worth", "--real", data / "data", "--fake", data / "fake", *QUICK, "--updates", 1, "--ratios", 1, "--shares", 100, "--size", 16)
    assert i2i(*words, "--backbone", "test_resnet").code == 0
    assert json.loads(Path("worth/plan.json").read_text())["backbone"] == "test_resnet"
    assert "nearest: resnet18" in i2i(*words, "--backbone", "resnet_18").line


def test_a_backbone_by_the_name_of_a_judge_begins_with_its_weights_and_all_of_it_learns(tmp_path: Path) -> None:
    state = frozen_network("efficientnet-lite0").state_dict()
    model = make_classifier("efficientnet-lite0", 3, 32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in model.state_dict().items() if not name.startswith("classifier"))
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(RequestError, match=r"other\.pth"):
        make_classifier("efficientnet-lite0", 3, 32, tmp_path / "other.pth")


def test_a_model_makes_as_many_of_each_class_as_the_real_images_have(i2i: Run, tmp_path: Path, noisy: dict[str, Path]) -> None:
    from tests.conftest import CLASSES as names
    (pixels, labels), test = gratings(8, 5), gratings(8, 6)
    keep = np.flatnonzero((labels != 2) | (np.arange(24) < 12))       # 8, 8 and 4.
    rows = []
    for split, (images, numbers) in (("train", (pixels[keep], labels[keep])), ("test", test)):
        (tmp_path / "data" / split).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "data" / split / f"{i}.png")
            rows.append([f"{split}/{i}.png", int(numbers[i])])
    (tmp_path / "data/dataset.json").write_text(json.dumps({"labels": rows, "classes": names}))
    found = i2i("worth", "--real", "data", "--fake", noisy["classes"], *QUICK, "--ratios", 1, "--shares", 100)
    assert found.code == 0, found.err
    assert "before, 20 images are generated" in found.out
    assert sorted(len(list(folder.glob("*.png"))) for folder in Path("worth/fakes").iterdir() if folder.is_dir()) == [4, 8, 8]
    again = i2i("worth", "--real", "data", "--fake", noisy["classes"], *QUICK, "--ratios", 1, "--shares", 100)
    assert again.out.splitlines()[1:] == found.out.splitlines()[1:]


def test_a_model_that_was_trained_on_test_images_is_refused_however_their_folder_is_written(i2i: Run, data: Path, tmp_path: Path, noisy: dict[str, Path]) -> None:
    from tests.conftest import CLASSES as names
    learned, model = noisy["classes"].parent / "data", noisy["classes"]
    (tmp_path / "link").symlink_to(learned)
    others = save(tmp_path / "others", *TRAIN, ("0", "1", "2"))
    rows = [[f"{path.parent.name}/{path.name}", int(path.parent.name)] for path in sorted(others.rglob("*.png"))]
    (others / "dataset.json").write_text(json.dumps({"labels": rows, "classes": names}))
    for words, count in ((("--real", learned), 3), (("--real", os.path.relpath(learned)), 3), (("--real", "link"), 3), (("--real", others, "--test", learned), 6)):
        found = i2i("worth", *words, "--fake", model, *QUICK)
        assert found.code == 2, words
        assert f"--fake {model} was trained on {count} of {count} test images, such as " in found.line
        assert found.line.endswith("accepted: --test DATA of images that it has not seen")
    found = i2i("worth", "--real", learned, "--test", others, "--fake", model, *QUICK)
    assert "--real: 6 images are too few" in found.line        # It may learn from what the model did.


def test_of_a_translator_the_labels_of_the_sources_are_carried_along(i2i: Run, data: Path, trained: Path) -> None:
    found = i2i("worth", "--real", data / "data", "--fake", trained, "--task", "translate", "--source", data / "fake", *QUICK, "--ratios", 1, "--shares", 100)
    assert found.code == 0, found.err
    assert "before, the sources are translated" in found.out
    outcome = json.loads(Path("worth/results.json").read_text())
    assert outcome["conditions"][-1]["condition"] == "sources alone"
    assert "translations rather than their sources, alone" in found.out
    assert outcome["sentence"].startswith("adding translated images")
    assert outcome["n_fake"] == 96
    assert len(list(Path("worth/translated").rglob("*.png"))) == 96


def test_test_images_among_training_images_and_fakes_are_named_and_left_out(i2i: Run, data: Path, tmp_path: Path) -> None:
    save(tmp_path / "data/train", *TRAIN)
    save(tmp_path / "data/test", *TEST)
    save(tmp_path / "fake", *OTHERS)
    Image.fromarray(TEST[0][0]).save(tmp_path / "data/train/left/twin.bmp")
    Image.fromarray(TEST[0][3]).save(tmp_path / "fake/left/twin.bmp")
    found = i2i("worth", "--real", "data", "--fake", "fake", *QUICK, "--ratios", 1, "--shares", 100)
    assert "warning: 1 of 25 training images are test images, such as data/train/left/twin.bmp and data/test/left/000.png; they are not trained with" in found.err
    assert "warning: 1 of 97 fakes are test images, such as fake/left/twin.bmp and data/test/left/003.png" in found.err
    assert json.loads(Path("worth/results.json").read_text())["n_real"] == 24
    found = i2i("worth", "--real", data / "data", "--test", data / "data/train", "--fake", "fake", *QUICK)
    assert found.code == 2
    assert "24 of 24 training images are test images" in found.line
    assert "0 are left, and 20 are needed" in found.line


def test_without_a_test_set_a_quarter_is_held_out_and_said(i2i: Run, data: Path) -> None:
    found = i2i("worth", "--real", data / "data/test", "--fake", data / "fake", *QUICK, "--ratios", "1/2", "--shares", 100)
    assert found.code == 0, found.err
    assert "has no test images: 30 of it, a quarter of each class, are held out; the fakes must not come from them" in found.err


def test_what_cannot_be_compared_is_said_in_one_line(i2i: Run, data: Path, tmp_path: Path, trained: Path, noisy: dict[str, Path]) -> None:
    real, fake = data / "data", data / "fake"
    plain = drawn_strips(tmp_path / "plain")
    one = save(tmp_path / "one/train", *gratings(30, 8, 1)).parent
    named = save(tmp_path / "named", *gratings(30, 8, 1))
    (named / "dataset.json").write_text(json.dumps({"classes": ["left", "right"], "labels": [[f"left/{i:03}.png", 0] for i in range(30)]}))
    packed = save(tmp_path / "packed", OTHERS[0][:6], np.arange(6) // 2, ("00000", "00001", "00002"))
    other = save(tmp_path / "other", *OTHERS, ("left", "right", "steep"))
    two = save(tmp_path / "two", *gratings(30, 8, 2))
    few = save(tmp_path / "few", *gratings(3, 9))
    lone = save(tmp_path / "lone", OTHERS[0][:41], np.array([0, 1] * 20 + [2]))
    for words, expected in (
            (("--real", plain, "--fake", fake), f"--real {plain}: its images have no classes: all lie in {plain}/train; accepted: two or more class folders, dataset.json with labels"),
            (("--real", real, "--fake", plain), f"--fake {plain}: its images have no classes"),
            (("--real", real, "--fake", fake, "--test", plain), f"--test {plain}: its images have no classes"),
            (("--real", one, "--fake", fake), f"--real {one}: its images have no classes: all lie in {one}/train/left; accepted: two or more class folders"),
            (("--real", one / "train", "--fake", fake), f"--real {one}/train: its images have no classes: all lie in {one}/train/left; accepted"),
            (("--real", named, "--fake", fake), f"--real {named}: all images are of one class, left; accepted: two or more classes"),
            (("--real", packed, "--fake", fake), "its images have no classes: the folders 00000 … 00002 only divide the files"),
            (("--real", real, "--fake", other), "--fake has a class steep that the real training images do not have; those of --real are left, level, right"),
            (("--real", real, "--fake", two), "--fake has no images of class level"),
            (("--real", real, "--fake", fake, "--test", two), "--test has no images of class level"),
            (("--real", real, "--fake", fake, "--test", few), "--test: 9 images are too few for a statement; 20 are needed, and 628 test images can show a gain of 5 points"),
            (("--real", real, "--fake", fake, "--test", lone), "--test: 1 images of class level are too few for a statement; 2 of each class"),
            (("--real", few, "--fake", fake, "--test", real), "--real: 9 images are too few"),
            (("--real", real, "--fake", few, "--ratios", 2, "--shares", 100), "--fake: too few images for any ratio: class left has 3 fakes, and 16 would do"),
            (("--real", real, "--fake", trained), f"--fake {trained} (pix2pix) translates images; accepted: --task translate --source DATA"),
            (("--real", real, "--fake", trained, "--task", "translate"), "--source DATA says which labeled ones"),
            (("--real", real, "--fake", noisy["plain"], "--task", "translate", "--source", real), "makes images from noise"),
            (("--real", real, "--fake", noisy["plain"]), "was trained without labels, and labels of its images are needed"),
            (("--real", real, "--fake", noisy["classes"]), "has a class"),
            (("--real", real, "--fake", fake, "--source", real), "is for --task translate"),
            (("--real", real, "--fake", fake, "--task", "segment"), "--task segment is not known; accepted: classify or translate"),
            (("--real", real, "--fake", fake, "--n", 9), "--n 9 is for a --fake MODEL"),
            (("--real", real, "--fake", fake, "--shares", "0,50"), "--shares 0,50 cannot be used; accepted: numbers above 0 and up to 100"),
            (("--real", real, "--fake", fake, "--ratios", "a"), "--ratios a cannot be used"),
            (("--real", real, "--fake", fake, "--weights", "w.pth"), "--weights w.pth is for --backbone NAME"),
            (("--real", real, "--fake", tmp_path / "nothing"), "nothing")):
        found = i2i("worth", *words, *QUICK)
        assert found.code == 2, words
        assert expected in found.line, words
