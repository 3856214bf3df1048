"""The verdict recognizes what was planted; readings of D and diversity are their formulas; a run leaves its judgement behind."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from i2i import load
from i2i.images.convert import to_levels
from i2i.metrics.intervals import Evaluation, describe_progress, mean_interval, paired_difference
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training.callbacks import evaluation as evaluations
from i2i.training.callbacks.diagnosis import overfitting, warnings
from i2i.training.callbacks.evaluator import Evaluator
from i2i.training.callbacks.fixed_inputs import THUMBNAIL_SIZE, thumbnails
from tests.conftest import SMALL, Run


def history(means: list[float], n: int = 96, seed: int = 0) -> list[Evaluation]:
    """Images of very different difficulty, judged again and again with a little noise: what a validation split looks like."""
    g = np.random.default_rng(seed)
    hard = g.gamma(3.0, 5.0, n)
    return [Evaluation(1000 * (i + 1), list(hard + mean + g.normal(0, 0.8, n))) for i, mean in enumerate(means)]


@pytest.mark.parametrize("seed", range(20))
class TestVerdicts:
    def test_improvement(self, seed: int) -> None:
        assert describe_progress(history([9, 6, 4, 2, 0], seed=seed), "l1").startswith("still improving at image 5,000")

    def test_plateau(self, seed: int) -> None:
        told = describe_progress(history([9, 4, 0, 0, 0, 0, 0], seed=seed), "l1")
        assert told.startswith("flat since image")
        assert int(told.split()[3].rstrip(":").replace(",", "")) in (3000, 4000, 5000, 6000)

    def test_late_degradation(self, seed: int) -> None:
        told = describe_progress(history([9, 4, 1, 0, 1.5, 3, 4], seed=seed), "l1")
        assert told.startswith("worse since image 4,000")


def test_a_plateau_starts_where_it_starts_most_of_the_time() -> None:
    starts = [describe_progress(history([9, 4, 0, 0, 0, 0, 0], seed=seed), "l1").split()[3] for seed in range(40)]
    assert starts.count("3,000:") > 32


def test_coming_back_to_what_was_reached_before_is_no_improvement() -> None:
    for seed in range(20):
        assert describe_progress(history([9, 4, 0, 3, 0.05], seed=seed), "l1").startswith("flat since image 3,000")


def test_too_little_to_tell() -> None:
    assert "too few" in describe_progress(history([3, 2]), "l1")


def test_intervals() -> None:
    assert mean_interval([1.0]) == (None, None)
    low, high = mean_interval([1.0, 2.0, 3.0])
    assert low == pytest.approx(2 - 4.302653 / 3**0.5)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5)
    assert paired_difference(Evaluation(2, [2.0, 3.0]), Evaluation(1, [1.0, 2.0])) == (1.0, 1.0)


def test_overfitting_is_karras_equation() -> None:
    readings = {"real_logits_train": 3.0, "fake_logits": -1.0, "real_logits_heldout": 1.0, "diversity": 1.0, "diversity_real": 1.0}
    assert overfitting(readings) == 0.5
    assert warnings([{"scores": {}, "readings": readings}]) == []
    readings["real_logits_heldout"] = -0.8
    told = warnings([{"scores": {}, "readings": readings}])
    assert len(told) == 1
    assert "discriminator overfits" in told[0]
    assert overfitting(readings | {"fake_logits": 4.0}) == 0.0


def test_outputs_that_look_alike_are_reported() -> None:
    readings = {"real_logits_train": 0.0, "fake_logits": 0.0, "real_logits_heldout": 0.0, "diversity": 0.1, "diversity_real": 0.5}
    assert "look alike" in warnings([{"scores": {}, "readings": readings}])[0]
    assert warnings([{"scores": {}, "readings": readings | {"diversity": 0.4}}]) == []


class Constant(nn.Module):
    """A generator that has collapsed: the same picture for every input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def test_a_collapsed_generator_is_noticed_and_a_copying_one_is_not(strips: Path) -> None:
    from i2i.training import job as jobs
    from i2i.training import train as training
    job = jobs.prepare("pix2pix", SMALL, data=strips)
    watch = training.make_evaluator(job, torch.device("cpu"), lambda: thumbnails(THUMBNAIL_SIZE))
    assert isinstance(watch, Evaluator)
    live = job.recipe.modules(job.info)
    collapsed = watch(live, nn.ModuleDict({"E": live["E"], "G": Constant()}), 10)
    assert any("look alike" in told for told in warnings([collapsed]))
    healthy = watch(live, nn.ModuleDict({"E": live["E"], "G": nn.Identity()}), 10)
    assert not any("look alike" in told for told in warnings([healthy]))
    inputs = [job.splits["val"][i] for i in range(3)]
    assert healthy["scores"]["l1"]["value"] == pytest.approx(np.mean([np.abs(a.array.astype(float) - b.array).mean() for a, b in inputs]))
    assert healthy["n"] == 3


def test_a_run_leaves_its_judgement(strips: Path, i2i: Run) -> None:
    result = i2i("train", "pix2pix", *SMALL, "train.images=40", "--data", strips, "--out", "run", "--device", "cpu")
    assert result.code == 0
    entries = log.read(Path("run/metrics.jsonl"))
    assert entries[-1]["images"] == 40
    assert entries[-1]["split"] == "val"
    assert {"l1", "psnr", "ssim"} == entries[-1]["scores"].keys()
    told = json.loads(Path("run/verdict.json").read_text())
    assert told["sentence"] in result.out
    best = min(entries, key=lambda entry: entry["scores"]["l1"]["value"])
    assert told["best"]["images"] == best["images"]
    header = load("run/best.safetensors").header
    assert (header["images"], header["picked_on"]) == (best["images"], "val")
    shown = told["shown"]
    assert (shown["split"], shown["n"], shown["images"], shown["selection"]) == ("test", 4, best["images"], "picked on val, shown on test once")
    from i2i.training import job as jobs
    job, model = jobs.prepare("pix2pix", SMALL, data=strips), load("run/best.safetensors")
    pairs_of_test = [job.splits["test"].for_evaluation(job.formats, job.crop_size).tensors(i) for i in range(4)]
    errors = [float((to_levels(model(pair["a"][None])) - to_levels(pair["b"][None])).abs().mean()) for pair in pairs_of_test]
    assert shown["scores"]["l1"]["value"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert f"test at {best['images']} images: l1" in result.out
    assert f"(4 images); {shown['selection']}" in result.out
    pairs = json.loads(Path("run/pairs.json").read_text())
    assert pairs["split"] == "test"
    assert [row["value"] for row in pairs["best"]] == sorted(row["value"] for row in pairs["best"])
    assert pairs["best"][0]["value"] <= pairs["worst"][-1]["value"] <= pairs["worst"][0]["value"]
    assert all((Path("run") / row["file"]).exists() for row in (*pairs["best"], *pairs["worst"]))
    assert pairs["worst"][0]["name"].startswith("test/")


def test_without_a_validation_split_nothing_is_judged(trained: Path) -> None:
    assert not (trained / "metrics.jsonl").exists()


def test_evaluation_takes_at_most_a_tenth_of_the_time(strips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    import i2i as package
    slow = Evaluator.__call__

    def slower(self: Evaluator, *arguments: object) -> dict[str, object]:
        time.sleep(0.3)
        return slow(self, *arguments)

    monkeypatch.setattr(Evaluator, "__call__", slower)
    package.train("pix2pix", *SMALL, "train.images=400", "train.checkpoint_every=4", data=strips, out=tmp_path / "run", device="cpu")
    entries = log.read(tmp_path / "run" / "metrics.jsonl")
    speed = log.read(tmp_path / "run" / "speed.jsonl")
    total = speed[-1]["unix"] - speed[0]["unix"]
    seconds = [entry["seconds"] for entry in entries]
    assert sum(seconds[:-1]) <= 0.1 * total + 2 * max(seconds)      # The first has no cost to go by, the last may take longer than the one before.
    assert len(entries) < 60        # Of 100 ticks.
    assert entries[-1]["images"] == 400


class Costly:
    """An evaluator that takes so many seconds of a clock that is ours: to begin with, and for each image."""

    metric = "l1"

    def __init__(self, load: "Load", limit: int = 256) -> None:
        self.load, self.limit = load, limit
        self.heldout = SimpleNamespace(indices=range(min(limit, load.pairs)))

    def limited(self, count: int) -> "Costly":
        return Costly(self.load, min(count, self.limit))

    def embedding(self) -> None:
        self.load.spend(2.0)

    def __call__(self, live: object, averaged: object, images: int) -> dict[str, Any]:
        self.load.spend(self.load.fixed + self.load.per_image * len(self.heldout.indices))
        return {"images": images, "split": "val", "n": len(self.heldout.indices), "scores": {"l1": {"value": 1.0}}}


@dataclass
class Load:
    """A run whose steps and evaluations take what is said here."""

    seconds: float          # Of the steps.
    checkpoints: int
    pairs: int
    per_image: float
    fixed: float
    now: float = 50.0
    spent: float = 0.0      # In evaluation.

    def spend(self, seconds: float) -> None:
        self.now += seconds
        self.spent += seconds

    def run(self, folder: Path) -> list[dict[str, Any]]:
        """Train; the best and worst pairs at the end take half of an evaluation."""
        evaluation = evaluations.Evaluation(Costly(self), lambda: self.now)      # type: ignore[arg-type]
        trainer: Any = SimpleNamespace(
            folder=RunFolder(folder), images=0, total_images=1000 * self.checkpoints, modules=None, ema_modules=None, state=SimpleNamespace(save_model=lambda *some: None),
            writer=SimpleNamespace(submit=lambda job: job()), callbacks=SimpleNamespace(notify=lambda call: None), message=lambda text: None,
            unless_interrupted=lambda make: make())
        folder.mkdir()
        evaluation.on_start(trainer)
        for _ in range(self.checkpoints):
            self.now += self.seconds / self.checkpoints
            trainer.images += 1000
            evaluation.on_checkpoint(trainer)
        self.spend(0.5 * self.per_image * len(evaluation.evaluator.heldout.indices))
        return log.read(trainer.folder.metrics)


@pytest.mark.parametrize(("load", "n"), [
    (Load(460, 5, 96, 0.017, 0.1), 96),             # The demo: all pairs, at each checkpoint.
    (Load(480, 3, 256, 0.4, 1.0), None),            # Pix2pix at 256 pixels on a CPU, where all pairs took 158 s.
    (Load(600, 6, 256, 0.22, 3.0), None),           # 256 images from noise on one thread, 56 s.
    (Load(90_000, 12, 256, 6.0, 10.0), 256),        # A day of something large.
    (Load(300, 1, 256, 0.4, 1.0), None)],           # Where the first is the last.
    ids=["demo", "256 pixels", "noise", "a day", "one checkpoint"])
def test_all_evaluation_of_a_run_takes_at_most_a_tenth_of_its_time(load: Load, n: int | None, tmp_path: Path) -> None:
    """The trial, the first, the last and the pairs counted in, by an injected clock."""
    entries = load.run(tmp_path / "run")
    assert load.spent <= 0.1 * (load.now - 50), load.spent
    assert entries[-1]["images"] == 1000 * load.checkpoints
    assert len({entry["n"] for entry in entries}) == 1      # All of the same images, so that they can be compared.
    assert entries[-1]["n"] == n if n else 8 <= entries[-1]["n"] < 256
    assert len(entries) >= min(2, load.checkpoints)


def test_a_resumed_run_is_evaluated_on_the_images_it_began_with(tmp_path: Path) -> None:
    load = Load(480, 3, 256, 0.4, 1.0)
    first = load.run(tmp_path / "run")
    again = evaluations.Evaluation(Costly(load), lambda: load.now)      # type: ignore[arg-type]
    again.on_start(SimpleNamespace(folder=RunFolder(tmp_path / "run")))        # type: ignore[arg-type]
    assert again.evaluator.limit == first[-1]["limit"]
    assert len(again.evaluator.heldout.indices) == first[-1]["n"]
    assert again.cost == first[-1]["seconds"]
