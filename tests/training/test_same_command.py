"""The same command continues a run that is not finished, says of a finished one that it is, and refuses other words."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

import i2i as package
from i2i.cli import train as terminal
from i2i.errors import RequestError
from i2i.runs.folder import RunFolder
from i2i.training import job as jobs
from i2i.training import memory
from i2i.training import resume as resuming
from i2i.training.callbacks.base import Callback
from i2i.training.plan import memory_estimate
from i2i.training.trainer import Trainer
from tests import forked
from tests.conftest import CYCLE, SMALL, Run
from tests.training.test_resume import assert_same

WORDS = ("pix2pix", *SMALL, "train.images=26", "--device", "cpu")


@pytest.fixture
def preempted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """SIGTERM comes at these numbers of images, one in each life."""
    moments: list[int] = []
    on_step = terminal.ProgressLines.on_step

    def then(self: terminal.ProgressLines, trainer: Trainer, logs: object) -> None:
        on_step(self, trainer, logs)      # type: ignore[arg-type]
        if moments and trainer.images >= moments[0]:
            moments.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(terminal.ProgressLines, "on_step", then)
    return moments


@pytest.mark.parametrize("words", [WORDS, ("dcgan", "generator.width=4", "generator.z_dim=8", "discriminator.width=4", "train.batch_size=4", "train.images=40",
                                    "train.log_every=12", "train.checkpoint_every=16", "--device", "cpu")], ids=lambda words: words[0])
def test_the_same_command_until_it_is_finished(words: tuple[str, ...], strips: Path, i2i: Run, preempted: list[int]) -> None:
    data = ("--data", strips if words[0] == "pix2pix" else strips / "train")
    assert i2i("train", *words, *data, "--out", "straight").code == 0
    preempted[:] = [6, 14]
    for saved in (6, 14) if words[0] != "dcgan" else (8, 16):
        result = i2i("train", *words, *data, "--out", "run")
        assert result.code == 128 + signal.SIGTERM
        assert "stopped and saved" in result.err
        assert int(RunFolder("run").states()[-1].stem.split("-")[1]) == saved
    result = i2i("train", *words, *data, "--out", "run")
    assert result.code == 0, result.err
    assert "-> run, resumed" in result.out
    assert_same(Path("straight"), Path("run"))
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    result = i2i("train", *words, *data, "--out", "run")
    assert (result.code, result.err) == (0, "")
    seen = RunFolder("run").images
    assert result.out.splitlines() == [f"run is finished: {seen} images, model run/model.safetensors; choose another --out to train again, "
                                       f"or to go on: i2i train --extend run --images {2 * seen}"]
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


def test_without_out_the_unfinished_run_of_the_same_command_is_resumed(strips: Path, i2i: Run, preempted: list[int]) -> None:
    assert i2i("train", *WORDS, "--data", strips, "--out", "straight").code == 0
    preempted[:] = [10]
    assert i2i("train", *WORDS, "--data", strips).code == 143
    preempted[:] = [4]
    assert i2i("train", *WORDS, "lambda_l1=50", "--data", strips).code == 143       # Other words, another folder.
    assert i2i("train", *WORDS, "--data", strips).code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["pix2pix", "pix2pix-2"]
    assert_same(Path("straight"), Path("runs/pix2pix"))
    assert RunFolder("runs/pix2pix-2").states()[-1].name == "state-00000004.safetensors"
    Path("runs/pix2pix/config.json").write_text("{")        # What cannot be read is nobody's run.
    assert resuming.folder_for("pix2pix", jobs.prepare("pix2pix", [*SMALL, "train.images=26"], data=strips)).path == Path("runs/pix2pix-3")


def _holding(path: Path, ready: Path, seconds: float) -> None:
    folder = RunFolder(path)
    folder.lock()
    ready.touch()
    time.sleep(seconds)


def test_a_run_in_which_somebody_trains_is_left_alone(strips: Path, i2i: Run, preempted: list[int], tmp_path: Path) -> None:
    preempted[:] = [4]
    assert i2i("train", *WORDS, "--data", strips).code == 143
    job = jobs.prepare("pix2pix", [*SMALL, "train.images=26"], data=strips)
    assert resuming.folder_for("pix2pix", job).path == Path("runs/pix2pix")
    other = forked.begin(_holding, tmp_path / "runs" / "pix2pix", tmp_path / "ready", 60.0)
    try:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        assert RunFolder("runs/pix2pix").is_locked()
        assert resuming.folder_for("pix2pix", job).path == Path("runs/pix2pix-2")
        result = i2i("train", *WORDS, "--data", strips, "--out", "runs/pix2pix")
        assert (result.code, "another process is training in runs/pix2pix" in result.line) == (2, True)
    finally:
        other.kill()
        other.join()
    assert not RunFolder("runs/pix2pix").is_locked()


@pytest.mark.parametrize(("words", "differs"), [
    (["lambda_l1=50", "--out", "run"], "lambda_l1=100.0 instead of lambda_l1=50.0"),
    (["generator.width=6", "train.seed=3", "--out", "run"], "generator.width=4 train.seed=0 instead of generator.width=6 train.seed=3"),
    (["generator=resnet", "generator.width=4", "--out", "run"], "generator=unet"), (["train.batch_size=4", "--out", "run"], "train.batch_size=2 instead of train.batch_size=4")])
def test_another_command_is_refused_with_what_differs(trained: Path, tmp_path: Path, i2i: Run, words: list[str], differs: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    result = i2i("train", "pix2pix", *SMALL, "train.images=24", "--data", trained.parent / "data", "--device", "cpu", *words)
    assert result.code == 2
    assert differs in result.line
    assert "i2i train --resume run" in result.line
    assert "train.num_workers" in result.line


def test_another_recipe_other_data_and_changed_data_are_reported(trained: Path, tmp_path: Path, i2i: Run, strips: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    common = ("train.images=24", "--device", "cpu", "--out", "run")
    result = i2i("train", "cyclegan", *CYCLE, *common, "--data", trained.parent / "data")
    assert (result.code, "pix2pix instead of cyclegan" in result.line) == (2, True)
    result = i2i("train", "pix2pix", *SMALL, *common, "--data", strips)
    assert (result.code, f"--data {trained.parent / 'data'} instead of --data {strips}" in result.line) == (2, True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["fingerprint"]["train"] = "6 pairs, of another kind"
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    result = i2i("train", "pix2pix", *SMALL, *common, "--data", trained.parent / "data")
    assert (result.code, "not those the run was started with" in result.line) == (2, True)


def test_what_changes_no_number_may_differ(strips: Path, i2i: Run, preempted: list[int]) -> None:
    assert i2i("train", *WORDS, "--data", strips, "--out", "straight").code == 0
    preempted[:] = [6]
    assert i2i("train", *WORDS, "train.num_workers=1", "--data", strips, "--out", "run").code == 143
    assert i2i("train", *WORDS, "train.keep_checkpoints=1", "on_error=skip", "--data", strips, "--out", "run").code == 0
    assert len(RunFolder("run").states()) == 1
    shutil.rmtree("straight/samples")
    shutil.copytree("run/samples", "straight/samples")
    assert_same(Path("straight"), Path("run"))


def test_a_finished_run_that_is_damaged_is_mended_by_the_same_command(trained: Path, tmp_path: Path, i2i: Run) -> None:
    shutil.copytree(trained, tmp_path / "run")
    words = ("train", "pix2pix", *SMALL, "train.images=24", "--data", trained.parent / "data", "--device", "cpu", "--out", "run")
    assert "is finished" in i2i(*words).out
    (tmp_path / "run" / "model.safetensors").write_bytes(b"gone")
    result = i2i(*words)
    assert (result.code, "written anew from the state" in result.out) == (0, True)
    assert_same(trained, tmp_path / "run")
    state = RunFolder("run").states()[-1]
    state.write_bytes(state.read_bytes()[:-9])
    assert "set aside" in i2i(*words).out
    state.with_suffix(".damaged").unlink()
    assert_same(trained, tmp_path / "run")
    assert "is finished" in i2i(*words).out


def test_measured_settings_are_those_of_the_first_time(strips: Path, i2i: Run, preempted: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*WORDS, "--data", strips, "--out", "run", "--autotune", "train.precision=fp32")
    from i2i.training import autotune
    measured = []

    def choose(tuner: autotune.Autotuner, *args: object) -> None:      # As if it had been faster.
        measured.append(1)
        tuner.config = replace(tuner.config, memory_format="channels-last", threads=1) if len(measured) == 1 else tuner.config
        tuner.trials.append({"ms": 1.0, "adopted": True})
        tuner.step_seconds = 1.0

    monkeypatch.setattr(autotune.Autotuner, "_try_step", choose)
    monkeypatch.setattr(autotune.Autotuner, "_tune_workers", lambda *args: None)
    preempted[:] = [8]
    assert i2i("train", *words).code == 143
    count = len(measured)
    assert count
    assert i2i("train", *words).code == 0
    assert len(measured) == count
    assert json.loads(Path("run/config.json").read_text())["train"]["memory_format"] == "channels-last"
    assert "memory_format=channels-last" in i2i("train", *WORDS, "--data", strips, "--out", "run").line     # Without --autotune the default is meant.
    assert "--autotune cannot be given with --resume or --extend" in i2i("train", "--resume", "run", "--autotune").line


def test_the_python_api_goes_on_too(strips: Path, tmp_path: Path) -> None:
    from tests.training.test_resume import StopAfter
    words = ("pix2pix", *SMALL, "train.images=20")
    package.train(*words, data=strips, out=tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        package.train(*words, data=strips, out=tmp_path / "run", device="cpu", callbacks=[StopAfter(6)])
    for _ in range(2):
        assert package.train(*words, data=strips, out=tmp_path / "run", device="cpu") == tmp_path / "run"
        assert_same(tmp_path / "straight", tmp_path / "run")
    with pytest.raises(RequestError, match="holds another run"):
        package.train(*words, "lambda_l1=3", data=strips, out=tmp_path / "run", device="cpu")


def test_an_alarms_verdict_does_not_make_a_run_finished(trained: Path, tmp_path: Path) -> None:
    """The alarm stopped the run and left its sentence; it went on, and was killed before the last sentence was written."""
    shutil.copytree(trained, tmp_path / "run")
    run, job = RunFolder(tmp_path / "run"), resuming.reopen_job(RunFolder(tmp_path / "run"))
    assert resuming.is_finished(run, job)
    last = run.states()[-1]
    aside = last.rename(last.with_suffix(".aside"))
    seen: list[bool] = []

    class Looking(Callback):
        def on_step(self, trainer: Trainer, logs: object) -> None:
            seen.append(run.verdict.exists())

    package.train(resume=run.path, device="cpu", callbacks=[Looking()])
    assert seen
    assert not any(seen)
    aside.unlink()
    assert resuming.is_finished(run, job)


def test_an_option_of_optimizers_alone_is_set_for_both_players_and_reported(strips: Path, i2i: Run) -> None:
    common = ("train", "pix2pix", *SMALL[:3], "--data", strips, "--device", "cpu")
    out = i2i(*common, "lr=3e-4", "batch_size=8", "d_optimizer.lr=1e-4", "train.images=16", "--out", "run").out
    assert "note: lr=3e-4 sets g_optimizer.lr and d_optimizer.lr" in out
    config = json.loads(Path("run/config.json").read_text())
    assert config["recipe"]["settings"]["g_optimizer"]["options"]["lr"] == 3e-4
    assert config["recipe"]["settings"]["d_optimizer"]["options"]["lr"] == 1e-4         # What says more comes on top,
    assert config["train"]["batch_size"] == 8
    job = jobs.prepare("pix2pix", ["lr=3e-4", "g_optimizer=rmsprop"], data=strips)        # and components come before their options.
    assert (job.recipe.g_optimizer.name, job.recipe.g_optimizer.options["lr"], job.recipe.d_optimizer.options["lr"]) == ("rmsprop", 3e-4, 3e-4)
    result = i2i(*common, "beta7=1", "--dry-run")
    assert (result.code, "no setting 'beta7'" in result.line) == (2, True)
    result = i2i(*common, "lr=fast", "--dry-run")
    assert (result.code, "g_optimizer.lr=fast cannot be read" in result.line) == (2, True)


def test_what_is_resumed_says_the_preset_and_where_it_goes_on_and_a_finished_run_that_it_is_finished(strips: Path, i2i: Run, preempted: list[int]) -> None:
    words = ("dcgan", "generator.width=4", "generator.z_dim=8", "discriminator.width=4", "train.batch_size=4", "train.images=40", "train.checkpoint_every=16")
    preempted[:] = [8]
    assert i2i("train", *words, "--data", strips / "train", "--out", "run").code == 128 + signal.SIGTERM
    result = i2i("train", "--resume", "run")
    assert result.out.startswith("dcgan: ")                 # Not gan, the recipe whose preset it is.
    assert "-> run, resumed at 8 images" in result.out
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    result = i2i("train", "--resume", "run")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == ["run is finished: 40 images, model run/model.safetensors; choose another --out to train again, "
                                       "or to go on: i2i train --extend run --images 80"]
    assert before == {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [("pix2pix", *SMALL, "train.images=24"), ("dcgan", "generator.width=8", "discriminator.width=8", "train.images=24", "train.ema_half_life=0")])
def test_what_the_states_take_on_disk_is_reported_before_the_run(words: tuple[str, ...], strips: Path, i2i: Run) -> None:
    out = i2i("train", *words, "train.keep_checkpoints=1", "--data", strips if words[0] == "pix2pix" else strips / "train", "--out", "run", "--dry-run").out
    said = re.search(r"disk +about (\d+) MB: train.keep_checkpoints=1 of (\d+) MB each", out)
    assert said, out
    job = jobs.prepare(words[0], words[1:], data=strips if words[0] == "pix2pix" else strips / "train")
    state = memory_estimate(job).state
    out = i2i("train", *words, "--data", strips if words[0] == "pix2pix" else strips / "train", "--out", "run").out
    assert f"disk: about {memory.format_bytes(2 * state)}: train.keep_checkpoints=2 of {memory.format_bytes(state)} each" in out
    assert RunFolder("run").states()[-1].stat().st_size == pytest.approx(state, rel=0.1, abs=30_000)      # The file has a header with names.
