"""`i2i leaks`: planted copies of training images are found, held-out images are not, and bad input is said in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.metrics.copies import MAX_DIFFERENCE, CopyFinder, copy_threshold
from tests.conftest import Run
from tests.metrics.test_copies import CHANGES, scenes

CHANGED = [CHANGES[name] for name in ("exact", "mirrored", "down and right", "JPEG 50", "5 % darker")]
PLANTED = 15


def save(folder: Path, images: list[np.ndarray], first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images, first):
        Image.fromarray(np.ascontiguousarray(image)).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets of 100 training and 110 held-out images, and 60 fakes of which 15 are copies."""
    base = tmp_path_factory.mktemp("leaks")
    train = scenes(100)
    save(base / "data/train", list(train))
    save(base / "data/test", list(scenes(110)))
    fakes = [CHANGED[i % len(CHANGED)](train[i]) for i in range(PLANTED)]
    save(base / "fake", [*fakes, *scenes(45)])
    save(base / "honest", list(scenes(60)))
    return base


def test_of_peeps_all_planted_copies_are_found_and_at_most_one_in_a_hundred_held_out_images_is_flagged() -> None:
    splits = find_images(open_source("peeps-64"))
    train, test = (np.stack([splits[name][i][0].array[..., :3] for i in np.linspace(0, len(splits[name]) - 1, count).astype(int)])
                   for name, count in (("train", 500), ("test", 240)))
    finder = CopyFinder(train)
    distances = np.array([match.distance for match in finder.find(test)])
    threshold, share = copy_threshold(distances[::2], MAX_DIFFERENCE)
    assert share <= 0.01
    assert (distances[1::2] < threshold).mean() <= 0.01         # Images that had no part in the threshold.
    copies = np.stack([CHANGED[i % len(CHANGED)](train[10 * i]) for i in range(50)])
    found = finder.find(copies)
    assert [match.index for match in found] == list(range(0, 500, 10))
    assert all(match.distance < threshold for match in found)


def test_copies_are_counted_named_and_shown(i2i: Run, sets: Path) -> None:
    found = i2i("leaks", "--train", sets / "data", "--fake", sets / "fake", "--features", "random", "--json", "leaks.json", "--sheet", "sheet.png", "--fail-over", 0.24)
    assert found.code == 1      # After everything has been written.
    assert f"{PLANTED} of 60 fakes are copies of training images (25.0%, 95 % interval 15.8% … 37.2%): more than by chance, 0.9%" in found.out
    assert "000.png is train/000.png, in place" in found.out
    outcome = json.loads(Path("leaks.json").read_text())
    copies = [pair for pair in outcome["nearest"] if pair["copy"]]
    assert sorted((pair["fake"], pair["train"]) for pair in copies) == [(f"{i:03}.png", f"train/{i:03}.png") for i in range(PLANTED)]
    assert {pair["how"] for pair in copies} == {"in place", "mirrored", "shifted by 2, 2 of 64 pixels"}
    assert all(pair["distance"] < outcome["threshold"] for pair in copies)
    names = ["copies", *(f"{name}_random" for name in ("authentic", "near_copies", "c_t", "fld_gap", "membership_auc"))]
    assert list(outcome["results"]) == list(outcome["held_out"]) == names
    results, held_out = outcome["results"], outcome["held_out"]
    assert results["copies"]["value"] == PLANTED / 60
    assert held_out["copies"]["value"] <= 0.01
    assert results["fld_gap_random"]["high"] < 0 < held_out["fld_gap_random"]["high"]
    assert all(result["low"] <= result["value"] <= result["high"] for name, result in results.items() if name != "c_t_random")
    assert outcome["stamp"]["metrics"]["leaks"]["n_test"] == 110
    with Image.open("sheet.png") as sheet:
        pixels = np.asarray(sheet)
    assert pixels.shape == (6 * (104 + 8) + 8, 4 * (204 + 8) + 8, 3)
    assert (pixels == (220, 30, 30)).all(2)[60, 10]              # The frame of the first pair,
    assert not (pixels == (220, 30, 30)).all(2)[-60:].any()      # and none of the last row.


def test_a_set_without_copies_passes_a_check(i2i: Run, sets: Path) -> None:
    words = ("leaks", "--train", sets / "data", "--fake", sets / "honest", "--features", "random", "--fail-over")
    assert i2i(*words, 0.05).code == 0
    assert i2i(*words, 2).code == 2


def test_without_held_out_images_training_images_say_what_is_near(i2i: Run, sets: Path) -> None:
    found = i2i("leaks", "--train", sets / "data/train", "--fake", sets / "fake", "--features", "random", "--json", "leaks.json")
    results = json.loads(Path("leaks.json").read_text())["results"]
    assert PLANTED <= 60 * results["copies"]["value"] < PLANTED + 2.5
    assert "there are no held-out images (--test DIR, or test/ in the training data)" in found.err
    assert list(results) == ["copies", "authentic_random", "near_copies_random"]


def test_a_model_that_makes_images_from_noise_is_judged_by_its_images(i2i: Run, sets: Path, noisy: dict[str, Path]) -> None:
    found = i2i("leaks", "--train", sets / "data", "--fake", noisy["classes"], "--n", 30, "--features", "random", "--device", "cpu")
    assert found.code == 0
    assert "0 of 30 fakes are copies of training images" in found.out
    assert "none of 30 fakes is a copy, but up to 11.4% of all may be; 381 would bound that by 1 %" in found.err
    assert "fakes are 32x32 and training images 64x64" in found.err


def test_held_out_images_that_are_or_look_like_training_images_are_named_and_left_out(i2i: Run, sets: Path, tmp_path: Path) -> None:
    test = save(tmp_path / "test", list(scenes(30)))
    image = np.asarray(Image.open(sets / "data/train/007.png"))
    save(test, [image, (image * 0.98).astype(np.uint8)], 30)
    found = i2i("leaks", "--train", sets / "data", "--test", test, "--fake", sets / "fake", "--features", "random", "--json", "leaks.json")
    assert f"1 of 32 held-out images are training images, such as {test}/030.png and {sets}/data/train/007.png; left out" in found.err
    assert f"1 of 32 held-out images look like training images, such as {test}/031.png and {sets}/data/train/007.png; left out" in found.err
    assert "30 held-out images to compare with: 1 in 31 unseen images counts as a copy; 99 would make that 1 in 100" in found.err
    assert json.loads(Path("leaks.json").read_text())["stamp"]["metrics"]["leaks"]["n_test"] == 30


def test_fakes_of_other_kinds_are_said_in_one_line_each(i2i: Run, sets: Path, tmp_path: Path) -> None:
    gray = save(tmp_path / "gray", [image[:48, :, 0] for image in scenes(20)])
    (tmp_path / "float").mkdir()
    for i in range(20):
        np.save(tmp_path / f"float/{i}.npy", np.zeros((8, 8, 3), np.float32))
    words = ("leaks", "--train", sets / "data/train", "--features", "random", "--fake")
    lines = i2i(*words, gray).err.splitlines()
    assert "warning: 20 of 20 fakes are gray: repeated to three channels" in lines
    assert "warning: fakes are 64x48 and training images 64x64: what the resize does differs between them" in lines
    found = i2i(*words, tmp_path / "float")
    assert found.code == 1
    assert "0.npy is float32, which has no fixed range" in found.line


def test_what_cannot_be_judged_is_said_in_one_line(i2i: Run, sets: Path, tmp_path: Path, trained: Path) -> None:
    data, fake = sets / "data", sets / "fake"
    few = save(tmp_path / "few", list(scenes(5)))
    only_test = save(tmp_path / "only/test", list(scenes(3))).parent
    save(tmp_path / "sides/trainA", list(scenes(2)))
    save(tmp_path / "sides/trainB", list(scenes(2)))
    for words, expected in (
            (("--train", data, "--fake", few), "--fake: 5 images are too few for a statement; 20 are needed, and 381 fakes can show that fewer than 1 % are copies"),
            (("--train", few, "--fake", fake), "--train: 5 images are too few"),
            (("--train", data, "--fake", fake, "--test", few), "--test: 5 images are too few"),
            (("--train", data, "--fake", fake, "--test", data / "train"), f"100 of 100 held-out images are training images, such as {data}/train/000.png and {data}/train/000.png: 0 are left"),
            (("--train", data, "--fake", trained), f"--fake {trained} translates images, and no sources are known; accepted: i2i translate {trained} SOURCES --out DIR"),
            (("--train", data, "--fake", fake, "--n", 9), "--n 9 is for --fake MODEL"),
            (("--train", only_test, "--fake", fake), "has no training images, only test"),
            (("--train", tmp_path / "sides", "--fake", fake), "has two sides"),
            (("--train", data, "--fake", tmp_path / "nothing"), "nothing"),
            (("--train", data, "--fake", fake, "--features", "inceptoin"), "did you mean 'inception'"),
            (("--train", data, "--fake", fake, "--weights", tmp_path / "w"), "w does not exist")):
        found = i2i("leaks", *words)
        assert found.code == 2, words
        assert expected in found.line, words
