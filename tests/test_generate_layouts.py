"""`i2i generate --layout` through the command line, read back by the libraries that the layouts are for."""

import io
import json
import os
import signal
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i.cli import app
from i2i.data.labeled import find_images
from i2i.data.sources import open_source
from i2i.images.format import DecodedImage
from i2i.inference import image_store, shard_store
from i2i.inference.coco import object_box
from tests import forked
from tests.conftest import CLASSES, Run

Noisy = dict[str, Path]
FOLDERS = ("red", "1-train", "blue_green")


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hugging Face datasets, with its cache in a folder of the test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    library.disable_progress_bars()
    return library


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(image: Image.Image | bytes | Path) -> np.ndarray:
    return np.asarray(image if isinstance(image, Image.Image) else Image.open(io.BytesIO(image) if isinstance(image, bytes) else image).convert("RGB"))


@pytest.fixture
def plain(noisy: Noisy, i2i: Run, tmp_path: Path) -> list[np.ndarray]:
    """The images of an ordinary set of seven."""
    assert i2i("generate", noisy["classes"], "--n", 7, "--out", "plain", "--device", "cpu").code == 0
    return [pixels(tmp_path / "plain" / FOLDERS[i % 3] / f"{i:08}.png") for i in range(7)]


def generate(i2i: Run, noisy: Noisy, layout: str, *words: object, n: int = 7, out: str = "out", model: str = "classes"):
    return i2i("generate", noisy[model], "--n", n, "--out", out, "--layout", layout, "--device", "cpu", *words)


def test_class_folders_are_read_by_torchvision_and_datasets(noisy: Noisy, i2i: Run, datasets, tmp_path: Path) -> None:
    """Not a class called train, which datasets takes for a split."""
    from torchvision.datasets import ImageFolder
    assert generate(i2i, noisy, "imagefolder", "--classes", "blue/green,red", n=4).code == 0
    folder = ImageFolder(tmp_path / "out")
    read = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert folder.classes == read.features["label"].names == ["blue_green", "red"]
    for i, ((image, label), row) in enumerate(zip(folder, read, strict=True)):
        expected = pixels(tmp_path / "out" / ("blue_green", "red")[i // 2] / f"{2 * i % 4 + i // 2:08}.png")
        assert np.array_equal(pixels(image), expected)
        assert np.array_equal(pixels(row["image"]), expected)
        assert label == row["label"] == i // 2


def test_parquet_is_read_by_datasets(noisy: Noisy, plain: list[np.ndarray], i2i: Run, datasets, tmp_path: Path) -> None:
    result = generate(i2i, noisy, "parquet", "--shard", 3)
    assert result.code == 0, result.err
    out = tmp_path / "out"
    assert list(files(out)) == [*(f"data/train-0000{i}-of-00003.parquet" for i in range(3)), "generated.json", "generated.jsonl"]
    for read in (datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache")),
                 datasets.load_dataset("parquet", data_files=str(out / "data" / "*.parquet"), split="train", cache_dir=str(tmp_path / "cache"))):
        assert read.features["label"].names == list(CLASSES)
        assert isinstance(read.features["image"], datasets.Image)
        assert read["label"] == [i % 3 for i in range(7)]
        for i, row in enumerate(read):
            assert np.array_equal(pixels(row["image"]), plain[i])
    import pyarrow.parquet as pq
    table = pq.read_table(out / "data" / "train-00001-of-00003.parquet").to_pylist()
    assert [row["image"]["path"] for row in table] == [f"{i:08}.png" for i in (3, 4, 5)]


def test_shards_are_read_by_webdataset(noisy: Noisy, plain: list[np.ndarray], i2i: Run, datasets, tmp_path: Path) -> None:
    import webdataset
    result = generate(i2i, noisy, "webdataset", "--shard", 3)
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in (tmp_path / "plain" / "generated.jsonl").read_text().splitlines()]
    shards = [str(tmp_path / "out" / "data" / f"train-0000{i}.tar") for i in range(3)]
    assert [f"data/{Path(shard).name}" for shard in shards] == [file for file in files(tmp_path / "out") if file.startswith("data/")]
    read = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("__key__", "png", "cls", "json"))
    assert [(key, label, line) for key, _, label, line in read] == [(f"{i:08}", i % 3, lines[i]) for i in range(7)]
    assert all(np.array_equal(pixels(image), plain[i]) for i, (_, image, _, _) in enumerate(read))
    other = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert [(row["__key__"][-8:], row["cls"]) for row in other] == [(f"{i:08}", i % 3) for i in range(7)]
    with tarfile.open(shards[0]) as archive:
        assert {(member.mtime, member.uname) for member in archive} == {(0, "")}


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_shards_can_be_trained_on(layout: str, noisy: Noisy, plain: list[np.ndarray], i2i: Run, tmp_path: Path) -> None:
    assert generate(i2i, noisy, layout, "--shard", 3).code == 0
    split = find_images(open_source(tmp_path / "out"))["train"]
    assert [split.classes[label] for label in split.labels] == [CLASSES[i % 3] if layout == "parquet" else str(i % 3) for i in range(7)]
    assert all(np.array_equal(split.decode("b", i)[0].array, plain[i]) for i in range(7))


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_without_classes_there_are_no_labels(layout: str, noisy: Noisy, i2i: Run, datasets, tmp_path: Path) -> None:
    assert generate(i2i, noisy, layout, model="plain", n=2).code == 0
    read = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(read) == 2
    assert not {"label", "cls"} & set(read.column_names)


@pytest.mark.parametrize("out", ["out", "out.zip"])
def test_coco_annotations_are_read_by_pycocotools(noisy: Noisy, plain: list[np.ndarray], i2i: Run, tmp_path: Path, out: str) -> None:
    from pycocotools.coco import COCO
    assert generate(i2i, noisy, "coco", out=out).code == 0
    if out == "out.zip":
        with zipfile.ZipFile(tmp_path / out) as archive:
            archive.extractall(tmp_path / "out")
    read = COCO(tmp_path / "out" / "annotations.json")
    assert [category["name"] for category in read.loadCats(read.getCatIds())] == list(CLASSES)
    for i, image in enumerate(read.loadImgs(read.getImgIds())):
        (annotation,) = read.loadAnns(read.getAnnIds(imgIds=image["id"]))
        assert (image["width"], image["height"], annotation["category_id"]) == (32, 32, i % 3 + 1)
        assert np.array_equal(pixels(tmp_path / "out" / image["file_name"]), plain[i])
        box, by = object_box(DecodedImage(plain[i]))
        assert (annotation["bbox"], annotation["box_from"], annotation["area"]) == (box, by, box[2] * box[3])
    rest = {name: data for name, data in files(tmp_path / "out").items() if name not in ("annotations.json", "generated.json")}
    assert rest == {name: data for name, data in files(tmp_path / "plain").items() if name != "generated.json"}


def test_coco_annotations_grow_with_the_set(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    assert generate(i2i, noisy, "coco", n=2).code == 0
    assert generate(i2i, noisy, "coco", n=5).code == 0
    assert generate(i2i, noisy, "coco", n=5, out="whole").code == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["images"]) == 5


def test_a_box_is_that_of_alpha_or_of_what_is_not_white_or_the_whole() -> None:
    image = np.full((20, 30, 3), 255, np.uint8)
    image[4:9, 10:22] = 200
    image[0, 0] = 240       # White, nearly.
    assert object_box(DecodedImage(image)) == ([10, 4, 12, 5], "nonwhite")
    assert object_box(DecodedImage(image[..., 0])) == ([10, 4, 12, 5], "nonwhite")
    assert object_box(DecodedImage(image.astype(np.uint16) * 257)) == ([10, 4, 12, 5], "nonwhite")
    image[19, 3] = 0        # It touches the border, so what is white may be anything.
    assert object_box(DecodedImage(image)) == ([0, 0, 30, 20], "image")
    assert object_box(DecodedImage(np.full((20, 30, 3), 255, np.uint8))) == ([0, 0, 30, 20], "image")
    assert object_box(DecodedImage(np.zeros((20, 30), np.float32))) == ([0, 0, 30, 20], "image")
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[0:3, 5:6], alpha[10, 10] = 255, 127
    assert object_box(DecodedImage(np.concatenate([image, alpha], 2), alpha=True)) == ([5, 0, 1, 3], "alpha")


# ---------------------------------------------------------------------------------------------- going on, refused

def _killed(words: list[str], folder: Path, moment: int) -> None:
    """The command, killed while it makes images, while it writes the second shard, or before the last rename."""
    os.chdir(folder)
    owner, name, when = [(image_store.FolderStore, "put", lambda self, index, data: index == 4), (shard_store.ShardStore, "_write_tar", lambda self, path, indices: indices.start == 3),
                         (shard_store.os, "replace", lambda source, target: str(target) == "out")][moment]
    original = getattr(owner, name)
    setattr(owner, name, lambda *args: os.kill(os.getpid(), signal.SIGKILL) if when(*args) else original(*args))
    app.run(words)


def test_an_interrupted_job_leaves_nothing_that_looks_whole_and_goes_on(noisy: Noisy, i2i: Run, tmp_path: Path) -> None:
    words = ["generate", str(noisy["classes"]), "--n", "7", "--out", "out", "--layout", "webdataset", "--shard", "3", "--device", "cpu"]
    assert i2i(*words, "--out", "whole").code == 0
    for moment in range(3):
        process = forked._CONTEXT.Process(target=_killed, args=(words, tmp_path, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (tmp_path / "out").exists()
    assert "0 generated, 7 there already" in i2i(*words).out
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]
    assert "0 generated, 7 there already" in i2i(*words).out
    assert "out holds 7 images, and shards do not grow" in i2i(*words, "--n", 8).line


def test_wrong_requests_are_one_line(noisy: Noisy, plain: list[np.ndarray], i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(tmp_path)
    for words, line in ((("tar",), "--layout=tar cannot be used; accepted: imagefolder, webdataset, parquet, coco"), (("coco", "--shard", 3), "--shard 3 needs --layout"),
                        (("parquet", "--out", "x.zip"), "writes a new folder of shards; --out x.zip is none"), (("webdataset", "--out", "."), "--out . is none"), (("parquet", "--format", "npy"), "which npy files are not"),
                        (("webdataset", "--out", "plain"), "layout imagefolder, not webdataset"), (("parquet", "--like", "plain"), "--layout cannot be given with it")):
        result = generate(i2i, noisy, *words)
        assert result.code == 2
        assert line in result.line
    result = i2i("generate", noisy["classes"], "--only", 1, "--layout", "coco", "--out", "x")
    assert result.line == "error: --only writes single files; --layout and --shard go with --n"
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'i2i-toolkit[parquet]'" in generate(i2i, noisy, "parquet").line
    assert files(tmp_path) == before


def test_memory_does_not_grow_with_a_shard(noisy: Noisy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    from i2i import load
    from i2i.inference.generation_plan import plan_generation
    data = os.urandom(100_000)
    monkeypatch.setattr(shard_store.ShardStore, "read", lambda self, index: data)
    plan = plan_generation(noisy["classes"], load(noisy["classes"], device="cpu"), layout="webdataset")
    store = shard_store.ShardStore(tmp_path / "out", plan, 1000)
    tracemalloc.start()
    store._write_tar(tmp_path / "x.tar", range(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "x.tar").stat().st_size > 1e8
    assert peak < 3e6
