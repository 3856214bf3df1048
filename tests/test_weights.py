"""Where weights files are looked for, and what is said of wrong and absent ones."""

from __future__ import annotations

import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from i2i.errors import JobError, RequestError
from i2i.metrics import weights as feature_weights


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the catalog takes for the Inception weights."""
    file = tmp_path / "mine.bin"
    file.write_bytes(b"weights " * 1000)
    known = feature_weights.catalog()
    known["inception"] = replace(known["inception"], sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(feature_weights, "catalog", lambda: known)
    return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_the_catalogue_is_whole() -> None:
    for known in feature_weights.catalog().values():
        assert len(known.sha256) == 64
        assert known.url.startswith("https://")
        assert known.license
        if known.file.endswith(".pth"):
            assert known.sha256.startswith(known.file.rsplit("-", 1)[1].split(".")[0])      # torch names files by their checksum.


def test_what_comes_with_the_package_is_found_and_right() -> None:
    assert feature_weights.find_weights("lpips-lin").name == "lpips-lin-v0.1.npz"
    assert feature_weights.find_weights("efficientnet-lite0").suffix == ".pth"


def test_a_user_without_a_home_has_what_comes_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers: neither HOME is set, nor is there an entry of the user."""
    for name in ("I2I_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert feature_weights.find_weights("lpips-lin").name == "lpips-lin-v0.1.npz"
    assert feature_weights.locate_weights("squeezenet") is None
    with pytest.raises(OSError, match="Not a directory|File exists"):
        (feature_weights.cache_folder() / "references").mkdir(parents=True, exist_ok=True)


def test_absent_weights_name_file_checksum_and_place(cache: Path) -> None:
    with pytest.raises(RequestError) as caught:
        feature_weights.find_weights("inception")
    for part in ("pt_inception-2015-12-05-6726825d.pth", "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", str(cache),
                 "https://", "i2i weights fetch inception", "--weights"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="no weights are called 'incepton'; did you mean 'inception'"):
        feature_weights.find_weights("incepton")


def test_the_order_is_given_then_cache_then_shipped(small: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = feature_weights.catalog_entry("inception").file
    monkeypatch.setattr(feature_weights, "bundled_weights", lambda: tmp_path / "shipped")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / name).write_bytes(small.read_bytes())
    assert feature_weights.find_weights("inception") == tmp_path / "shipped" / name
    cache.mkdir(parents=True)
    (cache / name).write_bytes(small.read_bytes())
    assert feature_weights.find_weights("inception") == cache / name
    assert feature_weights.find_weights("inception", small) == small
    with pytest.raises(RequestError, match="does not exist"):
        feature_weights.find_weights("inception", tmp_path / "nowhere.pth")
    small.write_bytes(small.read_bytes()[:-1])
    with pytest.raises(RequestError, match=r"mine\.bin is not pt_inception.*truncated, or another file"):
        feature_weights.find_weights("inception", small)
    (cache / name).write_bytes(b"")
    with pytest.raises(RequestError, match="truncated"):       # A damaged file is named, not passed over.
        feature_weights.find_weights("inception")


def test_adding_a_file_finds_out_what_it_is(small: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / ".killed.7.7.part").touch()
    os.utime(cache / ".killed.7.7.part", (0, 0))
    known, where = feature_weights.add_weights(small)
    assert (known.name, where.parent) == ("inception", cache)
    assert where.read_bytes() == small.read_bytes()
    assert [path.name for path in cache.iterdir()] == [known.file]
    small.write_bytes(b"something else")
    with pytest.raises(RequestError, match="is none of the known weights"):
        feature_weights.add_weights(small)
    with pytest.raises(RequestError, match="is not vgg16"):
        feature_weights.add_weights(small, "vgg16")


def test_fetching_checks_what_came(small: Path, cache: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"inception": replace(feature_weights.catalog_entry("inception"), url=f"{server}/w.bin")}
    monkeypatch.setattr(feature_weights, "catalog", lambda: known)
    with pytest.raises(JobError, match=r"could not be fetched \(.*404"):
        feature_weights.download_weights("inception")
    (tmp_path / "served" / "w.bin").write_bytes(b"a page that is not the file")
    with pytest.raises(JobError, match="is not pt_inception"):
        feature_weights.download_weights("inception")
    assert not list(cache.iterdir())
    (tmp_path / "served" / "w.bin").write_bytes(small.read_bytes())
    assert feature_weights.download_weights("inception")[1].read_bytes() == small.read_bytes()
    (tmp_path / "served" / "w.bin").unlink()
    assert feature_weights.download_weights("inception")[1].exists()        # There already: nothing is asked.
    known["inception"] = replace(known["inception"], url="http://127.0.0.1:9/w.bin", sha256="0" * 64)
    with pytest.raises(JobError, match=r"could not be fetched .*put pt_inception.*0000"):
        feature_weights.download_weights("inception")
