"""Unpaired data: every layout, and a stream that is a function of (seed, position)."""

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.data.format_detection import inspect_dataset
from i2i.data.loader import batches
from i2i.data.paired import PairedDataset, find_paired
from i2i.data.sources import Folder, open_source
from i2i.data.transforms import SeparateCropFlip
from i2i.data.unpaired import UnpairedDataset, find_unpaired
from i2i.errors import JobError, RequestError
from i2i.images.format import ImageFormat
from tests.data.test_datasets import save

KINDS = (ImageFormat(3), ImageFormat(3))


def take(folder: Path, n: int, *, on_error: str = "stop", direction: str = "ab", **options: int) -> list[dict[str, torch.Tensor]]:
    data = find_unpaired(open_source(folder), direction)["train"].for_training((32, 32), (36, 36), KINDS, seed=1, on_error=on_error)
    return list(islice(batches(data, **{"start": 0, "batch_size": 4, **options}), n))


def meetings(sizes: tuple[int, int], positions: range, seed: int = 0) -> list[tuple[int, ...]]:
    """Which images of each side come at these positions."""
    data = UnpairedDataset(Folder(Path()), "train", ["a"] * sizes[0], ["b"] * sizes[1], shuffle=True, seed=seed)
    return [tuple(stream.order(position) for stream in data.streams) for position in positions]


# ---------------------------------------------------------------------------------------------- layouts

@pytest.mark.parametrize("where", [("trainA/{}", "trainB/{}"), ("train/A/{}", "train/B/{}"), ("A/train/{}", "B/train/{}"), ("A/{}", "B/{}")])
@pytest.mark.parametrize("direction", ["ab", "ba"])
def test_two_folders_of_other_numbers_names_and_sizes(tmp_path: Path, where: tuple[str, str], direction: str) -> None:
    for i in range(3):
        save(tmp_path / where[0].format(f"x{i}.png"), 10 * i)
    for i in range(5):
        save(tmp_path / where[1].format(f"deep/y{i}.bmp"), 100 + 10 * i, (48, 64))
    splits = find_unpaired(open_source(tmp_path), direction)
    assert list(splits) == ["train"]
    train = splits["train"]
    assert isinstance(train, UnpairedDataset)
    assert len(train) == 5
    assert train.stream_sizes == ({"a": 3, "b": 5} if direction == "ab" else {"a": 5, "b": 3})
    images = {"a": (0, 32), "b": (100, 48)} if direction == "ab" else {"a": (100, 48), "b": (0, 32)}
    for side, (first, height) in images.items():
        assert train.decode(side, 2)[0].array[0, 0, 0] == first + 20
        assert train.decode(side, 1)[0].array.shape[0] == height
    a, b = train[4]         # Counted around the smaller side.
    assert (a.array[0, 0, 0], b.array[0, 0, 0]) == ((10, 140) if direction == "ab" else (140, 10))
    facts = inspect_dataset(train)
    assert (facts.height, facts.width) == (32, 32)      # The smaller of both.


def test_held_out_sides_of_equal_names_are_pairs(sides: Path) -> None:
    splits = find_unpaired(open_source(sides))
    assert isinstance(splits["train"], UnpairedDataset)
    assert isinstance(splits["test"], PairedDataset)
    assert splits["train"].description == "7 + 5 images"
    (sides / "testB" / "2.png").rename(sides / "testB" / "other.png")
    assert isinstance(find_unpaired(open_source(sides))["test"], UnpairedDataset)


def test_strips_and_paired_folders_are_taken_apart(strips: Path, tmp_path: Path) -> None:
    splits = find_unpaired(open_source(strips))
    train, pairs = splits["train"], find_paired(open_source(strips))["train"]
    assert isinstance(train, UnpairedDataset)
    assert train.stream_sizes == {"a": 10, "b": 10}
    assert isinstance(splits["val"], PairedDataset)
    for i in range(3):
        assert all(np.array_equal(one.array, other.array) for one, other in zip(train[i], pairs[i], strict=True))
    assert any(a != b for a, b in meetings((10, 10), range(10)))
    for i in range(2):
        save(tmp_path / f"two/trainA/{i}.png", i)
        save(tmp_path / f"two/trainB/{i}.png", i)
    assert isinstance(find_unpaired(open_source(tmp_path / "two"))["train"], UnpairedDataset)


def test_the_bundled_data(tmp_path: Path) -> None:
    for name, train, test in (("noto-twemoji-64", "600 + 587 images", "120 pairs"), ("lorelei-hair-64", "800 + 800 images", "160 pairs")):
        splits = find_unpaired(open_source(name))
        assert {name: (type(split), split.description) for name, split in splits.items()} == {"train": (UnpairedDataset, train), "test": (PairedDataset, test)}
        with pytest.raises(RequestError):       # Training images with equal names would be taken for pairs, which they are not.
            find_paired(open_source(name))


def test_one_side_only_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "trainA/0.png", 0)
    (tmp_path / "trainB").mkdir()
    with pytest.raises(RequestError, match=r"has only one side \(trainA\); both are needed"):
        find_unpaired(open_source(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no images"):
        find_unpaired(Folder(tmp_path / "empty"))


def test_the_fingerprint_changes_with_either_side(sides: Path) -> None:
    one = find_unpaired(open_source(sides))["train"].fingerprint()
    assert find_unpaired(open_source(sides))["train"].fingerprint() == one
    (sides / "trainB" / "b0.png").unlink()
    assert find_unpaired(open_source(sides))["train"].fingerprint() != one


# ---------------------------------------------------------------------------------------------- the stream

def test_each_side_is_shown_equally_often_in_orders_of_its_own() -> None:
    at = meetings((7, 5), range(70))
    assert set(Counter(a for a, _ in at).values()) == {10}
    assert set(Counter(b for _, b in at).values()) == {14}
    assert all(sorted(a for a, _ in at[i:i + 7]) == list(range(7)) for i in range(0, 70, 7))
    assert all(sorted(b for _, b in at[i:i + 5]) == list(range(5)) for i in range(0, 70, 5))
    assert len(set(at)) > 25            # Of 35 possible meetings.
    assert sum(a == b for a, b in meetings((50, 50), range(50))) < 8        # Independent: one is expected.


def test_the_stream_can_be_entered_anywhere_and_follows_the_seed() -> None:
    whole = meetings((7, 4), range(40), seed=3)
    assert meetings((7, 4), range(13, 40), seed=3) == whole[13:]
    assert meetings((7, 4), range(40), seed=4) != whole


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(sides: Path, workers: int) -> None:
    for one, other in zip(take(sides, 5), take(sides, 5, num_workers=workers), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in "ab")


def test_entering_later_changes_nothing_and_ranks_share_the_batch(sides: Path) -> None:
    whole = take(sides, 5)
    for one, other in zip(whole[2:], take(sides, 3, start=8), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in "ab")
    ranks = [take(sides, 5, rank=r, world_size=2) for r in range(2)]
    for i, one in enumerate(whole):
        for key in "ab":
            assert torch.equal(one[key], torch.stack([rank[i][key] for rank in ranks], 1).flatten(0, 1))


def test_direction_swaps_the_sides(sides: Path) -> None:
    dark, light = take(sides, 3), take(sides, 3, direction="ba")
    assert all(batch["a"].mean() < 0 < batch["b"].mean() for batch in dark)
    assert all(batch["b"].mean() < 0 < batch["a"].mean() for batch in light)


def test_each_image_is_varied_by_itself() -> None:
    move, g = SeparateCropFlip((36, 36), crop=(32, 32)), np.random.default_rng(0)
    image, large = g.integers(0, 256, (32, 32, 3), dtype=np.uint8), g.integers(0, 256, (64, 48, 3), dtype=np.uint8)
    same = 0
    for seed in range(30):
        a, b = move([image, image], seed)
        same += np.array_equal(a, b)
        assert all(np.array_equal(one, other) for one, other in zip(move([image, image], seed), (a, b), strict=True))
        assert np.array_equal(move([image, large], seed)[0], a)
        assert move([image, large], seed)[1].shape == (32, 32, 3)
    assert same < 6


@pytest.mark.parametrize("side", ["A", "B"])
def test_an_unreadable_image_of_either_side(sides: Path, side: str) -> None:
    (sides / f"train{side}" / f"{side.lower()}1.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=rf"{side.lower()}1\.png.*on-error skip"):
        take(sides, 5)
    good = take(sides, 5, on_error="skip")
    assert all(batch[key].shape == (4, 3, 32, 32) for batch in good for key in "ab")
