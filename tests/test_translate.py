"""Folder jobs through the command line: sizes, names, formats, faults."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i import load
from tests.conftest import Run, drawing


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    g = np.random.default_rng(0)
    for name, size in {"a.png": (32, 32), "b.jpg": (17, 40), "deep/c.webp": (50, 33), "deep/er/d d.bmp": (1, 1), "e.TIF": (64, 20), "ü.png": (32, 32)}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(g.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return root


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_tree_keeps_names_formats_and_sizes(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    result = i2i("translate", trained, inputs, "--out", "out", "--device", "cpu")
    assert result.code == 0, result.err
    assert "6 translated" in result.out
    out = tmp_path / "out"
    assert files(out) == files(inputs)
    for name in files(inputs):
        before, after = Image.open(inputs / name), Image.open(out / name)
        assert (after.size, after.format) == (before.size, before.format), name


def test_the_images_are_those_of_the_python_api(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    assert i2i("translate", trained, inputs, "--out", "out", "--device", "cpu").code == 0
    model = load(trained, device="cpu")
    for name in ("a.png", "deep/c.webp", "deep/er/d d.bmp", "e.TIF"):
        expected = model.translate(np.asarray(Image.open(inputs / name).convert("RGB")))
        got = np.asarray(Image.open(tmp_path / "out" / name).convert("RGB"))
        assert np.abs(got.astype(int) - expected).max() <= 1, name


def test_translating_twice_gives_the_same_files(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    for out in ("one", "two"):
        assert i2i("translate", trained, inputs, "--out", out, "--device", "cpu", "--seed", 4, "--format", "png").code == 0
    for name in files(tmp_path / "one"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_zip_and_one_file(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for name in files(inputs):
            archive.write(inputs / name, name)
    assert i2i("translate", trained, tmp_path / "in.zip", "--out", "zipped", "--device", "cpu").code == 0
    assert files(tmp_path / "zipped") == files(inputs)
    assert i2i("translate", trained, tmp_path / "in.zip/deep", "--out", "inner", "--device", "cpu").code == 0
    assert files(tmp_path / "inner") == ["c.webp", "er/d d.bmp"]
    assert i2i("translate", trained, inputs / "a.png", "--out", "one", "--device", "cpu").code == 0
    assert files(tmp_path / "one") == ["a.png"]


def test_orientation_is_honored(trained: Path, i2i: Run, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(drawing(3)[:20, :32]).save(tmp_path / "turned.jpg", exif=exif)
    assert i2i("translate", trained, tmp_path / "turned.jpg", "--out", "out", "--device", "cpu").code == 0
    after = Image.open(tmp_path / "out" / "turned.jpg")
    assert after.size == (20, 32)
    assert not after.getexif().get(0x0112)


def test_unreadable_files_are_named_and_the_rest_done(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    (inputs / "zero.png").touch()
    (inputs / "deep" / "text.jpg").write_text("hello")
    (inputs / "cut.png").write_bytes((inputs / "a.png").read_bytes()[:200])
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(inputs / "deep" / "sixteen.png")
    result = i2i("translate", trained, inputs, "--out", "out", "--device", "cpu")
    assert result.code == 1
    assert "6 translated" in result.out
    lines = result.err.strip().splitlines()
    assert len(lines) == 5
    for name in ("zero.png", "deep/text.jpg", "cut.png", "deep/sixteen.png"):
        assert sum(name in line for line in lines) == 1, name
    assert lines[-1] == "error: 4 of 10 images could not be translated"
    assert len(files(tmp_path / "out")) == 6


@pytest.mark.parametrize(("suffix", "limit"), [("webp", 16_383), ("jpg", 65_500)])
def test_an_image_longer_than_its_format_holds_is_named_and_the_rest_done(trained: Path, i2i: Run, tmp_path: Path, suffix: str, limit: int) -> None:
    (tmp_path / "in").mkdir()
    for name, width in (("long", limit + 1), ("short", 32), ("whole", limit)):
        Image.new("RGB", (width, 8)).save(tmp_path / "in" / f"{name}.png")
    result = i2i("translate", trained, "in", "--out", "out", "--format", suffix, "--device", "cpu")
    assert result.code == 1
    assert result.err.strip().splitlines() == [
        f"failed: long.png: {limit + 1:,} pixels on a side are more than the {limit:,} that .{suffix} files hold; "
        "accepted: --format png, tif or npy", "error: 1 of 3 images could not be translated"]
    assert Image.open(tmp_path / "out" / f"whole.{suffix}").size == (limit, 8)


def test_a_file_that_vanishes_is_named(trained: Path, inputs: Path, i2i: Run) -> None:
    (inputs / "gone.png").symlink_to(inputs / "nowhere")
    result = i2i("translate", trained, inputs, "--out", "out", "--device", "cpu")
    assert result.code == 1
    assert "gone.png" in result.err


def test_what_exists_can_be_skipped(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("mine")
    result = i2i("translate", trained, inputs, "--out", "out", "--device", "cpu", "--skip-existing")
    assert result.code == 0
    assert "5 translated, 1 there already" in result.out
    assert (tmp_path / "out" / "a.png").read_text() == "mine"


def test_strips_that_are_translated_whole_are_reported(trained: Path, i2i: Run, tmp_path: Path) -> None:
    for folder, size, noted in (("squares", (32, 64), True), ("nearly", (50, 104), True), ("photos", (48, 64), False), ("wide", (20, 60), False)):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / folder / "s.png")
        result = i2i("translate", trained, tmp_path / folder, "--out", f"{folder}-out", "--device", "cpu")
        assert ("translated whole; --half left or --half right translates one half of each, such as s.png" in result.err) is noted, result.err
    assert "--half" not in i2i("translate", trained, tmp_path / "squares", "--out", "half", "--half", "left", "--device", "cpu").err


def test_strips_by_their_half(trained: Path, i2i: Run, tmp_path: Path) -> None:
    Image.fromarray(drawing(7)).save(tmp_path / "s.png")
    model = load(trained, device="cpu")
    for half, part in (("left", drawing(7)[:, :32]), ("right", drawing(7)[:, 32:])):
        assert i2i("translate", trained, tmp_path / "s.png", "--out", half, "--half", half, "--device", "cpu").code == 0
        assert np.array_equal(np.asarray(Image.open(tmp_path / half / "s.png")), model.translate(part))


def test_names_in_a_zip_cannot_leave_the_output(trained: Path, i2i: Run, tmp_path: Path) -> None:
    Image.fromarray(drawing(1)).save(tmp_path / "x.png")
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        for name in ("../out-there.png", "/absolute.png", "a/../../b.png", "good.png"):
            archive.writestr(zipfile.ZipInfo(name), (tmp_path / "x.png").read_bytes())
    result = i2i("translate", trained, tmp_path / "evil.zip", "--out", "box/out", "--device", "cpu")
    assert result.code == 1
    assert result.err.count("leads out of the output folder") == 3
    assert files(tmp_path / "box") == ["out/good.png"]
    assert not Path("/absolute.png").exists()


def test_inputs_are_never_overwritten(trained: Path, inputs: Path, i2i: Run) -> None:
    before = (inputs / "a.png").read_bytes()
    result = i2i("translate", trained, inputs, "--out", inputs, "--device", "cpu")
    assert result.code == 2
    assert "overwrite" in result.line
    assert (inputs / "a.png").read_bytes() == before


def test_results_inside_the_input_folder_are_not_inputs(trained: Path, inputs: Path, i2i: Run) -> None:
    for _ in range(2):
        result = i2i("translate", trained, inputs, "--out", inputs / "results", "--device", "cpu")
        assert result.code == 0
        assert "6 translated" in result.out


def test_two_inputs_for_one_output_are_refused(trained: Path, inputs: Path, i2i: Run) -> None:
    Image.fromarray(drawing(1)).save(inputs / "a.bmp")
    assert i2i("translate", trained, inputs, "--out", "kept", "--device", "cpu").code == 0
    result = i2i("translate", trained, inputs, "--out", "out", "--format", "png", "--device", "cpu")
    assert result.code == 2
    assert "a.bmp and a.png" in result.line


@pytest.mark.parametrize(("words", "expected"), [
    (["--half", "top"], "left or right"), (["--format", "gif"], "--format gif"), (["--statistics", "x"], "running or image"),
    (["--device", "tpu"], "tpu"), (["--batch", "-1"], "--batch"), (["--seed", "x"], "--seed")])
def test_wrong_arguments_are_one_line(trained: Path, inputs: Path, i2i: Run, words: list[str], expected: str) -> None:
    result = i2i("translate", trained, inputs, "--out", "out", *words)
    assert result.code == 2
    assert expected in result.line


def test_wrong_paths_are_one_line(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for words, expected in (((trained, "nothing"), "nothing does not exist"), ((trained, tmp_path / "empty"), "holds no images"),
                            (("nothing", inputs), "nothing does not exist"), ((inputs, inputs), "without model.safetensors")):
        result = i2i("translate", *words, "--out", "out", "--device", "cpu")
        assert result.code == 2, words
        assert expected in result.line
    result = i2i("translate", trained, inputs, "--out", tmp_path / "file" / "x")
    assert result.code == 2
    assert "cannot be written" in result.line


def test_a_full_disk_stops_the_job_and_keeps_what_is_done(trained: Path, tmp_path: Path) -> None:
    """Only files up to a size may be written, as if the disk were full; small results are kept, no half file is left."""
    import subprocess
    import sys
    folder = tmp_path / "in"
    folder.mkdir()
    g = np.random.default_rng(0)
    for name, side in (("a.bmp", 16), ("b.bmp", 400)):
        Image.fromarray(g.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / name)
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); from i2i.cli import app; "
            f"sys.exit(app.run(['translate', {str(trained)!r}, {str(folder)!r}, '--out', {str(tmp_path / 'out')!r}, '--device', 'cpu']))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "b.bmp could not be written: File too large" in done.stderr
    assert "--skip-existing" in done.stderr
    assert files(tmp_path / "out") == ["a.bmp"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(trained: Path, inputs: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    result = i2i("translate", trained, inputs, "--out", tmp_path / "locked" / "out")
    assert result.code == 2
    assert "Permission denied" in result.line
