"""Names and archives of other systems: Unicode forms, separators, encodings, upper and lower case."""

import json
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from i2i.data.check.check_dataset import check_dataset
from i2i.data.image_set import open_image_set, pair_sets
from i2i.data.labeled import find_images
from i2i.data.paired import find_paired
from i2i.data.sources import open_source
from i2i.data.unpaired import find_unpaired
from i2i.errors import RequestError
from i2i.images.encode import encode
from i2i.images.format import Array, ImageFormat
from tests.data.test_datasets import save

NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


def two_forms(folder: Path, sides: tuple[str, str] = ("trainA", "trainB")) -> Path:
    for side, name in zip(sides, (NFC, NFD), strict=True):
        for i in range(4):
            save(folder / side / f"{name}{i}.png", 50 * i)
    return folder


def test_one_name_in_two_unicode_forms_is_a_pair(tmp_path: Path) -> None:
    pairs = find_paired(open_source(two_forms(tmp_path)))["train"]
    assert [(a, b) for a, b in zip(pairs.a, pairs.b, strict=True)] == [(f"trainA/{NFC}{i}.png", f"trainB/{NFD}{i}.png") for i in range(4)]
    assert all(pairs[i][0].array[0, 0, 0] == pairs[i][1].array[0, 0, 0] == 50 * i for i in range(4))
    two_forms(tmp_path, ("testA", "testB"))
    assert type(find_unpaired(open_source(tmp_path))["test"]).__name__ == "PairedDataset"
    report = check_dataset(tmp_path, most=5)
    assert report.layout == "two folders paired by name"
    assert not [each for each in report.findings if each.kind == "unpaired"]


def test_metrics_of_pairs_and_manifests_pair_them_too(tmp_path: Path) -> None:
    two_forms(tmp_path)
    assert pair_sets(*(open_image_set(tmp_path / side, "--real") for side in ("trainA", "trainB"))) == [(i, i) for i in range(4)]
    for kind in ("csv", "jsonl"):
        rows = [(f"trainA/{NFD}{i}.png", f"trainB/{NFC}{i}.png") for i in range(4)]
        text = "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows) if kind == "csv" else "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows)
        (tmp_path / f"list.{kind}").write_text(text, encoding="utf-8")
        assert len(find_paired(open_source(tmp_path / f"list.{kind}"))["train"]) == 4


def test_two_files_of_one_name_in_two_forms_are_reported(tmp_path: Path) -> None:
    for name in (f"trainA/{NFC}.png", f"trainA/{NFD}.png", f"trainB/{NFC}.png"):
        save(tmp_path / name, 0)
    with pytest.raises(RequestError, match="have the same name but for the extension and the Unicode form; one must go"):
        find_paired(open_source(tmp_path))


def test_names_that_differ_in_case_only_get_a_hint(tmp_path: Path) -> None:
    for name in ("trainA/Img0.png", "trainA/1.png", "trainB/img0.png", "trainB/1.png"):
        save(tmp_path / name, 0)
    with pytest.raises(RequestError, match="no partner of the same name, such as .*; some differ from one in upper and lower case only$"):
        find_paired(open_source(tmp_path))


def test_class_folders_and_labels_in_two_forms_are_one_class(tmp_path: Path) -> None:
    for name in (f"train/{NFC}/0.png", "train/dog/1.png", f"test/{NFD}/2.png"):
        save(tmp_path / "folders" / name, 0)
    splits = find_images(open_source(tmp_path / "folders"))
    assert (splits["train"].classes, splits["test"].labels.tolist()) == ((NFC, "dog"), [0])
    save(tmp_path / "json" / "x" / f"{NFC}.png", 0)
    save(tmp_path / "json" / "x" / "1.png", 0)
    (tmp_path / "json" / "dataset.json").write_text(json.dumps({"labels": [[f"x\\{NFD}.png", 1], ["x/1.png", 0]]}))
    assert find_images(open_source(tmp_path / "json"))["train"].labels.tolist() == [0, 1]


def archive(path: Path, names: list[str], system: int) -> Path:
    """A zip with names as these bytes, without the flag of UTF-8."""
    with zipfile.ZipFile(path, "w") as file:
        for i, name in enumerate(names):
            info = zipfile.ZipInfo(str(i).rjust(len(name.encode()), "x"))
            info.create_system = system
            file.writestr(info, b"" if name.endswith(("/", "\\")) else encode(".png", image(10 * i), ImageFormat(1)))
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        for info, name in zip(file.infolist(), names, strict=True):
            start = info.header_offset + 30
            data = data[:start] + name.encode() + data[start + len(name.encode()):]
        directory = file.start_dir
    for name in names:
        start = directory + 46
        data = data[:start] + name.encode() + data[start + len(name.encode()):]
        directory = start + len(name.encode())
    path.write_bytes(data)
    return path


def image(level: int) -> Array:
    return np.full((32, 32), level, np.uint8)


def test_zips_of_windows_have_backslashes(tmp_path: Path) -> None:
    names = ["d\\", "d\\trainA\\", "d\\trainA\\0.png", "d\\trainB\\0.png", "d\\trainA\\1.png", "d\\trainB\\1.png"]
    pairs = find_paired(open_source(archive(tmp_path / "z.zip", names, 0)))["train"]
    assert (list(pairs.a), list(pairs.b)) == (["trainA/0.png", "trainA/1.png"], ["trainB/0.png", "trainB/1.png"])
    assert [pairs[i][side].array[0, 0] for i in (0, 1) for side in (0, 1)] == [20, 30, 40, 50]
    assert list(open_source(archive(tmp_path / "u.zip", ["x\\0.png"], 3)).names()) == ["x\\0.png"]       # A name on Linux.


def test_zips_of_macos_have_utf8_that_is_not_declared(tmp_path: Path) -> None:
    source = open_source(archive(tmp_path / "z.zip", [f"{NFD}/0.png", "\u732b/1.png", "plain/2.png"], 3))
    assert sorted(source.names()) == sorted([f"{NFD}/0.png", "\u732b/1.png", "plain/2.png"])
    assert find_images(source)["train"].classes == (NFC, "plain", "\u732b")
    assert len(source.read("\u732b/1.png")) > 60


def test_other_encodings_stay_what_zip_says_they_are(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as file:
        file.writestr("xyz.png", encode(".png", image(1), ImageFormat(1)))
    path = tmp_path / "z.zip"
    path.write_bytes(path.read_bytes().replace(b"xyz.png", b"\x82yz.png"))        # é in code page 437.
    assert list(open_source(path).names()) == ["\u00e9yz.png"]
    assert find_images(open_source(path))["train"][0][0].array[0, 0] == 1


def test_letters_that_only_look_alike_get_no_hint_of_case(tmp_path: Path) -> None:
    for name in ("trainA/\ufb01.png", "trainB/fi.png"):      # A ligature, and two letters.
        save(tmp_path / name, 0)
    with pytest.raises(RequestError, match=r"no partner of the same name, such as [^;]*$"):
        find_paired(open_source(tmp_path))
