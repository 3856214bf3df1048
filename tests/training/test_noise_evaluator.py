"""Runs of noise recipes are judged; their losses are held against the players' balance."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from i2i import load, train
from i2i.metrics import judges
from i2i.metrics.kid import mmd2
from i2i.metrics.networks.random_filters import RandomFilters
from i2i.recipes.gan import GAN
from i2i.registry import Spec, names
from i2i.runs import checkpoint, log
from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.callbacks import fixed_inputs
from i2i.training.callbacks.diagnosis import (
    BLOCKS,
    LINES_PER_BLOCK,
    Balance,
    conclude,
    loss_warnings,
    warnings,
)
from i2i.training.callbacks.evaluation import Evaluation
from i2i.training.callbacks.evaluator import Evaluator, kid_by_image
from tests.conftest import Run
from tests.planted_collapse import pictures

TINY = ("generator.width=4", "discriminator.width=4", "train.batch_size=4", "train.log_every=8", "train.checkpoint_every=16")


@pytest.mark.parametrize(("recipe", "splits", "judged"), [("cgan", (("train", 24), ("val", 12)), "val"), ("dcgan", (("train", 24), ("test", 12)), "train"),
                                                          ("infogan", (("train", 24),), "train")])
def test_a_run_leaves_its_judgement(tmp_path: Path, i2i: Run, recipe: str, splits: tuple[tuple[str, int], ...], judged: str) -> None:
    data = pictures(tmp_path / "data", *splits)
    result = i2i("train", recipe, *TINY, "train.images=48", "--data", data, "--out", "run", "--device", "cpu")
    assert result.code == 0, result.err
    entries = log.read(Path("run/metrics.jsonl"))
    assert entries[-1]["images"] == 48
    last = entries[-1]
    assert last["split"] == judged
    assert last["n"] == len(last["each"]) == {"val": 12, "train": 24}[judged]
    assert last["scores"].keys() == {"kid_pixels", "fd_pixels", "precision", "recall"}
    assert all(score["low"] <= score["value"] <= score["high"] for score in last["scores"].values())
    assert ("real_logits_heldout" in last["readings"]) == (len(splits) > 1)
    assert np.mean(last["each"]) == pytest.approx(last["scores"]["kid_pixels"]["value"], abs=1e-5)
    assert f"{judged} at 48 images: kid_pixels" in result.out
    assert f"({last['n']} images, " in result.out
    told = json.loads(Path("run/verdict.json").read_text())
    best = min(entries, key=lambda entry: entry["scores"]["kid_pixels"]["value"])
    header = load("run/best.safetensors").header
    assert told["best"]["images"] == best["images"] == header["images"] == told["shown"]["images"]
    assert header["picked_on"] == judged
    assert "picked_on" not in load("run").header
    shown = splits[-1][0] if "test" in dict(splits) else judged
    assert told["shown"]["split"] == shown
    assert told["shown"]["selection"] == (f"picked on {judged}, shown on test once" if shown == "test" else f"not held out: best is picked on {judged}")
    assert f"{shown} at {best['images']} images: kid_pixels" in result.out
    assert told["shown"]["selection"] in result.out
    assert i2i("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert "kid_pixels" in page
    assert 'id="collapse"' not in page         # No check yet: they come every 1,000 images.


@pytest.fixture
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every checkpoint is evaluated."""
    monkeypatch.setattr(training, "Evaluation", partial(Evaluation, clock=lambda: 0.0))


@pytest.mark.usefixtures("_time_stands_still")
def test_test_images_pick_nothing(tmp_path: Path) -> None:
    """Other test images: the same evaluations, of which the same is the best, and other scores when it is shown."""
    entries, shown, logits = [], [], []
    for name, count in (("one", 12), ("other", 11)):
        data = pictures(tmp_path / name, ("train", 24), ("test", count))
        for i, path in enumerate(sorted((data / "test").rglob("*.png"))):
            if name == "other":
                Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)).save(path)
        run = train("dcgan", *TINY, "train.images=48", data=data, out=tmp_path / f"run-{name}", device="cpu")
        found = log.read(run / "metrics.jsonl")
        logits.append([entry["readings"].pop("real_logits_heldout") for entry in found])
        entries.append([{key: value for key, value in entry.items() if key != "seconds"} for entry in found])
        shown.append(json.loads((run / "verdict.json").read_text())["shown"])
    assert entries[0] == entries[1]
    assert shown[0]["images"] == shown[1]["images"]
    assert shown[0]["scores"] != shown[1]["scores"]
    assert logits[0] != logits[1]


@pytest.mark.usefixtures("_time_stands_still")
def test_the_best_model_is_shown_and_the_last_one_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown by two judges, with the weights of the best evaluation; the trainer has those of the last again."""
    monkeypatch.setattr(judges, "SECOND_JUDGES", ("random",))
    monkeypatch.setattr(RandomFilters, "size", 32)
    values, seen = iter((0.1, 0.2, 0.3, 0.4, 0.5)), []
    original = Evaluator.__call__

    def worse(self: Evaluator, live: nn.ModuleDict, averaged: nn.ModuleDict, images: int) -> dict:
        seen.append((self.heldout.dataset.split, images, {name: value.clone() for name, value in averaged.state_dict().items()}))
        entry = original(self, live, averaged, images)
        if "kid_pixels" in entry["scores"]:
            entry["scores"]["kid_pixels"]["value"] = next(values)
        return entry

    monkeypatch.setattr(Evaluator, "__call__", worse)
    data = pictures(tmp_path / "data", ("train", 12), ("test", 12))
    run = train("dcgan", *TINY, "train.images=48", data=data, out=tmp_path / "run", device="cpu")
    told = json.loads((run / "verdict.json").read_text())
    first = log.read(run / "metrics.jsonl")[0]["images"]
    assert told["best"]["images"] == told["shown"]["images"] == first < 48
    assert [split for split, *_ in seen[-2:]] == ["test", "test"]
    best, last = (checkpoint.load(run / f"{name}.safetensors", "model")[0] for name in ("best", "model"))
    assert all(torch.equal(seen[-1][2][name], best[name]) for name in best)
    assert not all(torch.equal(best[name], last[name]) for name in best)
    assert {"kid_pixels", "kid_random", "fd_random"} <= told["shown"]["scores"].keys()


def test_the_plan_says_how_it_is_judged(tmp_path: Path, i2i: Run) -> None:
    data = pictures(tmp_path / "data", ("train", 24), ("val", 12))
    assert "KID" in i2i("train", "dcgan", *TINY, "--data", data, "--dry-run").out
    assert "against val images" in i2i("train", "dcgan", *TINY, "--data", data, "--dry-run").out
    assert "against training images" in i2i("train", "dcgan", *TINY, "--data", pictures(tmp_path / "alone", ("train", 24)), "--dry-run").out


def test_the_same_generator_is_judged_the_same(tmp_path: Path) -> None:
    job = jobs.prepare("dcgan", TINY, data=pictures(tmp_path / "data", ("train", 24)))
    torch.manual_seed(0)
    m = job.recipe.modules(job.info)
    judge = training.make_evaluator(job, torch.device("cpu"), lambda: fixed_inputs.thumbnails(8))
    assert judge is not None
    one, other = judge(m, m, 4), judge(m, m, 4)
    assert one == other
    assert [entry["readings"]["distinct_to_real"] for entry in (one, other)] == [0.0, 0.0]         # Untrained: gray.


def test_kid_is_the_mean_of_its_parts_and_their_scatter_is_its_error() -> None:
    """Over 300 draws of both sets: the standard error that is told, on average, against the standard deviation that is there."""
    g, values, errors, n = np.random.default_rng(0), [], [], 64
    for _ in range(300):
        x, y = g.normal(size=(n, 8)) + 0.5, g.normal(size=(n, 8))
        parts = kid_by_image(x, y)
        values.append(parts.mean())
        errors.append(parts.std(ddof=1) / math.sqrt(n))
    plain = mmd2(x, y)
    assert parts.mean() == pytest.approx(plain, rel=0.1)        # Without the n pairs (x_i, y_i), and so unbiased too.
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


def test_what_was_forgotten_is_reported() -> None:
    def entry(images: int, recall: float) -> dict:
        return {"images": images, "readings": {"diversity": 1.0, "diversity_real": 1.0}, "scores": {
            "recall": {"value": recall, "low": recall - 0.05, "high": recall + 0.05}}}

    assert "recall was 0.40 at image 2" in warnings([entry(1, 0.1), entry(2, 0.4), entry(3, 0.1)])[0]
    assert warnings([entry(1, 0.1), entry(2, 0.4), entry(3, 0.3)]) == []
    assert conclude([], "kid")["sentence"].startswith("not evaluated")


# ---------------------------------------------------------------------------------------------- balance

@pytest.mark.parametrize(("name", "gan"), [("nonsaturating", math.log(2)), ("minimax", -math.log(2)), ("lsgan", 0.25), ("hinge", 0.0), ("rpgan", math.log(2)),
                                           ("ragan", 2 * math.log(2)), ("ralsgan", 2.0), ("wasserstein", None)])
def test_balance_is_the_literatures(name: str, gan: float | None) -> None:
    found = Balance.of(Spec(name)).gan
    assert found == (None if gan is None else pytest.approx(gan, abs=1e-6))


def test_every_loss_has_a_balance_or_none() -> None:
    for name in names("adversarial"):
        balance = Balance.of(Spec(name))
        assert balance.unit > 0
        assert (balance.gan is None) == (name == "wasserstein")


def logged(gan: np.ndarray, fake: np.ndarray | None = None) -> list[dict]:
    fake = -gan if fake is None else fake
    return [{"images": 1000 * (i + 1), "d": 1.0, "gan": float(g), "real_logits": float(-f), "fake_logits": float(f)}
            for i, (g, f) in enumerate(zip(gan, fake, strict=True))]


LINES = 2 * BLOCKS * LINES_PER_BLOCK * 2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("loss", ["nonsaturating", "hinge", "lsgan", "rpgan"])
def test_losses_that_converge_are_left_alone(seed: int, loss: str) -> None:
    """A start far away, a way back to near the balance, noise all along."""
    g = np.random.default_rng(seed)
    center = Balance.of(Spec(loss)).gan or 0.0
    values = center + 2 * np.exp(-np.arange(LINES) / 15) + 0.8 + g.normal(0, 0.2, LINES)
    figures, told = loss_warnings(logged(values), GAN(adversarial=Spec(loss)))
    assert told == []
    assert figures["gan"]["balance"] == pytest.approx(center)


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_that_runs_away_is_reported_with_its_figures(seed: int) -> None:
    g = np.random.default_rng(seed)
    values = 0.7 + np.linspace(0, 6, LINES) + g.normal(0, 0.3, LINES)
    _, (told,) = loss_warnings(logged(values), GAN())
    assert "do not converge" in told
    assert "away from 0.69" in told
    assert "fake_logits -" in told


@pytest.mark.parametrize("seed", range(10))
def test_a_discriminator_that_has_won_is_reported(seed: int) -> None:
    g = np.random.default_rng(seed)
    _, (told,) = loss_warnings(logged(9 + g.normal(0, 0.5, LINES)), GAN())
    assert "D is certain of all generated images" in told


@pytest.mark.parametrize("seed", range(10))
def test_swings_that_grow_are_reported(seed: int) -> None:
    g = np.random.default_rng(seed)
    size = np.where(np.arange(LINES) < LINES * 3 / 4, 0.2, 1.5)
    _, (told,) = loss_warnings(logged(1.5 + size * g.normal(0, 1, LINES)), GAN())
    assert "swings" in told


def test_a_critic_has_no_balance_but_its_distance_may_not_grow() -> None:
    recipe = GAN(adversarial=Spec("wasserstein"))
    drifting = np.linspace(0, 80, LINES)                    # Its constant: free, and no fault.
    assert loss_warnings([{**line, "real_logits": line["fake_logits"] + 5} for line in logged(drifting)], recipe)[1] == []
    grown = [{**line, "real_logits": line["fake_logits"] + 5 * 1.03**i} for i, line in enumerate(logged(drifting))]
    assert "the critic's distance" in loss_warnings(grown, recipe)[1][0]


def test_too_few_lines_tell_nothing() -> None:
    assert loss_warnings(logged(np.linspace(1, 9, BLOCKS)), GAN()) == ({}, [])
