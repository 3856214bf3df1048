"""Every layout as a folder and as a zip; manifests; odd names and links; and that many files cost little."""

import hashlib
import json
import os
import pickle
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.data.file_list import FileList
from i2i.data.format_detection import inspect_dataset
from i2i.data.labeled import find_images
from i2i.data.layouts import pair_names
from i2i.data.loader import batches
from i2i.data.paired import PairedDataset, find_paired, same_shape
from i2i.data.sources import Folder, Unreadable, Zip, load_image, open_source
from i2i.data.unpaired import UnpairedDataset, find_unpaired
from i2i.errors import RequestError
from i2i.images.format import ImageFormat
from tests.conftest import SMALL, Run
from tests.data.test_datasets import save

FIND: dict[str, Callable[..., dict[str, Any]]] = {"paired": find_paired, "unpaired": find_unpaired, "images": find_images}
WIDE = (16, 32)
CSV = "a,b,split\ntrainA/0.png,trainB/0.png,train\ntrainA/1.png,trainB/1.png,\ntestA/0.png,testB/0.png,test\n"
TWO = [f"{split}{side}/{i}.png" for split, count in (("train", 2), ("test", 1)) for side in "AB" for i in range(count)]
Layout = tuple[str, list[str], dict[str, str], dict[str, tuple[int, str]]]
LAYOUTS: dict[str, Layout] = {      # Kind of data set, files, what describes them, and for each split its length and layout in words.
    "strips": ("paired", ["0.png", "1.PNG"], {}, {"train": (2, "A|B strips")}),
    "strips in sub-folders": ("paired", ["x/0.png", "y/z/1.png"], {}, {"train": (2, "A|B strips")}),
    "strips with splits": ("paired", ["train/0.png", "train/deep/1.png", "val/2.png", "test/3.png"], {},
                           {"train": (2, "A|B strips"), "val": (1, "A|B strips"), "test": (1, "A|B strips")}),
    "two folders, across formats": ("paired", ["A/0.png", "A/x/1.JPG", "B/0.bmp", "B/x/1.WebP"], {}, {"train": (2, "two folders paired by name")}),
    "A and B beside test folders": ("paired", ["A/0.png", "B/0.png", "testA/1.png", "testB/1.png"], {},
                                    {"train": (1, "two folders paired by name"), "test": (1, "two folders paired by name")}),
    "trainA trainB": ("unpaired", ["trainA/0.png", "trainA/1.png", "trainB/2.TIF", "testA/3.png", "testB/3.png"], {},
                      {"train": (2, "two folders, unpaired"), "test": (1, "two folders paired by name")}),
    "strips, taken apart": ("unpaired", ["train/0.png", "test/1.png"], {}, {"train": (1, "A|B strips, taken apart"), "test": (1, "A|B strips")}),
    "one folder": ("images", ["0.png", "1.JPEG"], {}, {"train": (2, "one folder")}),
    "one image": ("images", ["only.png"], {}, {"train": (1, "one folder")}),
    "sub-folders": ("images", ["x/y/0.png", "z/1.png"], {}, {"train": (2, "sub-folders")}),
    "class folders": ("images", ["cat/0.png", "dog/0.png", "dog/1.png"], {}, {"train": (3, "class folders")}),
    "class folders with splits": ("images", ["train/cat/0.png", "train/dog/0.png", "test/dog/1.png"], {},
                                  {"train": (2, "class folders"), "test": (1, "class folders")}),
    "dataset.json": ("images", ["00/0.png", "00/1.png"], {"dataset.json": '{"labels": [["00/0.png", 1], ["00/1.png", 0]]}'},
                     {"train": (2, "labels of dataset.json")}),
    "manifest of pairs": ("paired", TWO, {"manifest.csv": CSV}, {"train": (2, "rows of a manifest"), "test": (1, "rows of a manifest")}),
    "manifest of strips": ("paired", ["x/0.png", "y.png"], {"manifest.jsonl": '{"file": "x/0.png"}\n\n{"file": "y.png", "split": "val"}'},
                           {"train": (1, "A|B strips"), "val": (1, "A|B strips")}),
    "manifest of sides": ("unpaired", TWO, {"manifest.csv": "a,b\ntrainA/0.png,\ntrainA/1.png,trainB/0.png\n"},
                          {"train": (2, "rows of a manifest, unpaired")}),
    "manifest of sides that are pairs": ("unpaired", TWO, {"manifest.csv": CSV},
                                         {"train": (2, "rows of a manifest, unpaired"), "test": (1, "rows of a manifest")}),
    "manifest of labels": ("images", ["0.png", "1.png"], {"manifest.csv": "file,label\r\n0.png,dog\r\n1.png,cat\r\n"}, {"train": (2, "rows of a manifest")}),
    "manifest of pairs, for images": ("images", TWO, {"manifest.csv": CSV}, {"train": (2, "rows of a manifest, side b"), "test": (1, "rows of a manifest, side b")}),
}


def zipped(folder: Path, how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder.with_suffix(".zip"), "w", how) as archive:
        for path in sorted(folder.rglob("*"), reverse=True):      # Not in order.
            archive.write(path, path.relative_to(folder).as_posix())
    return folder.with_suffix(".zip")


def lay(folder: Path, files: list[str], beside: dict[str, str]) -> Path:
    for i, name in enumerate(files):
        save(folder / name, 10 * i, WIDE)
    for name, text in beside.items():
        (folder / name).write_bytes(text.encode())
    return folder


@pytest.mark.parametrize("how", ["folder", "zip", "folder in a zip", "wrapped", "wrapped zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout(tmp_path: Path, name: str, how: str) -> None:
    kind, files, beside, expected = LAYOUTS[name]
    where = lay(tmp_path / "top" / "data", files, beside)
    if "wrapped" in how:        # As a zip of a folder is, where that folder is not named.
        where = zipped(tmp_path / "top") if "zip" in how else tmp_path / "top"
    elif "zip" in how:
        where = zipped(tmp_path / "top") / "data" if how == "folder in a zip" else zipped(where)
    splits = FIND[kind](open_source(where))
    assert {split: (len(each), each.layout) for split, each in splits.items()} == expected
    assert splits["train"].fingerprint() == FIND[kind](open_source(tmp_path / "top" / "data"))["train"].fingerprint()
    for split in splits.values():
        for i in range(len(split)):
            image, other = split[i]
            assert image.array.shape == (16, 16 if "strips" in split.layout else 32, 3)
            assert kind == "images" or other.array.shape == image.array.shape


def test_labels_of_a_manifest(tmp_path: Path) -> None:
    files = [f"{i}.png" for i in range(4)]
    lay(tmp_path / "data", files, {"manifest.jsonl": "\n".join(json.dumps({"file": f"{i}.png", "label": label}) for i, label in enumerate((10, 2, 10, 9)))})
    images = find_images(open_source(tmp_path / "data"))["train"]
    assert (images.classes, images.labels.tolist()) == (("2", "9", "10"), [2, 0, 2, 1])         # In the order of numbers.
    (tmp_path / "data" / "manifest.jsonl").unlink()
    (tmp_path / "data" / "manifest.csv").write_text("file,label,split\n0.png,b,test\n1.png,c,train\n2.png,a,train\n")
    splits = find_images(open_source(tmp_path / "data"))
    assert splits["train"].classes == splits["test"].classes == ("a", "b", "c")
    assert (splits["train"].labels.tolist(), splits["test"].labels.tolist()) == ([2, 0], [1])
    assert [splits["train"].name(i) for i in range(2)] == ["1.png", "2.png"]


def test_a_manifest_by_its_name(tmp_path: Path) -> None:
    """From anywhere: its paths are relative to it, or absolute; the images beside it that it does not name are not read."""
    data = lay(tmp_path / "data", [*TWO, "other.png"], {})
    save(tmp_path / "far" / "x y\n.png", 77, WIDE)
    (tmp_path / "data" / "pairs.CSV").write_text(f'﻿a,b\ntrainA/0.png,trainB/0.png\n../far/nothing.png,{tmp_path}/far/nothing.png\n"../far/x y\n.png","{tmp_path}/far/x y\n.png"\n')
    with pytest.raises(RequestError, match=r"pairs\.CSV, line 3: there is no file \.\./far/nothing\.png"):
        find_paired(open_source(data / "pairs.CSV"))
    save(tmp_path / "far" / "nothing.png", 66, WIDE)
    splits = find_paired(open_source(data / "pairs.CSV"))
    assert {name: len(each) for name, each in splits.items()} == {"train": 3}
    assert [int(image.array[0, 0, 0]) for image in splits["train"][2]] == [77, 77]
    assert "other.png" not in open_source(data / "pairs.CSV").names()
    archive = zipped(lay(tmp_path / "z", TWO, {"all.csv": CSV}))
    assert {name: len(each) for name, each in find_paired(open_source(archive / "all.csv")).items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(("text", "message"), [
    ("a,b\n0.png,1.png\n0.png,gone.png\n", "line 3: there is no file gone.png"), ("a,b,spilt\n", "line 1: no column is called 'spilt'; did you mean 'split'"),
    ("a\n0.png\n", "line 1: it has columns a; accepted: a,b or file"), ("a,b,file\n", "accepted: a,b or file"), ("a,b,a\n", "accepted: a,b or file"),
    ("a,b\n0.png\n", "line 2: it has 1 cells, the first line 2"), ("a,b,\n0.png,1.png,train\n", "line 2: it has 3 cells, the first line 3 and no column of train"),
    ("a,b\n0.png,1.png,,train\n", "line 2: it has 4 cells, the first line 2 and no column of train"), ("a;b\n0.png;gone.png\n", "line 2: there is no file gone.png"), ("a,b\n0.png,1.png\n\n1.png,0.png\n0.png,1.png\n", "line 5 repeats line 2"),
    ("a,b,split\n0.png,1.png,tset\n", "line 2: split 'tset' is not known; accepted: train, val, test"), ("a,b\n", "names no images"), ("", "names no images"),
    ("a,b\n,\n", "names no images"), ("a,b\n0.png,1.png\n0.png,\n", "line 3: only one side is named"), ("a,b\n0.png,notes.txt\n", "line 2: notes.txt does not end"),
    ("a,b,label\n0.png,1.png,\n", "line 2: the label is empty"), ("a,b\n0.png,\0.png\n", "line 2: "), ("a,b\n0.png,\xff.png\n", "line 2: it cannot be decoded as utf-8; save it as UTF-8"),
    ('{"a": "0.png", "b": "1.png"}\n{"a": "0.png"', "line 2: "), ('{"a": "0.png", "b": 3}', "line 1: .* neither text nor"), ('["0.png"]', "line 1: .* is no object"),
    ('{"a": "0.png", "b": "1.png"}\n{"file": "0.png"}', "line 2: it has columns file where the first row has others"), ('{"a": "0.png"}', "line 1: it has columns a"),
    ('{"file": "0.png", "label": 1.5}', "line 1: .* neither text nor, as a label, a whole number")])
def test_what_is_wrong_with_a_manifest_is_reported_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    data = lay(tmp_path, ["0.png", "1.png"], {})
    name = "manifest.jsonl" if text.startswith(("{", "[")) else "manifest.csv"
    (data / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match=message):
        find_paired(open_source(data))


@pytest.mark.parametrize(("text", "encoding"), [
    ("a;b;split;label\nx/0.png;y/0.png;train;1\nx/1.png;y/1.png;test;2\n", "utf-8"),                                  # Excel in much of Europe.
    ("sep=;\r\na;b;split;label\r\nx/0.png;y/0.png;train;1\r\nx/1.png;y/1.png;test;2\r\n", "utf-8-sig"),
    ("a\tb\tsplit\tlabel\nx/0.png\ty/0.png\ttrain\t1\nx/1.png\ty/1.png\ttest\t2\n", "utf-16"), ("a|b|split|label\nx/0.png|y/0.png||1\nx/1.png|y/1.png|test|2\n", "utf-8"),
    ("a,b,split,label\nx/0.png,y/0.png,train,1\nx/1.png,y/1.png,test,2\n", "utf-16-le"), ("a,b,split,label\nx/0.png,y/0.png,train,1\nx/1.png,y/1.png,test,2\n", "utf-16-be"),
    ('a, b, split, label\nx/0.png, y/0.png, train, 1\n"x/1.png", "y/1.png", "test", "2"\n', "utf-8"), ("a,b,split,label\nx/0.png ,y/0.png\t, train ,1 \nx/1.png,y/1.png,test,2\n", "utf-8"),
    ("\nA,B,Split,LABEL\n\nx/0.png,y/0.png,Train,1\n,,,\n , , ,\nx/1.png,y/1.png,TEST,2\n,,,\n", "utf-8"),
    ("a,b,split,label,,\nx/0.png,y/0.png,training,1,,\nx/1.png,y/1.png,Testing,2\t,,\n", "utf-8"), ("a,b,split,label\nx/0.png,y/0.png,training,1,,\nx/1.png,y/1.png,test,2,\n", "utf-8"),
    ("a,b,split,label\rx/0.png,y/0.png,train,1\rx/1.png,y/1.png,test,2\r", "utf-8"), ("id,a,width,b,split,label\n7,x/0.png,32,y/0.png,train,1\n8,x/1.png,32,y/1.png,test,2\n", "utf-8"),
    (",a,b,split,label\n0,x/0.png,y/0.png,train,1\n1,x/1.png,y/1.png,test,2\n", "utf-8"),                              # The index of pandas.
    ("a,b,split,label\nx\\0.png,y\\0.png,train,1\nx\\1.png,.\\y\\1.png,test,2\n", "utf-8")])
def test_manifests_of_spreadsheets_and_other_systems_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    data = lay(tmp_path / "d", ["x/0.png", "y/0.png", "x/1.png", "y/1.png"], {})
    (data / "manifest.csv").write_bytes(text.encode(encoding))
    splits = find_paired(open_source(data))
    assert {name: [split.a[0], split.b[0]] for name, split in splits.items()} == {
        "train": ["x/0.png", "y/0.png"], "test": ["x/1.png", "y/1.png"]}
    assert find_images(open_source(data))["train"].classes == ("1", "2")
    assert [split[0][0].array[0, 0, 0] for split in splits.values()] == [0, 20]
    assert len(find_paired(open_source(zipped(data) / "manifest.csv"))) == 2


def test_a_manifest_of_tabs_is_found_by_its_name(tmp_path: Path) -> None:
    data = lay(tmp_path / "d", ["x/0.png", "x/1.png", "x/2.png"], {"manifest.tsv": "file\tlabel\nx/0.png\tb\nx/2.png\ta\n"})
    for where in (data, data / "manifest.tsv", zipped(data)):
        images = find_images(open_source(where))["train"]
        assert (list(images.names), images.classes) == (["x/0.png", "x/2.png"], ("a", "b"))


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "mac-roman", "utf-16"])
def test_text_of_an_encoding_that_nobody_declared_names_its_line_and_a_remedy_that_works(tmp_path: Path, encoding: str, newline: str) -> None:
    """As Excel saves "CSV" in Western and Central Europe and on a Mac; UTF-16 that was cut within a character."""
    data = lay(tmp_path / "d", ["x/0.png", "x/1.png", "x/2.png", "x/caf\u00e9.png"], {})
    rows = ["file;label", *[f"x/{i % 3}.png;{i}" for i in range(3000)], "x/caf\u00e9.png;M\u00fcller", "x/0.png;end"]
    text = newline.join(rows) + newline
    whole = text.encode(encoding)
    if encoding == "utf-16":
        whole = (newline.join(rows[:-1])).encode(encoding)[:-1]
    (data / "list.csv").write_bytes(whole)
    with pytest.raises(RequestError, match=r"list\.csv, line 3002: it cannot be decoded as utf-.*; save it as UTF-8 \(in Excel: CSV UTF-8\)$"):
        find_images(open_source(data / "list.csv"))
    (data / "list.csv").write_bytes(newline.join(["file;label", "x/0.png;a", "x/caf\u00e9.png;M\u00fcller"]).encode("utf-8-sig"))       # CSV UTF-8.
    images = find_images(open_source(data / "list.csv"))["train"]
    assert images.classes == ("M\u00fcller", "a")
    assert images[1][0].name.endswith("x/caf\u00e9.png")


@pytest.mark.parametrize("name", ["Manifest.csv", "MANIFEST.CSV", "Manifest.jsonl"])
def test_a_manifest_is_found_whatever_the_case_of_its_name(tmp_path: Path, name: str) -> None:
    text = "file,label\n0.png,a\n1.png,b\n" if name.lower().endswith("csv") else '{"file": "0.png", "label": "a"}\n{"file": "1.png", "label": "b"}\n'
    data = lay(tmp_path / "d", ["0.png", "1.png", "2.png"], {name: text})
    assert find_images(open_source(data))["train"].classes == ("a", "b")
    assert len(find_images(open_source(zipped(data)))["train"]) == 2
    (data / "manifest.csv").write_text("file\n2.png\n")
    if name.lower().endswith("csv"):
        assert list(find_images(open_source(data))["train"].names) == ["2.png"]
    else:
        with pytest.raises(RequestError, match=r"has both manifest\.csv and Manifest\.jsonl; remove one"):
            find_images(open_source(data))


def test_files_named_in_an_older_encoding_are_found(tmp_path: Path) -> None:
    data = lay(tmp_path / "d", ["0.png"], {"list.csv": "file\ncaf\u00e9.png\n"})
    (data / "0.png").rename(data / os.fsdecode(b"caf\xe9.png"))
    images = find_images(open_source(data / "list.csv"))["train"]
    assert images.names[0] == os.fsdecode(b"caf\xe9.png")
    assert images[0][0].array.shape[2:] in ((), (3,))


@pytest.mark.parametrize(("word", "split"), [("Train", "train"), ("TRAINING", "train"), ("valid", "val"), ("Validation ", "val"), (" dev", "val"), ("eval", "val"), ("testing", "test"), ("", "train")])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_names_of_splits(tmp_path: Path, word: str, split: str, kind: str) -> None:
    row = f"file,split\n0.png,{word}\n" if kind == "csv" else json.dumps({"File": "0.png", "Split": word, "id": 7, "size": [3, 4]})
    assert list(find_images(open_source(lay(tmp_path, ["0.png"], {f"manifest.{kind}": row})))) == [split]


def test_labels_that_differ_by_blanks_or_unicode_form_are_one(tmp_path: Path) -> None:
    labels = ["cat", "cat ", " cat", "caf\u00e9", "cafe\u0301"]
    rows = "file,label\n" + "".join(f"{i}.png,{label}\n" for i, label in enumerate(labels))
    (split,) = find_images(open_source(lay(tmp_path, [f"{i}.png" for i in range(5)], {"manifest.csv": rows}))).values()
    assert (split.classes, split.labels.tolist()) == (("caf\u00e9", "cat"), [1, 1, 1, 0, 0])


def test_columns_that_are_not_read_are_reported(tmp_path: Path) -> None:
    (split,) = find_paired(open_source(lay(tmp_path, ["0.png", "1.png"], {"manifest.csv": "a,width,b,category\n0.png,3,1.png,x\n"}))).values()
    assert split.layout == "rows of a manifest (not used: width, category)"


def test_names_as_they_are_come_first(tmp_path: Path) -> None:
    """A name on disk may have blanks, backslashes and any Unicode form."""
    names = ["0.png", " 0.png", "x\\0.png", "x/0.png", "e\u0301.png", "\u00e9.png"]
    rows = "".join(json.dumps({"file": name}) + "\n" for name in names)
    (split,) = find_images(open_source(lay(tmp_path, names, {"manifest.jsonl": rows}))).values()
    assert [split[i][0].array[0, 0, 0] for i in range(6)] == [0, 10, 20, 30, 40, 50]


def test_other_faults_of_manifests(tmp_path: Path) -> None:
    data = lay(tmp_path, ["0.png"], {"manifest.csv": "file\n0.png\n", "manifest.jsonl": '{"file": "0.png"}'})
    with pytest.raises(RequestError, match=r"both manifest\.csv and manifest\.jsonl; remove one"):
        find_images(open_source(data))
    (data / "manifest.jsonl").unlink()
    assert len(find_images(open_source(data / "0.png"))["train"]) == 1          # The file itself, whatever lies beside it.
    (data / "manifest.csv").write_text("a,b\n0.png,\n")
    with pytest.raises(RequestError, match="names 1 images of side a and 0 of side b for train"):
        find_unpaired(open_source(data))
    with pytest.raises(RequestError, match="no images of side b for train"):
        find_images(open_source(data))


# ---------------------------------------------------------------------------------------------- partners of two sizes

def test_partners_of_two_sizes_are_cropped_at_one_place(tmp_path: Path) -> None:
    """B is A at twice its size: what is cut from both is the same, to within what resizing does."""
    for i in range(3):
        small = np.random.default_rng(i).integers(0, 256, (32, 40, 3), dtype=np.uint8)
        for side, image in (("A", small), ("B", small.repeat(2, 0).repeat(2, 1))):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / side / f"{i}.png")
    pairs = find_paired(open_source(tmp_path))["train"]
    facts = inspect_dataset(pairs)
    assert (facts.height, facts.width) == (32, 40)
    data = pairs.for_training((24, 24), (32, 40), (ImageFormat(3), ImageFormat(3)))
    for batch in islice(batches(data, start=0, batch_size=3), 4):
        assert torch.equal(batch["a"], batch["b"])          # Shrunk by averaging four equal pixels.


@pytest.mark.parametrize(("one", "other", "same"), [
    ((32, 32), (32, 32), True), ((32, 48), (64, 96), True), ((32, 48), (48, 32), False), ((32, 32), (32, 48), False), ((33, 50), (66, 101), True),
    ((64, 63), (256, 256), True), ((256, 256), (64, 63), True), ((100, 100), (200, 206), False), ((300, 400), (600, 806), True)])
def test_which_sizes_are_of_one_shape(one: tuple[int, int], other: tuple[int, int], same: bool) -> None:
    assert same_shape(one, other) is same_shape(other, one) is same


# ---------------------------------------------------------------------------------------------- names

ODD = ["ünïcode.PNG", "with space.png", "new\nline.jpg", "-.png", "a-b.png", "a.png", "a/b.png", "a.b/c.png", "a0.png", "é.png", "日本/語.bmp", "\U0001f600.png", os.fsdecode(b"\xff\xfe.png")]


def test_names_are_a_sorted_list_in_little_space() -> None:
    whole = sorted(ODD)
    names = FileList.of(whole)
    assert names == whole
    assert list(names) == [names[i] for i in range(len(names))] == whole
    assert names[-1] == whole[-1]
    assert names[2:5] == whole[2:5]
    assert names != whole[1:]
    assert names.under("a") == [name for name in whole if name.startswith("a")]
    assert names.within("a/") == ["b.png"]
    assert names.take(np.array([3, 0])) == [whole[3], whole[0]]
    assert FileList.of(["", "x", ""]).non_empty().tolist() == [1]
    assert names.folders() == ["a.b", "a", "日本"]
    assert [names.find(name) for name in whole] == list(range(len(whole)))
    assert names.find("b.png") == -1
    assert pickle.loads(pickle.dumps(names.under("a"))) == names.under("a")
    with pytest.raises(IndexError):
        names[len(names)]


def test_partners_are_those_that_dictionaries_find() -> None:
    g = np.random.default_rng(1)
    for _ in range(50):
        a, b = (sorted({f"{g.integers(8)}{g.choice(['', '-', '.x'])}.{g.choice(['png', 'jpg'])}" for _ in range(g.integers(1, 8))}) for _ in range(2))
        stems = [[name.rsplit(".", 1)[0] for name in side] for side in (a, b)]
        met = pair_names(FileList.of(a), FileList.of(b))
        if any(len(set(side)) < len(side) for side in stems):
            assert met.duplicate is not None
            side, one, other = met.duplicate
            assert stems[side][one] == stems[side][other]
            continue
        assert met.duplicate is None
        assert [stems[0][i] for i in met.a] == [stems[1][i] for i in met.b] == sorted(set(stems[0]) & set(stems[1]))
        assert sorted(stems[side][place] for side, place in met.unmatched) == sorted(set(stems[0]) ^ set(stems[1]))


def test_fingerprints_are_those_of_older_runs(tmp_path: Path) -> None:
    names = ["trainA/a-b.png", "trainA/a.png", "trainB/a-b.jpg", "trainB/a.bmp"]
    pairs = find_paired(open_source(lay(tmp_path, names, {})))["train"]
    a, b = ["trainA/a.png", "trainA/a-b.png"], ["trainB/a.bmp", "trainB/a-b.jpg"]        # In the order of what they have in common.
    assert (pairs.a, pairs.b) == (a, b)
    assert pairs.fingerprint() == hashlib.sha256("\n".join(("train", *a, "", *b)).encode()).hexdigest()[:16]
    sides = find_unpaired(open_source(tmp_path))["train"]
    assert (sides.a, sides.b) == (a[::-1], b[::-1])


@pytest.mark.parametrize("how", ["folder", "zip"])
def test_odd_names(tmp_path: Path, how: str) -> None:
    names = [name for name in ODD if how == "folder" or name.isprintable() or "\n" in name]
    for i, name in enumerate(names):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), i).save(tmp_path / "data" / name, "png")
    source = open_source(tmp_path / "data" if how == "folder" else zipped(tmp_path / "data"))
    assert source.names() == sorted(names)
    assert [int(load_image(source, name).array[0, 0]) for name in names] == list(range(len(names)))
    assert len(find_images(source)["train"].fingerprint()) == 16


def test_links_to_folders(tmp_path: Path) -> None:
    """Followed once; not where they lead to what is listed anyway, whatever the names; loops end."""
    data = lay(tmp_path / "data", ["m/0.png", ".store/s.png"], {})
    save(tmp_path / "far/f.png", 0)
    save(tmp_path / "far/deep/g.png", 0)
    links = {"a": data / "m", "z": data / "m", "m/up": data, "far1": tmp_path / "far", "far2": tmp_path / "far", "far3": tmp_path / "far" / "deep",
             "hidden": data / ".store", "top": tmp_path}
    for name, target in links.items():
        (data / name).symlink_to(target, target_is_directory=True)
    (data / "itself").symlink_to(data / "itself")
    (tmp_path / "far" / "back").symlink_to(data, target_is_directory=True)
    save(data / "file.png", 0)
    (data / "link.png").symlink_to(data / "file.png")
    assert Folder(data).names() == ["far1/deep/g.png", "far1/f.png", "file.png", "hidden/s.png", "link.png", "m/0.png"]


def test_a_folder_without_permission_is_left_out(tmp_path: Path) -> None:
    data = lay(tmp_path / "data", ["0.png", "locked/1.png"], {})
    (data / "locked").chmod(0)
    try:
        expected = ["0.png", "locked/1.png"] if os.access(data / "locked", os.R_OK) else ["0.png"]      # Root may read everything.
        assert Folder(data).names() == expected
    finally:
        (data / "locked").chmod(0o755)


# ---------------------------------------------------------------------------------------------- zips

@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("before", [b"", b"#! something that stands before\n"])
def test_zips_are_read_as_zipfile_reads_them(tmp_path: Path, method: int, before: bytes) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = b"PK about it"
        for i, name in enumerate(("b.png", "a/ü.png", "note.txt", "a/big")):
            with archive.open(name, "w", force_zip64=i == 3) as file:
                file.write(bytes([i]) * 1000 * (i + 1))
    path.write_bytes(before + path.read_bytes())
    ours = Zip(path)
    with zipfile.ZipFile(path) as theirs:
        assert ours.files == sorted(theirs.namelist())
        assert [ours.read(name) for name in ours.files] == [theirs.read(name) for name in ours.files]
        assert [ours.read(name, 9) for name in ours.files] == [theirs.read(name)[:9] for name in ours.files]


def test_zips_of_more_members_than_sixteen_bits_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 10)         # Where zipfile begins to write the wider end record.
    for before in (b"", b"something"):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for i in range(20):
                archive.writestr(f"{i:02}.png", b"%d" % i)
        whole = (tmp_path / "x.zip").read_bytes()
        assert b"PK\6\6" in whole
        (tmp_path / "x.zip").write_bytes(before + whole)
        ours = Zip(tmp_path / "x.zip")
        assert [ours.read(name) for name in ours.files] == [b"%d" % i for i in range(20)]


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for text in (b"old", b"new"):
            with pytest.warns(UserWarning, match="Duplicate") if text == b"new" else open(os.devnull):
                archive.writestr("x.png", text)
        archive.writestr("a.png", b"a")
    source = open_source(tmp_path / "x.zip")
    assert source.names() == ["a.png", "x.png"]
    assert source.read("x.png") == b"new"


def test_damaged_and_replaced_zips(tmp_path: Path) -> None:
    path = zipped(lay(tmp_path / "data", ["0.png", "1.png"], {}))
    whole, source = path.read_bytes(), open_source(path)
    for at in (whole.find(b"PK\1\2"), len(whole) - 22 + 12):         # The directory's first record; its length.
        (tmp_path / "bad.zip").write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4:])
        with pytest.raises(RequestError, match="cannot be read as a zip"):
            open_source(tmp_path / "bad.zip")
    flags = whole.find(b"PK\1\2") + 8
    (tmp_path / "locked.zip").write_bytes(whole[:flags] + bytes([whole[flags] | 1]) + whole[flags + 1:])
    locked = open_source(tmp_path / "locked.zip")
    with pytest.raises(Unreadable, match="encrypted"):
        [locked.read(name) for name in locked.names()]
    path.write_bytes(zipped(lay(tmp_path / "other", ["longer.png"], {})).read_bytes())
    for name in source.names():
        with pytest.raises(Unreadable, match=r"cannot be read from data\.zip"):
            source.read(name)
    path.unlink()
    with pytest.raises(Unreadable, match="No such file"):
        source.read("0.png")


# ---------------------------------------------------------------------------------------------- many files

def test_many_files_cost_little(tmp_path: Path) -> None:
    """5,000 pairs: the names take few bytes each, no file is looked at before it is read, and it takes no time."""
    for side in "AB":
        (tmp_path / f"train{side}").mkdir()
        save(tmp_path / f"{side}.png", 0)
        for i in range(5000):
            os.link(tmp_path / f"{side}.png", tmp_path / f"train{side}" / f"{i:05}.png")
    began = time.process_time()         # Not of the clock, as the tests may share their processors with others.
    source = open_source(tmp_path)
    tracemalloc.start()
    splits = find_paired(source)
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pairs = splits["train"]
    assert len(pairs) == 5000
    assert allocated < 5000 * 150            # Two names of 16 characters; as str objects they would take over 700,000 bytes with their tuples.
    data = pairs.for_training((32, 32), (32, 32), (ImageFormat(3), ImageFormat(3)))
    next(batches(data, start=0, batch_size=4))
    assert time.process_time() - began < 5
    assert isinstance(pairs, PairedDataset)
    assert isinstance(find_unpaired(source)["train"], UnpairedDataset)


@pytest.mark.parametrize("kind", FIND)
def test_streams_from_zips_and_manifests_are_functions_of_position(tmp_path: Path, kind: str) -> None:
    names = [f"train{side}/{i}.png" for side in "AB" for i in range(5)]
    data = tmp_path / "data"
    for i, name in enumerate(names):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(data / name)
    rows = "".join(f"trainA/{i}.png,trainB/{i}.png,{i % 2}\n" for i in range(5))
    (data / "manifest.csv").write_text("a,b,label\n" + rows)

    def take(n: int, **options: int) -> list[dict[str, torch.Tensor]]:
        stream = FIND[kind](open_source(zipped(data)))["train"].for_training((16, 16), (16, 16), (ImageFormat(3), ImageFormat(3)), seed=1)
        return list(islice(batches(stream, **{"start": 0, "batch_size": 2, **options}), n))

    whole, later = take(6), [*take(2, num_workers=2), *take(4, start=4, num_workers=1)]
    assert set(whole[0]) == ({"b", "c"} if kind == "images" else {"a", "b"})
    for one, other in zip(whole, later, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_on_partners_of_two_sizes(i2i: Run, tmp_path: Path) -> None:
    """From a manifest and from a folder: trained, evaluated while training, resumed."""
    for split, count in (("train", 4), ("val", 2)):
        for side, size in (("A", (32, 32)), ("B", (64, 64))):
            for i in range(count):
                save(tmp_path / "data" / f"{split}{side}" / f"{i}.png", 40 * i, size)
    rows = "".join(f"{split}A/{i}.png,{split}B/{i}.png,{split}\n" for split, count in (("train", 4), ("val", 2)) for i in range(count))
    (tmp_path / "data" / "pairs.csv").write_text("a,b,split\n" + rows)
    for where in ("data/pairs.csv", "data"):
        out = f"run-{Path(where).stem}"
        done = i2i("train", "pix2pix", "--data", where, "--out", out, *SMALL, "train.images=8", "--device", "cpu")
        assert done.code == 0, done.err
        assert json.loads((tmp_path / out / "metrics.jsonl").read_text().splitlines()[-1])["n"] == 2
    (tmp_path / "run-data" / "model.safetensors").unlink()
    states = sorted((tmp_path / "run-data").glob("state-*"))
    states[-1].unlink()
    assert i2i("train", "--resume", "run-data", "--device", "cpu").code == 0
    assert sorted((tmp_path / "run-data").glob("state-*")) == states
