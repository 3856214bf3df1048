"""Callbacks: people's own are called as the page says, an error in one loses nothing, and progress is said early and by time."""

import inspect
import itertools
import json
import re
import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import i2i as package
from i2i import registry
from i2i.errors import JobError, RequestError
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress
from i2i.training import job as jobs
from i2i.training import memory
from i2i.training.callbacks import evaluation, speed_estimate
from i2i.training.callbacks.base import Callback, CallbackList, registered_callbacks
from i2i.training.callbacks.progress import DAY, LongRunNote, ProgressLines, format_duration
from i2i.training.callbacks.speed_estimate import SpeedEstimate
from i2i.training.flops import FlopCount
from i2i.training.plan import fitting_line
from i2i.training.train import fixed_samples
from i2i.training.trainer import Trainer
from tests.conftest import SMALL, Run
from tests.training.test_resume import assert_same


class Recorder(Callback):
    """Writes down every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def on_start(self, trainer: Trainer) -> None:
        self.calls.append(("start", trainer.images, trainer.total_images))

    def on_step(self, trainer: Trainer, logs: Mapping[str, float] | None) -> None:
        trainer.modules.eval()      # Of no consequence for the next step.
        self.calls.append(("step", trainer.images, dict(logs) if logs else None))

    def on_checkpoint(self, trainer: Trainer) -> None:
        self.calls.append(("checkpoint", trainer.images, trainer.state.saved_step))

    def on_evaluation(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        self.calls.append(("evaluation", trainer.images, entry["scores"]["l1"]["value"]))

    def on_message(self, message: str) -> None:
        self.calls.append(("message", message))

    def on_end(self) -> None:
        self.calls.append(("end",))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]


def test_a_callback_is_called_at_every_step_checkpoint_and_evaluation_and_changes_nothing(strips: Path, tmp_path: Path) -> None:
    words = ("pix2pix", *SMALL, "train.images=20")
    package.train(*words, data=strips, out=tmp_path / "plain", device="cpu")
    first, second = Recorder(), Recorder()
    run = package.train(*words, data=strips, out=tmp_path / "run", device="cpu", callbacks=[first, second])
    assert_same(tmp_path / "plain", run)
    assert first.calls == second.calls
    assert first.of("start") == [(0, 20)]
    assert [images for images, _ in first.of("step")] == list(range(2, 21, 2))
    assert [{"images": images, **logs} for images, logs in first.of("step") if logs] == log.read(run / "log.jsonl")
    assert first.of("checkpoint") == [(0, 0), (8, 4), (16, 8), (20, 10)]        # The state of this step is saved by then.
    assert first.of("evaluation") == [(entry["images"], entry["scores"]["l1"]["value"]) for entry in log.read(run / "metrics.jsonl")]
    assert first.of("message")[0][0].startswith("pix2pix: ")
    assert first.calls[-1] == ("end",)
    assert first.calls.count(("end",)) == 1


class Failing(Callback):
    """Has a bug that shows at some time."""

    def __init__(self, moment: str, images: int) -> None:
        self.moment, self.images = moment, images

    def on_step(self, trainer: Trainer, logs: object) -> None:
        if self.moment == "step" and trainer.images == self.images:
            raise ValueError("no\nsuch key")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if self.moment == "checkpoint" and trainer.images == self.images:
            raise ValueError("no\nsuch key")


@pytest.mark.parametrize(("moment", "images", "saved"), [("step", 10, 10), ("checkpoint", 8, 8), ("checkpoint", 0, 0), ("step", 20, 20)])
def test_an_error_in_a_callback_ends_the_run_with_its_state_saved_and_is_named(strips: Path, tmp_path: Path, moment: str, images: int, saved: int) -> None:
    words = ("pix2pix", *SMALL, "train.images=20")
    package.train(*words, data=strips, out=tmp_path / "plain", device="cpu")
    after = Recorder()
    with pytest.raises(JobError, match=r"^callback Failing failed \(test_callbacks.py, line \d+\): ValueError: no such key; saved at "
                                       rf"{saved} images, to be continued with: i2i train --resume ") as caught:
        package.train(*words, data=strips, out=tmp_path / "run", device="cpu", callbacks=[Failing(moment, images), after])
    assert isinstance(caught.value.__cause__, ValueError)       # With its traceback, for whoever wrote it.
    assert RunFolder(tmp_path / "run").images == saved
    assert (images == 0) or any(call[1] == images for call in after.calls if call[0] == "step")     # The others are still called,
    assert after.calls[-1] == ("end",)
    package.train(resume=tmp_path / "run", device="cpu")
    assert_same(tmp_path / "plain", tmp_path / "run")


def test_an_error_at_the_end_is_named_after_the_others_have_ended_and_all_is_saved(strips: Path, tmp_path: Path, i2i: Run) -> None:
    class FailingAtTheEnd(Callback):
        def on_end(self) -> None:
            raise KeyError("gone")

    last, words = Recorder(), ("pix2pix", *SMALL, "train.images=4")
    with pytest.raises(JobError, match=r"^callback FailingAtTheEnd failed \(test_callbacks.py, line \d+\): KeyError: 'gone'; all is saved in ") as caught:
        package.train(*words, data=strips, out=tmp_path / "run", device="cpu", callbacks=[FailingAtTheEnd(), last])
    assert isinstance(caught.value.__cause__, KeyError)
    assert last.calls[-1] == ("end",)
    assert "is finished" in i2i("train", "--resume", tmp_path / "run", "--device", "cpu").out       # The folder is not locked, either.


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(("error", "text"), [(SystemExit(3), "SystemExit: 3"), (GeneratorExit(), "GeneratorExit"), (Mute(), "Mute"), (StopIteration(), "StopIteration")], ids=repr)
@pytest.mark.parametrize("method", [name for name in vars(Callback) if name.startswith("on_")])
def test_whatever_a_callback_raises_is_kept_and_the_others_are_called(method: str, error: BaseException, text: str) -> None:
    def fail(*args: object) -> None:
        raise error

    called: list[str] = []
    watching = CallbackList([type("Bad", (Callback,), {method: fail})(), type("Good", (Callback,), {method: lambda *args: called.append(method)})()])
    watching.notify(lambda each: getattr(each, method)(*[None] * (len(inspect.signature(getattr(Callback, method)).parameters) - 1)))
    assert called == [method]
    assert re.fullmatch(rf"callback Bad failed \(test_callbacks.py, line \d+\): {text}", str(watching.failure))
    assert watching.failure is not None
    assert watching.failure.__cause__ is error


@pytest.mark.parametrize("callbacks", [[object()], [Recorder], [None], "abc", Recorder(), 3], ids=["object", "class", "none", "text", "no-list", "number"])
def test_what_is_no_callback_is_refused_before_the_run(callbacks: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r" cannot be used; accepted: a list of callbacks, objects of classes that inherit from i2i\.Callback$"):
        package.train("pix2pix", out=tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("factory", "text"), [(lambda: 3, "'3' cannot be used; accepted: a list of callbacks"), (lambda: 1 / 0, "train.callbacks=mine cannot be made: ZeroDivisionError: division by zero"),
                                               (lambda x: x, "train.callbacks=mine cannot be made: TypeError: ")], ids=["no-callback", "fails", "needs-more"])
def test_a_registered_callback_that_cannot_be_made_is_refused(factory: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._COMPONENTS, "callback", {"mine": factory})
    registry.schema.cache_clear()
    with pytest.raises(RequestError, match=text):
        registered_callbacks(["mine"])
    registry.schema.cache_clear()


def test_a_callback_can_stop_the_run(strips: Path, tmp_path: Path) -> None:
    class Enough(Callback):
        def on_evaluation(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
            trainer.stop("L1 is low enough")

    with pytest.raises(JobError, match="stopped at 8 images because L1 is low enough; all is saved; to continue nevertheless: i2i train --resume "):
        package.train("pix2pix", *SMALL, "train.images=20", data=strips, out=tmp_path / "run", device="cpu", callbacks=[Enough()])
    assert json.loads((tmp_path / "run" / "verdict.json").read_text())["sentence"]
    package.train("pix2pix", *SMALL, "train.images=20", data=strips, out=tmp_path / "plain", device="cpu")
    package.train(resume=tmp_path / "run", device="cpu")
    assert_same(tmp_path / "plain", tmp_path / "run")


def test_the_example_of_the_page_works_from_python_and_by_its_name(strips: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block is run as it is written; then the same class stops a run that names it in its settings."""
    page = (Path(__file__).parents[2] / "docs" / "callbacks.md").read_text()
    block = page.split("```python\n")[1].split("```")[0]
    assert len(block.strip().splitlines()) <= 20
    monkeypatch.setattr(registry, "_COMPONENTS", {**registry._COMPONENTS, "callback": dict(registry._COMPONENTS.get("callback", {}))})
    small = (*SMALL[:4], "train.checkpoint_every=4", "generator.norm=none", "lr=1e-30")      # L1 stays as it is.
    monkeypatch.setattr(package, "train", partial(package.train, data=strips, out=tmp_path / "run", device="cpu"))
    monkeypatch.setattr(evaluation, "EVALUATION_SHARE", 1e9)
    names: dict[str, Any] = {}
    with pytest.raises(JobError, match="images because the val L1 has not fallen in 2 evaluations; all is saved"):
        exec(block.replace('i2i.train("pix2pix", ', f'i2i.train("pix2pix", *{small!r}, ').replace('data="drawings/", ', ""), names)
    monkeypatch.undo()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._COMPONENTS, "callback", {"early-stopping": names["EarlyStopping"]})
        patch.setattr(evaluation, "EVALUATION_SHARE", 1e9)
        result = i2i("train", "pix2pix", *small, "callbacks=early-stopping", "--data", strips, "--out", tmp_path / "named", "--device", "cpu")
        assert result.code == 1
        assert "because the val L1 has not fallen" in result.line
        result = i2i("train", "pix2pix", *small, "callbacks=early-stoping", "--data", strips, "--out", tmp_path / "other", "--device", "cpu")
        assert (result.code, "no callback is called 'early-stoping'; did you mean 'early-stopping'?" in result.line) == (2, True)
        assert (i2i("train", "pix2pix", *small, "callbacks=early-stoping", "--data", strips, "--dry-run").code, result.out) == (2, "")
        assert not (tmp_path / "other").exists()


class Steps:
    """A trainer whose steps take so many seconds, of a clock that is ours."""

    def __init__(self, seconds: float, total: int, batch: int = 1) -> None:
        self.now, self.seconds, self.batch, self.said = 100.0, seconds, batch, list[tuple[float, str]]()
        self.trainer: Any = SimpleNamespace(images=0, total_images=total, message=lambda text: self.said.append((self.now - 100, text)))

    def run(self, callback: Callback, images: int) -> None:
        callback.on_start(self.trainer)
        self.now += 3       # The first sample grid.
        callback.on_checkpoint(self.trainer)
        while self.trainer.images < images:
            self.now += self.seconds
            self.trainer.images += self.batch
            callback.on_step(self.trainer, {"l1": 0.5, "grad_norm_G": 1.0} if self.trainer.images % 100 == 0 else None)


@pytest.mark.parametrize(("seconds", "total"), [(0.002, 5_000), (0.4, 200_000), (14.0, 120_000)])
def test_lines_come_within_twenty_seconds_and_then_by_time(seconds: float, total: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, lines = Steps(seconds, total), list[tuple[float, str]]()
    monkeypatch.setattr("builtins.print", lambda text, **options: lines.append((steps.now - 100, text)))
    steps.run(ProgressLines(lambda: steps.now), min(total, round(7200 / seconds)))
    times = [when for when, _ in lines]
    assert times[0] <= 20
    assert f"{1 / seconds:.3g} images/s" in lines[0][1]
    assert "left" in lines[0][1]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap <= 600 + seconds for gap in gaps)
    assert len(lines) < 60          # In two hours.
    if total == 5_000:
        assert lines[-1][1] == "5,000/5,000 images  500 images/s  0:00:00 left  l1 0.5"


def test_a_run_of_hours_says_so_early_and_once_with_the_line_that_fits() -> None:
    steps = Steps(10.0, 120_000)
    steps.run(LongRunNote(lambda: "i2i train pix2pix --minutes 60", lambda: steps.now), 50)
    ((when, text),) = steps.said
    assert when <= 20
    assert text == "note: at 0.1 images/s the run takes 13 days 21:19:50 more; one that takes an hour here: i2i train pix2pix --minutes 60"
    for seconds, noted in ((0.029, False), (0.031, True)):
        run = Steps(seconds, 120_000)
        run.run(LongRunNote(lambda: "", lambda run=run: run.now), 500)
        assert bool(run.said) == noted


def test_the_line_that_fits_is_the_command_without_its_length(strips: Path) -> None:
    job = jobs.prepare("wgan-gp", ["generator.width=32", "data.size=32"], data=strips / "train", epochs=3)
    line = fitting_line(job)
    assert line == f"i2i train wgan-gp --data {strips / 'train'} generator.width=32 data.size=32 --minutes 60"
    assert fitting_line(jobs.prepare("pix2pix", ["train.images=1m"])) == "i2i train pix2pix --minutes 60"


def test_durations() -> None:
    assert [format_duration(seconds) for seconds in (90, 3 * 3600 + 62, DAY + 1, 2 * DAY + 3 * 3600)] == ["0:01:30", "3:01:02", "1 day 0:00:01", "2 days 3:00:00"]


def test_operations_of_a_step_are_counted_as_on_paper() -> None:
    """A convolution of 3x3 from 4 to 5 channels on 6x6 pixels, forward and backward to its weights and its input."""
    convolution = torch.nn.Conv2d(4, 5, 3, padding=1)
    with FlopCount() as count:
        out = convolution(torch.ones(2, 4, 6, 6, requires_grad=True))
        forward = 2 * 2 * 36 * 5 * 4 * 9        # Multiplications and additions.
        assert count.flops == forward
        out.sum().backward()
    assert count.flops == 3 * forward


def test_the_estimate_has_the_operations_of_pix2pix(strips: Path) -> None:
    """Those of the same step on images."""
    job = jobs.prepare("pix2pix", SMALL, data=strips)
    estimate = memory.estimate_memory(job.recipe, job.info, batch_size=2, ema=False)[1]
    modules, batch = job.recipe.modules(job.info), {"a": torch.rand(2, 3, 32, 32), "b": torch.rand(2, 3, 32, 32)}
    with FlopCount() as count:
        job.recipe.step(modules, batch, Progress(0, 2, 2), lambda player, loss, **logs: loss.backward(
            inputs=[p for name in job.recipe.players[player].modules for p in modules[name].parameters()]))
    assert estimate.flops == count.flops > 10**6


class Slow(torch.nn.Module):
    """A generator of 1,000 operations in a second of a clock that is ours."""

    now = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Slow.now += len(x)
        return x @ torch.ones(5, 100)       # 1,000 operations for each row.


def estimated(flops: int, total: int, **changes: Any) -> list[str]:
    said: list[str] = []
    trainer: Any = SimpleNamespace(
        images=0, total_images=total, device=torch.device(changes.pop("device", "cpu")), message=said.append, unless_interrupted=lambda make: make(),
        config=SimpleNamespace(batch_size=4, compile=changes.pop("compile", False)), ema_modules=torch.nn.ModuleDict({"G": Slow()}),
        runtime=SimpleNamespace(autocast=nullcontext), recipe=SimpleNamespace(generate=lambda m, batch: m["G"](batch["eps"])))
    vars(trainer).update(changes)
    SpeedEstimate(flops, {"eps": torch.ones(60, 5)}, lambda: Slow.now).on_start(trainer)
    return said


def test_how_long_a_run_takes_is_reported_before_its_first_step() -> None:
    """Four images are 8,000 operations, which the generator makes in 8 seconds."""
    before = Slow.now
    assert estimated(8_000, 43_200) == ["speed: about 0.5 images/s, 24 hours left, estimated from that of the generators; measured after the first step"]
    assert Slow.now == before + 1 + 4       # The first call, and a batch.
    assert "0.5 images/s, 10 days left" in estimated(8_000, 432_000)[0]
    assert "0.5 images/s, 5 days left" in estimated(8_000, 432_000, images=216_000)[0]
    assert estimated(8_000, 29) == []       # It is over before one has read it.
    assert estimated(8_000, 43_200, images=43_200) == []
    assert estimated(8_000, 43_200, compile=True) == estimated(8_000, 43_200, device="cuda") == []


def test_what_the_first_call_takes_more_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine: libraries are imported, kernels are chosen and memory is mapped in it."""
    forward, calls = Slow.forward, iter((100.0,))

    def slow_at_first(self: Slow, x: torch.Tensor) -> torch.Tensor:
        Slow.now += next(calls, 0)
        return forward(self, x)

    monkeypatch.setattr(Slow, "forward", slow_at_first)
    assert "0.5 images/s" in estimated(8_000, 43_200)[0]


def test_the_estimate_comes_before_the_first_sample_grid_and_changes_no_result(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Ears(Callback):
        def on_message(self, message: str) -> None:
            heard.append(message)

        def on_checkpoint(self, trainer: Trainer) -> None:
            heard.append(f"checkpoint {trainer.images}")

    package.train("pix2pix", *SMALL, "train.images=4", data=strips, out=tmp_path / "plain", device="cpu")
    monkeypatch.setattr(speed_estimate, "SHORT_RUN", 0.0)
    package.train("pix2pix", *SMALL, "train.images=4", data=strips, out=tmp_path / "said", device="cpu", callbacks=[Ears()])
    places = [heard.index(next(line for line in heard if line.startswith(start))) for start in ("memory: ", "speed: about ", "checkpoint 0")]
    assert places == sorted(places)
    assert_same(tmp_path / "plain", tmp_path / "said")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("cyclegan",), ("stylegan2-ada",), ("dcgan",), ("wgan-gp",), ("pix2pix", "data.size=128"), ("sngan", "data.size=32")])
def test_the_reported_speed_is_that_of_the_steps(words: tuple[str, ...]) -> None:
    """Within a factor of two, in this process's own time, as others may have the machine, too."""
    job = jobs.prepare(words[0], words[1:])
    size, modules = job.train.batch_size, job.recipe.modules(job.info)
    flops = memory.estimate_memory(job.recipe, job.info, batch_size=size, ema=False)[1].flops
    shapes = {"a": (job.info.a_channels, *job.info.size), "b": (job.info.b_channels, *job.info.size)}
    batch = {key: torch.rand(size, *shape) * 2 - 1 for key, shape in shapes.items()} | {"c": torch.zeros(size, dtype=torch.int64)}

    def step() -> float:
        start = time.process_time()
        job.recipe.step(modules, dict(batch), Progress(0, size, size), lambda player, loss, **logs: loss.backward(
            inputs=[p for name in job.recipe.players[player].modules for p in modules[name].parameters()]))
        return time.process_time() - start

    trainer: Any = SimpleNamespace(ema_modules=modules, recipe=job.recipe, config=job.train, runtime=SimpleNamespace(autocast=nullcontext))
    said = flops / SpeedEstimate(flops, fixed_samples(job), time.process_time)._flops_per_second(trainer)
    modules.train()
    seconds = min(step() for _ in range(3))
    assert 0.5 < said / seconds < 2, (said, seconds)
