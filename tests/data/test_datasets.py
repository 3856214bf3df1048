import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2i.data.config import DataConfig
from i2i.data.format_detection import inspect_dataset, training_sizes
from i2i.data.paired import find_paired, split_strip
from i2i.data.sources import Unreadable, open_source
from i2i.data.unpaired import find_unpaired
from i2i.errors import RequestError
from tests.conftest import SMALL, Run


def save(path: Path, value: int, size: tuple[int, int] = (32, 32), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if mode == "L" else (value,) * 3).save(path)


LAYOUTS = {
    "trainA trainB": ("trainA/{}", "trainB/{}", "testA/{}", "testB/{}"), "train/A train/B": ("train/A/{}", "train/B/{}", "test/A/{}", "test/B/{}"),
    "A/train B/train": ("A/train/{}", "B/train/{}", "A/test/{}", "B/test/{}")}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_two_folders_are_paired_by_name_across_formats(tmp_path: Path, layout: str, direction: str) -> None:
    for split, (a, b) in (("train", LAYOUTS[layout][:2]), ("test", LAYOUTS[layout][2:])):
        for i in range(3):
            save(tmp_path / a.format(f"{i}.png"), 10 * i)
            save(tmp_path / b.format(f"{i}.bmp" if i else "0.PNG"), 100 + 10 * i)
        assert split
    splits = find_paired(open_source(tmp_path), direction)
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 3, "test": 3}
    a, b = (image.array for image in splits["train"][2])
    assert (a[0, 0, 0], b[0, 0, 0]) == ((20, 120) if direction == "ab" else (120, 20))


def test_two_folders_without_splits_are_for_training(tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / f"A/{i}.png", i)
        save(tmp_path / f"B/{i}.png", i)
    assert {name: len(pairs) for name, pairs in find_paired(open_source(tmp_path)).items()} == {"train": 2}


@pytest.mark.parametrize("prefix", ["", "sub/"])
def test_loose_strips_are_for_training(tmp_path: Path, prefix: str) -> None:
    for i in range(2):
        save(tmp_path / f"{prefix}{i}.png", i, (32, 64))
    splits = find_paired(open_source(tmp_path))
    assert {name: len(pairs) for name, pairs in splits.items()} == {"train": 2}
    assert splits["train"].strips


def test_strips_are_cut_in_the_middle() -> None:
    strip = np.arange(12).reshape(2, 6)[:, :, None].repeat(3, 2)
    a, b = split_strip(strip, "x")
    assert a[0, :, 0].tolist() == [0, 1, 2]
    assert b[1, :, 0].tolist() == [9, 10, 11]


@pytest.mark.parametrize("shape", [(4, 4), (6, 4), (4, 7)])
def test_what_is_no_strip_is_refused_with_its_size(shape: tuple[int, int]) -> None:
    with pytest.raises(Unreadable, match=f"{shape[1]}x{shape[0]}"):
        split_strip(np.zeros(shape, np.uint8), "x")


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"trainA/{i}.png", i)
    save(tmp_path / "trainB/0.png", 0)
    save(tmp_path / "trainB/other.png", 0)
    alone = ", ".join(f"{tmp_path}/{name}" for name in ("trainA/1.png", "trainA/2.png", "trainB/other.png"))
    with pytest.raises(RequestError, match=f"3 of 5 files .*such as {re.escape(alone)}$"):
        find_paired(open_source(tmp_path))


def test_one_side_only_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "trainA/0.png", 0)
    with pytest.raises(RequestError, match="only one side"):
        find_paired(open_source(tmp_path))


def test_two_files_of_one_name_are_reported(tmp_path: Path) -> None:
    for name in ("trainA/0.png", "trainA/0.jpg", "trainB/0.png"):
        save(tmp_path / name, 0)
    with pytest.raises(RequestError, match="same name but for the extension"):
        find_paired(open_source(tmp_path))


def test_partners_of_different_size_are_reported(tmp_path: Path) -> None:
    save(tmp_path / "trainA/0.png", 0)
    save(tmp_path / "trainB/0.png", 0, (32, 48))
    with pytest.raises(RequestError, match=r"is 32x32 but its partner trainB/0\.png is 48x32"):
        inspect_dataset(find_paired(open_source(tmp_path))["train"])


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="holds no images"):
        find_paired(open_source(tmp_path))


def test_kinds_follow_the_images(tmp_path: Path) -> None:
    save(tmp_path / "trainA/0.png", 0, mode="L")
    save(tmp_path / "trainB/0.png", 0)
    facts = inspect_dataset(find_paired(open_source(tmp_path))["train"])
    assert (facts.a.channels, facts.b.channels) == (1, 3)


@pytest.mark.parametrize(("config", "image", "crop", "load"), [
    (DataConfig(), (64, 64), (64, 64), (72, 72)), (DataConfig(), (256, 256), (256, 256), (286, 286)), (DataConfig(), (600, 900), (256, 256), (286, 286)),
    (DataConfig(), (100, 100), (96, 96), (107, 107)), (DataConfig(size=(128,)), (256, 256), (128, 128), (143, 143)), (DataConfig(), (20, 20), (16, 16), (18, 18)),
    (DataConfig(size=(64, 128)), (256, 256), (64, 128), (72, 143)), (DataConfig(size=(64,), load_size=(64,)), (99, 99), (64, 64), (64, 64))])
def test_sizes(tmp_path: Path, config: DataConfig, image: tuple[int, int], crop: tuple[int, int], load: tuple[int, int]) -> None:
    save(tmp_path / "A/0.png", 0, image)
    save(tmp_path / "B/0.png", 0, image)
    pairs = find_paired(open_source(tmp_path))["train"]
    assert training_sizes(config, pairs, inspect_dataset(pairs)) == (crop, load)


def test_a_crop_larger_than_the_load_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "A/0.png", 0)
    save(tmp_path / "B/0.png", 0)
    pairs = find_paired(open_source(tmp_path))["train"]
    with pytest.raises(RequestError, match="load_size"):
        training_sizes(DataConfig(size=(64,), load_size=(32,)), pairs, inspect_dataset(pairs))
    with pytest.raises(RequestError, match=r"data\.size"):
        DataConfig(size=(8,))
    with pytest.raises(RequestError, match=r"data\.size"):
        DataConfig(size=(64, 64, 64))


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    save(tmp_path / "train/0.png", 0, (32, 64))
    one = find_paired(open_source(tmp_path))["train"].fingerprint()
    assert find_paired(open_source(tmp_path))["train"].fingerprint() == one
    save(tmp_path / "train/1.png", 0, (32, 64))
    assert find_paired(open_source(tmp_path))["train"].fingerprint() != one


@pytest.mark.parametrize(("size", "noted"), [((48, 64), True), ((54, 96), True), ((48, 72), True), ((40, 76), False), ((32, 64), False), ((48, 128), False)])
@pytest.mark.parametrize("find", [find_paired, find_unpaired])
def test_photographs_that_are_taken_for_strips_are_reported(tmp_path: Path, size: tuple[int, int], noted: bool, find: Callable[..., Any]) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", 50 * i, size)
    notes = inspect_dataset(find(open_source(tmp_path))["train"]).notes
    height, width = size
    assert bool(notes) is noted
    assert all(f"/0.png: {width}x{height} is taken for an A|B strip and cut into halves of {width // 2}x{height}; images of one side each" in note for note in notes)


def test_the_command_line_says_that_photographs_are_cut(tmp_path: Path, i2i: Run) -> None:
    for i in range(3):
        save(tmp_path / "photos" / f"{i}.png", 50 * i, (48, 64))
    for words in (("pix2pix", "--dry-run"), ("pix2pix", "--out", "run", *SMALL, "train.images=4")):
        result = i2i("train", *words, "--data", tmp_path / "photos")
        assert result.code == 0
        assert "64x48 is taken for an A|B strip and cut into halves of 32x48" in result.out + result.err
    save(tmp_path / "A" / "0.png", 0, (48, 64))
    save(tmp_path / "B" / "0.png", 0, (48, 64))
    (tmp_path / "photos").rename(tmp_path.parent / f"{tmp_path.name}-photos")
    assert inspect_dataset(find_paired(open_source(tmp_path))["train"]).notes == ()
