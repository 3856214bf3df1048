"""Paths that may not be entered, names that are too long in bytes, caches that cannot be written: one line each, in every command."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i.files import atomic_path, part_path
from tests.conftest import Run

LONG = "ü" * 150 + ".png"           # 154 characters, 304 bytes.
COMMANDS = {
    "train": ("train", "pix2pix", "--data", "PATH"), "train into": ("train", "pix2pix", "--data", "STRIPS", "--out", "PATH", "--device", "cpu"), "resume": ("train", "--resume", "PATH"),
    "translate": ("translate", "PATH", "STRIPS", "--out", "out"), "translate what": ("translate", "MODEL", "PATH", "--out", "out"),
    "translate into": ("translate", "MODEL", "STRIPS", "--out", "PATH"), "generate": ("generate", "PATH", "--n", "1", "--out", "out"), "explore": ("explore", "mix", "PATH", "--out", "x.png"),
    "evaluate": ("evaluate", "PATH"), "evaluate sets": ("evaluate", "--real", "PATH", "--fake", "STRIPS"), "evaluate on": ("evaluate", "MODEL", "--data", "PATH"),
    "evaluate into": ("evaluate", "--real", "STRIPS", "--fake", "STRIPS", "--metrics", "l1", "--json", "PATH"), "report": ("report", "PATH"), "convert": ("convert", "PATH", "--out", "x.safetensors"),
    "check": ("data", "check", "PATH"), "weights": ("weights", "add", "PATH")}


def filled(command: str, path: Path, strips: Path, trained: Path) -> list[object]:
    return [{"PATH": path, "STRIPS": strips, "MODEL": trained}.get(word, word) for word in COMMANDS[command]]


def is_one_line(text: str) -> bool:
    return text.count("\n") == 1 and text.startswith("error: ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_file_system_takes_is_one_line(command: str, strips: Path, trained: Path, tmp_path: Path, i2i: Run) -> None:
    for path in (tmp_path / LONG, tmp_path / LONG / "x.png"):
        done = i2i(*filled(command, path, strips, trained))
        assert done.code in (1, 2), done.err
        assert is_one_line(done.err), done.err
        assert "üü" in done.err


@pytest.mark.parametrize("command", [name for name in COMMANDS if not name.endswith("into")])
def test_a_folder_that_may_not_be_entered_is_one_line(command: str, strips: Path, trained: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel answers anyone but root."""
    usual = {name: getattr(os, name) for name in ("stat", "lstat", "open", "scandir", "listdir")}

    def refusing(name: str) -> object:
        def call(path: object, *words: object, **options: object) -> object:
            if isinstance(path, str | Path) and "closed/" in str(path):
                raise PermissionError(13, "Permission denied", str(path))
            return usual[name](path, *words, **options)
        return call

    for name in usual:
        monkeypatch.setattr(os, name, refusing(name))
    done = i2i(*filled(command, tmp_path / "closed" / "x", strips, trained))
    assert done.code in (1, 2), done.err
    assert is_one_line(done.err), done.err
    assert "closed" in done.err


def test_an_evaluation_is_not_lost_where_its_cache_cannot_be_written(strips: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    words = ["evaluate", "--real", strips / "test", "--fake", strips / "train", "--metrics", "kid", "--bootstrap", "0"]
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    whole = i2i(*words)
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "file" / "cache"))
    without = i2i(*words)
    assert (whole.code, without.code) == (0, 0), without.err
    assert without.out.splitlines()[1:] == whole.out.splitlines()[1:]
    assert f"warning: {tmp_path}/file/cache/references could not be written (Not a directory), so the features are not kept" in without.err


def test_a_temporary_name_fits_and_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{'ü' * 120}{i}.png" for i in range(3)]           # 245 bytes, equal but for their ends.
    parts = {part_path(tmp_path / name, suffix) for name in names for suffix in (".part", ".12345.140000000000000.part", ".part.mp4")}
    assert len(parts) == 9
    assert all(len(os.fsencode(part.name)) <= 143 for part in parts)        # Of an encrypted home (eCryptfs); others take 255.
    assert len(os.fsencode(part_path(tmp_path / ("x" * 100), ".12345.140000000000000.part").name)) <= 143
    assert part_path(tmp_path / "short.png") == tmp_path / ".short.png.part"
    with monkeypatch.context() as patch:        # Of LC_ALL=C, where Python was told not to use UTF-8.
        patch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
        assert all(part_path(tmp_path / name).name.isascii() for name in names)
    for name in (*names, os.fsdecode(b"\xff" * 240), "x" * 255):
        with atomic_path(tmp_path / name, unique=True) as part:
            part.write_text(name[-5:], errors="replace")
        assert (tmp_path / name).exists()


def test_images_with_long_names_are_translated_under_them(trained: Path, tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "in").mkdir()
    names = [f"{'ü' * 120}{i}.png" for i in range(4)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((32, 32, 3), 60 * i, np.uint8)).save(tmp_path / "in" / name)
    assert i2i("translate", trained, tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu").code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    done = i2i("translate", trained, tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu", "--skip-existing")
    assert "4 there already" in done.out


def test_a_single_file_is_named_once(trained: Path, tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "trunc.png").write_bytes(b"\x89PNG")
    done = i2i("translate", trained, "trunc.png", "--out", "out", "--device", "cpu")
    assert "failed: trunc.png: " in done.err
    done = i2i("evaluate", "--real", "trunc.png", "--fake", "trunc.png", "--metrics", "l1")
    assert done.line.startswith("error: trunc.png: ")
    (tmp_path / "list.csv").write_text("file\ntrunc.png\n")
    done = i2i("translate", trained, "list.csv", "--out", "out", "--device", "cpu")
    assert "failed: trunc.png: " in done.err
