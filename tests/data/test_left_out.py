"""Every extension of a format that can be read is read, and what holds an image under another name is said, by every command alike."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from i2i.data.image_set import open_image_set
from i2i.data.sources import Unreadable, find_left_out, left_out, load_image, open_source
from i2i.errors import RequestError
from i2i.images.pil import extensions, open_image
from tests.conftest import Run

FORMATS = {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF", ".jp2": "JPEG2000", ".j2k": "JPEG2000", ".tga": "TGA", ".ppm": "PPM", ".dib": "DIB", ".ico": "ICO",
           ".sgi": "SGI", ".pcx": "PCX", ".apng": "PNG", ".heic": "HEIF", ".dds": "DDS", ".qoi": "QOI"}
NOTE = "2 files hold images and are left out, such as camera (JPEG, but not by its extension)"


def encoded(form: str, level: int = 90) -> bytes:
    extensions()        # Registers HEIC.
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, two under other names, a hidden one, and files that hold none."""
    inputs = tmp_path / "in"
    inputs.mkdir()
    for i, name in enumerate(("a.jpg", "b.jfif", "camera", "scan.dat", ".hidden")):
        (inputs / name).write_bytes(encoded("JPEG", 40 * i))
    (inputs / "notes.txt").write_text("no image")
    (inputs / "empty").touch()
    return inputs


@pytest.mark.parametrize("suffix", [suffix for suffix, form in FORMATS.items() if extensions() and form in Image.SAVE])
def test_images_are_read_whatever_their_extension(suffix: str, tmp_path: Path) -> None:
    assert suffix in extensions()
    (tmp_path / f"x{suffix.upper()}").write_bytes(encoded(FORMATS[suffix]))
    source = open_source(tmp_path)
    assert list(source.names()) == [f"x{suffix.upper()}"]
    image = load_image(source, f"x{suffix.upper()}")
    assert abs(image.array[..., :3].astype(int) - 90).max() <= 2
    assert open_source(tmp_path / f"x{suffix.upper()}").names() == [f"x{suffix.upper()}"]


def test_what_pillow_does_not_decode_itself_is_no_image() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"
    with pytest.raises(ValueError, match="is a PostScript program, not an image"):
        open_image(postscript)


def as_zip(folder: Path) -> Path:
    path = folder.parent / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for each in sorted(folder.iterdir()):
            archive.write(each, each.name)
    return path


def as_url(folder: Path) -> str:
    if MemoryFileSystem().exists("/left-out"):      # It is one for all tests of a process.
        MemoryFileSystem().rm("/left-out", recursive=True)
    for each in folder.iterdir():
        MemoryFileSystem().pipe_file(f"/left-out/{each.name}", each.read_bytes())
    return "memory://left-out"


@pytest.mark.parametrize("where", [Path, as_zip, as_url], ids=["folder", "zip", "URL"])
def test_images_under_other_names_are_found(folder: Path, where: Callable[[Path], Path | str]) -> None:
    source = open_source(where(folder))
    assert list(source.names()) == ["a.jpg", "b.jfif"]
    found = find_left_out(source)
    assert sorted(found.misnamed) == [("camera", "JPEG"), ("scan.dat", "JPEG")]
    assert found.hidden == [".hidden"]
    assert found.note() == NOTE


@pytest.mark.parametrize("where", [Path, as_zip, as_url], ids=["folder", "zip", "URL"])
def test_archives_and_manifests_that_are_not_read_are_said(folder: Path, where: Callable[[Path], Path | str]) -> None:
    for name in ("more.zip", "more.tar.GZ", ".hidden.zip", "manifest.json", "Manifest.xlsx", "my.manifest.json"):
        (folder / name).write_bytes(b"?")
    assert find_left_out(open_source(where(folder))).note() == (
        f"{NOTE}; 2 archives within it are not opened, such as more.tar.GZ; Manifest.xlsx is not read; accepted: manifest.csv, manifest.tsv, manifest.jsonl")


def test_a_folder_of_archives_alone_says_so(tmp_path: Path, i2i: Run) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos.zip").write_bytes(b"PK")
    assert "data holds no images; 1 archive within it is not opened, such as photos.zip; accepted: " in i2i("train", "dcgan", "--data", "data").line


def test_a_check_names_archives_and_manifests_that_are_not_read(folder: Path, i2i: Run) -> None:
    (folder / "more.zip").touch()
    (folder / "manifest.json").touch()
    lines = " ".join(i2i("data", "check", folder).out.split())
    assert "1 archive not opened; it can be checked by itself more.zip" in lines
    assert "1 file named like a manifest, and not read; accepted: manifest.csv, manifest.tsv, manifest.jsonl manifest.json" in lines


@pytest.mark.parametrize(("form", "suffix"), [("BMP", "bmp"), ("PPM", "ppm"), ("PPM", "pgm"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp"), ("GIF", "gif")])
def test_images_without_an_extension_are_found_and_texts_are_not(form: str, suffix: str, tmp_path: Path) -> None:
    picture = Image.open(io.BytesIO(encoded(form))).convert("L" if suffix == "pgm" else "RGB")
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    picture.save(tmp_path / "scan", form)
    (tmp_path / "notes").write_text("BMW, P3 profiles and P5 Analysis")
    (tmp_path / "more").write_text("P5 Analysis of BM")
    assert [name for name, _ in find_left_out(open_source(tmp_path)).misnamed] == ["scan"]


def test_a_manifest_and_a_single_file_leave_nothing_out(folder: Path) -> None:
    (folder / "list.csv").write_text("file\na.jpg\n")
    for name in ("list.csv", "a.jpg"):
        assert find_left_out(open_source(folder / name)).note() == ""


def test_few_files_behind_a_url_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left_out, "MAX_REQUESTS", 2)
    assert len(find_left_out(open_source(as_url(folder))).misnamed) == 1
    assert find_left_out(open_source(folder)).note() == NOTE


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "check"])
def test_every_command_says_what_is_left_out(command: str, folder: Path, i2i: Run, trained: Path) -> None:
    arguments = {"train": ["train", "dcgan", "--data", folder, "--dry-run", "--device", "cpu"], "translate": ["translate", trained, folder, "--out", folder.parent / "out", "--device", "cpu"],
                 "evaluate": ["evaluate", "--real", folder, "--fake", folder, "--metrics", "l1"], "check": ["data", "check", folder]}[command]
    done = i2i(*arguments)
    assert done.code in (0, 1), done.err
    text = done.out + done.err
    if command == "check":
        assert "2 files containing an image, but skipped because of the extension" in text
        assert "camera (JPEG)" in text
    else:
        assert NOTE in text
        assert done.code == 0


def test_a_model_is_evaluated_with_the_same_warning(strips: Path, i2i: Run, trained: Path) -> None:
    (strips / "test" / "raw").write_bytes(encoded("PNG"))
    done = i2i("evaluate", trained, "--data", strips, "--metrics", "l1")
    assert done.code == 0, done.err
    assert "1 file holds an image and is left out, such as test/raw (PNG, but not by its extension)" in done.err


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "check"])
def test_where_no_image_is_left_the_reason_is_in_the_line(command: str, tmp_path: Path, i2i: Run, trained: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(encoded("PNG"))
    arguments = {"train": ["train", "dcgan", "--data", tmp_path / "in"], "translate": ["translate", trained, tmp_path / "in", "--out", tmp_path / "out"],
                 "evaluate": ["evaluate", "--real", tmp_path / "in", "--fake", tmp_path / "in"], "check": ["data", "check", tmp_path / "in"]}[command]
    done = i2i(*arguments)
    assert done.code == 2
    assert "holds no images; 1 file holds an image and is left out, such as x (PNG, but not by its extension); accepted: PNG, JPEG" in done.line


def test_a_folder_that_may_not_be_entered_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, who may enter all."""
    (folder / "closed").mkdir()
    usual = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(folder)
    assert list(source.names()) == ["a.jpg", "b.jfif"]
    assert find_left_out(source).note() == f"{NOTE}; 1 folder cannot be listed, such as {folder}/closed: Permission denied"


def test_without_pillow_heif_its_files_are_reported_with_the_remedy(folder: Path) -> None:
    (folder / "IMG_1.heic").write_bytes(encoded("HEIF"))
    (folder / "IMG_2.jpg").write_bytes(encoded("HEIF"))
    code = """
import sys
sys.modules["pillow_heif"] = None
from i2i.data.sources import Unreadable, find_left_out, load_image, open_source
source = open_source(sys.argv[1])
print(find_left_out(source).note())
try:
    load_image(source, "IMG_2.jpg")
except Unreadable as error:
    print(error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout.splitlines()
    assert done == ["3 files hold images and are left out, such as IMG_1.heic (HEIC: pip install 'i2i-toolkit[heif]')",
                    "is HEIC, which cannot be read: pip install 'i2i-toolkit[heif]'"]
    assert load_image(open_source(folder), "IMG_2.jpg").array.shape == (64, 64, 3)


@pytest.mark.parametrize(("data", "reason"), [
    (b"\xff\x0a" + bytes(40), "is JPEG XL, which cannot be read: convert it to PNG"), (b"%PDF-1.7", "is a PDF, not an image"), (b"PK\3\4" + bytes(9), "is a zip, not an image"),
    (b"\x89PNG\r\n\x1a\n", "is PNG, but its header is damaged"), (b"plain text", "not an image, or of an unknown format"), (b"", "empty file")])
def test_what_is_no_image_is_called_by_its_name(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(Unreadable) as error:
        load_image(open_source(tmp_path), "x.png")
    assert error.value.reason == reason


def test_an_option_is_named_where_a_set_is_empty(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"^--fake {tmp_path} holds no images; accepted: "):
        open_image_set(tmp_path, "--fake")
