import io
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2i.data.dataset_root import SubfolderSource
from i2i.data.sources import (
    Folder,
    SingleFile,
    Unreadable,
    Zip,
    absolute_location,
    bundled_datasets,
    decode_bytes,
    is_image,
    load_image,
    open_source,
    same_location,
)
from i2i.errors import RequestError
from i2i.images.pil import MAX_PIXELS, open_image


def png(value: int = 7, size: tuple[int, int] = (4, 6), file_format: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("b.png", "a.JPG", "deep/er/c.WebP", "deep/with space\nand newline.png", "deep/größe.bmp", ".hidden.png", ".cache/x.png", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png())
    return root


NAMES = ["a.JPG", "b.png", "deep/er/c.WebP", "deep/größe.bmp", "deep/with space\nand newline.png"]


def test_a_tree_is_listed_whole_and_sorted(tree: Path) -> None:
    source = open_source(tree)
    assert isinstance(source, Folder)
    assert source.names() == sorted(NAMES)
    assert source.read("b.png") == png()


def test_a_zip_and_a_folder_inside_it(tree: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.ZIP", "w") as archive:
        for path in tree.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(tree).as_posix())
        archive.writestr("__MACOSX/b.png", b"")
    assert open_source(tmp_path / "t.ZIP").names() == sorted(NAMES)
    inner = open_source(tmp_path / "t.ZIP" / "deep")
    assert isinstance(inner, Zip)
    assert inner.names() == sorted(name[5:] for name in NAMES if name.startswith("deep/"))
    assert inner.read("er/c.WebP") == png()


def test_one_file(tree: Path) -> None:
    source = open_source(tree / "b.png")
    assert isinstance(source, SingleFile)
    assert source.names() == ["b.png"]


def test_links_are_followed_once(tree: Path) -> None:
    (tree / "loop").symlink_to(tree)
    (tree / "dangling.png").symlink_to(tree / "nothing")
    names = open_source(tree).names()
    assert [name for name in names if name != "dangling.png"] == sorted(NAMES)
    with pytest.raises(Unreadable, match="No such file"):
        load_image(open_source(tree), "dangling.png")


def test_bundled_data_is_found_by_name_and_split() -> None:
    assert "openmoji-64" in bundled_datasets()
    assert len(open_source("openmoji-64").names()) == 1167 + 96 + 208
    assert len(open_source("openmoji-64/test").names()) == 208


def test_one_location_can_be_written_in_several_ways(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tree)
    for one, other in ((tree, "tree"), ("tree/deep", "tree/../link/deep/"), ("link", tree), (bundled_datasets()["openmoji-64"], "openmoji-64"),
                       ("openmoji-64/test", bundled_datasets()["openmoji-64"] / "test"), ("https://a.b/c", "https://a.b/c")):
        assert same_location(one, other)
        assert same_location(absolute_location(one), other)
        assert not same_location(one, "tree/other")
    assert absolute_location("tree") == str(tree)
    assert absolute_location("openmoji-64/test") == "openmoji-64/test"
    (tmp_path / "openmoji-64").mkdir()
    assert absolute_location("openmoji-64") == str(tmp_path / "openmoji-64")     # What lies here comes first.
    assert not same_location("openmoji-64", bundled_datasets()["openmoji-64"])


@pytest.mark.parametrize("where", ["nothing-here", "openmoji-65"])
def test_what_does_not_exist_is_named(where: str) -> None:
    with pytest.raises(RequestError, match=where):
        open_source(where)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RequestError, match=r"a\.txt"):
        open_source(tmp_path / "a.txt")
    (tmp_path / "a.zip").write_bytes(b"PK but no zip")
    with pytest.raises(RequestError, match="as a zip"):
        open_source(tmp_path / "a.zip")


def test_a_damaged_member_of_a_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", png())
        archive.writestr("bad.png", bytes(2000) + png())
    data = bytearray(path.read_bytes())
    at = data.find(b"bad.png") + len(b"bad.png")
    data[at:at + 12] = os.urandom(12)
    path.write_bytes(data)
    source = open_source(path)
    assert load_image(source, "good.png").array.shape == (4, 6, 3)
    with pytest.raises(Unreadable, match=r"bad\.png"):
        load_image(source, "bad.png")


BAD = {
    "zero bytes": (b"", "empty file"), "text": (b"not an image", "not an image"), "cut": (png(size=(64, 64), file_format="bmp")[:2000], ""),
    "cut jpeg": (png(size=(64, 64), file_format="jpeg", quality=95)[:300], ""), "cut png": (png()[:50], ""), "header only": (b"\x89PNG\r\n\x1a\n", "")}


@pytest.mark.parametrize("name", BAD)
def test_unreadable_images_are_named_with_the_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(Unreadable) as error:
        decode_bytes(f"{name}.png", data)
    assert error.value.name == f"{name}.png"
    assert reason in error.value.reason
    assert error.value.reason


def black(width: int, height: int) -> bytes:
    """A PNG with one bit for a pixel."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "png")
    return buffer.getvalue()


def test_the_limit_of_pixels_holds_in_every_thread_whatever_pillow_would_say(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """`warnings.catch_warnings`, which changes the filters of the whole process, let some through."""
    files = {"over": black(9500, 9500), "twice": black(13_400, 13_400), "under": black(9450, 9450)}
    for name, data in files.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    assert open_source(tmp_path).max_pixels == MAX_PIXELS == Image.MAX_IMAGE_PIXELS

    def answer(job: tuple[str, int | None]) -> bool:
        try:
            with open_image(files[job[0]], job[1]):
                return True
        except ValueError:
            return False

    jobs = [(name, limit) for name in files for limit in (None, MAX_PIXELS, 10**8)] * 20
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, jobs))
    allowed = {("over", MAX_PIXELS): False, ("twice", MAX_PIXELS): False, ("twice", 10**8): False}
    assert answers == [allowed.get(job, True) for job in jobs]
    assert not recwarn.list


def test_a_source_passes_on_its_limit(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.png").write_bytes(png(size=(4, 3)))
    with pytest.raises(Unreadable, match=r"in/x\.png: 3 x 4 pixels are more than 11"):
        load_image(open_source(tmp_path, max_pixels=11), "in/x.png")
    with pytest.raises(Unreadable, match="bomb"):
        load_image(SubfolderSource(open_source(tmp_path, max_pixels=11), "in"), "x.png")
    assert load_image(open_source(tmp_path, max_pixels=12), "in/x.png").array.shape == (4, 3, 3)


def test_exif_orientation_is_applied() -> None:
    upright = np.zeros((2, 3, 3), np.uint8)
    upright[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6        # Turned: shown rotated by 90 degrees clockwise.
    buffer = io.BytesIO()
    Image.fromarray(upright).save(buffer, "png", exif=exif)
    got = decode_bytes("turned.png", buffer.getvalue()).array
    assert got.shape == (3, 2, 3)
    assert got[0, 1].tolist() == [255, 255, 255]


def test_which_names_are_images() -> None:
    assert all(map(is_image, ("a.png", "A.JPEG", "x/y.TiF")))
    assert all(map(is_image, ("a.jfif", "a.JPE", "a.avif", "a.jp2", "a.tga", "a.ppm", "a.heic", "a.mpo")))
    # Of formats that Pillow only identifies, programs, and point clouds.
    assert not any(map(is_image, ("a.txt", ".a.png", "x/.git/y.png", "__MACOSX/a.png", "png", "a.h5", "a.grib", "a.mpg", "a.eps", "a.ps", "a.wmf", "a.pcd", "a.pdf")))


def test_an_unreadable_image_survives_pickling() -> None:
    import pickle
    error = pickle.loads(pickle.dumps(Unreadable("a", "b")))
    assert (error.name, error.reason) == ("a", "b")


@pytest.mark.parametrize("where", ["", Path()])
def test_an_empty_path_is_not_the_current_folder(where: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unset variable of a shell gives."""
    monkeypatch.chdir(tmp_path)
    if where == "":
        with pytest.raises(RequestError, match="^the path of the images is empty; accepted: a folder, a shard"):
            open_source(where)
    else:
        assert open_source(where).root == "."
