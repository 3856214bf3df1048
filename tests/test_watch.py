"""A folder that is watched: what comes later is translated, and nothing is read before it is whole."""

import _thread
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i import load
from i2i.data.sources import Folder
from i2i.inference import watch as watching
from tests.conftest import Run, drawing


def until(condition: Callable[[], bool]) -> None:
    """Wait for what a file system shows."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen in a minute")


def meanwhile(act: Callable[[], None]) -> threading.Thread:
    """Do something in another thread, and then press Ctrl-C, whatever comes of it."""
    def run() -> None:
        try:
            act()
        finally:
            _thread.interrupt_main()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def png(path: Path, index: int) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawing(index)[:, 32:]).save(path, "png")
    return path.read_bytes()


def test_files_that_come_later_are_translated_once_they_are_whole(trained: Path, i2i: Run, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "in" / "results"
    whole = png(tmp_path / "b.png", 2)
    png(source / "a.png", 1)
    (source / "broken.png").write_bytes(b"nothing")
    early: list[bool] = []

    def act() -> None:
        until((out / "a.png").exists)
        with open(source / "b.png", "wb") as file:      # One that is written for two seconds.
            for start in range(0, len(whole), len(whole) // 8 + 1):
                file.write(whole[start:start + len(whole) // 8 + 1])
                file.flush()
                time.sleep(0.25)
                early.append((out / "b.png").exists())
        until((out / "b.png").exists)
        png(source / "deep" / "c.png", 3)
        until((out / "deep" / "c.png").exists)
        png(source / "broken.png", 4)
        until((out / "broken.png").exists)
        png(source / "last.png", 5)
        until((out / "last.png").exists)        # It may be interrupted before it is counted.

    thread = meanwhile(act)
    result = i2i("translate", trained, source, "--out", out, "--watch", "--device", "cpu")
    thread.join()
    assert result.code == 0, result.err
    assert result.out.splitlines()[-1].startswith((f"4 translated -> {out}", f"5 translated -> {out}"))
    assert not any(early)
    lines = result.err.splitlines()
    assert lines[0] == f"watching {source}; Ctrl-C ends it"
    assert [line for line in lines if "failed" in line] == [f"failed for now: {source}/broken.png: not an image, or of an unknown format"]
    model = load(trained, device="cpu")
    for name in ("a.png", "b.png", "deep/c.png", "broken.png", "last.png"):
        expected = model.translate(np.asarray(Image.open(source / name)))
        assert np.abs(np.asarray(Image.open(out / name)).astype(int) - expected).max() <= 1


def test_what_has_failed_in_the_end_is_named(trained: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def act() -> None:
        png(tmp_path / "in" / "a.png", 1)
        until((tmp_path / "out" / "a.png").exists)
        Image.fromarray(drawing(1)).save(tmp_path / "in" / "a.jpg")     # Its result would be that of a.png.
        png(tmp_path / "in" / "b.png", 2)
        until((tmp_path / "out" / "b.png").exists)
        png(tmp_path / "in" / "last.png", 5)
        until((tmp_path / "out" / "last.png").exists)

    thread = meanwhile(act)
    result = i2i("translate", trained, "in", "--out", "out", "--format", "png", "--watch", "--device", "cpu")
    thread.join()
    assert result.code == 1
    *_, failed, error = result.err.splitlines()
    assert failed == "failed: a.jpg: its result would replace that of a.png, a.png"
    assert error in ("error: 1 of 3 images could not be translated", "error: 1 of 4 images could not be translated")


def test_a_file_that_changes_is_translated_again_and_one_that_does_not_is_not(trained: Path, tmp_path: Path) -> None:
    png(tmp_path / "in" / "a.png", 1)
    looks: list[int] = []

    def tell(report: object) -> None:
        looks.append(report.done)
        if len(looks) == 2:
            _thread.interrupt_main()
        else:
            png(tmp_path / "in" / "a.png", 2)

    report = watching.watch(load(trained, device="cpu"), Folder(tmp_path / "in"), tmp_path / "out", tell=tell, interval=0.05)
    assert (looks, report.done, report.failed) == ([1, 1], 2, [])
    expected = load(trained, device="cpu").translate(drawing(2)[:, 32:])
    assert np.abs(np.asarray(Image.open(tmp_path / "out" / "a.png")).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("source", ["a.png", "data.zip", "in"])
def test_only_a_folder_is_watched_and_not_that_of_the_results(trained: Path, i2i: Run, tmp_path: Path, source: str) -> None:
    png(tmp_path / "a.png", 1)
    png(tmp_path / "in" / "a.png", 1)
    import shutil
    shutil.make_archive("data", "zip", tmp_path / "in")
    result = i2i("translate", trained, source, "--out", "in", "--watch", "--device", "cpu")
    assert result.code == 2
    assert ("is the folder that is watched" if source == "in" else "--watch is for a folder") in result.err.splitlines()[-1]
