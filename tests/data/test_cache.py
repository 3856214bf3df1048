"""What is decoded once is kept, and nothing that is learned depends on it."""

import errno
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import albumentations
import cv2
import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import i2i
from i2i.data import cache as caches
from i2i.data.cache import Cache, MemoryCache, pack, unpack
from i2i.data.dataset import UNKNOWN_MEMORY, Dataset
from i2i.data.labeled import find_images
from i2i.data.loader import batches
from i2i.data.paired import find_paired
from i2i.data.sources import Folder, Zip, open_source
from i2i.data.transforms import JointCropFlip
from i2i.data.unpaired import find_unpaired
from i2i.errors import JobError, RequestError
from i2i.images.format import ImageFormat
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from i2i.training import train as carried
from tests.conftest import SMALL
from tests.training.test_resume import assert_same

KINDS = ImageFormat(3), ImageFormat(3)
ROOM = 1 << 22
FINDERS: dict[str, Callable[..., dict[str, object]]] = {"pairs": find_paired, "sides": find_unpaired, "images": find_images}


class Counted:
    """How many files were read, in whatever process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = multiprocessing.Value("i", 0)
        for kind in (Folder, Zip):
            monkeypatch.setattr(kind, "read", self.counting(kind.read))

    def counting(self, read: Callable[..., bytes]) -> Callable[..., bytes]:
        def counted(*args: object) -> bytes:
            with self.number.get_lock():
                self.number.value += 1
            return read(*args)
        return counted

    def since(self) -> int:
        before, self.number.value = self.number.value, 0
        return before


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    g, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(g.integers(0, 256, (40, 90 - 2 * i, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def split_of(where: Path | str, kind: str) -> Dataset:
    return FINDERS[kind](open_source(where))["train"]   # type: ignore[return-value]


def prepared(split: Dataset, how: str = "off", folder: Path | None = None, room: int = ROOM, on_error: str = "stop") -> Dataset:
    return split.for_training((32, 32), (36, 36), KINDS, seed=1, on_error=on_error).with_cache(how, (40, 80), room, folder)


def epochs(split: Dataset, how: str, folder: Path | None = None, *, number: int = 3, room: int = ROOM, warn: list[str] | None = None,
           on_error: str = "stop", **options: int) -> list[dict[str, torch.Tensor]]:
    data = prepared(split, how, folder, room, on_error)
    read = batches(data, start=0, batch_size=4, warn=None if warn is None else warn.append, **options)
    got = list(islice(read, -(-number * len(split) // 4)))
    read.close()
    return got


def assert_equal(one: list[dict[str, torch.Tensor]], other: list[dict[str, torch.Tensor]]) -> None:
    assert len(one) == len(other)
    for left, right in zip(one, other, strict=True):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)


# ---------------------------------------------------------------------------------------------- nothing depends on it

@pytest.mark.parametrize("kind", ["pairs", "sides", "images"])
@pytest.mark.parametrize("how", ["memory", "disk", "auto"])
def test_the_stream_is_the_same_and_each_file_is_read_once(strips: Path, pictures: Path, tmp_path: Path, counted: Counted, kind: str, how: str) -> None:
    split = split_of(pictures if kind == "images" else strips, kind)
    plain = epochs(split, "off")
    assert counted.since() > 2 * len(split)
    assert_equal(plain, epochs(split, how, tmp_path / "kept"))
    files = len(split) * (2 if kind == "sides" else 1)      # Each half of a strip is decoded for itself.
    assert counted.since() == files
    assert_equal(plain, epochs(split, how, tmp_path / "kept"))
    assert counted.since() == (0 if how == "disk" else files)


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_loader_processes_share_what_they_keep(strips: Path, tmp_path: Path, counted: Counted, how: str) -> None:
    split = split_of(strips, "pairs")
    plain = epochs(split, "off", number=8)
    counted.since()
    assert_equal(plain, epochs(split, how, tmp_path / "kept", number=8, num_workers=2, prefetch_factor=1))
    assert len(split) <= counted.since() < 3 * len(split)       # Two may have had the same one in hand at once; eight epochs would be 8 times.


@pytest.mark.parametrize("how", ["off", "disk"])
def test_training_is_the_same_bit_for_bit_and_a_run_may_go_on_with_another_cache(trained: Path, tmp_path: Path, how: str) -> None:
    run = i2i.train("pix2pix", *SMALL, "train.images=24", f"data.cache={how}", data=trained.parent / "data", out=tmp_path / "run", device="cpu")
    assert_same(trained, run)           # Which kept its images in memory.
    assert (run / "decoded").is_dir() == (how == "disk")
    for state in RunFolder(run).states()[1:]:
        state.unlink()
    words = ["data.cache=disk", f"data.cache_folder={tmp_path / 'elsewhere'}"] if how == "off" else ["data.cache=memory", "train.num_workers=1"]
    folder, job = resuming.resolve_job("", words, data=None, out=None, epochs=None, resume=run)
    assert carried.run_job(job, folder, device="cpu") == 0
    assert_same(trained, run)
    assert (tmp_path / "elsewhere").is_dir() == (how == "off")


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 0), ("uint8", 3), ("uint8", 1), ("uint16", 4), ("float32", 7), ("uint8", 6)])
@pytest.mark.parametrize("load", [(36, 36), (40, 64)])
def test_crops_are_those_of_albumentations_and_mirrored_or_not(dtype: str, channels: int, load: tuple[int, int]) -> None:
    theirs = albumentations.Compose([
        albumentations.Resize(*load, interpolation=cv2.INTER_CUBIC, area_for_downscale="image"), albumentations.RandomCrop(32, 32)], additional_targets={"b": "image"})
    ours, g = JointCropFlip(load, crop=(32, 32)), np.random.default_rng(0)
    for size in ((20, 24), load, (50, 70)):
        a, b = ((255 * g.random((*size, channels) if channels else size)).astype(dtype) for _ in range(2))
        for seed in map(int, g.integers(0, 2**62, 6)):
            theirs.set_random_seed(seed)
            result, out = theirs(image=a, b=b), ours([a, b], seed)
            expected = [result[key].reshape(each.shape) for key, each in zip(("image", "b"), out, strict=True)]
            assert all(map(np.array_equal, expected, out)) or all(np.array_equal(one[:, ::-1], each) for one, each in zip(expected, out, strict=True))


# ---------------------------------------------------------------------------------------------- memory

def test_arrays_of_every_type_come_back_as_they_were() -> None:
    g = np.random.default_rng(0)
    arrays = [(1000 * g.random(shape)).astype(dtype) for shape in ((3, 5), (2, 3, 1), (4, 1, 7)) for dtype in ("uint8", "uint16", "float32")]
    for one, other in zip(arrays, unpack(bytes(24) + pack(arrays), 24), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert np.array_equal(one, other)


def test_memory_takes_no_more_than_its_room_and_what_does_not_fit_is_made_anew() -> None:
    image = np.arange(30 * 30 * 3, dtype=np.uint8).reshape(30, 30, 3)
    memory = MemoryCache(10, 3 * len(pack([image])) + 100)
    made = [0] * 10

    def make(place: int) -> list[np.ndarray]:
        made[place] += 1
        return [image + np.uint8(place)]

    for _ in range(3):
        for place in range(10):
            assert np.array_equal(memory(place, "", (), lambda place=place: make(place))[0], image + np.uint8(place))
    assert made == [1] * 3 + [3] * 7
    assert memory.used == 3 * len(pack([image]))


def test_a_killed_process_that_has_the_lock_holds_up_nobody() -> None:
    memory = MemoryCache(2, 1000)
    memory.lock_timeout = 0.01
    memory._lock.acquire()
    image = np.zeros((2, 2), np.uint8)
    assert np.array_equal(memory(0, "", (), lambda: [image])[0], image)
    assert memory.used == 0


def test_a_limit_on_file_sizes_turns_the_memory_cache_off(strips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", refuse)
    assert type(prepared(split_of(strips, "pairs"), "auto").cache) is Cache
    with pytest.raises(RequestError, match="data.cache=memory is not possible here: File too large; accepted: auto, disk or off"):
        prepared(split_of(strips, "pairs"), "memory")


def test_auto_keeps_all_of_a_small_set_and_nothing_of_a_large_one(strips: Path) -> None:
    split = split_of(strips, "pairs")
    needed = len(split) * 2 * (36 * 36 * 3 + caches.ARRAY_OVERHEAD)
    assert prepared(split).decoded_bytes((40, 80)) == needed
    assert isinstance(prepared(split, "auto", room=4 * needed).cache, MemoryCache)
    assert type(prepared(split, "auto", room=4 * needed - 1).cache) is Cache
    some = prepared(split, "memory", room=needed).cache
    assert isinstance(some, MemoryCache)
    assert some.size <= needed // 2 + 8 * (len(split) + 1)
    for how, room in (("off", ROOM), ("auto", UNKNOWN_MEMORY), ("disk", ROOM)):         # No folder: a trial, which writes nothing.
        assert type(prepared(split, how, room=room).cache) is Cache


def test_a_spawned_loader_process_gets_all_it_needs_and_shares_the_memory(strips: Path, tmp_path: Path) -> None:
    split = split_of(strips, "pairs")
    plain, before = epochs(split, "off"), multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        data = prepared(split, "memory")
        read = batches(data, start=0, batch_size=4, num_workers=1, prefetch_factor=1)
        assert_equal(plain, list(islice(read, len(plain))))
        read.close()
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert isinstance(data.cache, MemoryCache)
    assert data.cache.used > 0


def test_where_descriptors_cannot_be_handed_on_loader_processes_cache_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    monkeypatch.delattr(multiprocessing.reduction, "DupFd")
    assert type(pickle.loads(pickle.dumps(MemoryCache(2, 1000)))) is Cache


# ---------------------------------------------------------------------------------------------- on disk

def entries_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_damaged_or_none_of_ours_is_made_again(strips: Path, tmp_path: Path, counted: Counted) -> None:
    split, kept = split_of(strips, "pairs"), tmp_path / "kept"
    plain = epochs(split, "disk", kept, number=1)
    files = entries_of(kept)
    assert len(files) == len(split)
    whole = files[0].read_bytes()
    damages = [b"", whole[:-1], whole + b"0", whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], b"GIF89a" * 9, os.urandom(len(whole)), whole[:17]]
    for path, damage in zip(files, damages, strict=False):
        path.write_bytes(damage)
    files[7].unlink()
    counted.since()
    warned: list[str] = []
    assert_equal(plain, epochs(split, "disk", kept, number=1, warn=warned))
    assert counted.since() == 8
    assert entries_of(kept)[0].read_bytes() == whole
    assert not warned


@pytest.mark.parametrize("zipped", [False, True])      # The zip's root has the set in a folder, which becomes its root.
def test_a_file_that_has_changed_is_decoded_anew(strips: Path, tmp_path: Path, zipped: bool) -> None:
    kept = tmp_path / "kept"

    def split() -> Dataset:
        if not zipped:
            return split_of(strips, "pairs")
        return split_of(Path(shutil.make_archive(str(tmp_path / "set"), "zip", strips.parent, strips.name)), "pairs")

    old = epochs(split(), "disk", kept, number=1)
    path = strips / "train" / "03.png"
    told = path.stat()
    Image.fromarray(255 - np.asarray(Image.open(path).convert("RGB"))).save(path)
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))     # As a copy that keeps times would.
    new = epochs(split(), "disk", kept, number=1)
    assert_equal(new, epochs(split(), "off", number=1))
    assert not all(torch.equal(one["a"], other["a"]) for one, other in zip(old, new, strict=True))


def test_a_remote_file_that_has_changed_is_decoded_anew(strips: Path, tmp_path: Path) -> None:
    files, kept = fsspec.filesystem("memory"), tmp_path / "kept"
    for path in (strips / "train").iterdir():
        files.pipe_file(f"/cached/train/{path.name}", path.read_bytes())
    split = split_of("memory://cached", "pairs")
    old = epochs(split, "disk", kept, number=1)
    assert_equal(old, epochs(split, "disk", kept, number=1))
    assert len(entries_of(kept)) == len(split)
    files.pipe_file("/cached/train/03.png", (strips / "train" / "04.png").read_bytes())
    new = epochs(split, "disk", kept, number=1)
    assert_equal(new, epochs(split, "off", number=1))
    assert not all(torch.equal(one["a"], other["a"]) for one, other in zip(old, new, strict=True))


def test_other_settings_have_entries_of_their_own(strips: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for number, words in enumerate([(), ("direction",), ("kinds",), ("load",)], 1):
        split = find_paired(open_source(strips), "ba" if "direction" in words else "ab")["train"]
        plain = split.for_training((32, 32), (40, 36) if "load" in words else (36, 36), (ImageFormat(1), ImageFormat(3)) if "kinds" in words else KINDS, seed=1)
        data = plain.with_cache("disk", (40, 80), ROOM, kept)
        one, other = (list(islice(batches(each, start=0, batch_size=4), 3)) for each in (data, plain))
        assert_equal(one, other)
        assert len(entries_of(kept)) == number * len(split)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_is_one_warning_and_reading_goes_on(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=caches.MIN_FREE_DISK - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    split, warned = split_of(strips, "pairs"), list[str]()
    assert_equal(epochs(split, "off"), epochs(split, "disk", tmp_path / "kept", warn=warned, num_workers=workers, prefetch_factor=1))
    assert len(warned) == 1
    assert "no longer cached" in warned[0]
    assert not entries_of(tmp_path / "kept")


def test_a_folder_that_cannot_be_written_is_one_warning(strips: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    warned: list[str] = []
    split = split_of(strips, "pairs")
    assert_equal(epochs(split, "off"), epochs(split, "disk", tmp_path / "kept", warn=warned))
    assert len(warned) == 1


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_what_cannot_be_read_is_never_kept(strips: Path, tmp_path: Path, how: str) -> None:
    split = split_of(strips, "pairs")
    (strips / "train" / "03.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=r"03\.png"):
        epochs(split, how, tmp_path / "kept")
    assert_equal(epochs(split, "off", on_error="skip"), epochs(split, how, tmp_path / "kept", on_error="skip"))


@pytest.fixture(autouse=True)
def spare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine that tests run on may have a nearly full disk."""
    monkeypatch.setattr(caches, "MIN_FREE_DISK", 0)
    return


def test_a_word_that_is_none_is_refused(strips: Path) -> None:
    with pytest.raises(RequestError, match=r"data\.cache"):
        i2i.train("pix2pix", *SMALL, "data.cache=ram", data=strips, device="cpu")
