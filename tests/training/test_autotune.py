"""`--autotune` measures, writes ordinary settings, and leaves alone what a person said."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import i2i as package
from i2i.training.trainer import Trainer
from tests.conftest import SMALL, Run
from tests.training.test_resume import assert_same

FAST = {"bf16": 0.5, "channels-last": 0.97, "plain": 1.0}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps are made, but the clock is ours: bf16 halves their time, channels-last saves 3 %."""
    settings: list[str] = []

    def timed(trainer: Trainer, work: Callable[[], object]) -> float:
        work()
        config = trainer.config
        settings.append(f"{config.precision} {config.memory_format} {config.compile} {config.num_workers}")
        return 0.1 * (0.5 if config.precision == "bf16" else 1) * (0.97 if config.memory_format == "channels-last" else 1)

    monkeypatch.setattr(Trainer, "seconds", timed)
    return settings


def test_auto_takes_what_is_worth_it_writes_it_as_settings_and_changes_nothing_else(strips: Path, told: list[str], i2i: Run) -> None:
    words = ["pix2pix", *SMALL, "train.images=16", "--data", strips, "--device", "cpu"]
    result = i2i("train", *words, "--autotune", "--out", "auto")
    assert result.code == 0, result.err
    assert "train.precision=bf16 train.memory_format=contiguous" in result.out
    assert "8 significant bits" in result.out
    report, config = (json.loads(Path("auto", name).read_text()) for name in ("autotune.json", "config.json"))
    assert report["chosen"].items() <= config["train"].items()
    assert report["chosen"]["precision"] == "bf16"
    assert "compile" in report["skipped"]      # A run of a second is not worth a minute of compiling.
    assert [trial["ms"] for trial in report["trials"] if trial["adopted"]][:2] == [100, 50]
    assert any(trial["memory_format"] == "channels-last" and not trial["adopted"] for trial in report["trials"])
    assert i2i("train", *words, "train.precision=bf16", "--out", "given").code == 0
    assert_same(Path("given"), Path("auto"))
    assert i2i("train", "--resume", "auto", "--device", "cpu").code == 0


def test_settings_given_by_the_user_are_left_alone(strips: Path, told: list[str], i2i: Run) -> None:
    result = i2i("train", "pix2pix", *SMALL, "train.images=4", "precision=fp32", "train.num_workers=0", "train.memory_format=channels-last",
                 "--autotune", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    assert set(told) == {"fp32 channels-last False 0"}
    config, report = (json.loads(Path("run", name).read_text()) for name in ("config.json", "autotune.json"))
    assert (config["train"]["precision"], config["train"]["memory_format"]) == ("fp32", "channels-last")
    assert report["assigned"] == ["precision", "memory_format", "num_workers"]
    assert set(report["chosen"]) == {"threads", "compile"}


def test_without_gains_nothing_changes_and_a_plan_needs_no_folder(strips: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "seconds", lambda trainer, work: (work() and 1.0) or 1.0)
    result = i2i("train", "dcgan", "generator.width=4", "discriminator.width=4", "train.batch_size=2", "train.images=8", "--autotune", "--dry-run", "--data",
                 strips / "train", "--device", "cpu", "data.size=32")
    assert result.code == 0, result.err
    assert "train.precision=fp32 train.memory_format=contiguous train.compile=false train.num_workers=0" in result.out
    assert not Path("runs").exists()


def test_auto_is_for_the_start_of_a_run(trained: Path, i2i: Run) -> None:
    result = i2i("train", "--resume", trained, "--autotune")
    assert result.code == 2
    assert "--autotune cannot be given with --resume or --extend" in result.line


def test_auto_with_a_real_clock(strips: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    run = package.train("pix2pix", *SMALL, "train.images=4", data=strips, out=tmp_path / "run", device="cpu", autotune=True)
    report = json.loads((run / "autotune.json").read_text())
    assert all(trial["ms"] > 0 for trial in report["trials"])
    assert {trial["num_workers"] for trial in report["trials"]} >= {0}
    assert torch.get_num_threads() == (json.loads((run / "config.json").read_text())["train"]["threads"] or threads)
