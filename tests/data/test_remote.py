"""Images behind URLs: the same names, bytes and trainings as from a path; what is asked of the file system, and what it says when it fails."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry, known_implementations
from PIL import Image
from safetensors.numpy import load_file

from i2i.data.sources import Source, Unreadable, open_source
from i2i.data.sources import url as urls
from i2i.errors import RequestError
from tests.conftest import SMALL, Run, drawing


class Counted(MemoryFileSystem):
    """A file system that counts what is asked of it, and fails on request."""

    protocol = "counted"
    asked: ClassVar[list[tuple[str, str, int | None, int | None]]] = []
    failing: ClassVar[dict[str, int]] = {}      # The end of a name -> how many more requests for it fail.

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("counted://", "memory://")))

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        self.asked.append(("read", path, start, end))
        for name, times in self.failing.items():
            if path.endswith(name) and times > 0:
                self.failing[name] -= 1
                raise TimeoutError("the network is slow")
        return bytes(super().cat_file(path, start, end))

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.asked.append(("list", path, None, None))
        return super().find(path, *args, **kwargs)


class Awaited(AsyncFileSystem):
    """The memory's files by way of an event loop, as object stores are read: it does not survive a fork."""

    protocol = "awaited"

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        await asyncio.sleep(0.001)
        return bytes(MemoryFileSystem().cat_file(path, start, end))

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return dict(MemoryFileSystem().info(path))

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        return MemoryFileSystem().ls(path, detail=detail)


@pytest.fixture(autouse=True)
def _memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for each in (Counted, Awaited):
        fsspec.register_implementation(each.protocol, each, clobber=True)
    monkeypatch.setattr(urls, "RETRY_DELAYS", (0, 0, 0))
    yield
    MemoryFileSystem.store.clear()
    Counted.asked.clear()
    Counted.failing.clear()


def upload(folder: Path, url: str = "memory://set") -> str:
    """What is in a folder, below a URL."""
    files = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/{url.partition('://')[2]}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def packed(folder: Path) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return data.getvalue()


def contents(source: Source) -> dict[str, bytes]:
    return {name: source.read(name) for name in source.names()}


def test_a_url_holds_what_the_path_holds(strips: Path, tmp_path: Path) -> None:
    (strips / "notes.txt").write_text("no image")
    (strips / ".hidden.png").write_bytes(b"")
    (strips / "list.csv").write_text("a,b\ntrain/01.png,train/02.png\n")
    (tmp_path / "set.zip").write_bytes(packed(strips))
    upload(tmp_path, "memory://base")
    for inner in ("strips", "strips/train", "strips/train/03.png", "strips/list.csv", "set.zip", "set.zip/strips", "set.zip/strips/train", "set.zip/strips/list.csv"):
        plain = open_source(tmp_path / inner)
        for url in (f"memory://base/{inner}", f"memory://base/{inner}/", f"file://{tmp_path}/{inner}"):
            if url.endswith((".csv/", ".png/")):
                continue
            behind = open_source(url)
            assert contents(behind) == contents(plain)
            assert behind.root == url.rstrip("/")
            assert (behind.manifest() is None) == (plain.manifest() is None)
            assert behind.local == (plain.local if url.startswith("file") else None)
    assert open_source("memory://base/strips").read_metadata("nothing.json") is None
    assert open_source("memory://base/strips").read_metadata("notes.txt") == b"no image"


def test_a_folder_is_listed_once_and_a_zip_is_read_by_ranges(strips: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/set.zip", packed(strips) + b"")
    upload(strips)
    contents(open_source("counted://set"))
    assert sum(what == "list" for what, *_ in Counted.asked) == 1
    Counted.asked.clear()
    archive = open_source("counted://set.zip")
    whole = len(fsspec.filesystem("memory").cat_file("/set.zip"))
    before = len(Counted.asked)
    names = archive.names()
    assert len(Counted.asked) == before     # The directory is in memory.
    for name in names:
        archive.read(name)
    ranges = [(start, end) for _, _, start, end in Counted.asked[before:]]
    assert len(ranges) == len(names)        # One request each,
    assert all(end - start < whole / len(names) + 1024 for start, end in ranges if start is not None and end is not None)     # of about its size.


def test_a_member_with_a_long_header_and_one_larger_than_a_request(tmp_path: Path) -> None:
    data, big = io.BytesIO(), np.random.default_rng(0).bytes(700_000)
    with zipfile.ZipFile(data, "w") as archive:
        info = zipfile.ZipInfo("padded.png")
        info.extra = b"\xfe\xca" + (5000).to_bytes(2, "little") + bytes(5000)
        archive.writestr(info, b"x" * 3000)
        archive.writestr("big.png", big)
    for before in (b"", b"something before the zip"):
        fsspec.filesystem("memory").pipe_file("/odd.zip", before + data.getvalue())
        assert contents(open_source("memory://odd.zip")) == {"padded.png": b"x" * 3000, "big.png": big}


def test_a_request_that_fails_is_made_again_and_one_that_keeps_failing_names_the_url(strips: Path) -> None:
    upload(strips)
    source = open_source("counted://set")
    Counted.failing["train/01.png"] = 3
    assert source.read("train/01.png") == (strips / "train" / "01.png").read_bytes()
    Counted.failing["train/01.png"] = 4
    with pytest.raises(Unreadable, match=r"train/01\.png: the network is slow"):
        source.read("train/01.png")
    Counted.asked.clear()
    with pytest.raises(Unreadable, match="there is no such file"):
        source.read("train/gone.png")
    assert len(Counted.asked) == 1      # What is not there is not asked for again.


@pytest.mark.parametrize(("url", "line"), [
    ("memory://nothing", "memory://nothing does not exist; accepted: a folder, a zip, a manifest or an image"),
    ("file:///nothing/here", "file:///nothing/here does not exist"),
    ("memory://set/notes.txt", "memory://set/notes.txt is not a folder, a shard (.tar, .parquet)"),
    ("memory://set/bad.zip", "memory://set/bad.zip cannot be read as a zip: File is not a zip file"),
    ("memory://set/bad.zip/train", "memory://set/bad.zip cannot be read as a zip: File is not a zip file"),
    ("unheard://of", "unheard://of cannot be read by unheard: Protocol not known: unheard"),
    ("sftp://me:secret@host/photos", "a URL with a password"),
    ("lost://bucket/photos", "lost://bucket/photos cannot be read: Install lostfs to read lost; install it with pip beside i2i"),
    ("s3://bucket/photos", "s3://bucket/photos cannot be read: Install s3fs to access S3; pip install 'i2i-toolkit[remote]'")])
def test_a_url_that_cannot_be_used_is_one_line(url: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "lost", {"class": "lostfs.Lost", "err": "Install lostfs to read lost"})
    monkeypatch.setitem(known_implementations, "s3", {"class": "nothing_s3fs.S3", "err": "Install s3fs to access S3"})
    monkeypatch.delitem(_registry, "s3", raising=False)       # Other tests have loaded the real one.
    urls._file_system.cache_clear()
    fsspec.filesystem("memory").pipe_file("/set/notes.txt", b"no image")
    fsspec.filesystem("memory").pipe_file("/set/bad.zip", b"no zip")
    with pytest.raises(RequestError) as error:
        open_source(url)
    assert line in str(error.value)
    assert "secret" not in str(error.value)


def test_only_a_path_will_do_where_something_is_written(i2i: Run, trained: Path, strips: Path) -> None:
    upload(strips)
    assert "--out memory://out is a URL, and this needs a local folder" in i2i("train", "pix2pix", "--data", strips, "--out", "memory://out").line
    assert "--out memory://x.pt2 is a URL; accepted: a local file" in i2i("export", trained, "--out", "memory://x.pt2").line
    assert "--out memory://x is a URL" in i2i("convert", trained, "--to", "cut", "--out", "memory://x").line


# ---------------------------------------------------------------------------------------------- commands

def learned(run: Path) -> tuple[dict[str, bytes], bytes]:
    """Every tensor of a run's last state, and its log."""
    last = sorted(run.glob("state-*.safetensors"))[-1]
    return {name: value.tobytes() for name, value in load_file(last).items()}, (run / "log.jsonl").read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_training_from_a_url_is_that_from_the_path(workers: int, i2i: Run, strips: Path, tmp_path: Path) -> None:
    (tmp_path / "set.zip").write_bytes(packed(strips))
    upload(tmp_path, "memory://base")
    sources = {"plain": strips, "file": f"file://{strips}", "awaited": "awaited:///base/strips"}
    if not workers:
        sources |= {"memory": "memory://base/strips", "zip": f"file://{tmp_path}/set.zip/strips"}
    for name, source in sources.items():
        done = i2i("train", "pix2pix", *SMALL, "train.images=12", f"train.num_workers={workers}", "--data", source, "--out", tmp_path / name, "--device", "cpu")
        assert done.code == 0, done.err
        assert learned(tmp_path / name) == learned(tmp_path / "plain")
    sorted((tmp_path / "file").glob("state-*"))[-1].unlink()
    done = i2i("train", "--resume", tmp_path / "file", "--device", "cpu")
    assert done.code == 0, done.err
    assert learned(tmp_path / "file") == learned(tmp_path / "plain")
    assert json.loads((tmp_path / "file" / "config.json").read_text())["data"]["where"] == f"file://{strips}"


def test_on_error_holds_for_urls(i2i: Run, strips: Path, tmp_path: Path) -> None:
    upload(strips)
    arguments = ["train", "pix2pix", *SMALL, "train.images=20", "--data", "counted://set", "--device", "cpu", "data.size=32"]
    Counted.failing["train/07.png"] = 1000
    stopped = i2i(*arguments, "--out", tmp_path / "stop")
    assert stopped.line == "error: counted://set/train/07.png: the network is slow"
    passed = i2i(*arguments, "--out", tmp_path / "skip", "--on-error", "skip")
    assert passed.code == 0, passed.err
    assert "counted://set/train/07.png" in (tmp_path / "skip" / "skipped.jsonl").read_text()


def test_translate_check_and_evaluate_read_urls(i2i: Run, trained: Path, strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        (tmp_path / "in" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawing(i)[:, :32]).save(tmp_path / "in" / "deep" / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    results = {}
    for name, source in (("plain", tmp_path / "in"), ("memory", upload(tmp_path / "in", "memory://in")), ("file", f"file://{tmp_path}/in"),
                         ("here", upload(tmp_path / "in", "memory://in"))):
        out = tmp_path / "out" / name if name != "here" else Path(".")
        done = i2i("translate", trained, source, "--out", out, "--device", "cpu")
        assert done.code == 0, done.err
        results[name] = {i: (out / "deep" / f"{i}.png").read_bytes() for i in range(3)}
        assert results[name] == results["plain"]
    assert "would overwrite the inputs" in i2i("translate", trained, f"file://{tmp_path}/in", "--out", tmp_path / "in", "--device", "cpu").line
    upload(strips)
    (strips / "train" / "image.dat").write_bytes((strips / "train" / "01.png").read_bytes())
    upload(strips)
    reports = [i2i("data", "check", where).out for where in (strips, "memory://set")]
    steady = [[line for line in text.splitlines() if not line.startswith("per 1,000")] for text in (reports[0].replace(str(strips), "memory://set"), reports[1])]
    assert steady[0] == steady[1]
    assert "image.dat" in reports[1]
    scores = [i2i("evaluate", "--real", real, "--fake", fake, "--metrics", "l1").out.splitlines()[1:]
              for real, fake in ((strips / "test", strips / "test"), ("memory://set/test", "memory://set/test"))]
    assert scores[0] == scores[1]
    pairs = [i2i("evaluate", trained, "--data", where, "--metrics", "l1").out.splitlines()[1:] for where in (strips, "memory://set")]
    assert pairs[0] == pairs[1] != []
