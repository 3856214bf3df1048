from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.data.loader import batches
from i2i.data.paired import PairedDataset, find_paired
from i2i.data.sampler import Order, evenly_spaced
from i2i.data.sources import open_source
from i2i.data.transforms import JointCropFlip, resize
from i2i.errors import JobError
from i2i.images.format import ImageFormat

KINDS = (ImageFormat(3), ImageFormat(3))


def dataset(folder: Path, on_error: str = "stop") -> PairedDataset:
    return find_paired(open_source(folder))["train"].for_training((32, 32), (36, 36), KINDS, seed=1, on_error=on_error)


def take(folder: Path, n: int, **options: int) -> list[dict[str, torch.Tensor]]:
    return list(islice(batches(dataset(folder), **{"start": 0, "batch_size": 4, **options}), n))


def test_an_epoch_shows_every_image_once_in_a_new_order() -> None:
    at = list(map(Order(10, seed=0), range(30)))
    epochs = [at[i:i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_an_order_can_be_entered_anywhere_in_any_order() -> None:
    whole = list(map(Order(7, 3), range(40)))
    assert list(map(Order(7, 3), range(13, 40))) == whole[13:]
    order = Order(7, 3)
    assert [order(position) for position in reversed(range(40))] == whole[::-1]
    assert list(map(Order(7, 3, shuffle=False), range(15))) == [*range(7), *range(7), 0]


@pytest.mark.parametrize(("n", "count", "expected"), [(0, 3, []), (1, 3, [0]), (5, 1, [0]), (5, 2, [0, 4]), (5, 5, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (10, 4, [0, 3, 6, 9])])
def test_evenly_spaced_indices(n: int, count: int, expected: list[int]) -> None:
    assert evenly_spaced(n, count) == expected
    assert len(set(evenly_spaced(997, 100 + n))) == 100 + n


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(strips: Path, workers: int) -> None:
    for one, other in zip(take(strips, 6), take(strips, 6, num_workers=workers), strict=True):
        assert torch.equal(one["a"], other["a"])
        assert torch.equal(one["b"], other["b"])


def test_entering_later_changes_nothing(strips: Path) -> None:
    for one, other in zip(take(strips, 6)[3:], take(strips, 3, start=12), strict=True):
        assert torch.equal(one["b"], other["b"])


def test_two_ranks_share_the_batch_of_one(strips: Path) -> None:
    whole = take(strips, 3)
    halves = [take(strips, 3, rank=r, world_size=2) for r in range(2)]
    for i, one in enumerate(whole):
        assert torch.equal(one["a"], torch.stack([half[i]["a"] for half in halves], 1).flatten(0, 1))


def test_jitter_moves_both_alike_and_follows_the_seed() -> None:
    move, g = JointCropFlip((36, 36), crop=(32, 32)), np.random.default_rng(0)
    image = g.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    outs = []
    for seed in range(20):
        a, b = move([image, image], seed)
        assert a.shape == (32, 32, 3)
        assert np.array_equal(a, b)
        outs.append(a)
        assert np.array_equal(move([image, image], seed)[0], a)
    assert len({out.tobytes() for out in outs}) > 10
    flipped = [np.corrcoef(out[:, ::-1].ravel(), image.ravel())[0, 1] > np.corrcoef(out.ravel(), image.ravel())[0, 1] for out in outs]
    assert 0 < sum(flipped) < 20


def test_the_flip_does_not_depend_on_the_crop() -> None:
    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    move = JointCropFlip((64, 64), crop=(32, 32))
    outs = [move([rows, columns], seed) for seed in range(1000)]
    flips = [bool(across[0, 0] > across[0, 1]) for _, across in outs]
    tops, lefts = [int(down[0, 0]) for down, _ in outs], [int(across[0].min()) for _, across in outs]
    assert 0.45 < np.mean(flips) < 0.55
    assert max(abs(np.corrcoef(one, other)[0, 1]) for one, other in ((flips, tops), (flips, lefts), (tops, lefts))) < 0.1


def test_no_jitter_leaves_the_image_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    assert np.array_equal(JointCropFlip((32, 32), crop=(32, 32), flip=False)([image, image], 7)[0], image)
    assert resize(image, (32, 32)) is image
    assert resize(image, (16, 48)).shape == (16, 48)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_ends_the_stream_with_its_name(strips: Path, workers: int) -> None:
    (strips / "train" / "03.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=r"03\.png.*on-error skip"):
        take(strips, 5, num_workers=workers)


def test_skipping_takes_the_next_readable_image(strips: Path) -> None:
    (strips / "train" / "03.png").write_bytes(b"broken")
    got = list(islice(batches(dataset(strips, "skip"), start=0, batch_size=4), 5))
    assert all(batch["a"].shape == (4, 3, 32, 32) for batch in got)


def test_skipping_when_nothing_can_be_read_ends_too(strips: Path) -> None:
    for path in (strips / "train").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(JobError, match="not an image"):
        next(batches(dataset(strips, "skip"), start=0, batch_size=2))
