"""Models of the Hugging Face Hub, against a server on this machine that answers as the Hub does, and its cache."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image

from i2i import load
from i2i.errors import JobError, RequestError
from i2i.inference import hub
from i2i.inference.model_file import is_model

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


class FakeHub(BaseHTTPRequestHandler):
    """What the library asks when it uploads small files and downloads one; https://huggingface.co/docs/hub/api."""

    repositories: dict[str, dict[str, bytes]]
    requests: list[str]

    def log_message(self, *words: object) -> None:
        pass

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        repo, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if repo == "closed/gated":
            return self.answer(403, X_Error_Code="GatedRepo", X_Error_Message="Access to model closed/gated is restricted")
        if repo not in self.repositories:
            return self.answer(404, X_Error_Code="RepoNotFound")
        if revision not in ("main", "v1"):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if file not in self.repositories[repo]:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit="c" * 40)
        data = self.repositories[repo][file]
        return self.answer(200, data, ETag=f'"{hashlib.sha1(data).hexdigest()}"', X_Repo_Commit=hashlib.sha1(data).hexdigest())

    do_GET = do_HEAD

    def do_POST(self) -> None:
        self.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials in Authorization header"})
        kind = self.path.split("/")[-2] if "models" in self.path else self.path
        repo = "/".join(self.path.split("/")[3:5])
        if kind == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            if name.startswith("others/"):
                return self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
            status = 409 if name in self.repositories else 200
            self.repositories.setdefault(name, {})
            return self.answer(status, {"url": f"http://{self.headers['Host']}/{name}"})
        if kind == "preupload":
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        if kind == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[repo][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(200, {"commitUrl": f"http://{self.headers['Host']}/{repo}/commit/{'c' * 40}", "commitOid": "c" * 40})
        return self.answer(200, {"errors": [], "warnings": []})         # validate-yaml


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """The Hub on this machine, and an empty cache."""
    handler = type("Handler", (FakeHub,), {"repositories": {}, "requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        use_endpoint(monkeypatch, f"http://127.0.0.1:{httpd.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield handler
        httpd.shutdown()
        thread.join()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """What the environment variable HF_ENDPOINT would have done when the library was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def test_a_pushed_model_is_loaded_translates_and_is_pulled(trained: Path, server: type[FakeHub], i2i, tmp_path: Path) -> None:
    out = i2i("push", trained, "me/boxes", "--license", "cc-by-4.0")
    assert out.code == 0, out.err
    assert "/me/boxes  (load it with hf:me/boxes)" in out.out
    files = server.repositories["me/boxes"]
    assert set(files) == {"model.safetensors", "config.json", "README.md", "samples.png"}
    config = json.loads(files["config.json"])
    assert (config["library_name"], config["recipe"]["name"], config["data"]) == ("i2i", "pix2pix", "data")     # Not the folder that it was in.
    page = files["README.md"].decode()
    head, body = page.split("---\n")[1:3]
    assert head == "library_name: i2i\npipeline_tag: image-to-image\nlicense: cc-by-4.0\ntags:\n- i2i\n- pix2pix\n"
    assert all(words in body for words in ("# boxes", "![samples](samples.png)", 'load("hf:me/boxes")', "| images seen | 24 |", "## What was not tested", "i2i evaluate RUN"))
    assert str(trained.parent) not in page + files["config.json"].decode()
    assert str(trained.parent).encode() not in files["model.safetensors"]

    model, original = load("hf:me/boxes", "cpu"), load(trained, "cpu")
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(model(x), original(x))
    Image.new("RGB", (40, 33), "white").save(tmp_path / "input.png")
    assert i2i("translate", "hf:me/boxes@main", "input.png", "--out", "made").code == 0
    assert np.asarray(Image.open(tmp_path / "made" / "input.png")).shape == (33, 40, 3)
    assert is_model("hf:me/boxes")

    assert i2i("pull", "me/boxes").out == "boxes.safetensors\n"
    assert torch.equal(load(tmp_path / "boxes.safetensors", "cpu")(x), original(x))
    assert "exists already" in i2i("pull", "hf:me/boxes").line
    assert i2i("push", tmp_path / "boxes.safetensors", "me/boxes").code == 0         # Again, and without a run folder.
    assert "was not tested" in files["README.md"].decode()
    assert "license" not in files["README.md"].decode()


def test_a_model_that_was_downloaded_works_without_a_network(trained: Path, server: type[FakeHub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.repositories["me/boxes"] = {"model.safetensors": (trained / "model.safetensors").read_bytes()}
    first = load("hf:me/boxes", "cpu")
    for offline in (False, True):
        use_endpoint(monkeypatch, "http://127.0.0.1:9")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        asked = len(server.requests)
        assert load("hf:me/boxes", "cpu").path == first.path
        assert len(server.requests) == asked
        with pytest.raises(JobError, match="hf:me/other was not downloaded before, and " + ("HF_HUB_OFFLINE is set" if offline else "http://127.0.0.1:9 cannot be reached")):
            load("hf:me/other")


def test_a_newer_model_replaces_the_one_that_was_downloaded(noisy: dict[str, Path], trained: Path, server: type[FakeHub]) -> None:
    server.repositories["me/boxes"] = {"model.safetensors": (trained / "model.safetensors").read_bytes()}
    assert load("hf:me/boxes", "cpu").directions
    server.repositories["me/boxes"] = {"model.safetensors": (noisy["classes"] / "model.safetensors").read_bytes()}
    assert not load("hf:me/boxes", "cpu").directions


def test_a_generator_has_a_page_of_its_kind(noisy: dict[str, Path], server: type[FakeHub], i2i) -> None:
    assert i2i("push", noisy["classes"], "me/some-images", "--private").code == 0
    page = server.repositories["me/some-images"]["README.md"].decode()
    assert "pipeline_tag: unconditional-image-generation" in page
    assert "model.generate(16)" in page
    assert "| classes | red, train, blue/green |" in page
    assert server.repositories["me/some-images"]["samples.png"].startswith(b"\x89PNG")
    assert load("hf:me/some-images", "cpu").generate(2).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(("model", "words"), [
    ("hf:nobody/nothing", ("hf:nobody/nothing does not exist, or is private", "hf auth login")),
    ("hf:closed/gated", ("conditions", "https://huggingface.co/closed/gated")),
    ("hf:me/empty", ("hf:me/empty has no model.safetensors, so it is no model of i2i",)),
    ("hf:me/empty@v7", ("hf:me/empty has no revision v7",)),
    ("hf:me/other", ("not one of i2i",)), ("hf:me/broken", ("damaged",)),
    *((f"hf:{name}", ("is no name of a model on the Hub", "USER/NAME")) for name in ("", "one", "a/b/c", "../x", "a/../b", "a b/c", "ä/b", "a/b--c", "a/" + "x" * 97))])
def test_what_is_no_model_on_the_hub_is_one_line(model: str, words: tuple[str, ...], server: type[FakeHub], i2i, tmp_path: Path) -> None:
    from safetensors.torch import save
    server.repositories |= {"me/empty": {}, "me/other": {"model.safetensors": save({"x": torch.zeros(2)})}, "me/broken": {"model.safetensors": b"<html>"}}
    for out in (i2i("translate", model, ".", "--out", "made"), i2i("pull", model, "--out", "x.safetensors")):
        assert out.code == 2
        assert all(word in out.line for word in words), out.line
    assert not list(tmp_path.glob("*.safetensors"))


def test_what_cannot_be_pushed_is_one_line(trained: Path, server: type[FakeHub], i2i, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is no name of a model on the Hub" in i2i("push", trained, "boxes").line
    assert "--license none of yours" in i2i("push", trained, "me/boxes", "--license", "none of yours").line
    assert "does not exist" in i2i("push", "nothing", "me/boxes").line
    assert "i2i push RUN" in i2i("push", (tmp_path / "m.safetensors").write_bytes((trained / "model.safetensors").read_bytes()) and "m.safetensors", "me/boxes", "--results", "x.json").line
    assert "(403)" in i2i("push", trained, "others/boxes").line
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "(401)" in i2i("push", trained, "me/boxes").line
    monkeypatch.delenv("HF_TOKEN")
    out = i2i("push", trained, "me/boxes")
    assert (out.code, "publishing me/boxes needs a token" in out.line, "hf auth login, or HF_TOKEN=" in out.line) == (2, True, True)
    assert server.repositories == {}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    out = i2i("push", trained, "me/boxes")
    assert (out.code, "cannot be reached" in out.line) == (1, True)


def test_a_file_of_that_name_is_not_the_hub(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:me").mkdir()
    (tmp_path / "hf:me" / "boxes").write_bytes((trained / "model.safetensors").read_bytes())
    assert not hub.is_hub_model("hf:me/boxes")
    assert load("hf:me/boxes", "cpu").directions
    with pytest.raises(RequestError, match="is no name"):
        hub.check_repository("me/boxes.git")
