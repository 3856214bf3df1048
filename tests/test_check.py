"""i2i data check: every planted fault is found and nothing else is; the command it prints is one that works."""

import io
import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from i2i.data.check import duplicates
from i2i.data.check.check_dataset import CheckReport, check_dataset
from i2i.data.check.layout import CONDITIONAL, KINDS, RECIPES
from i2i.data.sources import bundled_datasets
from i2i.errors import RequestError
from i2i.recipes.presets import PRESETS
from i2i.registry import lookup
from i2i.training import job as jobs
from tests.conftest import Run
from tests.data.test_faults import bomb, dangling, text, truncate

PAIRS = 24          # To train on; four to test on.


def image(seed: int, side: int = 48) -> np.ndarray:
    """A blot of many colors on white, like no other."""
    g = np.random.default_rng(seed)
    blot = cv2.resize(g.integers(0, 200, (6, 6, 3)).astype(np.float32), (side - 12, side - 12), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    out = np.full((side, side, 3), 255, np.uint8)
    out[6:-6, 6:-6] = blot.astype(np.uint8)
    return out


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def folders(root: Path) -> Path:
    """Two folders, paired by name."""
    for split, count, first in (("train", PAIRS, 0), ("test", 4, 500)):
        for i in range(count):
            save(root / f"{split}A" / f"{i:02}.png", image(first + i))
            save(root / f"{split}B" / f"{i:02}.png", image(1000 + first + i))
    return root


def strips(root: Path) -> Path:
    for split, count, first in (("train", PAIRS, 0), ("test", 4, 500)):
        for i in range(count):
            save(root / split / f"{i:02}.png", np.concatenate([image(first + i), image(1000 + first + i)], 1))
    return root


def classes(root: Path) -> Path:
    for i in range(24):
        save(root / ("cats", "dogs")[i % 2] / f"{i:02}.png", image(i))
    return root


def unpaired(root: Path) -> Path:
    for i in range(20):
        save(root / "trainA" / f"a{i:02}.png", image(i))
        save(root / "trainB" / f"b{i:02}.png", image(100 + i, 64))
    return root


BASES = {each.__name__: each for each in (folders, strips, classes, unpaired)}


# ---------------------------------------------------------------------------------------------- what is planted

def resave(name: str, to: str, **options: object) -> Callable[[Path], None]:
    """The image of one name also under another."""
    def plant(root: Path) -> None:
        if (root / to).with_suffix(".png").exists():
            (root / to).with_suffix(".png").unlink()
        Image.open(root / name).save(root / to, **options)
    return plant


def put(name: str, array: np.ndarray, **options: object) -> Callable[[Path], None]:
    return lambda root: save(root / name, array, **options)


def gray16(top: int) -> np.ndarray:
    small = np.random.default_rng(top).integers(0, top + 1, (48, 48)).astype(np.uint16)
    small[0, :2] = 1, top
    return small


def both(change: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    """The same change to A and B of a pair."""
    def plant(root: Path) -> None:
        change(root / "trainA" / name)
        change(root / "trainB" / name)
    return plant


def sized(side: int) -> Callable[[Path], None]:
    return lambda path: save(path, image(side + (7 if "A" in path.parent.name else 0), side))


def floats(root: Path) -> None:
    (root / "trainA" / "19.png").unlink()
    np.save(root / "trainA" / "19.npy", np.random.default_rng(0).normal(0, 40, (48, 48)).astype(np.float32))


def integers(root: Path) -> None:
    (root / "trainA" / "23.png").unlink()
    np.save(root / "trainA" / "23.npy", np.zeros((48, 48), np.int64))


def channels(root: Path) -> None:
    (root / "trainA" / "16.png").unlink()
    np.save(root / "trainA" / "16.npy", np.random.default_rng(0).integers(0, 256, (48, 48, 600), np.uint8))


def binary(root: Path) -> None:
    page = np.where(np.random.default_rng(3).random((48, 48)) > 0.5, 255, 0).astype(np.uint8)
    page[0, :8] = 128
    save(root / "trainB" / "20.png", page)


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(root / "trainA" / "21.png").save(root / "trainA" / "21.png", exif=exif)


def animated(root: Path) -> None:
    frames = [Image.fromarray(image(800 + i)) for i in range(2)]
    frames[0].save(root / "trainB" / "22.png", save_all=True, append_images=frames[1:])


def cased(root: Path) -> None:
    for side, seed in (("trainA", 700), ("trainB", 710)):
        save(root / side / "x.png", image(seed))
        save(root / side / "X.png", image(seed + 1))


def odd_name(root: Path) -> None:
    for side, seed in (("trainA", 720), ("trainB", 730)):
        save(root / side / "new\nline.png", image(seed))


def cmyk(root: Path) -> None:
    (root / "trainB" / "18.png").unlink()
    Image.fromarray(image(740)).convert("CMYK").save(root / "trainB" / "18.tif")


def alpha(root: Path) -> None:
    save(root / "trainA" / "18.png", np.dstack([image(750), np.full((48, 48), 128, np.uint8)]))


def labels(root: Path) -> None:
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    (root / "dataset.json").write_text(json.dumps({"classes": ["cats", "dogs"], "labels": [[name, 2] for name in names]}))


def closed(root: Path) -> None:
    """Whoever runs the tests may be allowed everything, so listing is made to fail: see `a_closed_folder`."""
    (root / "trainA" / "closed").mkdir()


@pytest.fixture(autouse=True)
def a_closed_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = os.scandir

    def scandir(path: object = ".") -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)      # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", scandir)


def archive(root: Path) -> None:
    (root / "trainA" / "photo").write_bytes(_jpeg())
    (root / "trainB" / ".hidden.png").write_bytes((root / "trainB" / "00.png").read_bytes())
    (root / "notes.txt").write_text("no image")


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image(795)).save(buffer, "jpeg")
    return buffer.getvalue()


# A fault, what plants it, and in what data set; the kinds of finding it makes, and a part of the example.  Those that can be in one tree are
# also planted together.
FAULTS: tuple[tuple[str, str, Callable[[Path], object], set[str], str], ...] = (
    ("zero-byte file", "folders", lambda root: (root / "trainA" / "00.png").write_bytes(b""), {"error empty"}, "trainA/00.png"),
    ("truncated file", "folders", lambda root: truncate(root / "trainA" / "01.png"), {"error damaged"}, "trainA/01.png: "),
    ("HTML called .png", "folders", lambda root: text(root / "trainA" / "02.png"), {"error no-image"}, "trainA/02.png: is HTML"),
    ("decompression bomb", "folders", lambda root: bomb(root / "trainA" / "03.png"), {"error bomb"}, "trainA/03.png: 20000 x 9500 pixels are more than"),
    ("dangling link", "folders", lambda root: dangling(root / "trainA" / "04.png"), {"error unreadable"}, "trainA/04.png: No such file"),
    ("64-bit integers", "folders", integers, {"error refused"}, "trainA/23.npy: "),
    ("partner missing", "folders", lambda root: (root / "trainB" / "05.png").unlink(), {"error unpaired"}, "trainA/05.png"),
    ("test image is a training image", "folders", resave("trainA/06.png", "testA/00.bmp"), {"error leak"}, "testA/00.bmp = trainA/06.png"),
    ("test image looks like a training image", "folders", resave("trainA/07.png", "testA/01.jpg", quality=85), {"warning near-leak"},
     "testA/01.jpg ~ trainA/07.png"),
    ("the same image twice", "folders", resave("trainA/08.png", "trainA/09.bmp"), {"warning duplicate"}, "trainA/08.png = trainA/09.bmp"),
    ("a image encoded again", "folders", resave("trainA/10.png", "trainA/11.jpg", quality=85), {"note near-duplicate"}, "trainA/10.png ~ trainA/11.jpg"),
    ("JPEG called .png", "folders", lambda root: Image.open(root / "trainA" / "12.png").save(root / "trainA" / "12.png", "jpeg", quality=100), {"warning mislabeled"},
     "trainA/12.png should end in .jpg"),
    ("16 bits among 8", "folders", put("trainA/13.png", gray16(65535)), {"warning mixed-kinds"}, "trainA/13.png is gray, uint16"),
    ("12 bits in 16", "folders", put("trainA/13.png", gray16(4095)), {"warning mixed-kinds", "note few-bits", "warning inverted"}, "trainA/13.png: 12 bits"),
    ("8 bits in 16", "folders", put("trainA/13.png", gray16(255) * np.uint16(257)), {"warning mixed-kinds", "note few-bits"}, "trainA/13.png: 8 bits"),
    ("tiny pair", "folders", both(sized(24), "14.png"), {"warning tiny"}, "trainA/14.png: 24 x 24"),
    ("pair too small to train on", "folders", both(sized(14), "15.png"), {"error too-small"}, "trainA/15.png: 14 x 14"),
    ("black image", "folders", put("trainB/16.png", np.zeros((48, 48, 3), np.uint8)), {"warning black", "warning inverted"}, "trainB/16.png"),
    ("empty page", "folders", put("trainB/17.png", np.full((48, 48, 3), 250, np.uint8)), {"warning constant"}, "trainB/17.png: 250"),
    ("floats far outside 0 … 1", "folders", floats, {"error mixed-kinds", "warning float-range"}, "trainA/19.npy: -"),
    ("mask of 0 and 1", "folders", put("trainB/03.png", np.eye(48, dtype=np.uint8)), {"note mixed-kinds", "warning dark-labels", "warning inverted"},
     "trainB/03.png: the highest value is 1; data.a_range=0,1"),
    ("gray image of two values", "folders", binary, {"note mixed-kinds", "note binary"}, "trainB/20.png"),
    ("EXIF orientation", "folders", turned, {"note turned"}, "trainA/21.png"),
    ("animated image", "folders", animated, {"note animated"}, "trainB/22.png"),
    ("alpha in one image", "folders", alpha, {"note alpha", "warning mixed-kinds"}, "trainA/18.png"),
    ("CMYK", "folders", cmyk, {"note read-as"}, "trainB/18.tif: CMYK"),
    ("more channels than training takes", "folders", channels, {"error channels", "error mixed-kinds"}, "trainA/16.npy: 600"),
    ("inverted image", "folders", lambda root: save(root / "trainA" / "17.png", 255 - image(17)), {"warning inverted"}, "trainA/17.png"),
    ("partners of different size", "folders", put("trainB/19.png", image(760, 64)), {"note pair-sizes"}, "trainA/19.png is 48 x 48, trainB/19.png is 64 x 64"),
    ("partners of different shape", "folders", put("trainB/21.png", image(760, 64)[8:-8]), {"error pair-shapes"}, "trainA/21.png is 48 x 48, trainB/21.png is 64 x 48"),
    ("A and B equal", "folders", resave("trainA/20.png", "trainB/20.bmp"), {"warning identical-pair"}, "trainA/20.png"),
    ("names that differ by case", "folders", cased, {"warning case"}, "trainA/X.png and trainA/x.png"),
    ("a name with a newline", "folders", odd_name, {"warning control-characters"}, "trainA/new\\nline.png"),
    ("images without an extension of images", "folders", archive, {"warning ending", "note hidden"}, "trainA/photo (JPEG)"),
    ("a folder that cannot be listed", "folders", closed, {"error closed-folder"}, "closed: Permission denied"),
    ("a split called Validation", "folders", put("ValidationA/0.png", image(770)), {"warning split-name", "note unused"}, "ValidationA/, which would be valA/"),
    ("two files of one name", "folders", put("trainA/00.bmp", image(780)), {"error layout"}, ""),
    ("one side only", "folders", lambda root: [shutil.rmtree(root / side) for side in ("trainB", "testB")], {"error layout"}, ""),
    ("nothing to train on", "folders", lambda root: [shutil.rmtree(root / side) for side in ("trainA", "trainB")], {"error no-train"}, ""),
    ("nothing held out", "folders", lambda root: [shutil.rmtree(root / side) for side in ("testA", "testB")], {"note nothing-held-out"}, ""),
    ("a image among strips", "strips", put("train/03.png", image(3)), {"error no-strip"}, "train/03.png: 48 x 48"),
    ("halves equal", "strips", put("train/04.png", np.concatenate([image(4)] * 2, 1)), {"warning identical-pair"}, "train/04.png"),
    ("a class of one", "classes", put("fish/0.png", image(790)), {"warning small-class", "warning imbalance"}, "fish: 1"),
    ("labels out of range", "classes", labels, {"error layout"}, ""))
TOGETHER = ("12 bits in 16", "8 bits in 16", "floats far outside 0 … 1", "inverted image", "alpha in one image", "gray image of two values", "two files of one name",
            "one side only", "nothing to train on", "nothing held out", "a split called Validation",
            "more channels than training takes")      # Not: they undo others' planting.


def kinds(report: CheckReport) -> set[str]:
    return {f"{each.severity} {each.kind}" for each in report.findings}


def examples(report: CheckReport) -> list[str]:
    return [" ".join(each.examples) for each in report.findings]


def test_there_are_twenty_faults_and_more() -> None:
    assert len(FAULTS) >= 20
    assert len({kind for _, _, _, found, _ in FAULTS for kind in found}) >= 30


@pytest.mark.parametrize("base", BASES)
def test_clean_data_gives_nothing(tmp_path: Path, base: str) -> None:
    report = check_dataset(BASES[base](tmp_path / "data"))
    assert report.findings == ()
    assert not report.serious


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[0])
def test_each_fault_is_found_and_nothing_else(tmp_path: Path, fault: tuple[str, str, Callable[[Path], object], set[str], str]) -> None:
    _, base, plant, expected, excerpt = fault
    root = BASES[base](tmp_path / "data")
    plant(root)
    report = check_dataset(root)
    assert kinds(report) == expected
    assert any(excerpt in example.replace("\n", "\\n") for example in examples(report)), examples(report)
    assert report.serious == any(kind.startswith("error") for kind in expected)


def test_twenty_faults_in_one_tree_are_all_found(tmp_path: Path, i2i: Run) -> None:
    root = folders(tmp_path / "data")
    planted = [fault for fault in FAULTS if fault[1] == "folders" and fault[0] not in TOGETHER]
    assert len(planted) >= 20
    for _, _, plant, _, _ in planted:
        plant(root)
    result = i2i("data", "check", root, "--json", "found.json")
    assert result.code == 1
    assert "\x1b" not in result.out
    report = json.loads(Path("found.json").read_text())
    found = {f"{each['severity']} {each['kind']}": each for each in report["findings"]}
    for name, _, _, expected, excerpt in planted:
        for kind in expected - {"warning mixed-kinds", "warning inverted"}:       # One of many kinds, or one of many odd backgrounds.
            assert kind in found, name
        assert any(excerpt in example.replace("\n", "\\n") for kind in expected for example in found.get(kind, {"examples": []})["examples"]) or not excerpt, name
    for each in report["findings"]:
        assert f"{each['severity']:<9}{each['text']}" in result.out


def test_in_a_zip_too(tmp_path: Path) -> None:
    root = folders(tmp_path / "data")
    truncate(root / "trainA" / "01.png")
    archive(root)
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as packed:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(root).as_posix())
    assert kinds(check_dataset(tmp_path / "data.zip")) == kinds(check_dataset(root)) == {"error damaged", "warning ending", "note hidden"}


def test_a_manifest_and_a_folder_that_has_one(tmp_path: Path) -> None:
    root = classes(tmp_path / "data")
    rows = [f"{path.relative_to(root).as_posix()},{path.parent.name},{'test' if path.stem > '20' else 'train'}" for path in sorted(root.rglob("*.png"))]
    (root / "manifest.csv").write_text("\n".join(["file,label,split", *rows]))
    for where in (root, root / "manifest.csv"):
        report = check_dataset(where)
        assert report.findings == ()
        assert report.layout == "rows of a manifest"
        assert report.counts == "21 train, 3 test images"
        assert report.classes == {"cats": 11, "dogs": 10}
    (root / "cats" / "00.png").unlink()
    with pytest.raises(RequestError, match=r"line 2: there is no file cats/00\.png"):
        check_dataset(root / "manifest.csv")


def test_a_manifest_of_absolute_paths(tmp_path: Path) -> None:
    root = unpaired(tmp_path / "data")
    (tmp_path / "pairs.csv").write_text("a,b\n" + "".join(f"{root}/trainA/a{i:02}.png,{root}/trainB/b{i:02}.png\n" for i in range(3)))
    assert check_dataset(tmp_path / "pairs.csv").counts == "3 train pairs"


# ---------------------------------------------------------------------------------------------- reports on good data

@pytest.mark.parametrize(("base", "layout", "recipes"), [
    ("folders", "two folders paired by name: 24 train, 4 test pairs", ["pix2pix"]), ("strips", "A|B strips: 24 train, 4 test pairs", ["pix2pix", "pix2pix"]),
    ("classes", "class folders: 24 train images", ["dcgan", "cgan"]), ("unpaired", "two folders, unpaired: 20 + 20 train images", ["cyclegan"])])
def test_the_layout_and_a_command_that_works(tmp_path: Path, i2i: Run, base: str, layout: str, recipes: list[str]) -> None:
    root = BASES[base](tmp_path / "it's data")
    result = i2i("data", "check", root)
    assert result.code == 0
    assert layout in result.out
    lines = [line[line.index("i2i train"):] for line in result.out.splitlines() if "i2i train" in line]
    assert [line.split()[2] for line in lines] == recipes
    for line in lines:
        command = shlex.split(line, comments=True)
        assert i2i(*command[1:], "--dry-run").code == 0
        job = jobs.prepare(command[2], data=command[command.index("--data") + 1])
        assert job.location == str(root)


def test_a_folder_around_the_whole_set_hides_nothing(tmp_path: Path, i2i: Run) -> None:
    """A zip of a folder holds that folder, and often what a Mac adds: test images are not trained on because of it, and labels not lost."""
    truncate(strips(tmp_path / "strips" / "my data") / "train" / "01.png")
    with zipfile.ZipFile(tmp_path / "strips.zip", "w") as packed:
        for path in sorted((tmp_path / "strips").rglob("*.png")):
            packed.write(path, path.relative_to(tmp_path / "strips").as_posix())
        packed.writestr("__MACOSX/my data/train/._00.png", b"\0\5\x16\7")
    for where in ("strips", "strips.zip"):
        report = check_dataset(where)
        assert (report.layout, report.counts, kinds(report)) == ("A|B strips", "24 train, 4 test pairs", {"error damaged"})
        assert examples(report)[0].startswith("train/01.png: ")
        dry = i2i(*shlex.split(report.commands[0])[1:], "--dry-run", "data.on_error=skip")
        assert "A|B strips: 24 train, 4 test" in dry.out, dry.err
    (tmp_path / "loose.png").write_bytes((tmp_path / "strips" / "my data" / "train" / "00.png").read_bytes())
    report = check_dataset(tmp_path)        # Beside a strip no folder is searched, and their images are reported as unused.
    assert (report.counts, kinds(report) & {"note unused"}) == ("1 train pairs", {"note unused"})


def test_facts(tmp_path: Path, i2i: Run) -> None:
    root = unpaired(tmp_path / "data")
    report = check_dataset(root)
    assert (report.files, report.examined, report.readable) == (40, 40, 40)
    assert (report.width.low, report.width.median, report.width.high, report.width.different) == (48, 56, 64, 2)
    assert report.sizes == {"48 x 48": 20, "64 x 64": 20}
    assert report.formats == {"PNG": 40}
    assert report.kinds == {"color, uint8": 40}
    assert report.memory_per_1000 == 1000 * (48 * 48 + 64 * 64) * 3 / 2
    assert report.disk_per_1000 == 1000 * np.mean([path.stat().st_size for path in root.rglob("*.png")])
    assert 0 < report.seconds_per_1000 < 60
    out = i2i("data", "check", root).out
    for expected in ("40 images", "48 x 48 (20), 64 x 64 (20)", "PNG", "color, uint8", "0 … 255", "to read and decode on one core", "nothing wrong was found"):
        assert expected in out, expected


def test_a_sample_takes_partners_together_and_says_so(tmp_path: Path, i2i: Run) -> None:
    root = folders(tmp_path / "data")
    report = check_dataset(root, most=20)
    assert 4 <= report.examined <= 36
    assert report.files == 56
    out = i2i("data", "check", root, "--sample", 20).out
    assert f"56 images, {report.examined} of them examined (--full for all)" in out
    assert "56 images\n" in i2i("data", "check", root, "--full").out
    assert i2i("data", "check", root, "--full", "--sample", 3).code == 2
    save(root / "trainB" / "00.png", image(1, 64))
    assert "note pair-sizes" in kinds(check_dataset(root, most=10**9))


def test_wrong_requests(tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in i2i("data", "check", tmp_path / "empty").line
    save(tmp_path / "empty" / "photo.png", image(0))
    (tmp_path / "empty" / "photo.png").rename(tmp_path / "empty" / "photo")
    assert "such as photo" in i2i("data", "check", tmp_path / "empty").line
    assert "does not exist" in i2i("data", "check", tmp_path / "nothing").line


def test_a_set_without_a_readable_image(tmp_path: Path, i2i: Run) -> None:
    for i in range(3):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / f"{i}.png").write_bytes(os.urandom(100))
    result = i2i("data", "check", tmp_path / "bad")
    assert result.code == 1
    assert "3 files not containing an image" in result.out


def test_too_many_channels_are_reported_and_refused_by_training(tmp_path: Path) -> None:
    for side, count, expected in (("A", 512, set()), ("B", 513, {"error channels"})):
        for i in range(2):
            (tmp_path / f"train{side}").mkdir(exist_ok=True)
            np.save(tmp_path / f"train{side}" / f"{i}.npy", np.random.default_rng(i).integers(0, 256, (32, 32, count), np.uint8))
        assert {kind for kind in kinds(check_dataset(tmp_path / f"train{side}")) if kind.startswith("error")} == expected
    with pytest.raises(RequestError, match="has 513 channels; accepted: at most 512"):
        jobs.prepare("pix2pix", data=tmp_path)


def test_converted_images_make_one_finding_that_lists_the_conversions(tmp_path: Path, i2i: Run) -> None:
    g = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i, dtype in enumerate((np.float64, np.float64, np.float16)):
        np.save(tmp_path / "data" / f"{i}.npy", g.random((48, 48)).astype(dtype))
    out = i2i("data", "check", "data").out
    assert out.count("converted on reading") == 1
    assert "note     3 images converted on reading: float64, read as float32 (2); float16, read as float32 (1)\n" in out
    assert "such as 0.npy: float64, read as float32" in out


# ---------------------------------------------------------------------------------------------- what looks the same

def test_near_duplicates_among_many_are_found_in_little_time() -> None:
    """200 copies with noise among 20,000 random thumbnails, all of them and no others; ten times as many take little more than ten times as long."""
    g = np.random.default_rng(0)
    n, copies = 20_000, 200
    thumbs = np.repeat(g.integers(0, 256, (n, 24), dtype=np.uint8), 16, axis=1)
    noisy = (thumbs[:copies].astype(int) + g.integers(-3, 4, (copies, thumbs.shape[1])) + 5).clip(0, 255).astype(np.uint8)
    noisy[:, duplicates.LUMA ** 2:] = thumbs[:copies, duplicates.LUMA ** 2:]
    aspects = np.ones(n + copies)
    found = set(map(tuple, duplicates.near_duplicates(np.concatenate([thumbs, noisy]), aspects)[0].tolist()))
    expected = {(i, n + i) for i in range(copies)}
    assert found <= expected
    assert len(found) >= 0.98 * copies
    aspects[n:] = 1.5
    assert len(duplicates.near_duplicates(np.concatenate([thumbs, noisy]), aspects)[0]) == 0


def test_a_million_of_one_kind_do_not_take_forever() -> None:
    """Every thumbnail falls into one bucket: only neighbors are compared."""
    thumbs = np.full((3000, 384), 100, np.uint8)
    thumbs[:, 0] = np.arange(3000) % 3
    assert 2999 <= len(duplicates.near_duplicates(thumbs, np.ones(3000))[0]) <= 3000 * duplicates.NEIGHBORS * duplicates.TABLES


@pytest.mark.parametrize(("name", "most"), [("openmoji-64", 2), ("noto-twemoji-64", 2), ("fluent3d-64", 10), ("personas-edges-64", 41), ("lorelei-hair-64", 2), ("peeps-64", 14)])
def test_near_duplicates_are_rare_in_the_bundled_data(name: str, most: int) -> None:
    report = check_dataset(name)
    assert sum(each.count for each in report.findings if each.kind.startswith("near-")) <= most
    assert report.readable == report.files
    assert not [each.kind for each in report.findings if each.severity == "error"]     # No test image is among those trained on.


# ---------------------------------------------------------------------------------------------- i2i data list

def test_the_list_names_every_bundled_set_with_license_and_use(i2i: Run) -> None:
    lines = i2i("data", "list").out.splitlines()
    assert len(lines) == 1 + len(bundled_datasets())
    rows = {line.split()[0]: line for line in lines}
    assert "1,167 train" in rows["openmoji-64"]
    assert "CC BY-SA 4.0" in rows["openmoji-64"]
    assert rows["fluent3d-64"].endswith("MIT")
    for name, license, recipe in (("personas-edges-64", " CC BY 4.0 ", "pix2pix"), ("lorelei-hair-64", " CC0 1.0 ", "cyclegan"), ("peeps-64", " CC0 1.0 ", "dcgan")):
        assert license in rows[name]
        assert rows[name].endswith(f" {recipe}")


def test_a_bundled_set_is_exported_as_a_folder_that_is_checked_alike(tmp_path: Path, i2i: Run) -> None:
    out = tmp_path / "new" / "people"
    assert "1,920 images" in i2i("data", "export", "lorelei-hair-64", out).out
    assert "CC0" in (out / "LICENSE.txt").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["people"]       # Nothing unfinished is left.
    assert check_dataset(out, most=6).counts == check_dataset("lorelei-hair-64", most=6).counts
    for words in (("lorelei-hair-64", out), ("lorelei", tmp_path / "x")):
        answer = i2i("data", "export", *words)
        assert answer.code == 2
        assert "accepted: " in answer.err


def test_recommended_recipes_take_that_kind_of_data() -> None:
    for kind in KINDS:
        name = RECIPES[kind]
        assert lookup("recipe", PRESETS[name].recipe if name in PRESETS else name)().dataset == kind
    assert "conditional=true" in PRESETS[CONDITIONAL].settings


def test_strips_are_suggested_in_both_directions(tmp_path: Path, i2i: Run) -> None:
    root = strips(tmp_path / "data")
    commands = check_dataset(root).commands
    assert commands == (f"i2i train pix2pix --data {root}", f"i2i train pix2pix --data {root} data.direction=ba")
    assert all(i2i(*shlex.split(command)[1:], "--dry-run").code == 0 for command in commands)
    assert f"{commands[1]}    # right half to left half" in i2i("data", "check", root).out
    assert len(check_dataset(folders(tmp_path / "two")).commands) == 1
