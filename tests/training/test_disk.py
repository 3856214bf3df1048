"""A disk that is full, may only be read or is slow: what was there before stays valid, and the run goes on later as if nothing had been."""

import builtins
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import i2i as package
from i2i import files
from i2i.errors import JobError
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.callbacks import evaluation
from i2i.training.trainer import Trainer
from tests import forked
from tests.conftest import SMALL, Run, drawn_strips
from tests.training.test_kills import assert_nothing_was_lost
from tests.training.test_signals import at_call

WORDS = ("pix2pix", *SMALL, "train.images=36", "train.keep_checkpoints=1")


def train(out: Path, data: Path) -> None:
    package.train(*WORDS, data=data, out=out, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def _evaluations_do_not_depend_on_the_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EVALUATION_SHARE", 1e9)
        yield


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips for all of them."""
    return drawn_strips(tmp_path_factory.mktemp("data") / "strips")


@pytest.fixture(scope="module")
def straight(strips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that met no fault."""
    run = tmp_path_factory.mktemp("disk") / "straight"
    train(run, strips)
    return run


def valid(run: Path) -> list[int]:
    """Images of the states that are whole; that of the newest is one of them, and there is no other file than whole ones."""
    states = RunFolder(run).states()
    assert not list(run.rglob("*.part"))
    checkpoint.load(run / "model.safetensors", "model")
    return [checkpoint.load(state, "state")[1]["images"] for state in states]


def _limited(out: Path, data: Path, saves: int, limit: int) -> str:
    """From the save of this number on, no file grows beyond so many bytes, as if the disk were full.  -> what was said"""
    evaluation.EVALUATION_SHARE = 1e9
    at_call(pytest.MonkeyPatch(), Trainer, "save", saves, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)))
    try:
        train(out, data)
    except JobError as error:
        return str(error)
    return ""


def test_a_full_disk_again_and_again(straight: Path, strips: Path, tmp_path: Path) -> None:
    """Nothing fits, then nearly the model, then the model without its state.  With keep=1."""
    run = tmp_path / "run"
    state, model = (os.path.getsize(path) for path in (RunFolder(straight).states()[-1], straight / "model.safetensors"))
    for saves, limit, names in ((2, 200, ("00000008.png", "model.safetensors", "log.jsonl")), (1, model - 5000, ("model.safetensors",)),
                                (1, (model + state) // 2, ("state-00000008.safetensors",))):
        said = forked.ask(_limited, run, strips, saves, limit)
        assert any(f"{name} could not be written" in said for name in names), said
        assert "\n" not in said
        assert valid(run) == [0]
    train(run, strips)
    assert_nothing_was_lost(straight, run)


def test_with_one_state_kept_there_is_always_one(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a file takes its place, and whenever one is deleted, a whole state is there."""
    run, moments = RunFolder(tmp_path / "run"), []
    replace, unlink = os.replace, Path.unlink

    def looking(*args: Any, **more: Any) -> None:
        before = valid_states()
        replace(*args, **more)
        moments.append((before, valid_states()))

    def deleting(self: Path, missing_ok: bool = False) -> None:
        unlink(self, missing_ok)
        if self.name.startswith("state-"):
            moments.append((1, valid_states()))

    def valid_states() -> int:
        return sum(checkpoint.load(state, "state")[1]["images"] >= 0 for state in run.states())

    monkeypatch.setattr(files.os, "replace", looking)
    monkeypatch.setattr(Path, "unlink", deleting)
    train(run.path, strips)
    begun = [(before, after) for before, after in moments if before]
    assert len(begun) > 12
    assert all(1 <= after <= 2 for _, after in begun)
    assert len(run.states()) == 1


@pytest.mark.parametrize("room", ["replace", "log"])
def test_a_folder_that_may_only_be_read_from_now_on(straight: Path, strips: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch, room: str) -> None:
    """As the system tells it, also to those whom modes of files do not hold back; a disk with errors is mounted again like that."""
    def refuses(*args: Any, **more: Any) -> Any:
        if len(args) > 1 and args[1] == "rb":
            return builtins.open(*args, **more)
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        if room == "replace":
            at_call(patch, Trainer, "save", 3, lambda: patch.setattr(files.os, "replace", refuses))
        else:
            at_call(patch, Trainer, "save", 3, lambda: patch.setattr(files, "open", refuses, raising=False))
        result = i2i("train", *WORDS, "train.async_writes=false", "--data", strips, "--out", "run", "--device", "cpu")    # The second save is over by then.
    assert result.code == 1
    assert "could not be written: Read-only file system" in result.line
    assert valid(tmp_path / "run") in ([8], [16])
    result = i2i("train", *WORDS, "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert_nothing_was_lost(straight, tmp_path / "run")


def test_a_folder_that_may_only_be_read_from_the_beginning(strips: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch, trained: Path) -> None:
    def refuses(*args: Any, **more: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuses)
        result = i2i("train", *WORDS, "--data", strips, "--out", "run", "--device", "cpu")
    assert (result.code, "run cannot be written: Read-only file system" in result.line) == (2, True)
    shutil.copytree(trained, tmp_path / "unfinished")
    config = tmp_path / "unfinished" / "config.json"
    config.write_text(json.dumps((old := json.loads(config.read_text())) | {"train": old["train"] | {"images": 48}}))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", refuses)
        result = i2i("train", "--resume", tmp_path / "unfinished", "--device", "cpu")
    assert (result.code, "cannot be written: Read-only file system" in result.line) == (2, True)
    (tmp_path / "file").touch()
    result = i2i("train", *WORDS, "--data", strips, "--out", "file/run", "--device", "cpu")
    assert (result.code, "cannot be written" in result.line) == (2, True)


def _killed_while_writing(out: Path, data: Path, n: int) -> None:
    """Half of file number n is on the disk when kill -9 comes."""
    evaluation.EVALUATION_SHARE = 1e9
    save_file, calls = checkpoint.save_file, []

    def half(tensors: Any, path: Path, metadata: Any) -> None:
        save_file(tensors, path, metadata)
        calls.append(1)
        if len(calls) == n:
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.save_file = half
    train(out, data)


def test_a_kill_within_a_write(straight: Path, strips: Path, tmp_path: Path) -> None:
    """Of a model, of a state, of the model of the best evaluation: half a file is never taken for one, and is gone once the run goes on."""
    run = tmp_path / "run"
    halves = []
    for n in (3, 2, 3):
        process = forked.begin(_killed_while_writing, run, strips, n)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        halves += [path.name for path in run.glob(".*.part")]
        assert [checkpoint.load(state, "state")[1]["images"] for state in RunFolder(run).states()]
    assert len(halves) == 3
    assert {name.split(".")[1].split("-")[0] for name in halves} >= {"model", "state"}
    train(run, strips)
    assert not list(run.rglob("*.part"))
    assert_nothing_was_lost(straight, run)
