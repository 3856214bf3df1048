"""`i2i translate --labels carry` through the command line: what comes along, under which names, and what is said."""

import csv
import io
import json
import os
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from i2i.data.annotations import ImageIndex, image_key, is_label_folder, split_masks
from i2i.inference.carry_plan import choose
from tests.conftest import Run, drawing


def picture(path: Path, index: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawing(index)[:, 32:]).save(path)


def write(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def mask(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32), value, np.uint8)).save(path)


def yolo(root: Path) -> Path:
    for s, split in enumerate(("train", "val")):
        for i in range(4):
            picture(root / "images" / split / f"{i}.jpg", 10 * s + i)
            write(root / "labels" / split / f"{i}.txt", f"0 0.5 0.5 0.25 0.{i}\r\n")
    write(root / "data.yaml", "train: images/train\nval: images/val\nnames: [box]\n")
    write(root / "train.txt", "".join(f"./images/train/{i}.jpg\n" for i in range(4)))
    return root


def voc(root: Path) -> Path:
    for i in range(3):
        picture(root / "JPEGImages" / f"00 {i}.jpg", i)
        write(root / "Annotations" / f"00 {i}.xml",
              f"<annotation>\r\n  <folder>a.jpg</folder><filename>00 {i}.jpg</filename><path>/old/00 {i}.jpg</path></annotation>")
        mask(root / "SegmentationClass" / f"00 {i}.png", i)
    write(root / "ImageSets" / "Main" / "train.txt", "00 0\n00 1\n")
    return root


def coco(root: Path) -> Path:
    for i in range(3):
        picture(root / "val2017" / f"{i:04}.jpg", i)
    write(root / "annotations" / "instances_val2017.json", json.dumps(
        {"images": [{"id": i, "file_name": f"{i:04}.jpg", "coco_url": f"http://images.cocodataset.org/{i:04}.jpg"} for i in range(3)],
         "annotations": [{"id": 7, "image_id": 1, "category_id": 2, "bbox": [1, 2, 3.50, 4]}], "categories": [{"id": 2, "name": "é"}]}, indent=2))
    return root


def classes(root: Path) -> Path:
    for i in range(4):
        picture(root / ("cat", "dog")[i % 2] / f"{i}.jpg", i)
    write(root / "dataset.json", json.dumps({"labels": [[f"{('cat', 'dog')[i % 2]}/{i}.jpg", i % 2] for i in range(4)], "classes": ["cat", "dog"]}))
    write(root / "cat" / "0.json", '{"camera":  "x"}')
    write(root / "LICENSE", "CC0")
    return root


def listed(root: Path) -> Path:
    for i in range(4):
        picture(root / "in" / f"{i}, é.jpg", i)
    write(root / "manifest.csv", '\ufefffile;label;split\r\n"in/0, é.jpg";a;train\r\nin/1, é.jpg;b;train\r\nin/2, é.jpg;a;val\r\nin/3, é.jpg;b;val\r\n'.encode("utf-16-le"))
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


LAYOUTS = {"yolo": yolo, "voc": voc, "coco": coco, "classes": classes, "listed": listed}
CARRY = ("--labels", "carry", "--device", "cpu")


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_but_the_images_comes_along_byte_for_byte(name: str, trained: Path, i2i: Run, tmp_path: Path) -> None:
    before = files(LAYOUTS[name](tmp_path / name))
    result = i2i("translate", trained, name, "--out", "out", *CARRY)
    assert result.code == 0, result.err
    after = files(tmp_path / "out")
    assert list(after) == list(before)
    same = {file for file in after if after[file] == before[file]}
    assert same == {file for file in after if not file.endswith(".jpg")}
    assert f"{len(same)} other files copied\n" in result.out
    assert i2i("data", "check", "out").code == i2i("data", "check", name).code == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_another_format_changes_the_names_in_annotations_and_nothing_else(name: str, trained: Path, i2i: Run, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path / name)
    before = files(root)
    result = i2i("translate", trained, name, "--out", "out", "--format", "png", *CARRY)
    assert result.code == 0, result.err
    after = files(tmp_path / "out")
    assert list(after) == sorted(file.replace(".jpg", ".png") for file in before)
    changed = {file: data.decode(errors="surrogateescape") for file, data in after.items() if not file.endswith(".png") and data != before[file]}
    expected = {"yolo": ["train.txt"], "voc": [f"Annotations/00 {i}.xml" for i in range(3)], "coco": ["annotations/instances_val2017.json"],
                "classes": ["dataset.json"], "listed": ["manifest.csv"]}[name]
    assert sorted(changed) == expected
    for file, text in changed.items():
        old = before[file].decode(errors="surrogateescape")
        if name == "voc":
            assert text == old.replace(".jpg</filename>", ".png</filename>")
        elif name == "coco":
            assert text == "\n".join(line.replace(".jpg", ".png") if "file_name" in line else line for line in old.split("\n"))
        else:
            assert text == old.replace(*(("j\0p\0g\0", "p\0n\0g\0") if name == "listed" else (".jpg", ".png")))
    assert i2i("data", "check", "out").code == i2i("data", "check", name).code == 0


def test_the_annotations_are_read_by_other_tools(trained: Path, i2i: Run, tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from torchvision.datasets import ImageFolder
    coco(tmp_path / "coco")
    classes(tmp_path / "classes")
    for name in ("coco", "classes"):
        assert i2i("translate", trained, name, "--out", f"{name}-out", "--format", "png", *CARRY).code == 0
    read = COCO(tmp_path / "coco-out" / "annotations" / "instances_val2017.json")
    assert all((tmp_path / "coco-out" / "val2017" / image["file_name"]).exists() for image in read.loadImgs(read.getImgIds()))
    assert read.loadAnns(7)[0]["bbox"] == [1, 2, 3.5, 4]
    folder = ImageFolder(tmp_path / "classes-out")
    assert (folder.classes, folder.targets) == (["cat", "dog"], [0, 0, 1, 1])


def test_zips_and_urls_are_data_sets_too(trained: Path, i2i: Run, tmp_path: Path) -> None:
    before = files(voc(tmp_path / "voc"))
    memory = MemoryFileSystem()
    with zipfile.ZipFile(tmp_path / "voc.zip", "w") as archive:
        for file, data in before.items():
            archive.writestr(f"deep/{file}", data)
            memory.pipe(f"/carried/{file}", data)
        archive.writestr("deep/../../out.txt", "x")
    try:
        results = [i2i("translate", trained, *words, *CARRY) for words in (("voc", "--out", "a"), ("voc.zip/deep", "--out", "b"), ("memory://carried", "--out", "c"))]
        for words, line in (("voc", "memory://carried"), "memory://carried is not empty"), (("memory://carried", "memory://carried/in"), "memory://carried/in lies in"):
            assert line in i2i("translate", trained, words[0], "--out", words[1], *CARRY).line
        mixed = i2i("translate", trained, "memory://carried", "--out", "memory://mixed", "--mix", 0.4, *CARRY)
        assert mixed.code == 0, mixed.err
        behind = {file.removeprefix("/mixed/"): memory.cat(file) for file in memory.find("/mixed")}
    finally:
        memory.rm("/carried", recursive=True)
        memory.rm("/mixed", recursive=True)
    rows = list(csv.DictReader(io.StringIO(behind.pop("provenance.csv").decode())))
    assert sorted(row["kind"] for row in rows) == ["real", "real", "translated"]
    assert behind == {**files(tmp_path / "a"), **{row["file"]: before[row["file"]] for row in rows if row["kind"] == "real"}}
    assert [result.code for result in results] == [0, 1, 0]
    assert "failed: ../../out.txt: its name leads out of the output folder" in results[1].err
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_only_the_source_side_of_two_is_translated(trained: Path, sides: Path, i2i: Run, tmp_path: Path) -> None:
    before = files(sides)
    result = i2i("translate", trained, sides, "--out", "out", *CARRY)
    assert result.code == 0, result.err
    after = files(tmp_path / "out")
    assert {file for file in after if after[file] == before[file]} == {file for file in before if "B/" in file}
    assert "images of the other side are copied: 8, such as testB/0.png" in result.err
    for i, letter in enumerate("ABC"):      # Letters are no sides.
        picture(tmp_path / "letters" / letter / f"{i}.png", i)
    assert "3 translated" in i2i("translate", trained, "letters", "--out", "all", *CARRY).out


def test_a_manifest_with_two_sides_keeps_its_targets(trained: Path, i2i: Run, tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "set" / "x" / f"{i}.jpg", i)
        mask(tmp_path / "set" / "y" / f"{i}.png", i)
    write(tmp_path / "set" / "x" / "1.json", "{}")
    write(tmp_path / "set" / "pairs.csv", "a,b\n" + "".join(f"x/{i}.jpg,y/{i}.png\n" for i in range(3)))
    write(tmp_path / "set" / "private.doc", "not in the manifest")
    result = i2i("translate", trained, "set/pairs.csv", "--out", "out", "--format", "webp", *CARRY)
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "pairs.csv").read_text() == "a,b\n" + "".join(f"x/{i}.webp,y/{i}.png\n" for i in range(3))
    assert sorted(files(tmp_path / "out")) == ["pairs.csv", *(f"x/{i}" + ending for i in range(3) for ending in ([".json"] if i == 1 else []) + [".webp"]),
                                               *(f"y/{i}.png" for i in range(3))]
    assert all((tmp_path / "out" / "y" / f"{i}.png").read_bytes() == (tmp_path / "set" / "y" / f"{i}.png").read_bytes() for i in range(3))


def test_faults_are_said_in_a_line_each_and_the_rest_is_done(trained: Path, i2i: Run, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    (root / "labels" / "val" / "3.txt").unlink()
    write(root / "labels" / "train" / "9.txt", "0 0 0 0 0")
    write(root / "boxes.json", '{"images": [{"file_name": "gone.jpg"}, {"file_name": "val/1.jpg"}]}')
    write(root / "broken.json", '{"images": ')
    write(root / "rows.jsonl", '{"file": "0.jpg"}\nnot json\n')
    write(root / ".DS_Store", "x")
    os.mkfifo(root / "pipe.xml")
    (root / "lost.csv").symlink_to("nowhere")
    result = i2i("translate", trained, "set", "--out", "out", "--format", "png", *CARRY)
    assert result.code == 1
    lines = result.err.strip().splitlines()
    assert lines[:4] == ["note: hidden files are left out, such as .DS_Store",
                         "note: images that annotations name and that are not there: 1, such as gone.jpg in boxes.json",
                         "note: annotations of images that are not there: 1, such as labels/train/9.txt",
                         "note: images without an annotation: 1, such as images/val/3.jpg"]
    assert [line.split(": ", 2)[1:] for line in lines[4:-1]] == [
        ["broken.json", "is no JSON (Expecting value: line 1 column 12 (char 11)), copied as it is"], ["lost.csv", "No such file or directory"],
        ["pipe.xml", "is not a regular file"], ["rows.jsonl", "is no JSON (line 2: Expecting value: line 1 column 1 (char 0)), copied as it is"]]
    assert lines[-1] == "error: other files that are wrong or could not be copied: 4"
    out = tmp_path / "out"
    assert (out / "boxes.json").read_text() == '{"images": [{"file_name": "gone.jpg"}, {"file_name": "val/1.png"}]}'
    assert (out / "broken.json").read_bytes() == (root / "broken.json").read_bytes()
    assert len(list(out.rglob("*.png"))) == 8
    assert len(list(out.rglob("*.txt"))) == 9
    assert not list(out.rglob("*.part"))


def test_a_manifest_that_cannot_be_read_is_copied(trained: Path, i2i: Run, tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png", 0)
    write(tmp_path / "set" / "manifest.csv", "a,b\nnone.png,a.png\n")
    result = i2i("translate", trained, "set", "--out", "out", *CARRY)
    assert result.code == 1
    assert "failed: set/manifest.csv, line 2: there is no file none.png" in result.err
    assert files(tmp_path / "out")["manifest.csv"] == b"a,b\nnone.png,a.png\n"


def test_masks_are_known_by_the_names_of_folders_or_beside_images() -> None:
    for folder in ("masks", "Masks", "labels", "SegmentationClass", "annotations", "train_masks", "gtFine", "ground-truth", "GroundTruth"):
        assert is_label_folder(folder), folder
    for folder in ("with_mask", "without_mask", "images", "unlabeled", "cat", "train"):
        assert not is_label_folder(folder), folder
    names = ["a.jpg", "a_mask.png", "b_mask.png", "gt/c.png", "x/c.jpg"]
    assert split_masks(names) == (["a.jpg", "b_mask.png", "x/c.jpg"], ["a_mask.png", "gt/c.png"])
    assert split_masks(names, ("x",)) == (["a.jpg", "b_mask.png", "gt/c.png"], ["a_mask.png", "x/c.jpg"])
    assert {image_key(name) for name in ("train/images/x.jpg", "images/train/x.png", "labels/train/x.txt", "train_masks/x.gif")} == {"train/x"}


def test_a_name_means_the_image_it_leads_to() -> None:
    index = ImageIndex(["images/a.png", "other/a.png", "é/b.png"], ["masks/a.png"])
    assert index.find("a.png", "other") == "other/a.png"
    assert index.find("a.png", "annotations") == "images/a.png"
    assert index.find("masks/a.png", "") == "masks/a.png"
    assert index.find("../other/a.png", "annotations") == "other/a.png"
    assert index.find(".\\other\\a.png", "x") == "other/a.png"
    assert index.find("e\u0301/b.png", "") == "é/b.png"
    assert index.find("ther/a.png", "") is None


def test_folders_of_masks_can_be_named(trained: Path, i2i: Run, tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "set" / "pictures" / f"{i}.png", i)
        mask(tmp_path / "set" / "truth" / f"{i}.png", i)
    result = i2i("translate", trained, "set", "--out", "out", "--masks", "truth", *CARRY)
    assert "3 translated" in result.out
    assert "masks are copied: 3, such as truth/0.png" in result.err
    assert all((tmp_path / "out" / "truth" / f"{i}.png").read_bytes() == (tmp_path / "set" / "truth" / f"{i}.png").read_bytes() for i in range(3))


def test_annotations_named_after_the_whole_file_follow_it(trained: Path, i2i: Run, tmp_path: Path) -> None:
    picture(tmp_path / "set" / "img" / "a.jpg", 0)
    write(tmp_path / "set" / "ann" / "a.jpg.json", "{}")
    assert i2i("translate", trained, "set", "--out", "out", "--format", "png", *CARRY).code == 0
    assert list(files(tmp_path / "out")) == ["ann/a.png.json", "img/a.png"]


# ---------------------------------------------------------------------------------------------- --mix

def provenance(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "provenance.csv").read_text())))


def test_a_mixed_set_says_where_each_image_comes_from(trained: Path, i2i: Run, tmp_path: Path) -> None:
    root = yolo(tmp_path / "set")
    assert i2i("translate", trained, "set", "--out", "whole", "--format", "png", "--seed", 3, *CARRY).code == 0
    result = i2i("translate", trained, "set", "--out", "out", "--mix", 0.5, "--format", "png", "--seed", 3, *CARRY)
    assert result.code == 0, result.err
    model = sha256((trained / "model.safetensors").read_bytes()).hexdigest()
    rows, out = provenance(tmp_path / "out"), tmp_path / "out"
    for split in ("train", "val"):
        assert sum(row["kind"] == "translated" for row in rows if f"/{split}/" in row["file"]) == 2
    for row in rows:
        made = row["kind"] == "translated"
        assert (row["model"], row["seed"]) == ((model, "3") if made else ("", ""))
        assert row["file"] == (row["source"].replace("jpg", "png") if made else row["source"])
        assert (out / row["file"]).read_bytes() == ((tmp_path / "whole" / row["file"]) if made else root / row["source"]).read_bytes()
    assert len(rows) == len([*out.rglob("*.png"), *out.rglob("*.jpg")]) == 8
    assert [(out / line).exists() for line in (out / "train.txt").read_text().split()] == [True] * 4
    assert i2i("translate", trained, "out", "--out", "again", "--mix", 0.5, *CARRY).code == 0
    assert "provenance.csv of the data set is replaced" in i2i("translate", trained, "out", "--out", "third", "--mix", 0.5, *CARRY).err


def test_the_share_is_exact_and_even_among_folders_and_the_seed_chooses() -> None:
    names = [f"{folder}/{i}.png" for folder, count in (("a", 100), ("b", 7), ("c", 1), ("d", 92)) for i in range(count)]
    for share in (0.1, 0.25, 0.5, 0.999, 1):
        chosen = choose(names, share, 0)
        assert len(chosen) == len(set(chosen)) == int(200 * share + 1e-9)
        for folder, count in (("a", 100), ("b", 7), ("c", 1), ("d", 92)):
            assert abs(sum(name.startswith(folder) for name in chosen) - share * count) < 1
    assert choose(names, 0.5, 0) == choose(names[::-1], 0.5, 0) != choose(names, 0.5, 1)


# ---------------------------------------------------------------------------------------------- refused

@pytest.mark.parametrize(("words", "line"), [
    (("set", "--labels", "move"), "--labels move is not known; accepted: none or carry"),
    (("set", "--mix", 0.5), "--mix needs --labels carry"), (("set", "--masks", "x"), "--masks needs --labels carry"),
    (("set", *CARRY, "--mix", 0), "--mix=0.0 cannot be used; accepted: above 0, up to 1"),
    (("set", *CARRY, "--mix", 0.01), "no image would be translated: 0 are masks by their names"),
    (("set", *CARRY, "--masks", "images"), "no image would be translated: 8 are masks by their names"),
    (("set", *CARRY, "--half", "left"), "annotations are of whole images"), (("set/images/val/0.jpg", *CARRY), "set/images/val/0.jpg is an image, an array or shards"),
    (("set", *CARRY, "--out", "set/out"), "--out set/out lies in set"), (("set", *CARRY, "--out", "full"), "--out full is not empty")])
def test_wrong_requests_are_one_line_and_write_nothing(words: tuple[object, ...], line: str, trained: Path, i2i: Run, tmp_path: Path) -> None:
    yolo(tmp_path / "set")
    write(tmp_path / "full" / "x", "mine")
    before = files(tmp_path)
    result = i2i("translate", trained, "--out", "out", *words)
    assert result.code == 2
    assert line in result.line
    assert files(tmp_path) == before
    assert not (tmp_path / "out").exists()


def test_files_that_would_have_one_name_are_refused(trained: Path, i2i: Run, tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.jpg", 0)
    picture(tmp_path / "set" / "b.jpg", 1)
    picture(tmp_path / "set" / "a.png", 2)
    seed = next(seed for seed in range(20) if choose(["a.jpg", "a.png", "b.jpg"], 0.4, seed) == ["a.jpg"])
    result = i2i("translate", trained, "set", "--out", "out", "--format", "png", "--mix", 0.4, "--seed", seed, *CARRY)
    assert result.code == 2
    assert "a.jpg and a.png would both become a.png" in result.line


def test_what_was_interrupted_goes_on(trained: Path, i2i: Run, tmp_path: Path) -> None:
    yolo(tmp_path / "set")
    assert i2i("translate", trained, "set", "--out", "whole", *CARRY).code == 0
    whole = files(tmp_path / "whole")
    for file in ("images/train/1.jpg", "images/val/0.jpg"):
        write(tmp_path / "out" / file, whole[file])
    result = i2i("translate", trained, "set", "--out", "out", "--skip-existing", *CARRY)
    assert "6 translated, 2 there already" in result.out
    assert files(tmp_path / "out") == whole
