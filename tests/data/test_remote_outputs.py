"""Outputs on URLs, through s3fs against a server of S3 on this machine: whole or not there, also where requests fail."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from i2i.data.sources import outputs
from i2i.data.sources import url as urls
from i2i.files import atomic_path, is_written, location_of
from tests.conftest import Run, drawing

EXPIRED = b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>'
pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@dataclass
class Server:
    """S3 on the loopback, whose answers to uploads go wrong on request."""

    faults: list[str] = field(default_factory=list)         # Of the next uploads: "500", "reset", "slow", "expired", or "" for none.
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.asked.append((method, f"{path}?{environ['QUERY_STRING']}"))
        fault = self.faults.pop(0) if method == "PUT" and path.count("/") > 1 and ".i2i-write-test" not in path and self.faults else ""
        if fault == "500":
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if fault == "expired":
            start("400 Bad Request", [("Content-Type", "application/xml"), ("Content-Length", str(len(EXPIRED)))])
            return [EXPIRED]
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
    outputs.downloaded.cache_clear()
    files = fsspec.filesystem("s3")
    if not files.exists("bucket"):
        files.mkdir("bucket")
    files.rm(files.ls("bucket"), recursive=True) if files.ls("bucket", refresh=True) else None
    server.faults.clear()
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
