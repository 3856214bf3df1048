"""`--minutes`: the run that is chosen ends in time, is written down, and is resumed without measuring again."""

import json
import threading
from collections.abc import Callable
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from i2i import JobError, RequestError, train
from i2i.data.dataset import Dataset
from i2i.training import run_length, time_budget
from i2i.training import train as training
from i2i.training.callbacks import checkpoint as checkpoints
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.evaluation import Evaluation
from i2i.training.callbacks.evaluator import Evaluator
from i2i.training.callbacks.progress import PaceNote
from i2i.training.run_length import (
    Timing,
    affordable_images,
    round_down,
    seconds_beside_steps,
)
from i2i.training.run_state import RunState
from i2i.training.time_budget import RunPlanner, TimeBudget
from i2i.training.trainer import Trainer
from tests.conftest import CUT, CYCLE, SMALL, Run, drawing
from tests.training.test_resume import assert_same

STARTUP = 5.0       # Seconds.


class Machine:
    """A clock that only training moves: by `image` seconds an image of 4 channels, a third of it in bf16 if that is fast here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, image: float, bf16: float = 3.0, *, idle: bool = False, decoding: float = 0.0) -> None:
        self.now, self.slowdown = 0.0, 1.0
        loading = chain([3.0], repeat(0.3))     # The first time libraries are imported.

        def slow(owner: object, name: str, cost: Callable[..., float]) -> None:
            original = getattr(owner, name)

            def work(*words: object, **options: object) -> object:
                self.now += cost(*words)
                return None if idle and name == "advance" else original(*words, **options)

            monkeypatch.setattr(owner, name, work)

        def step(trainer: Trainer, *more: object) -> float:
            width = dict(trainer.recipe.generator.options).get("width", 64)
            return self.slowdown * image * trainer.config.batch_size * width / 4 * (bf16 if trainer.config.precision == "bf16" else 1)

        slow(Trainer, "advance", step)
        slow(RunState, "save", lambda *words: 0.3)
        slow(Dataset, "_decode", lambda *words: decoding * (threading.current_thread() is threading.main_thread()))
        slow(training, "best_embedding", lambda *words: next(loading))
        slow(Evaluator, "__call__", lambda evaluator, *words: 0.02 * len(evaluator.heldout.indices))
        for module in (time_budget, checkpoints):
            slow(module, "sample_grid", lambda *words: 0.4)
        monkeypatch.setattr(training, "Evaluation", partial(Evaluation, clock=lambda: self.now))

    def budget(self, minutes: float) -> TimeBudget:
        self.now = STARTUP
        return TimeBudget(minutes, clock=lambda: self.now, elapsed=STARTUP)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    for split, count in (("train", 40), ("test", 24)):
        (tmp_path / "faces" / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(drawing(100 * count + i)[:, 32:]).save(tmp_path / "faces" / split / f"{i}.png")
    return tmp_path / "faces"


NOISE = ("generator.width=4", "discriminator.width=4", "generator.z_dim=8", "train.batch_size=4", "data.size=32", "on_collapse=off")
LOADS = {"pix2pix": ("strips", ("pix2pix", *SMALL[:3], "train.batch_size=4")), "cyclegan": ("sides", ("cyclegan", *CYCLE[:5], "train.batch_size=2")),
         "cut": ("sides", ("cut", *CUT[:4], *CUT[-3:], "train.batch_size=2")),
         "sngan": ("faces", ("sngan", *NOISE)), "wgan-gp": ("faces", ("wgan-gp", *NOISE, "train.checkpoint_every=40"))}


@pytest.mark.parametrize(("load", "image", "minutes"), [("pix2pix", 1.0, 2), ("cyclegan", 3.0, 3), ("cut", 3.0, 3), ("sngan", 0.3, 1), ("wgan-gp", 0.3, 1)])
def test_a_run_ends_when_its_time_is_up(load: str, image: float, minutes: float, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start-up, measuring, decoding in the first epoch, evaluations and saving are part of the time."""
    fixture, words = LOADS[load]
    machine, words = Machine(monkeypatch, image, decoding=0.3 * image), (*words, "prefetch_factor=0")
    left, plan = [], RunPlanner.plan
    monkeypatch.setattr(RunPlanner, "plan", lambda planner: (plan(planner), left.append(planner.budget.remaining))[0])
    folder = train(*words, data=request.getfixturevalue(fixture), out=tmp_path / "run", minutes=machine.budget(minutes), device="cpu")
    assert machine.now == pytest.approx(60 * minutes, rel=0.06)
    config = json.loads((folder / "config.json").read_text())
    assert config["minutes"]["limit"] == minutes
    assert config["minutes"]["measured"]["images_per_second"] == pytest.approx(1 / image, rel=0.01)
    assert config["train"]["images"] == config["minutes"]["chosen"]["train.images"] > 0.6 * left[0] / (1.3 * image)
    assert (folder / "verdict.json").exists()


def test_what_is_chosen_is_what_could_have_been_typed_and_a_resumed_run_does_not_measure(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("pix2pix", *SMALL[:3], "data.size=32")
    machine = Machine(monkeypatch, 1.0, bf16=0.5)

    class Stop(Callback):
        def on_step(self, trainer: Trainer, logs: object) -> None:
            if trainer.images == 32:
                trainer.stop("it is enough")

    again = partial(train, *words, data=strips, out=tmp_path / "run", device="cpu")
    with pytest.raises(JobError, match="it is enough"):
        again(minutes=machine.budget(2), callbacks=[Stop()])
    chosen = json.loads((tmp_path / "run" / "config.json").read_text())["minutes"]["chosen"]
    assert chosen["train.batch_size"] == 8
    assert chosen["train.precision"] == "bf16"
    assert not {"generator.width", "discriminator.width"} & set(chosen)
    monkeypatch.setattr(RunPlanner, "plan", lambda planner: pytest.fail("measured again"))
    for minutes, more, differs in ((3, (), "--minutes 2 instead of .*--minutes 3"), (None, (), "--minutes 2 instead of .*no --minutes"),
                                   (2, ("train.batch_size=4",), "train.batch_size=8 .*train.batch_size=4")):
        with pytest.raises(RequestError, match=differs):
            train(*words, *more, data=strips, out=tmp_path / "run", device="cpu", minutes=minutes)
    again(minutes=2)
    train(*words, *(f"{key}={value}" for key, value in chosen.items()), data=strips, out=tmp_path / "typed", device="cpu")
    assert_same(tmp_path / "typed", tmp_path / "run")
    assert again(minutes=2) == tmp_path / "run"     # Finished.


def test_the_same_command_finds_its_unfinished_run(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    machine = Machine(monkeypatch, 2.0)
    folders = [train("pix2pix", *SMALL, data=strips, device="cpu", minutes=machine.budget(1)) for _ in range(2)]
    assert [str(folder) for folder in folders] == ["runs/pix2pix", "runs/pix2pix-2"]
    (folders[1] / "verdict.json").unlink()
    assert train("pix2pix", *SMALL, data=strips, device="cpu", minutes=1) == folders[1]


@pytest.mark.parametrize(("image", "width"), [(2e-5, None), (2e-4, 32), (5e-2, 16)])
def test_width_and_precision_follow_the_speed(image: float, width: int | None, strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, said = Machine(monkeypatch, image, idle=True), list[str]()

    class Listen(Callback):
        def on_message(self, message: str) -> None:
            said.append(message)

    train("pix2pix", data=strips, out=tmp_path / "run", minutes=machine.budget(1), device="cpu", dry_run=True, callbacks=[Listen()])
    (line,) = (line for line in said if "minutes are about" in line)
    assert ("width" not in line) if width is None else (f"generator.width={width} discriminator.width={width}" in line)
    assert "precision" not in line          # bf16 takes three times as long here.
    assert not (tmp_path / "run").exists()


def test_what_is_given_is_kept(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0.5, bf16=0.1)
    words = ("generator.width=8", "batch_size=2", "lr=1e-3", "precision=fp32", "checkpoint_every=100", "discriminator.width=4", "discriminator.layers=1")
    config = json.loads((train("pix2pix", *words, data=strips, out=tmp_path / "run", minutes=machine.budget(1), device="cpu") / "config.json").read_text())
    assert set(config["minutes"]["chosen"]) == {"train.images", "train.log_every"}
    assert machine.now == pytest.approx(60, rel=0.1)


def test_too_little_time_and_two_lengths_are_refused_in_one_line(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, i2i: Run) -> None:
    machine = Machine(monkeypatch, 20.0)
    with pytest.raises(RequestError, match=r"--minutes 0.5 is too short here, where starting, measuring and one step of 8 take about \d+ s; accepted: more, such as \d+"):
        train("pix2pix", *SMALL[:3], data=strips, out=tmp_path / "run", minutes=machine.budget(0.5), device="cpu")
    for words, message in ((("train.images=8",), "--minutes and train.images both say"), (("--epochs", 1), "--minutes and --epochs both say"), (("--autotune",), "give one of them")):
        result = i2i("train", "pix2pix", *words, "--minutes", 1, "--data", strips)
        assert result.code == 2
        assert message in result.line
    assert "--minutes=0 cannot be used" in i2i("train", "pix2pix", "--minutes", 0).line
    assert "--minutes (1.0) cannot be given" in i2i("train", "--resume", "run", "--minutes", 1).line


@pytest.mark.parametrize(("slowdown", "said"), [(1.05, ()), (2.0, ("images/s instead of the 1 that were measured before: the run ends about 0:0", "after its time is up")),
                                                (0.4, ("images/s instead of the 1 that", "before its time is up"))])
def test_a_machine_that_is_slower_or_faster_half_way_is_said(slowdown: float, said: tuple[str, ...], strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, heard = Machine(monkeypatch, 1.0), list[str]()
    monkeypatch.setattr(training, "PaceNote", partial(PaceNote, clock=lambda: machine.now))

    class Change(Callback):
        def on_step(self, trainer: Trainer, logs: object) -> None:
            if trainer.images > trainer.total_images / 2:
                machine.slowdown = slowdown

        def on_message(self, message: str) -> None:
            heard.append(message)

    train("pix2pix", *SMALL[:3], "train.batch_size=4", data=strips, out=tmp_path / "run", minutes=machine.budget(4), device="cpu", callbacks=[Change()])
    notes = [line for line in heard if "images/s instead of" in line]
    assert bool(notes) == bool(said)
    assert all(part in notes[0] for part in said)
    assert len(notes) <= 2
    assert abs(machine.now - 240) < 24 or said


def test_decoding_in_the_first_epoch_is_part_of_the_plan_and_one_slow_moment_is_not_said() -> None:
    now, heard = [0.0], list[str]()
    trainer = SimpleNamespace(images=0, total_images=1000, message=heard.append)
    note = PaceNote({"limit": 10, "measured": {"images_per_second": 2.0, "decoding_seconds": 100.0}}, 200, lambda: now[0])
    note.on_start(trainer)      # type: ignore[arg-type]
    for images in range(10, 1001, 10):
        trainer.images = images
        now[0] += 10 * (1.0 if images <= 200 else 0.5) * (2 if images == 410 else 1)
        note.on_step(trainer, None)     # type: ignore[arg-type]
        note.on_checkpoint(trainer)     # type: ignore[arg-type]
    assert heard == []


def test_the_arithmetic() -> None:
    timing = Timing(image=0.02, decoding=0.005, epoch=1000, grid=0.5, embedding=2.0, trial=0.3, evaluated=256)
    for seconds in (30, 600, 86_400):
        for every in (0, 500):
            images = affordable_images(timing, seconds, every, 10**8)
            steps, count = 0.02 * images + 0.005 * min(images, 1000), -(-images // every) if every else run_length.CHECKPOINTS
            assert seconds * 0.93 < steps + seconds_beside_steps(timing, steps, count, 10**8) <= seconds
    assert affordable_images(timing, 1.0, 0, 0) == 0
    assert [round_down(images, batch) for images, batch in ((123_456, 8), (999, 8), (7, 2), (3, 4))] == [123_000, 992, 6, 4]
