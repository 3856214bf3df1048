"""A disk that fills up while a cache is written: one warning, the same result, and no file that is cut off."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from i2i.data.cache import DiskCache
from i2i.data.image_set import ImageSetFacts
from i2i.data.sources import open_source
from i2i.errors import JobError
from i2i.evaluation import feature_extraction
from i2i.evaluation.feature_extraction import cached_features, extract_features
from i2i.files import temporary_folder
from i2i.metrics.set_metrics import SetFeatures
from tests.conftest import Run
from tests.test_evaluate import shapes
from tests.test_feature_extraction import extractor, pictures

FULL = OSError(errno.ENOSPC, "No space left on device")


def full(*args: object, **options: object) -> None:
    raise FULL


class Nearly:
    """A file on a disk that has room for so many writes, of the last of which half fits."""

    def __init__(self, file: Any, writes: int) -> None:
        self.file, self.left = file, writes

    def write(self, data: bytes) -> int:
        self.left -= 1
        if self.left < 0:
            self.file.write(data[:len(data) // 2])
            self.file.flush()
            raise FULL
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Nearly:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def fill_up(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Have the disk full when something is written."""
    if when.isdecimal():
        monkeypatch.setattr(feature_extraction, "open", lambda path, mode: Nearly(path.open(mode), int(when)), raising=False)
    else:
        monkeypatch.setattr(os, when, full)


def assert_same(one: SetFeatures | None, other: SetFeatures | None) -> None:
    assert one is not None
    assert other is not None
    assert np.array_equal(one.features, other.features)
    assert np.array_equal(one.logits, other.logits)
    assert list(one.digests) == list(other.digests)
    assert all(map(np.array_equal, one.colors.counts, other.colors.counts))
    assert one.colors.n == other.colors.n


@pytest.mark.parametrize("when", ["0", "1", "4", "replace"])
def test_features_are_kept_in_memory_where_their_cache_is_full(when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    images = pictures(30)
    whole = extract_features(images, extractor(), batch_size=8)
    facts = ImageSetFacts.of(images.headers(range(30)))
    warned: list[str] = []
    measure = partial(cached_features, images, extractor(), facts=facts, warn=warned.append, batch_size=8)
    with monkeypatch.context() as patch:
        fill_up(patch, when)
        found = measure()
    assert_same(found, whole)
    assert warned == [f"{tmp_path}/cache/references could not be written (No space left on device), so the features are not kept; set I2I_CACHE, or --no-cache"]
    assert list((tmp_path / "cache" / "references").iterdir()) == []
    assert_same(measure(), whole)       # Once there is space, they are kept.
    assert len(warned) == 1
    (kept,) = (tmp_path / "cache" / "references").iterdir()
    changed = os.stat(kept).st_mtime_ns
    assert_same(measure(), whole)
    assert os.stat(kept).st_mtime_ns == changed
    kept.write_bytes(kept.read_bytes()[:-100])
    assert_same(measure(), whole)       # A damaged file is made anew.
    assert len(warned) == 1


def test_decoded_images_are_no_longer_cached_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.data.cache.MIN_FREE_DISK", 0)
    folder = shapes(tmp_path / "in", 3, seed=0)
    cache, made = DiskCache(tmp_path / "kept", open_source(folder), ""), list[int]()
    written = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        written(path, data[:len(data) // 2])
        raise FULL

    def decode(i: int) -> list[np.ndarray]:
        made.append(i)
        return [np.full((4, 5), i, np.uint8)]

    def read(i: int) -> int:
        return int(cache(i, "b", [f"{i:03}.png"], partial(decode, i))[0][0, 0])

    assert read(0) == 0
    monkeypatch.setattr(Path, "write_bytes", half)
    assert [read(i) for i in (0, 1, 2, 1)] == [0, 1, 2, 1]
    assert made == [0, 1, 2, 1]         # Number 0 was kept before.
    assert cache.warning == (f"decoded images are no longer cached in {tmp_path}/kept (No space left on device); the others are decoded in every epoch, which takes longer and "
                             "changes nothing else")
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 1


def leftover(path: Path) -> Path:
    """What a process that was killed two days ago left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (0, 0))
    return path


def test_what_killed_processes_left_in_the_caches_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("i2i.data.cache.MIN_FREE_DISK", 0)
    source = open_source(shapes(tmp_path / "in", 1, seed=0))
    cache = DiskCache(tmp_path / "kept", source, "")
    cache(0, "b", ["000.png"], lambda: [np.zeros((4, 5), np.uint8)])
    (entry,) = (path for path in (tmp_path / "kept").rglob("*") if path.is_file())
    entry.unlink()
    left = [leftover(entry.with_name(".other.7.7.part")), leftover(tmp_path / "cache" / "references" / ".other.npz.7.7.part")]
    DiskCache(tmp_path / "kept", source, "")(0, "b", ["000.png"], lambda: [np.zeros((4, 5), np.uint8)])
    images = pictures(3)
    cached_features(images, extractor(), facts=ImageSetFacts.of(images.headers(range(3))), warn=print)
    assert entry.exists()
    assert not [path for path in left if path.exists()]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_temporary_files_that_cannot_be_written_are_one_line(error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(JobError, match=rf"^temporary files in {tmp_path} could not be written \(.+\); TMPDIR=DIR names another folder$"), temporary_folder():
        raise OSError(error, os.strerror(error))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), temporary_folder() as folder:
        (folder / "absent").read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(JobError, match=r"^temporary files could not be written \(No such file or directory\); TMPDIR=DIR"), temporary_folder():
        pass


def test_an_evaluation_of_a_model_says_where_there_is_no_space(trained: Path, strips: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    written: Callable[[Path, bytes], int] = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda path, data: full() if "i2i-" in str(path) else written(path, data))
    done = i2i("evaluate", trained, "--metrics", "l1", "--device", "cpu")
    assert done.code == 1
    assert "could not be written (No space left on device); TMPDIR=DIR names another folder" in done.line
