"""A run that was interrupted, killed or moved to other workers ends with the bits of the run that was not."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2i
from i2i.errors import JobError, RequestError
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training import resume as resuming
from i2i.training import train as training
from i2i.training.callbacks.base import Callback
from i2i.training.trainer import Trainer
from tests import forked
from tests.conftest import CUT, CYCLE, SMALL, Run

VARIANTS = {
    "paper": ["pix2pix", *SMALL],
    "resnet, lsgan": ["pix2pix", *SMALL, "generator=resnet", "generator.blocks=1", "generator.width=4", "adversarial=lsgan"],
    "no average, hinge": ["pix2pix", *SMALL, "train.ema_half_life=0", "adversarial=hinge"], "bf16": ["pix2pix", *SMALL, "train.precision=bf16"],
    "penalty": ["pix2pix", *SMALL, "discriminator.norm=instance", "adversarial=wasserstein", "penalty=wgan-gp", "penalty.every=2"],
    "parametrized, clipped": ["pix2pix", *SMALL, "g_weight_norm=spectral", "d_weight_norm=weight", "adversarial=rpgan", "penalty=clip"],
    "ada": ["pix2pix", *SMALL, "augment=ada", "augment.speed=30", "augment.interval=2", "augment.target=0.01", "discriminator.norm=instance", "penalty=r1"],
    "kornia": ["pix2pix", *SMALL, "augment=kornia", "augment.ops=ColorJiggle,RandomAffine(degrees=30,translate=(0.1,0.1)),RandomErasing",
               "train.device_augment=kornia", "train.device_augment.ops=RandomHorizontalFlip,RandomAffine"],
    "cut": ["cut", *CUT], "fastcut": ["fastcut", *CUT, "train.batch_size=1", "generator.dropout=0.5"],
    "cyclegan": ["cyclegan", *CYCLE], "cyclegan, bf16": ["cyclegan", *CYCLE, "train.precision=bf16", "train.ema_half_life=0"]}


def images_seen(folder: Path) -> int:
    states = RunFolder(folder).states()
    return int(states[-1].stem.split("-")[1]) if states else -1


def assert_same(one: Path, other: Path) -> None:
    """Last state (weights, averages, optimizers, running means), model file, log and samples are equal bit for bit."""
    last = RunFolder(one).states()[-1].name
    for name in (last, "model.safetensors"):
        kind = "model" if name.startswith("model") else "state"
        (tensors, header), (others, other_header) = (checkpoint.load(run / name, kind) for run in (one, other))
        assert tensors.keys() == others.keys()
        for key, value in tensors.items():
            assert torch.equal(value, others[key]), f"{name}: {key}"
        assert header == other_header
    assert (one / "log.jsonl").read_text() == (other / "log.jsonl").read_text()
    samples = sorted(path.name for path in (one / "samples").iterdir())
    assert samples == sorted(path.name for path in (other / "samples").iterdir())
    for name in samples:
        assert np.array_equal(np.asarray(Image.open(one / "samples" / name)), np.asarray(Image.open(other / "samples" / name)))


class StopAfter(Callback):
    """A callback that interrupts the process after so many images, as Ctrl-C would."""

    def __init__(self, images: int, number: int = signal.SIGINT) -> None:
        self.images, self.number = images, number

    def on_step(self, trainer: Trainer, logs: object) -> None:
        if trainer.images >= self.images:
            os.kill(os.getpid(), self.number)
            self.images = 10**9


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_interrupted_run_resumes_bit_for_bit(strips: Path, tmp_path: Path, variant: str) -> None:
    recipe, *words = [*VARIANTS[variant], "train.images=26"]
    i2i.train(recipe, *words, data=strips, out=tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        i2i.train(recipe, *words, data=strips, out=tmp_path / "cut", device="cpu", callbacks=[StopAfter(10)])
    assert images_seen(tmp_path / "cut") == 10
    folder, job = resuming.resolve_job("", ["train.num_workers=2"], data=None, out=None, epochs=None, resume=tmp_path / "cut")
    assert training.run_job(job, folder, device="cpu", callbacks=[StopAfter(20, signal.SIGTERM)]) == signal.SIGTERM
    i2i.train(resume=tmp_path / "cut", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "cut")


def test_an_interrupted_unpaired_run_resumes_bit_for_bit_with_its_pool(sides: Path, tmp_path: Path) -> None:
    """Interrupted while the pools fill and when they are full; without the pools the end would be another."""
    words = [*CYCLE, "train.images=30", "pool=9"]
    i2i.train("cyclegan", *words, data=sides, out=tmp_path / "straight", device="cpu")
    with pytest.raises(KeyboardInterrupt):
        i2i.train("cyclegan", *words, data=sides, out=tmp_path / "cut", device="cpu", callbacks=[StopAfter(6)])
    with pytest.raises(KeyboardInterrupt):
        i2i.train(resume=tmp_path / "cut", device="cpu", callbacks=[StopAfter(18)])
    path = RunFolder(tmp_path / "cut").states()[-1]
    shutil.copytree(tmp_path / "cut", tmp_path / "without")
    i2i.train(resume=tmp_path / "cut", device="cpu")
    assert_same(tmp_path / "straight", tmp_path / "cut")
    tensors, header = checkpoint.load(path, "state") if path.exists() else checkpoint.load(tmp_path / "without" / path.name, "state")
    assert int(tensors["modules.pool_a.count"]) == 9
    tensors["modules.pool_a.images"].zero_()
    checkpoint.save(tmp_path / "without" / path.name, tensors, header)
    i2i.train(resume=tmp_path / "without", device="cpu")
    assert (tmp_path / "without" / "log.jsonl").read_text() != (tmp_path / "cut" / "log.jsonl").read_text()


def test_a_killed_run_resumes_bit_for_bit(strips: Path, tmp_path: Path) -> None:
    """kill -9 at moments that fall anywhere: before the first step, between steps, during saves."""
    words = ["train", "pix2pix", *SMALL, "train.images=60", "train.checkpoint_every=6", "--data", strips, "--device", "cpu"]
    straight = forked.begin(forked.command, *words, "--out", tmp_path / "straight")
    run, kills = tmp_path / "killed", 0
    process = forked.begin(forked.command, *words, "--out", run)
    for target in (0, 12, 30, 48):
        deadline = time.monotonic() + 60
        while process.is_alive() and images_seen(run) < target and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.013 * kills)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        process = forked.begin(forked.command, "train", "--resume", run, "--device", "cpu", "train.num_workers=1")
    for each in (process, straight):
        each.join()
        assert each.exitcode == 0
    assert kills >= 2
    assert_same(tmp_path / "straight", run)


def test_resume_of_a_finished_run_changes_nothing(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    i2i.train(resume=tmp_path / "run", device="cpu")
    assert_same(trained, tmp_path / "run")


def test_a_damaged_state_is_passed_over(strips: Path, tmp_path: Path, i2i: Run) -> None:
    words = ["pix2pix", *SMALL, "train.images=20", "--data", strips, "--device", "cpu"]
    assert i2i("train", *words, "--out", "straight").code == 0
    assert i2i("train", *words, "--out", "run").code == 0
    last = RunFolder("run").states()[-1]
    last.write_bytes(last.read_bytes()[:-100])
    result = i2i("train", "--resume", "run", "--device", "cpu")
    assert result.code == 0
    assert last.name in result.out
    assert "going on from the state before it, at 16 images" in result.out
    assert_same(Path("straight"), Path("run"))


def test_if_no_state_is_left_that_can_be_read_it_is_reported(strips: Path, i2i: Run) -> None:
    assert i2i("train", "pix2pix", *SMALL, "train.images=4", "--data", strips, "--out", "run", "--device", "cpu").code == 0
    for state in RunFolder("run").states():
        state.write_bytes(b"gone")
    result = i2i("train", "--resume", "run", "--device", "cpu")
    assert result.code == 2
    assert "damaged" in result.line


@pytest.mark.parametrize("word", ["lambda_l1=50", "train.batch_size=4", "generator.width=8", "train.images=99k", "data.flip=false", "train.seed=1", "generator=resnet"])
def test_scientific_settings_cannot_change(trained: Path, i2i: Run, word: str) -> None:
    result = i2i("train", "--resume", trained, word)
    assert result.code == 2
    assert "when it is resumed" in result.line
    assert word.split("=")[0].split(".")[0] in result.line


@pytest.mark.parametrize("words", [["pix2pix"], ["--data", "x"], ["--out", "y"], ["--epochs", "3"]])
def test_resume_takes_nothing_else(trained: Path, i2i: Run, words: list[str]) -> None:
    result = i2i("train", "--resume", trained, *words)
    assert result.code == 2
    assert "--resume takes everything from the run" in result.line


def test_changed_data_is_noticed(strips: Path, tmp_path: Path, i2i: Run) -> None:
    assert i2i("train", "pix2pix", *SMALL, "train.images=4", "--data", strips, "--out", "run", "--device", "cpu").code == 0
    (strips / "train" / "00.png").unlink()
    result = i2i("train", "--resume", "run", "--device", "cpu")
    assert result.code == 2
    assert "not those the run was started with" in result.line


def test_a_corrupt_image_stops_the_run_and_nothing_is_lost(strips: Path, tmp_path: Path, i2i: Run) -> None:
    words = ["pix2pix", *SMALL, "train.images=40", "train.checkpoint_every=100", "--data", strips, "--device", "cpu"]
    good = (strips / "train" / "04.png").read_bytes()
    assert i2i("train", *words, "--out", "straight").code == 0
    folder, job = resuming.resolve_job("pix2pix", [*SMALL, "train.images=40", "train.checkpoint_every=100"], data=strips, out="broken", epochs=None, resume=None)
    (strips / "train" / "04.png").write_bytes(b"broken")
    with pytest.raises(JobError, match=r"04\.png"):
        training.run_job(job, folder, device="cpu")
    (strips / "train" / "04.png").write_bytes(good)
    assert i2i("train", "--resume", "broken", "--device", "cpu").code == 0
    assert_same(Path("straight"), Path("broken"))


def test_the_log_tells_losses_and_no_times(trained: Path) -> None:
    entries = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [entry["images"] for entry in entries] == [6, 12, 18, 24]
    assert {"d", "gan", "l1", "grad_norm_G", "grad_norm_D"} <= entries[0].keys()
    assert not {"unix", "seconds", "images_per_second"} & entries[0].keys()


def test_states_are_kept_as_asked(strips: Path, i2i: Run) -> None:
    assert i2i("train", "pix2pix", *SMALL, "train.images=40", "train.keep_checkpoints=3", "--data", strips, "--out", "run", "--device", "cpu").code == 0
    assert [path.stem for path in RunFolder("run").states()] == ["state-00000024", "state-00000032", "state-00000040"]


@pytest.mark.parametrize("minutes", [{"limit": 2, "chosen": {}}, {"limit": 2, "chosen": {}, "measured": {}}, {"limit": 2, "chosen": {}, "measured": {"images_per_second": 0}}, [2],
                                     {"limit": 0, "chosen": {}, "measured": {"images_per_second": 3}}, {"limit": 2, "chosen": [], "measured": {"images_per_second": 3}}])
def test_a_run_by_the_clock_without_its_measured_speed_is_refused(trained: Path, tmp_path: Path, i2i: Run, minutes: object) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"minutes": minutes}))
    result = i2i("train", "--resume", "run", "--device", "cpu")
    assert (result.code, "run/config.json is not the config of a run: " in result.line) == (2, True)


def test_a_state_of_another_network_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["recipe"]["settings"]["generator"]["options"]["width"] = 6
    config["train"]["images"] = 48      # Not finished.
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="does not fit the networks"):
        i2i.train(resume=tmp_path / "run", device="cpu")
