"""Sets of generated images through the command line: what is in them, how they go on, how single ones come back, what is refused."""

import errno
import json
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2i as package
from i2i import Model, load
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.images.convert import to_array
from i2i.images.format import ImageFormat
from i2i.inference.generate import generate
from i2i.inference.generation_plan import MAX_FOLDER_NAME, RESERVED_NAMES, class_folders, plan_generation
from i2i.inference.image_store import FolderStore
from i2i.inference.shard_store import open_store
from tests.conftest import CLASSES, Run

Noisy = dict[str, Path]
FOLDERS = ("red", "1-train", "blue_green")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "generated.jsonl").read_text().splitlines()]


def pixels(data: Path) -> np.ndarray:
    return np.asarray(Image.open(data)).astype(int)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch):
    """Make the disk full after so many images."""
    def after(count: int) -> None:
        left, put = iter(range(count)), FolderStore.put

        def refuse(*args: object) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            put(*args)          # type: ignore[arg-type]

        monkeypatch.setattr(FolderStore, "put", refuse)

    return after


# ---------------------------------------------------------------------------------------------- what is in a set

def test_a_set_has_class_folders_and_a_manifest(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    result = i2i("generate", noisy["classes"], "--n", 10, "--out", "out", "--seed", 3, "--device", "cpu")
    assert result.code == 0, result.err
    assert "10 generated -> out" in result.out
    out, manifest = tmp_path / "out", lines(tmp_path / "out")
    assert sorted(files(out)) == sorted(["dataset.json", "generated.json", "generated.jsonl", *(f"{FOLDERS[i % 3]}/{i:08}.png" for i in range(10))])
    assert len({data for name, data in files(out).items() if name.endswith("png")}) == 10       # No two alike, or tests of equality would mean little.
    model = sha256((noisy["classes"] / "model.safetensors").read_bytes()).hexdigest()
    for i, line in enumerate(manifest):
        assert line == {"file": f"{FOLDERS[i % 3]}/{i:08}.png", "index": i, "seed": 3, "class": CLASSES[i % 3], "class_number": i % 3,
                        "truncation": 1.0, "batch_size": 32, "model": model, "i2i": package.__version__}


def test_the_pictures_are_those_of_the_api(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    """To a gray level: batches of other sizes round otherwise."""
    assert i2i("generate", noisy["styles"], "--n", 6, "--out", "out", "--seed", 5, "--classes", "blue/green,0", "--truncation", 0.5).code == 0
    made = load(noisy["styles"], device="cpu").generate(6, labels=[2, 0] * 3, seed=5, truncation=0.5)
    for line, image in zip(lines(tmp_path / "out"), made, strict=True):
        assert np.abs(pixels(tmp_path / "out" / str(line["file"])) - to_array(image, ImageFormat())).max() <= 1
    assert [line["class"] for line in lines(tmp_path / "out")] == ["blue/green", "red"] * 3


def test_without_labels_files_lie_in_one_folder(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("generate", noisy["plain"], "--n", 3, "--out", "out", "--format", "jpg").code == 0
    assert sorted(files(tmp_path / "out")) == ["00000000.jpg", "00000001.jpg", "00000002.jpg", "generated.json", "generated.jsonl"]
    assert lines(tmp_path / "out")[0]["class"] is None
    assert Image.open(tmp_path / "out" / "00000000.jpg").format == "JPEG"


@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_a_set_can_be_trained_on(noisy: Noisy, i2i: Run, tmp_path: Path, out: str) -> None:
    assert i2i("generate", noisy["classes"], "--n", 6, "--out", out, "--classes", "blue/green,red").code == 0
    split = find_images(open_source(tmp_path / out))["train"]
    assert split.classes == CLASSES
    assert {split.name(i): int(split.labels[i]) for i in range(6)} == {f"{FOLDERS[c]}/{i:08}.png": c for i, c in enumerate([2, 0] * 3)}
    result = i2i("train", "cgan", "--data", out, "--out", "run", "generator.width=4", "discriminator.width=4", "train.images=8", "train.batch_size=4")
    assert result.code == 0, result.err
    assert load(tmp_path / "run", device="cpu").classes == CLASSES


def test_a_zip_holds_what_a_folder_does(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    for out in ("out", "out.zip"):
        assert i2i("generate", noisy["classes"], "--n", 7, "--out", out).code == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == len(set(archive.namelist()))
        assert {name: archive.read(name) for name in archive.namelist()} == files(tmp_path / "out")
    assert not (tmp_path / "out.zip.part").exists()


@pytest.mark.parametrize("names", [
    ("cat", "Cat", "CAT", "0-cat"), ("train", "A", "valB", "CON", "con.txt", "__MACOSX", ".hidden", "..", "", " ", "a/b", "a\\b", "a:b"),
    ("x" * 300, "x" * 299, "é" * 200, "日本", "\udcff"), tuple(f"{i}" for i in range(12))])
def test_folders_of_classes_are_safe_and_apart(names: tuple[str, ...]) -> None:
    made = class_folders(names)
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert name == name.strip(" .")
        assert 0 < len(name) <= MAX_FOLDER_NAME
        assert name.casefold().split(".")[0] not in RESERVED_NAMES
        assert not set(name) & set('/\\:*?"<>|\0')
        name.encode()
    assert class_folders(("cats and dogs", "日本", "a-1_(b)+c")) == ("cats and dogs", "日本", "a-1_(b)+c")


def test_64_bit_zips(noisy: Noisy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More members than 16 bits count; here from 100 on, as 65,536 take long to write."""
    count = 120
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 100)
    plan = plan_generation(noisy["plain"], load(noisy["plain"], device="cpu"))
    store = open_store(tmp_path / "many.zip", plan, count)
    for i in range(count):
        (store.folder / plan.file(i)).write_bytes(b"%d" % i)
        store.record(i)
    store.finish()
    with zipfile.ZipFile(tmp_path / "many.zip") as archive:
        assert len(archive.namelist()) == count + 2
        assert archive.read(plan.file(119)) == b"119"
    assert b"PK\x06\x06" in (tmp_path / "many.zip").read_bytes()        # The 64-bit end of the directory.
    assert len(open_source(tmp_path / "many.zip").names()) == count


# ---------------------------------------------------------------------------------------------- going on

@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_the_same_command_goes_on(noisy: Noisy, i2i: Run, tmp_path: Path, out: str) -> None:
    arguments = ("generate", noisy["classes"], "--batch", 4, "--device", "cpu")
    assert i2i(*arguments, "--n", 15, "--out", f"whole-{out}").code == 0
    assert "5 generated -> " in i2i(*arguments, "--n", 5, "--out", out).out
    assert "0 generated, 5 there already" in i2i(*arguments, "--n", 5, "--out", out).out
    assert "0 generated, 3 there already" in i2i(*arguments, "--n", 3, "--out", out).out
    assert "10 generated, 5 there already" in i2i(*arguments, "--n", 15, "--out", out).out
    whole, parts = tmp_path / f"whole-{out}", tmp_path / out
    assert (files(whole) == files(parts)) if whole.is_dir() else (whole.read_bytes() == parts.read_bytes())


@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_a_full_disk_keeps_what_is_done(noisy: Noisy, i2i: Run, tmp_path: Path, out: str, full, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("generate", noisy["classes"], "--batch", 4, "--n", 40, "--device", "cpu")
    assert i2i(*arguments, "--out", f"whole-{out}").code == 0
    with monkeypatch.context():
        full(13)
        result = i2i(*arguments, "--out", out)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert result.code == 1
    assert "No space left on device" in result.line
    assert "the same command continues" in result.line
    assert not (tmp_path / "out.zip").exists()
    folder = tmp_path / (out if out == "out" else f"{out}.part")
    manifest = lines(folder)
    assert [line["index"] for line in manifest] == list(range(len(manifest)))
    assert len(manifest) <= 13
    assert all((folder / str(line["file"])).exists() for line in manifest)
    again = i2i(*arguments, "--out", out)
    assert again.code == 0, again.err
    whole, parts = tmp_path / f"whole-{out}", tmp_path / out
    assert (files(whole) == files(parts)) if whole.is_dir() else (whole.read_bytes() == parts.read_bytes())


def test_a_zip_that_cannot_be_finished_is_finished_later(noisy: Noisy, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("generate", noisy["classes"], "--n", 5, "--device", "cpu", "--out")
    assert i2i(*arguments, "whole.zip").code == 0

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "_write_end_record", refuse)
    assert "5 images are done" in i2i(*arguments, "out.zip").line
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert "0 generated, 5 there already" in i2i(*arguments, "out.zip").out
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "whole.zip"]


def test_what_a_killed_job_leaves_is_put_right(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    """Half a line, images without a line, half an image, one that somebody took away."""
    arguments = ("generate", noisy["classes"], "--n", 12, "--device", "cpu", "--out")
    assert i2i(*arguments, "whole").code == 0
    assert i2i(*arguments, "out").code == 0
    out = tmp_path / "out"
    text = (out / "generated.jsonl").read_bytes().splitlines(keepends=True)
    (out / "generated.jsonl").write_bytes(b"".join(text[:6]) + text[6][:30])
    (out / str(json.loads(text[7])["file"])).write_bytes(b"half")
    (out / "red" / ".00000009.png.part").write_bytes(b"half")
    (out / str(json.loads(text[2])["file"])).unlink()
    assert i2i(*arguments[:3], 6, *arguments[4:], "out").code == 0
    split = find_images(open_source(out))["train"]
    assert (len(split), split.classes) == (6, CLASSES)
    result = i2i(*arguments, "out")
    assert "6 generated, 6 there already" in result.out
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("begun", [0, 6])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.62, 0.95])
def test_a_zip_goes_on_whenever_its_job_was_killed(noisy: Noisy, i2i: Run, tmp_path: Path, keep: float, begun: int) -> None:
    """While it wrote images, for a new zip and for one that is to grow; half a line, an image without one, half a zip."""
    arguments = ("generate", noisy["classes"], "--device", "cpu")
    assert i2i(*arguments, "--n", 9, "--out", "whole.zip").code == 0
    whole = (tmp_path / "whole.zip").read_bytes()
    if begun:
        assert i2i(*arguments, "--n", begun, "--out", "out.zip").code == 0
    folder = tmp_path / "out.zip.part"
    with zipfile.ZipFile(tmp_path / "whole.zip") as archive:
        archive.extractall(folder)
        manifest = archive.read("generated.jsonl")
    (folder / "generated.jsonl").write_bytes(manifest[:int(keep * len(manifest))])
    (folder / "dataset.json").unlink()
    (tmp_path / ".out.zip.part").write_bytes(whole[:100])
    assert i2i(*arguments, "--n", 9, "--out", "out.zip").code == 0
    assert (tmp_path / "out.zip").read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "whole.zip"]


def test_a_zip_that_was_killed_while_it_was_unpacked_to_grow(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    arguments = ("generate", noisy["classes"], "--device", "cpu", "--out")
    assert i2i(*arguments, "whole.zip", "--n", 9).code == 0
    assert i2i(*arguments, "out.zip", "--n", 5).code == 0
    (tmp_path / ".out.zip.unpacked").mkdir()
    (tmp_path / ".out.zip.unpacked" / "generated.jsonl").write_bytes(b"half")
    assert "4 generated, 5 there already" in i2i(*arguments, "out.zip", "--n", 9).out
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "whole.zip"]


@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_another_set_in_the_same_place_is_refused(noisy: Noisy, i2i: Run, tmp_path: Path, out: str) -> None:
    arguments = ("--n", 4, "--out", out, "--device", "cpu")
    assert i2i("generate", noisy["styles"], *arguments).code == 0
    before = files(tmp_path)
    for other, expected in (((noisy["styles"], "--seed", 1), "seed 0, not 1"), ((noisy["styles"], "--truncation", 0.7), "truncation 1.0, not 0.7"),
                            ((noisy["styles"], "--classes", "red"), "turn 0,1,2, not 0"), ((noisy["styles"], "--format", "webp"), "suffix .png, not .webp"),
                            ((noisy["classes"],), "model "), ((noisy["styles"], "--batch", 3), "batch_size 32, not 3")):
        result = i2i("generate", *other, *arguments)
        assert result.code == 2
        assert "holds images of another set: " + expected in result.line
    assert files(tmp_path) == before


def test_two_jobs_in_one_place_are_refused(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    for out in ("out", "out.zip"):
        assert i2i("generate", noisy["plain"], "--n", 1, "--out", out).code == 0
        lock_file = tmp_path / (out if out == "out" else f"{out}.part") / ".lock"
        lock_file.parent.mkdir(exist_ok=True)
        code = f"import filelock, sys; lock = filelock.FileLock({str(lock_file)!r}); lock.acquire(); print('held', flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            result = i2i("generate", noisy["plain"], "--n", 2, "--out", out)
            assert result.code == 2
            assert "another process is generating into" in result.line
            other.communicate("")


def test_names_are_not_held_in_memory(noisy: Noisy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through 20,000 images that are there, and their manifest, takes half a megabyte at most; the names alone would take one and a half."""
    import tracemalloc

    model = load(noisy["classes"], device="cpu")
    plan = plan_generation(noisy["classes"], model, batch_size=100)
    store = FolderStore(tmp_path / "out", plan)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generated.json").write_text(plan.to_json())
    with open(tmp_path / "out" / "generated.jsonl", "w") as file:
        file.writelines(plan.line(i) for i in range(20_000))
    monkeypatch.setattr(FolderStore, "has", lambda self, index: index < self.count)
    tracemalloc.start()
    store.resume(20_000)
    report = generate(model, store, 20_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    store.close()
    assert (report.done, report.skipped) == (0, 20_000)
    assert peak < 5e5


# ---------------------------------------------------------------------------------------------- again, alone

@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_an_image_made_alone_has_the_same_bits(noisy: Noisy, i2i: Run, tmp_path: Path, out: str) -> None:
    assert i2i("generate", noisy["styles"], "--n", 45, "--out", out, "--seed", 2, "--classes", "red,train", "--truncation", 0.8).code == 0
    result = i2i("generate", noisy["styles"], "--only", "44,7", "--like", out, "--out", "one")
    assert result.code == 0, result.err
    named = ["red/00000044.png", "1-train/00000007.png"]
    assert result.out.split() == [f"one/{name}" for name in reversed(named)]
    assert i2i("generate", noisy["styles"], "--only", "44", "--seed", 2, "--classes", "red,train", "--truncation", 0.8, "--out", "two").code == 0
    if out == "out":
        for name in named:
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / out / name).read_bytes()
        assert i2i("generate", noisy["styles"], "--only", "44,7", "--like", out, "--out", out).code == 0      # Over itself.
    else:
        with zipfile.ZipFile(tmp_path / out) as archive:
            assert all(archive.read(name) == (tmp_path / "one" / name).read_bytes() for name in named)
    assert (tmp_path / "two" / named[0]).read_bytes() == (tmp_path / "one" / named[0]).read_bytes()


def test_a_line_of_the_manifest_is_enough(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    """In Python, with nothing but the line and the model: to a gray level alone, and exactly in a batch of the line's size."""
    assert i2i("generate", noisy["styles"], "--n", 9, "--out", "out", "--seed", 2, "--truncation", 0.8).code == 0
    line, model = lines(tmp_path / "out")[8], load(noisy["styles"], device="cpu")
    there = pixels(tmp_path / "out" / str(line["file"]))
    settings = {"seed": line["seed"], "truncation": line["truncation"]}
    alone = model.render([line["index"]], torch.tensor([line["class_number"]]), **settings)
    assert np.abs(there - to_array(alone[0], ImageFormat())).max() <= 1
    first = line["index"] - line["index"] % line["batch_size"]
    whole = model.render(range(first, first + line["batch_size"]), torch.full((line["batch_size"],), line["class_number"]), **settings)
    assert np.array_equal(there, to_array(whole[line["index"] - first], ImageFormat()))


def test_images_made_alone_replace_no_others(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("generate", noisy["plain"], "--n", 3, "--out", "out").code == 0
    before = files(tmp_path / "out")
    result = i2i("generate", noisy["plain"], "--only", 1, "--seed", 4, "--out", "out")
    assert result.code == 2
    assert "is there already" in result.line
    assert files(tmp_path / "out") == before


# ---------------------------------------------------------------------------------------------- Python

@pytest.fixture
def model(noisy: Noisy) -> Model:
    return load(noisy["classes"], device="cpu")


def test_image_i_depends_on_its_seed_and_place_alone(model: Model) -> None:
    eight = model.generate(8, seed=1)
    assert eight.shape == (8, 3, 32, 32)
    assert eight.device.type == "cpu"
    assert torch.equal(eight, model.generate(8, seed=1))
    torch.testing.assert_close(eight[:5], model.generate(5, seed=1), atol=1e-5, rtol=1e-5)
    for batch in (1, 3, 7):
        torch.testing.assert_close(eight, model.generate(8, seed=1, batch_size=batch), atol=1e-5, rtol=1e-5)
    others = model.generate(8, seed=2)
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise([*eight, *others]))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model.generate(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_labels_by_name_number_and_tensor(model: Model) -> None:
    names = model.generate(4, labels=["train", "red", "red", "blue/green"])
    assert torch.equal(names, model.generate(4, labels=[1, 0, 0, 2]))
    assert torch.equal(names, model.generate(4, labels=torch.tensor([1, 0, 0, 2])))
    assert torch.equal(names, model.generate(4, labels=np.array([1, 0, 0, 2])))     # type: ignore[arg-type]
    for one in ("train", 1, ["train"], torch.tensor(1)):
        assert torch.equal(model.generate(4, labels=one), model.generate(4, labels=[1] * 4))
    assert torch.equal(model.generate(4), model.generate(4, labels=[0, 1, 2, 0]))
    assert (names - model.generate(4))[:3:2].abs().amax((1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize(("asked", "expected"), [
    ({"n": 0}, "n=0"), ({"n": 2, "batch_size": 0}, "batch_size=0"), ({"n": 2, "labels": [3]}, "label=3"), ({"n": 2, "labels": [-1]}, "label=-1"), ({"n": 2, "labels": ["rde", "red"]}, "did you mean 'red'"),
    ({"n": 3, "labels": [0, 1]}, "2 labels for 3"), ({"n": 2, "labels": [0.5]}, "label=0.5"), ({"n": 2, "truncation": 0.7}, "style space")])
def test_what_generate_refuses(noisy: Noisy, asked: dict[str, object], expected: str) -> None:
    model = load(noisy["classes"], device="cpu")
    with pytest.raises(RequestError, match=expected):
        model.generate(**asked)


def test_truncation_draws_to_the_mean(noisy: Noisy) -> None:
    styled = load(noisy["styles"], device="cpu")
    spread = [styled.generate(16, truncation=t, labels=0).std(0).mean() for t in (1.0, 0.5, 0.0)]
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-5
    assert torch.equal(styled.generate(4), styled.generate(4, truncation=1))


# ---------------------------------------------------------------------------------------------- wrong words

@pytest.mark.parametrize(("name", "arguments", "expected"), [
    ("plain", ("--n", 0), "--n=0 cannot be used; accepted: 1 to"), ("plain", ("--n", -3), "--n=-3"), ("plain", (), "--n N, or --only"),
    ("plain", ("--n", 3, "--only", "1"), "cannot both"), ("plain", ("--only", "1,x"), "--only=1,x"), ("plain", ("--n", 3, "--seed", -1), "--seed"),
    ("plain", ("--n", 3, "--classes", "red"), "without labels"), ("plain", ("--n", 3, "--classes", "balanced"), "without labels"),
    ("classes", ("--n", 3, "--classes", "rde"), "did you mean 'red'"), ("classes", ("--n", 3, "--classes", "7"), "0 to 2"),
    ("classes", ("--n", 3, "--classes", "red,0"), "each class once"), ("classes", ("--n", 3, "--truncation", 0.7), "style space"),
    ("styles", ("--n", 3, "--truncation", 9), "-2 to 2"), ("plain", ("--n", 3, "--format", "gif"), "--format gif"), ("plain", ("--n", 3, "--device", "tpu"), "tpu"),
    ("plain", ("--n", 3, "--batch", -1), "--batch"), ("plain", ("--n", 3, "--batch", 10**12), "are free; accepted: fewer, or 0"), ("plain", ("--only", 1, "--like", "nowhere"), "nowhere holds no generated.json")])
def test_wrong_options_are_one_line(noisy: Noisy, i2i: Run, tmp_path: Path, name: str, arguments: tuple[object, ...], expected: str) -> None:
    result = i2i("generate", noisy[name], *arguments, "--out", "out")
    assert result.code == 2
    assert expected in result.line
    assert not (tmp_path / "out").exists()


def test_outputs_and_models_that_cannot_be_used_are_one_line(noisy: Noisy, trained: Path, i2i: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_text("x")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as mine:
        mine.writestr("photo.png", "x")
    before = files(tmp_path)
    for arguments, expected in (((noisy["plain"], "--out", "file"), "cannot be written"), ((noisy["plain"], "--out", "file/x"), "cannot be written"),
                            ((noisy["plain"], "--out", "file/x.zip"), "cannot be written"), ((noisy["plain"], "--out", "mine"), "is not empty"),
                            ((noisy["plain"], "--out", "mine.zip"), "is no zip that i2i generate made"), ((trained, "--out", "out"), "use translate"),
                            (("nothing", "--out", "out"), "nothing does not exist"), ((tmp_path, "--out", "out"), "without model.safetensors")):
        result = i2i("generate", *arguments, "--n", 2)
        assert result.code == 2, arguments
        assert expected in result.line
    assert "not a zip" in i2i("generate", noisy["plain"], "--only", 1, "--out", "out.zip").line
    assert files(tmp_path) == before


def test_like_takes_everything_and_only_of_the_same_model(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert i2i("generate", noisy["styles"], "--n", 4, "--seed", 3, "--classes", "red", "--out", "a").code == 0
    assert "--seed cannot be given" in i2i("generate", noisy["styles"], "--n", 4, "--seed", 3, "--like", "a", "--out", "b").line
    assert "is not the model that made those images" in i2i("generate", noisy["classes"], "--n", 4, "--like", "a", "--out", "b").line
    assert not (tmp_path / "b").exists()
    assert i2i("generate", noisy["styles"], "--n", 4, "--like", "a", "--out", "b").code == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")
    (tmp_path / "a" / "generated.json").write_text((tmp_path / "a" / "generated.json").read_text().replace(package.__version__, "0.0.1"))
    result = i2i("generate", noisy["styles"], "--only", 1, "--like", "a", "--out", "c")
    assert result.code == 0
    assert "made by i2i 0.0.1" in result.err
    (tmp_path / "a" / "generated.json").write_text("{}")
    assert "is not what i2i generate writes" in i2i("generate", noisy["styles"], "--only", 1, "--like", "a", "--out", "c").line
    shutil.rmtree(tmp_path / "a")
