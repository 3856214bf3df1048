"""Images of one side: class folders, dataset.json, and a stream of images with their classes."""

import json
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.data.config import DataConfig
from i2i.data.file_list import FileList
from i2i.data.format_detection import inspect_dataset, training_sizes
from i2i.data.labeled import ImageDataset, find_images
from i2i.data.layouts import only_divide
from i2i.data.loader import batches
from i2i.data.sources import Folder, open_source
from i2i.errors import JobError, RequestError
from i2i.images.encode import encode
from i2i.images.format import ImageFormat
from i2i.inference.model import load
from tests.conftest import Run
from tests.data.test_datasets import save

KINDS = (ImageFormat(3), ImageFormat(3))


def classed(folder: Path, root: str = "") -> Path:
    """Three classes of 4, 3 and 2 images, whose gray level says which: 0, 40, 80."""
    for value, (name, count) in enumerate((("cat", 4), ("dog", 3), ("eel", 2))):
        for i in range(count):
            save(folder / f"{root}{name}/{i}.png", 40 * value)
    return folder


def train(folder: Path) -> ImageDataset:
    return find_images(open_source(folder))["train"]


def take(folder: Path, n: int, *, on_error: str = "stop", **options: int) -> list[dict[str, torch.Tensor]]:
    data = train(folder).for_training((16, 16), (16, 16), KINDS, seed=1, on_error=on_error)
    return list(islice(batches(data, **{"start": 0, "batch_size": 4, **options}), n))


# ---------------------------------------------------------------------------------------------- where classes come from

@pytest.mark.parametrize("root", ["", "train/"])
def test_class_folders(tmp_path: Path, root: str) -> None:
    images = train(classed(tmp_path, root))
    assert images.classes == ("cat", "dog", "eel")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    image, label = images[5]
    assert (int(image.array[0, 0, 0]), label, images.name(5)) == (40, 1, f"{root}dog/1.png")
    assert (images.layout, images.description) == ("class folders", "9 images of 3 classes")


@pytest.mark.parametrize("names", [["a.png", "b.png"], ["one/a.png", "one/b.png"], ["x/y/a.png", "z/b.png"], ["x/a.png", "y/b.png", "c.png"]])
def test_other_folders_mean_nothing(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        save(tmp_path / name, 0)
    images = train(tmp_path)
    assert (len(images), images.labels, images.classes) == (len(names), None, ())
    assert images[0][1] is None
    assert images.layout == ("one folder" if len({name.rpartition("/")[0] for name in names}) == 1 else "sub-folders")


def test_splits_share_the_classes_of_the_training_pictures(tmp_path: Path) -> None:
    classed(tmp_path, "train/")
    save(tmp_path / "test/eel/0.png", 0)
    save(tmp_path / "val/0.png", 0)
    splits = find_images(open_source(tmp_path))
    assert list(splits) == ["train", "val", "test"]
    assert splits["test"].labels is not None
    assert (splits["test"].labels.tolist(), splits["test"].classes) == ([2], ("cat", "dog", "eel"))
    assert splits["val"].labels is None
    save(tmp_path / "test/fox/0.png", 0)
    with pytest.raises(RequestError, match=r"test/fox is a class that train/ does not have \(cat, dog, eel\)"):
        find_images(open_source(tmp_path))


@pytest.mark.parametrize("table", [list, dict])
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_of_dataset_json(tmp_path: Path, table: type, zipped: bool) -> None:
    for i in range(3):
        save(tmp_path / f"d/deep/{i}.png", i)
    labels = table([(f"deep/{i}.png", 2 - i) for i in range(3)])
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({"labels": labels}))
    where = tmp_path / "d"
    if zipped:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for path in (tmp_path / "d").rglob("*.*"):
                archive.write(path, path.relative_to(tmp_path / "d"))
        where = tmp_path / "d.zip"
    images = train(where)
    assert images.labels is not None
    assert (images.labels.tolist(), images.classes, images.layout) == ([2, 1, 0], ("0", "1", "2"), "labels of dataset.json")


def test_dataset_json_before_class_folders_and_with_names(tmp_path: Path) -> None:
    classed(tmp_path)
    rows = [[name, 0] for name in open_source(tmp_path).names()]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": rows, "classes": ["animal", "none"]}))
    images = train(tmp_path)
    assert images.labels is not None
    assert (set(images.labels.tolist()), images.classes, images.layout) == ({0}, ("animal", "none"), "labels of dataset.json (no images of class none)")
    (tmp_path / "dataset.json").write_text(json.dumps({"classes": ["animal"]}))       # It says nothing of labels.
    assert train(tmp_path).layout == "class folders"


@pytest.mark.parametrize("labels", [None, [], {}])
def test_folders_are_no_classes_where_dataset_json_says_that_there_are_none(tmp_path: Path, i2i: Run, labels: object) -> None:
    """StyleGAN's dataset tool packs images in folders of a thousand and writes null where there are no labels."""
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for i in range(24):
            archive.writestr(f"{i // 12:05}/img{i:08}.png", encode(".png", np.full((64, 64, 3), i, np.uint8), ImageFormat(3)))
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    images = train(tmp_path / "faces.zip")
    assert (images.labels, images.classes, images.layout, len(images)) == (None, (), "no labels in dataset.json", 24)
    assert "faces.zip has no labels (no labels in dataset.json), which gan with conditional=true learns from" in i2i("train", "cgan", "--data", tmp_path / "faces.zip", "--dry-run").line
    assert i2i("train", "dcgan", "--data", tmp_path / "faces.zip", "--dry-run").code == 0


def test_a_file_of_two_labels_is_refused_and_paths_need_not_be_in_their_shortest_form(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / "x" / f"{i}.png", 40 * i, (32, 32))
    for rows, found in (([["./x/0.png", 0], ["x//1.png", 1], ["x\\2.png", 1]], [0, 1, 1]), ([["x/0.png", 0], ["x/0.png", 0], ["x/1.png", 1], ["x/2.png", 1]], [0, 1, 1])):
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": rows}))
        assert train(tmp_path).labels.tolist() == found
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["x/0.png", 0], ["./x/0.png", 1]]}))
    with pytest.raises(RequestError, match=r"dataset\.json: \./x/0\.png has two labels, 0 and 1$"):
        train(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["x/0.png", "0"]]}))
    with pytest.raises(RequestError, match=r'the label of x/0\.png is "0"; accepted: a whole number'):
        train(tmp_path)


PACKED = {
    "StyleGAN": [f"{i // 5:05}/img{i:08}" for i in range(12)], "FFHQ": [f"{i // 1000 * 1000:05}/{i:05}" for i in (3, 4, 1002, 1003, 2001)],
    "gaps and a short last folder": [f"{i // 5:05}/img{i:08}" for i in (1, 3, 4, 6, 9, 25)], "modulo": [f"{i % 1000:04}/{i}" for i in (1000, 12000, 1007, 7, 90008)],
    "hashes": [f"{number:02x}/{number:02x}{'f7' * 15}" for number in (3, 9, 200)], "longer numbers": [f"{i // 3:06}/{i:07}" for i in range(9)]}
CLASSES = {
    "GTSRB": [f"{label:05}/{track:05}_{frame:05}" for label in range(3) for track in range(2) for frame in range(2)], "digits": [f"{label}/{i}" for label in range(3) for i in range(4)],
    "counted anew": [f"{label:05}/img{i:08}" for label in range(3) for i in range(4)], "ImageNet": [f"n0144{label}764/n0144{label}764_{i}" for label in range(3) for i in (40, 1)],
    "more than a thousand": [f"{i // 1001:05}/img{i:08}" for i in range(2002)], "of two widths": ["00000/1", "000001/2"], "words": ["cafe/1", "face/2"], "years": [f"{year}/{i}" for year in (1999, 2000) for i in (3, 4)],
    "files without numbers": ["00000/a", "00001/b"], "short numbers": [f"{i // 5:03}/{i}" for i in range(12)]}


@pytest.mark.parametrize("name", [*PACKED, *CLASSES])
@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_that_only_divide_the_files_are_no_classes(name: str, split: str) -> None:
    names = FileList.of(sorted(f"{each}.png" for each in (PACKED | CLASSES)[name]))
    folders = names.folders()
    assert only_divide(names, folders) is (name in PACKED)

    class Listed(Folder):
        def list_images(self) -> FileList:
            return FileList.of([f"{split}{each}" for each in names])

    found = find_images(Listed(Path("absent")))["train"]
    assert (found.classes == ()) is (name in PACKED)
    assert len(found) == len(names)
    if name in PACKED:
        assert found.note.startswith(f"the folders {folders[0]} … {folders[-1]} only divide the files, as their names show, and are no classes; a dataset.json")


def test_what_was_taken_for_packing_is_reported_by_every_command(tmp_path: Path, i2i: Run) -> None:
    for i in range(24):
        save(tmp_path / "faces" / f"{i // 12:05}" / f"img{i:08}.png", 9 * i, (32, 32))
    assert i2i("data", "check", tmp_path / "faces").out.splitlines()[1] == "layout      numbered folders that only divide the files: 24 train images"
    plain = i2i("train", "dcgan", "--data", tmp_path / "faces", "--dry-run")
    assert "the folders 00000 … 00001 only divide the files" in plain.out + plain.err
    refused = i2i("train", "cgan", "--data", tmp_path / "faces", "--dry-run")
    assert refused.code == 2
    assert "has no labels (numbered folders that only divide the files)" in refused.line
    rows = [[f"{i // 12:05}/img{i:08}.png", i // 12] for i in range(24)]
    (tmp_path / "faces" / "dataset.json").write_text(json.dumps({"labels": rows}))        # The remedy.
    assert i2i("train", "cgan", "--data", tmp_path / "faces", "--dry-run").code == 0


def test_classes_without_images_are_neither_learned_nor_generated(tmp_path: Path, i2i: Run) -> None:
    for i in range(12):
        (tmp_path / "d").mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "d" / f"{i}.png")
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", 1 + 2 * (i % 2)] for i in range(12)]}))
    images = train(tmp_path / "d")
    assert (images.classes, images.labels.tolist(), images.layout) == (("1", "3"), [0, 1] * 6, "labels of dataset.json (no images of class 0, 2)")
    ran = i2i("train", "cgan", "generator.width=4", "discriminator.width=4", "train.images=8", "train.batch_size=4", "--data", tmp_path / "d", "--out", tmp_path / "r")
    assert ran.code == 0
    assert "no images of class 0, 2" in ran.out + ran.err
    assert load(tmp_path / "r", device="cpu").classes == ("1", "3")
    for options in ((), ("--classes", "balanced")):
        assert i2i("generate", tmp_path / "r", "--n", 6, *options, "--out", tmp_path / f"g{len(options)}").code == 0
        rows = [json.loads(line) for line in (tmp_path / f"g{len(options)}" / "generated.jsonl").read_text().splitlines()]
        assert {row["class"] for row in rows} == {"1", "3"}


def test_named_classes_without_images_keep_their_numbers_and_are_generated_on_demand(tmp_path: Path, i2i: Run) -> None:
    for i in range(8):
        save(tmp_path / "d" / f"{i}.png", 20 * i, (32, 32))
    labels = {"labels": [[f"{i}.png", 1 + i % 2] for i in range(8)], "classes": ["ape", "bee", "cat", "dog"]}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(labels))
    dry = i2i("train", "cgan", "--data", tmp_path / "d", "--dry-run").out
    assert "labels of dataset.json (no images of class ape, dog): 8 images of 4 classes" in dry
    assert i2i("train", "cgan", "generator.width=4", "discriminator.width=4", "train.images=8", "train.batch_size=4", "--data", tmp_path / "d", "--out", tmp_path / "r").code == 0
    model = load(tmp_path / "r", device="cpu")
    assert (model.classes, model.learned_classes) == (("ape", "bee", "cat", "dog"), (1, 2))
    assert torch.equal(model.generate(4, seed=1), model.generate(4, seed=1, labels=[1, 2, 1, 2]))
    for options, expected in (((), {"bee", "cat"}), (("--classes", "balanced"), {"bee", "cat"}), (("--classes", "dog"), {"dog"})):
        out = tmp_path / "-".join(("g", *options))
        done = i2i("generate", tmp_path / "r", "--n", 5, *options, "--out", out)
        assert (done.code, done.err) == (0, "warning: the model saw no images of class dog\n" if "dog" in options else "")
        assert {json.loads(line)["class"] for line in (out / "generated.jsonl").read_text().splitlines()} == expected


def test_empty_classes_of_manifests_and_of_other_splits(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    (tmp_path / "manifest.csv").write_text("file,label,split\n0.png,a,train\n1.png,b,train\n2.png,b,test\n")
    assert {name: split.labels.tolist() for name, split in find_images(open_source(tmp_path)).items()} == {"train": [0, 1], "test": [1]}
    (tmp_path / "manifest.csv").write_text("file,label,split\n0.png,b,train\n1.png,b,train\n2.png,a,test\n")
    splits = find_images(open_source(tmp_path))
    assert (splits["train"].classes, splits["train"].empty_classes, splits["test"].labels.tolist()) == (("a", "b"), [0], [0])
    assert splits["train"].layout == "rows of a manifest (no images of class a)"
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", 10 * i + 9] for i in range(3)]}))
    assert train(tmp_path).layout == "labels of dataset.json (no images of class 0, 1, 2, 3, 4 and 22 more)"


@pytest.mark.parametrize(("text", "message"), [
    ("{", "cannot be read"), ('{"labels": [["0.png"]]}', "among the labels"), ('{"labels": 3}', "among the labels"),
    ('{"labels": [["0.png", -1]]}', "the label of 0.png is -1"), ('{"labels": [["0.png", [0, 1]]]}', "the label of 0.png is"),
    ('{"labels": [["0.png", 2]], "classes": ["a", "b"]}', "from 0 to 1"), ('{"labels": [["1.png", 0]]}', "no label for 0.png"),
    ('{"labels": [["0.png", 0]], "classes": 3}', "a list of names")])
def test_what_is_wrong_with_dataset_json_is_reported(tmp_path: Path, text: str, message: str) -> None:
    save(tmp_path / "0.png", 0)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(RequestError, match=message):
        train(tmp_path)


def test_the_description_of_a_folder_says_nothing_of_one_file(tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / f"{i}.png", 0)
    (tmp_path / "dataset.json").write_text('{"labels": [["1.png", 0]]}')
    assert train(tmp_path / "0.png").labels is None


def test_two_sides_are_refused_by_name(sides: Path) -> None:
    with pytest.raises(RequestError, match=r"two sides \(testA, testB, trainA, trainB\).*such as .*/trainB"):
        find_images(open_source(sides))
    assert len(train(sides / "trainB")) == 5


def test_the_bundled_pictures() -> None:
    images = find_images(open_source("fluent3d-64"))["train"]
    assert images.description == "1600 images of 8 classes"
    assert images.classes[0] == "activities"
    assert images[0][0].array.shape == (64, 64, 3)
    assert all(images.classes[int(label)] == name.split("/")[0] for name, label in zip(images.names, images.labels, strict=True))


def test_classes_that_a_recipe_does_not_learn_are_reported(i2i: Run) -> None:
    note = "the 8 classes of the data are ignored; conditional=true learns them"
    assert note in i2i("train", "sngan", "--dry-run").out
    learned = i2i("train", "sngan", "conditional=true", "--dry-run").out
    assert note not in learned
    assert "afro, bald, bandana, curly, hat, hijab, mohawk, turban" in learned
    assert "2400 images of 8 classes train, 480 images of 8 classes test" in learned


def test_the_fingerprint_follows_names_and_labels(tmp_path: Path) -> None:
    one = train(classed(tmp_path)).fingerprint()
    assert train(tmp_path).fingerprint() == one
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [[name, 0] for name in open_source(tmp_path).names()]}))
    assert train(tmp_path).fingerprint() != one


def test_pictures_are_loaded_whole(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0, (64, 64), "L")
    facts = inspect_dataset(train(tmp_path))
    assert (facts.a, facts.b) == (ImageFormat(1), ImageFormat(1))
    assert training_sizes(DataConfig(), train(tmp_path), facts) == ((64, 64), (64, 64))
    assert training_sizes(DataConfig(load_size=(72,)), train(tmp_path), facts) == ((64, 64), (72, 72))


# ---------------------------------------------------------------------------------------------- the stream

def test_every_picture_comes_with_its_class(tmp_path: Path) -> None:
    for batch in take(classed(tmp_path), 6):
        assert batch["b"].shape == (4, 3, 16, 16)
        assert batch["c"].dtype == torch.int64
        assert ((batch["b"].mean((1, 2, 3)) + 1) * 127.5 / 40).round().long().tolist() == batch["c"].tolist()


def test_without_labels_there_are_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 9)
    assert [set(batch) for batch in take(tmp_path, 3)] == [{"b"}] * 3       # Of one image, too.


def test_the_stream_is_a_function_of_position(tmp_path: Path) -> None:
    classed(tmp_path)
    for i in range(4):
        g = np.random.default_rng(i)
        from PIL import Image
        Image.fromarray(g.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / "cat" / f"{i}.png")
    whole = take(tmp_path, 6)
    parts = [*take(tmp_path, 2, num_workers=2), *take(tmp_path, 4, start=8, num_workers=1)]
    ranks = [take(tmp_path, 6, rank=r, world_size=2) for r in range(2)]
    for i, (one, other) in enumerate(zip(whole, parts, strict=True)):
        for key in "bc":
            assert torch.equal(one[key], other[key])
            assert torch.equal(one[key], torch.stack([rank[i][key] for rank in ranks], 1).flatten(0, 1))


def test_an_unreadable_picture(tmp_path: Path) -> None:
    (classed(tmp_path) / "dog" / "1.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=r"dog/1\.png.*on_error=skip"):
        take(tmp_path, 5)
    for batch in take(tmp_path, 5, on_error="skip"):
        assert ((batch["b"].mean((1, 2, 3)) + 1) * 127.5 / 40).round().long().tolist() == batch["c"].tolist()
