"""Outputs on URLs, and shards from them, through s3fs against a server of S3 on this machine: whole or not there, also where requests fail."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from i2i.data.sources import load_image, open_source, outputs
from i2i.data.sources import url as urls
from i2i.files import atomic_path, is_written, location_of
from tests.conftest import SMALL, Run, drawing
from tests.data.test_shards import learned, parquet, tar

EXPIRED = b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>'
pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@dataclass
class Server:
    """S3 on the loopback, whose answers to uploads, or downloads, go wrong on request."""

    method: str = "PUT"
    faults: list[str] = field(default_factory=list)         # Of the next uploads: "500", "reset", "slow", "expired", "cut", or "" for none.
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, f"{path}?{environ['QUERY_STRING']}"))
        fault = self.faults.pop(0) if method == self.method and path.count("/") > 1 and ".i2i-write-test" not in path and self.faults else ""
        if fault == "500":
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if fault == "expired":
            start("400 Bad Request", [("Content-Type", "application/xml"), ("Content-Length", str(len(EXPIRED)))])
            return [EXPIRED]
        if fault == "cut":
            body = b"".join(self.moto(environ, start))      # With the length of all of it.
            return [body[:len(body) // 2]]
        if fault == "slow":
            time.sleep(4)
        if fault == "reset":
            environ["werkzeug.socket"].close()
            raise ConnectionResetError
        return self.moto(environ, start)

    def start(self) -> Any:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server
        self.moto = DomainDispatcherApplication(create_backend_app)
        server = make_server("127.0.0.1", 0, self, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, int]]:
    server = Server()
    http = server.start()
    with urllib.request.urlopen(f"http://127.0.0.1:{http.server_port}/", timeout=120):      # The first answer takes long.
        pass
    yield server, http.server_port
    http.shutdown()


@pytest.fixture
def bucket(running: tuple[Server, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Server, Any]]:
    server, port = running
    settings = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "testing", "secret": "testing",
                "config_kwargs": {"read_timeout": 3, "connect_timeout": 3, "retries": {"max_attempts": 0}, "parameter_validation": False}}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    monkeypatch.setattr(urls, "RETRY_DELAYS", (0.01, 0.02, 0.03))
    monkeypatch.setattr(s3fs.core.S3FileSystem, "retries", 1)        # So that ours are what is tested.
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    urls._file_system.cache_clear()
    files = fsspec.filesystem("s3")
    if not files.exists("bucket"):
        files.mkdir("bucket")
    files.rm(files.ls("bucket"), recursive=True) if files.ls("bucket", refresh=True) else None
    server.faults.clear()
    server.method = "PUT"
    server.asked.clear()
    yield server, files
    files.invalidate_cache()


def held(files: Any, folder: str = "bucket") -> dict[str, bytes]:
    files.invalidate_cache()
    return {name.removeprefix(f"{folder}/"): files.cat_file(name) for name in files.find(folder)}


def inputs(folder: Path, n: int = 4) -> Path:
    (folder / "deep").mkdir(parents=True)
    for i in range(n):
        Image.fromarray(drawing(i)[:, :32]).save(folder / "deep" / f"{i}.png")
    return folder


def encode(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG")
    return file.getvalue()


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_translations_by_a_model_in_a_bucket_go_into_the_bucket(bucket: tuple[Server, Any], i2i: Run, trained: Path, tmp_path: Path) -> None:
    server, files = bucket
    source = inputs(tmp_path / "in")
    files.put(str(trained / "model.safetensors"), "bucket/run/model.safetensors")
    assert i2i("translate", trained, source, "--out", tmp_path / "out", "--device", "cpu").code == 0
    server.faults[:] = ["500", "reset", "slow"]         # Each is repeated, and nobody need know.
    for model in ("s3://bucket/run/model.safetensors", "s3://bucket/run"):
        done = i2i("translate", model, source, "--out", "s3://bucket/out", "--device", "cpu")
        assert done.code == 0, done.err
        assert "4 translated -> s3://bucket/out" in done.out
        assert held(files, "bucket/out") == written(tmp_path / "out")
    assert server.faults == []
    files.rm("bucket/out/deep/2.png")
    server.asked.clear()
    done = i2i("translate", trained, source, "--out", "s3://bucket/out", "--skip-existing", "--device", "cpu")
    assert "1 translated, 3 there already" in done.out
    assert sum("list-type" in path and "prefix=out" in path for _, path in server.asked) == 1
    assert held(files, "bucket/out") == written(tmp_path / "out")
    assert i2i("translate", "s3://bucket/run@best", source, "--out", tmp_path / "x").line == (
        "error: s3://bucket/run/best.safetensors cannot be read: there is no such file")
    assert "would overwrite the inputs" in i2i("translate", trained, "s3://bucket/out", "--out", "s3://bucket/out", "--device", "cpu").line


def test_a_clip_in_a_bucket_becomes_one_in_the_bucket(bucket: tuple[Server, Any], i2i: Run, trained: Path, tmp_path: Path) -> None:
    _, files = bucket
    first, *others = (Image.fromarray(drawing(i)[:, :32]) for i in range(3))
    first.save(tmp_path / "x.gif", save_all=True, append_images=others, duration=80)
    files.put(str(tmp_path / "x.gif"), "bucket/x.gif")
    for source, out in ((tmp_path / "x.gif", tmp_path / "local.gif"), ("s3://bucket/x.gif", "s3://bucket/made.gif")):
        done = i2i("translate", trained, source, "--out", out, "--device", "cpu")
        assert done.out.startswith(f"3 frames translated -> {out}"), done.err
    assert held(files)["made.gif"] == (tmp_path / "local.gif").read_bytes()
    assert i2i("translate", trained, "s3://bucket/y.gif", "--out", "z.gif").line == "error: s3://bucket/y.gif cannot be read: there is no such file"


def test_a_job_whose_credentials_expire_says_so_in_a_line_and_is_continued(bucket: tuple[Server, Any], i2i: Run, trained: Path, tmp_path: Path) -> None:
    server, files = bucket
    source = inputs(tmp_path / "in")
    server.faults[:] = ["", *["expired"] * 50]
    stopped = i2i("translate", trained, source, "--out", "s3://bucket/out", "--batch", 1, "--device", "cpu")
    assert stopped.code == 1
    assert "The provided token has expired" in stopped.line
    assert "continue with --skip-existing" in stopped.line
    assert len(held(files, "bucket/out")) == 1
    assert len(server.faults) >= 46         # Not asked again and again.
    server.faults.clear()
    server.method = "PUT"
    assert "3 translated, 1 there already" in i2i("translate", trained, source, "--out", "s3://bucket/out", "--skip-existing", "--device", "cpu").out
    refused = i2i("translate", trained, source, "--out", "s3://nobucket/out", "--device", "cpu")
    assert refused.code == 2
    assert refused.line.startswith("error: --out s3://nobucket/out cannot be written")


def test_what_cannot_be_uploaded_is_not_there(bucket: tuple[Server, Any], tmp_path: Path) -> None:
    server, files = bucket
    folder = outputs.output_folder("--out", "s3://bucket/out")
    target = folder / "a" / "b.bin"
    assert location_of(target) == "s3://bucket/out/a/b.bin"
    server.faults[:] = ["500"] * 4
    with pytest.raises(OSError, match="Internal Server Error"), atomic_path(target) as part:
        part.write_bytes(b"1")
    assert held(files) == {}
    with pytest.raises(TypeError), atomic_path(target) as part, open(part, "wb") as file:
        file.writelines([b"half", None])        # type: ignore[list-item]
    assert held(files) == {}
    with atomic_path(target) as part:
        part.write_bytes(b"whole")
    assert held(files) == {"out/a/b.bin": b"whole"}
    assert list(folder.rglob("*.bin")) == []
    assert is_written(target)


def test_results_of_an_evaluation_and_a_report_go_into_the_bucket(bucket: tuple[Server, Any], i2i: Run, trained: Path, strips: Path) -> None:
    _, files = bucket
    done = i2i("evaluate", trained, "--data", strips, "--metrics", "l1", "--json", "s3://bucket/e.json", "--sheet", "s3://bucket/deep/sheet.png")
    assert done.code == 0, done.err
    assert json.loads(held(files)["e.json"])["results"]["l1"]["value"] > 0
    assert held(files)["deep/sheet.png"].startswith(b"\x89PNG")
    reals = ("evaluate", "--features", "random", "--metrics", "fd", "--fake", strips / "test", "--real")
    done = i2i(*reals, strips / "train", "--save-statistics", "s3://bucket/reals.npz", "--bootstrap", 0)
    assert done.code == 0, done.err
    again = i2i(*reals, "s3://bucket/reals.npz")
    assert [line.split()[1] for line in again.out.splitlines() if line.startswith("fd_random")] == [
        line.split()[1] for line in done.out.splitlines() if line.startswith("fd_random")]
    assert "s3://bucket/nothing.npz cannot be read: there is no such file" in i2i(*reals, "s3://bucket/nothing.npz").line
    done = i2i("report", trained, "--out", "s3://bucket/report.html")
    assert done.out.startswith("s3://bucket/report.html (")
    assert b"</html>" in held(files)["report.html"]
    assert "names no file" in i2i("report", trained, "--out", "s3://bucket/").line
    assert "is a URL, and this needs a local folder" in i2i("train", "pix2pix", "--data", strips, "--out", "s3://bucket/run").line


def test_sheets_films_and_tables_go_into_the_bucket(bucket: tuple[Server, Any], i2i: Run, noisy: dict[str, Path], tmp_path: Path) -> None:
    _, files = bucket
    model, source = next(iter(noisy.values())), inputs(tmp_path / "in", 2)
    for words in (("explore", "interpolate", model, "--grid", "2x2", "--out", "s3://bucket/sheet.png"), ("explore", "walk", model, "--frames", 4, "--out", "s3://bucket/walk.mp4"),
                  ("score", model, source, "--csv", "s3://bucket/scores.csv")):
        done = i2i(*words, "--device", "cpu")
        assert done.code == 0, done.err
        assert words[0] == "score" or done.out == f"{words[-1]}\n"
    found = held(files)
    assert found["sheet.png"].startswith(b"\x89PNG")
    assert b"ftyp" in found["walk.mp4"][:16]
    assert found["scores.csv"].count(b"\n") == 3


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_a_generated_set_is_uploaded_when_it_is_whole(name: str, bucket: tuple[Server, Any], i2i: Run, noisy: dict[str, Path], tmp_path: Path) -> None:
    server, files = bucket
    model = next(iter(noisy.values()))
    assert i2i("generate", model, "--n", 6, "--out", tmp_path / name, "--device", "cpu").code == 0
    expected = written(tmp_path / name) if name == "set" else {"": (tmp_path / name).read_bytes()}
    command = ["generate", model, "--n", 6, "--out", f"s3://bucket/{name}", "--device", "cpu"]
    server.faults[:] = ["expired"] * 50
    stopped = i2i(*command)
    assert stopped.code == 1
    assert "the same command uploads it" in stopped.line
    server.faults.clear()
    done = i2i(*command)
    assert done.code == 0, done.err
    assert "0 generated, 6 there already" in done.out
    found = held(files, f"bucket/{name}") if name == "set" else {"": held(files)[name]}
    assert found == expected
    assert not any((tmp_path / "cache" / "outputs").iterdir())
    assert "is there already; accepted: a new folder or file" in i2i(*command).line


def shards(files: Any, folder: Path) -> dict[str, list[np.ndarray]]:
    """Two tar shards of pairs in the bucket, and what they hold."""
    sides = {"a": [drawing(i)[:, :32] for i in range(8)], "b": [drawing(i)[:, 32:] for i in range(8)]}
    for number in range(2):
        path = tar(folder / f"train-{number:03}.tar", {f"{i}.{side}.png": encode(sides[side][i]) for i in range(4 * number, 4 * number + 4) for side in "ab"})
        files.put(str(path), f"bucket/set/{path.name}")
    return sides


def test_a_training_from_shards_in_a_bucket_is_that_from_the_files_and_fetches_each_once(bucket: tuple[Server, Any], i2i: Run, tmp_path: Path) -> None:
    server, files = bucket
    shards(files, tmp_path / "set")
    words = ["train", "pix2pix", *SMALL, "train.images=12", "--device", "cpu"]
    assert i2i(*words, "--data", tmp_path / "set", "--out", tmp_path / "local").code == 0
    server.method, server.faults[:] = "GET", ["500", "cut", "reset"]
    for data in ("s3://bucket/set", "s3://bucket/set/train-{000..001}.tar"):
        server.asked.clear()
        done = i2i(*words, "train.num_workers=2", "--data", data, "--out", tmp_path / "remote")
        assert done.code == 0, done.err
        assert learned(tmp_path / "remote") == learned(tmp_path / "local")
        assert sum(method == "GET" and ".tar" in path for method, path in server.asked) == (5 if data.endswith("set") else 0)
        sorted((tmp_path / "remote").glob("state-*"))[-1].unlink()
        assert i2i("train", "--resume", tmp_path / "remote", "--device", "cpu").code == 0
        assert learned(tmp_path / "remote") == learned(tmp_path / "local")
        shutil.rmtree(tmp_path / "remote")
    assert server.faults == []
    assert "s3://bucket/set/train-002.tar cannot be read: there is no such file" in i2i("data", "check", "s3://bucket/set/train-{000..002}.tar").line
    assert f"{tmp_path}/set/train-002.tar does not exist" in i2i("data", "check", f"{tmp_path}/set/train-{{000..002}}.tar").line


def test_what_is_wrong_with_a_shard_in_a_bucket_is_a_line_and_leaves_nothing(bucket: tuple[Server, Any], i2i: Run, tmp_path: Path) -> None:
    server, files = bucket
    shards(files, tmp_path / "set")
    server.method = "GET"
    for fault, said in (("expired", "The provided token has expired"), ("cut", "")):
        server.faults[:] = [fault] * 50
        refused = i2i("data", "check", "s3://bucket/set/train-001.tar")
        assert refused.code == 2
        assert refused.line.startswith("error: s3://bucket/set/train-001.tar cannot be read: ")
        assert said in refused.line
        assert not [path for path in written(tmp_path / "cache") if ".tar" in path]
    server.faults.clear()
    whole = files.cat_file("bucket/set/train-001.tar")
    files.pipe_file("bucket/set/train-001.tar", whole[:5000])
    assert "error: s3://bucket/set/train-001.tar cannot be read as a tar: " in i2i("data", "check", "s3://bucket/set").line
    files.pipe_file("bucket/set/train-001.tar", whole)
    done = i2i("data", "check", "s3://bucket/set")
    assert "8 train pairs" in done.out, done.out + done.err


def test_arrays_and_parquet_in_a_bucket_are_sets_of_images(bucket: tuple[Server, Any], tmp_path: Path) -> None:
    _, files = bucket
    images = np.stack([drawing(i) for i in range(3)])
    np.save(tmp_path / "x.npy", images)
    np.savez_compressed(tmp_path / "x.npz", images=images)
    parquet(tmp_path / "x.parquet", {"image": [encode(each) for each in images]})
    for name in ("x.npy", "x.npz", "x.parquet"):
        files.put(str(tmp_path / name), f"bucket/{name}")
        source = open_source(f"s3://bucket/{name}")
        names = list(source.names())
        assert source.root == f"s3://bucket/{name}"
        assert [load_image(source, name).array.tolist() for name in names] == images.tolist()
