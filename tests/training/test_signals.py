"""A signal at any moment: what may be left is left at once, the state is saved, and the run that goes on ends as if nothing had been."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from i2i.data import loader
from i2i.errors import JobError
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from i2i.training import train as training
from i2i.training.callbacks import checkpoint as grids
from i2i.training.callbacks import evaluation
from i2i.training.callbacks.evaluator import Evaluator
from i2i.training.trainer import Trainer
from tests import forked
from tests.conftest import SMALL, drawn_strips
from tests.training.test_kills import assert_nothing_was_lost
from tests.training.test_resume import StopAfter, images_seen

WORDS = ("pix2pix", *SMALL, "train.images=20")
LONG = 60.0         # Seconds of what nobody waits for.


@pytest.fixture(scope="module", autouse=True)
def _evaluations_do_not_depend_on_the_time() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EVALUATION_SHARE", 1e9)
        yield


def life(out: Path, data: Path, *words: str) -> int:
    """Train until the end or until a signal.  -> its number, or 0"""
    folder, job = resuming.resolve_job(WORDS[0], [*WORDS[1:], *words], data=data, out=out, epochs=None, resume=None)
    return training.run_job(job, folder, device="cpu")


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strips for all of them."""
    return drawn_strips(tmp_path_factory.mktemp("data") / "strips")


@pytest.fixture(scope="module")
def straight(strips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without any signal."""
    run = tmp_path_factory.mktemp("signals") / "straight"
    assert life(run, strips) == 0
    return run


def at_call(patch: pytest.MonkeyPatch, owner: Any, name: str, n: int, then: Callable[[], object]) -> None:
    """Before call number n of a function, something else happens."""
    original, calls = getattr(owner, name), []

    def called(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == n:
            then()
        return original(*args, **more)

    patch.setattr(owner, name, called)


def struck(number: int = signal.SIGTERM) -> None:
    """The signal comes now, and what is done here would take a minute."""
    os.kill(os.getpid(), number)
    time.sleep(LONG)


@pytest.mark.parametrize(("owner", "name", "n", "saved"), [(Evaluator, "__call__", 1, 8), (Evaluator, "__call__", 3, 20), (grids, "sample_grid", 1, 0), (grids, "sample_grid", 3, 16)],
                         ids=["evaluation", "last evaluation", "first sample grid", "sample grid"])
def test_evaluations_and_sample_grids_are_left_and_made_later(straight: Path, strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str,
                                                               n: int, saved: int) -> None:
    began = time.monotonic()
    with monkeypatch.context() as patch:
        at_call(patch, owner, name, n, struck)
        assert life(tmp_path / "run", strips) == signal.SIGTERM     # Also at the end, where only the evaluation is missing.
    assert time.monotonic() - began < LONG
    assert images_seen(tmp_path / "run") == saved
    assert life(tmp_path / "run", strips) == 0
    assert_nothing_was_lost(straight, tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_while_a_state_is_written_in_the_background(straight: Path, strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The writer is not hurried: what it has begun is whole, and the state of the last step comes after it."""
    written: list[str] = []
    save_file = checkpoint.save_file

    def slowly(tensors: Any, path: Path, metadata: Any) -> None:
        if len(written) == 2:           # The model at 8 images.
            os.kill(os.getpid(), number)
            time.sleep(0.3)
        save_file(tensors, path, metadata)
        written.append(threading.current_thread().name)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", slowly)
        assert life(tmp_path / "run", strips) == number
    assert set(written) == {"writer"}
    for state in RunFolder(tmp_path / "run").states():
        checkpoint.load(state, "state")
    assert 8 <= images_seen(tmp_path / "run") < 20
    assert life(tmp_path / "run", strips) == 0
    assert_nothing_was_lost(straight, tmp_path / "run")


@pytest.mark.parametrize("prefetch", [0, 2])
def test_while_a_file_hangs(straight: Path, strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefetch: int) -> None:
    """A network disk that does not answer, read by the training thread or by the one that reads ahead."""
    hangs = threading.Event()

    def hang() -> None:
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        hangs.wait(LONG)

    began = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(loader, "JOIN_TIMEOUT", 0.1)
        at_call(patch, loader.LoaderDataset, "__getitem__", 13, hang)
        assert life(tmp_path / "run", strips, f"train.prefetch_factor={prefetch}") == signal.SIGTERM
    assert time.monotonic() - began < LONG
    hangs.set()
    assert 0 < images_seen(tmp_path / "run") <= 12
    assert life(tmp_path / "run", strips) == 0
    assert_nothing_was_lost(straight, tmp_path / "run")


def test_between_two_steps_with_each_signal_once(straight: Path, strips: Path, tmp_path: Path) -> None:
    for images, number in ((4, signal.SIGINT), (10, signal.SIGTERM), (14, signal.SIGUSR1)):
        before = signal.getsignal(number)
        folder, job = resuming.resolve_job(WORDS[0], WORDS[1:], data=strips, out=tmp_path / "run", epochs=None, resume=None)
        assert training.run_job(job, folder, device="cpu", callbacks=[StopAfter(images, number)]) == number
        assert images_seen(tmp_path / "run") == images
        assert signal.getsignal(number) == before
    assert life(tmp_path / "run", strips) == 0
    assert_nothing_was_lost(straight, tmp_path / "run")


def _stubborn(out: Path, data: Path, told: Path) -> None:
    """Takes a minute for each save once the first is written."""
    def slowly() -> None:
        told.touch()
        time.sleep(LONG)

    evaluation.EVALUATION_SHARE = 1e9
    at_call(pytest.MonkeyPatch(), Trainer, "save", 2, slowly)
    life(out, data)


def test_a_second_signal_acts_at_once(straight: Path, strips: Path, tmp_path: Path) -> None:
    """As kill -15 does where nobody catches it; the run goes on from the state before."""
    process = forked.begin(_stubborn, tmp_path / "run", strips, tmp_path / "told")
    while not (tmp_path / "told").exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(0.5)
    assert process.is_alive()           # The first asked it to save, which it does.
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(LONG / 2)
    assert process.exitcode == -signal.SIGTERM
    assert images_seen(tmp_path / "run") == 0
    assert life(tmp_path / "run", strips) == 0
    assert_nothing_was_lost(straight, tmp_path / "run")


def test_a_disk_that_fills_while_a_signal_is_answered_is_reported(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was asked to save and could not: that is an error, not a clean stop."""
    def full(tensors: Any, path: Path, metadata: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        at_call(patch, Trainer, "save", 2, lambda: patch.setattr(checkpoint, "save_file", full))
        folder, job = resuming.resolve_job(WORDS[0], WORDS[1:], data=strips, out=tmp_path / "run", epochs=None, resume=None)
        with pytest.raises(JobError, match="No space left"):
            training.run_job(job, folder, device="cpu", callbacks=[StopAfter(4)])
    assert images_seen(tmp_path / "run") == 0
