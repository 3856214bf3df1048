"""The alarm rings on planted collapse of both kinds, soon, once, and at the same place in a resumed run; it is silent on healthy ones."""

import json
import shlex
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import i2i as package
from i2i import registry
from i2i.metrics.collapse import collapse_ratios
from i2i.recipes.base import Discriminates
from i2i.recipes.presets import PRESETS
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder
from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.callbacks import collapse_detector as alarms
from i2i.training.callbacks.collapse_detector import (
    CONSECUTIVE_CHECKS,
    WARMUP_CHECKS,
    collapse_kind,
    has_collapsed,
    suspicious_ratios,
)
from i2i.training.callbacks.collapse_report import GENERAL, INTER_CLASS, TRANSLATION, advice_for
from i2i.training.callbacks.fixed_inputs import QUICK_SIZE, THUMBNAIL_SIZE, best_embedding, thumbnails
from i2i.training.plan import command
from tests.conftest import CYCLE, SMALL, Run
from tests.planted_collapse import Planted, draw, pictures
from tests.training.test_resume import StopAfter

EVERY = 8           # Images between two looks.
AT = 200            # Where collapse is planted, of 400 images.
WITHIN = (CONSECUTIVE_CHECKS + 1) * EVERY
WORDS = ("generator=planted", "discriminator.width=4", "g_optimizer.lr=1e-9", "train.batch_size=8", f"train.collapse_every={EVERY}", "train.images=400", "train.checkpoint_every=1000",
         "train.log_every=16", "train.ema_half_life=0")


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted generator has a name in these tests alone, and nobody judges its runs, which would take longer than all else."""
    monkeypatch.setitem(registry._COMPONENTS["noise_generator"], "planted", Planted)
    monkeypatch.setattr(training, "make_evaluator", lambda *each: None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("drawn"), ("train", 96), ("val", 48))


def ran(data: Path, out: Path, *words: str, recipe: str = "cgan", **more: object) -> list[dict]:
    package.train(recipe, *WORDS, *words, data=data, out=out, device="cpu", **more)
    return log.read(out / "collapse.jsonl")


def rings(entries: list[dict]) -> list[dict]:
    return [entry["detection"] for entry in entries if "detection" in entry]


@pytest.mark.parametrize(("recipe", "kind", "told"), [("cgan", "inter", "inter-class"), ("cgan", "intra", "intra-class"), ("dcgan", "inter", "inter-class"),
                                                      ("dcgan", "intra", "intra-class")])
def test_it_warns_once_soon_after_a_planted_collapse(data: Path, tmp_path: Path, recipe: str, kind: str, told: str) -> None:
    entries = ran(data, tmp_path / "run", f"generator.kind={kind}", recipe=recipe)
    assert [entry["images"] for entry in entries] == list(range(EVERY, 401, EVERY))
    (rang,) = rings(entries)
    assert AT < rang["images"] <= AT + WITHIN
    assert rang["kind"] == told
    verdict = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert verdict["warnings"][0] == rang["sentence"]
    with Image.open(tmp_path / "run" / rang["image"]) as sheet:
        assert sheet.width > 16 * 16
    low, high = rang["figures"]["different"][1:]
    assert low <= (1 if kind == "inter" else 3) * 1.3
    assert high < 6


def test_few_modes_are_found_by_their_duplicates(data: Path, tmp_path: Path) -> None:
    """Five pictures are nearly as far from one another as real ones on average."""
    entries = ran(data, tmp_path / "run", "generator.kind=modes", "generator.modes=5", recipe="dcgan")
    (rang,) = rings(entries)
    assert rang["ratio"] == "distinct"
    assert rang["images"] <= AT + WITHIN
    assert rang["figures"]["diversity"] > 0.6
    assert rang["figures"]["different"][1] <= 5.5 <= rang["figures"]["different"][2] * 1.3


@pytest.mark.parametrize("seed", range(20))
def test_it_is_silent_while_a_run_is_healthy(data: Path, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where pictures come out of the gray only slowly: by then nothing was ever high, and it is early."""
    monkeypatch.setattr(alarms, "GENERATED_IMAGES", (48, 48))
    entries = ran(data, tmp_path / "run", f"train.seed={seed}", f"generator.gray={seed % 4 / 4}", "train.images=200", recipe=("cgan", "dcgan")[seed % 2])
    assert len(entries) == 25
    assert not rings(entries)
    assert not any("confirmed" in entry for entry in entries)
    assert entries[-1]["fake_b"]["diversity"] > 0.8


def test_a_resumed_run_warns_at_the_same_place_once(data: Path, tmp_path: Path) -> None:
    ran(data, tmp_path / "straight", "generator.kind=intra")
    for name, stop in (("before", 212), ("after", 260)):
        with pytest.raises(KeyboardInterrupt):
            ran(data, tmp_path / name, "generator.kind=intra", callbacks=[StopAfter(stop)])
        package.train(resume=tmp_path / name, device="cpu")
        assert (tmp_path / name / "collapse.jsonl").read_text() == (tmp_path / "straight" / "collapse.jsonl").read_text()


def test_what_was_reported_after_the_last_state_is_reported_again(data: Path, tmp_path: Path) -> None:
    """A killed run: the log is ahead of the state that is left."""
    ran(data, tmp_path / "run", "generator.kind=inter", "train.checkpoint_every=100", "train.keep_checkpoints=9")
    whole = (tmp_path / "run" / "collapse.jsonl").read_text()
    for state in RunFolder(tmp_path / "run").states()[2:]:
        state.unlink()
    package.train(resume=tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "collapse.jsonl").read_text() == whole


def test_stop_saves_everything_and_ends_with_one_line(data: Path, i2i: Run) -> None:
    result = i2i("train", "cgan", *WORDS, "generator.kind=intra", "--data", data, "--out", "run", "--on-collapse", "stop", "--device", "cpu")
    assert result.code == 1
    assert len(result.err.strip().splitlines()) == 1
    assert "i2i train --resume run" in result.err
    rang = rings(log.read(Path("run/collapse.jsonl")))[0]
    assert RunFolder("run").states()[-1].stem.endswith(f"{rang['images']:08d}")
    assert "warning: intra-class collapse" in result.out
    assert json.loads(Path("run/config.json").read_text())["train"]["on_collapse"] == "stop"
    again = i2i("train", "--resume", "run", "--device", "cpu")          # It has been said: now it goes to the end.
    assert again.code == 0, again.err
    assert log.read(Path("run/log.jsonl"))[-1]["images"] == 400
    assert len(rings(log.read(Path("run/collapse.jsonl")))) == 1
    assert i2i("report", "run").code == 0
    page = Path("run/report.html").read_text()
    assert 'id="collapse"' in page
    assert rang["advice"][0]["command"].replace("'", "&#x27;") in page


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if registry.lookup("recipe", preset.recipe)().dataset == "images"])
def test_every_recipe_from_noise_with_a_discriminator_is_looked_at(data: Path, tmp_path: Path, name: str) -> None:
    if not isinstance(registry.lookup("recipe", PRESETS[name].recipe)(), Discriminates):
        job = jobs.prepare(name, ("data.size=32",), data=data)
        assert training.make_collapse_detector(job, torch.device("cpu"), RunFolder(tmp_path), lambda: thumbnails(THUMBNAIL_SIZE), print) is None
        return
    job = jobs.prepare(name, ("generator.width=4", "discriminator.width=4", "data.size=32"), data=data)
    alarm = training.make_collapse_detector(job, torch.device("cpu"), RunFolder(tmp_path), lambda: thumbnails(THUMBNAIL_SIZE), print)
    assert alarm is not None
    alarm(job.recipe.modules(job.info), 1000)
    (entry,) = log.read(tmp_path / "collapse.jsonl")
    told = {"within", "between"} if "c" in job.recipe.required_keys else set()
    assert set(entry["fake_b"]) == {"diversity", "distinct"} | told
    assert np.isfinite(list(entry["fake_b"].values())).all()


@pytest.mark.parametrize(("name", "words"), [("sngan", ()), ("dcgan", ("generator.norm=virtual", "train.ema_half_life=100"))])
def test_looks_change_no_number_of_a_run(data: Path, tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    small = ("generator.width=4", "discriminator.width=4", "data.size=16", "train.batch_size=8", "train.images=48", "train.log_every=8", "train.checkpoint_every=24")
    for out, more in (("looks", "train.collapse_every=8"), ("off", "train.on_collapse=off")):
        package.train(name, *small, *words, more, data=data, out=tmp_path / out, device="cpu")
    ours, theirs = (checkpoint.load(RunFolder(tmp_path / out).state(48), "state")[0] for out in ("looks", "off"))
    assert len(log.read(tmp_path / "looks" / "collapse.jsonl")) == 6
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (tmp_path / "looks" / "log.jsonl").read_text() == (tmp_path / "off" / "log.jsonl").read_text()


def test_off_does_not_look(data: Path, tmp_path: Path) -> None:
    assert ran(data, tmp_path / "run", "generator.kind=inter", "train.on_collapse=off", "train.images=40") == []
    assert not (tmp_path / "run" / "collapse.jsonl").exists()


SLOW = [pytest.param(recipe, marks=pytest.mark.slow) for recipe in ("dcgan", "wgan-gp", "sngan", "stylegan2", "infogan", "cyclegan")]


@pytest.mark.parametrize("recipe", ["cgan", "pix2pix", *SLOW])
def test_every_command_it_proposes_is_accepted(recipe: str, tmp_path: Path, strips: Path, i2i: Run) -> None:
    words = {"pix2pix": SMALL[:3], "cyclegan": CYCLE[:4]}.get(recipe, ("generator.width=4", "discriminator.width=4"))
    where = strips if recipe in ("pix2pix", "cyclegan") else pictures(tmp_path / "pictures with spaces", ("train", 12))
    job = jobs.prepare(recipe, words, data=where, epochs=2)
    found = {kind: [remedy.command for remedy in advice_for(job, kind)] for kind in ("inter-class", "collapse")}
    assert all(2 <= len(each) <= 4 for each in found.values())
    for line in dict.fromkeys(line for each in found.values() for line in each):
        program, verb, *rest = shlex.split(line)
        assert (program, verb) == ("i2i", "train")
        result = i2i(verb, *rest, "--dry-run")
        assert result.code == 0, f"{line}: {result.err}"


def test_every_remedy_is_one_of_some_recipe(tmp_path: Path, strips: Path) -> None:
    where = pictures(tmp_path / "data", ("train", 12))
    plain, bare = (jobs.prepare(recipe, ("generator.width=4", "discriminator.width=4"), data=where) for recipe in ("cgan", "sngan"))
    pairs = jobs.prepare("pix2pix", SMALL[:3], data=strips)
    for why, words in (*INTER_CLASS, *GENERAL, *TRANSLATION):
        assert any(command(job, words.split()) for job in (pairs, plain, bare)), f"{words}: {why}"


def test_the_command_of_a_job_is_that_job(tmp_path: Path) -> None:
    where = pictures(tmp_path / "it's here", ("train", 12))
    for words in (["sngan", "generator.width=4", "train.images=1k"], ["wgan-gp", "penalty.every=2", "data.flip=false", "data.size=16,32"], ["stylegan2-ada"]):
        job = jobs.prepare(words[0], words[1:], data=where)
        line = shlex.split(command(job) or "")
        assert line[2] == words[0]
        place = line.index("--data")
        again = jobs.prepare(line[2], line[3:place] + line[place + 2:], data=line[place + 1])
        assert (again.recipe, again.data, again.train) == (job.recipe, job.data, job.train)
    assert command(job, ["augment=ada"]) is None           # Is so already.
    assert command(job, ["no.such=word"]) is None


def test_what_counts_as_collapse() -> None:
    high, low = [0.9] * 6, [0.1] * CONSECUTIVE_CHECKS
    assert has_collapsed(high + low, warmed_up=False)
    assert not has_collapsed(high + low[1:], warmed_up=False)                                  # For too short a time,
    assert not has_collapsed([0.05, 0.9, 0.05, *low], warmed_up=False)                         # never high twice in a row,
    assert not has_collapsed([0.5] * 6 + [0.35] * CONSECUTIVE_CHECKS, warmed_up=False)                   # no fall to half,
    assert not has_collapsed([0.05] * 60, warmed_up=False)                                     # early,
    assert has_collapsed([0.05] * WARMUP_CHECKS, warmed_up=True)
    assert not has_collapsed([0.05] * 60 + [0.41], warmed_up=True)                             # not low any more.
    history = [{"images": i, "fake_b": {"diversity": value, "distinct": 1.0}} for i, value in enumerate(high + low)]
    assert suspicious_ratios(history, 4) == [("fake_b", "diversity")]
    assert suspicious_ratios([], 4) == []


def test_kinds() -> None:
    assert collapse_kind({"diversity": 0.1}) == "collapse"
    assert collapse_kind({"within": 0.1, "between": 0.9}) == "intra-class"
    assert collapse_kind({"within": 0.1}) == "intra-class"
    assert collapse_kind({"within": 0.9, "between": 0.1}) == "inter-class"
    assert collapse_kind({"within": 0.1, "between": 0.1}) == "inter-class"
    assert collapse_kind({"classes": 1.1, "classes_real": 7}) == "inter-class"
    assert collapse_kind({"classes": 6.5, "classes_real": 7}) == "intra-class"


class Constant(nn.Module):
    """The same picture for every input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def blocks(n: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures of 8x8 squares of chance colors.  -> N3HW"""
    return F.interpolate(torch.rand(n, 3, 8, 8, generator=generator) * 2 - 1, scale_factor=4)


def test_few_pictures_that_are_moved_each_time_are_repeats() -> None:
    """Eight, each as it is and moved seven times by a 32nd of its side, with a little noise: to thumbnails alone they are 64 different ones."""
    g = torch.Generator().manual_seed(0)
    real, other, look = blocks(64, g), blocks(64, g), thumbnails(QUICK_SIZE)
    fake = torch.stack([torch.roll(image, (y, x), (1, 2)) for image in real[:8] for y, x in list(product((-1, 0, 1), repeat=2))[1:]])
    fake = fake + 0.02 * torch.randn(fake.shape, generator=g)
    assert collapse_ratios(look.embed(fake), look.embed(real))["distinct"] > 0.9
    assert collapse_ratios(look.embed(fake), look.embed(real), variants=(look.embed_shifted(fake), look.embed_shifted(real)))["distinct"] < 0.1
    assert collapse_ratios(look.embed(other), look.embed(real), variants=(look.embed_shifted(other), look.embed_shifted(real)))["distinct"] > 0.9


@pytest.mark.parametrize(("size", "far"), [((32, 32), 1e-6), ((64, 32), 1e-6), ((16, 16), 1e-6), ((40, 100), 0.1)])
def test_moved_pictures_are_those_that_were_moved(size: tuple[int, int], far: float) -> None:
    """As they are in the middle, nearly so at sizes that 32 does not divide; at 32 pixels the others are the pictures rolled, but for their edges."""
    image, look = draw(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)), torch.arange(2), size), thumbnails(QUICK_SIZE)
    moved = look.embed_shifted(image)
    assert moved.shape == (2, 9, 3 * QUICK_SIZE**2)
    assert np.abs(moved[:, 4] - look.embed(image)).max() < far
    if size == (32, 32):
        rolled = look.embed(torch.roll(image, (1, -1), (2, 3)))
        assert np.abs(moved[:, 2] - rolled).reshape(2, 3, QUICK_SIZE, QUICK_SIZE)[..., 1:-1, 1:-1].max() < far


@pytest.mark.parametrize(("recipe", "broken", "key"), [("pix2pix", "G", "fake_b"), ("cyclegan", "G_ab", "fake_b"), ("cyclegan", "G_ba", "fake_a")])
def test_translators_whose_outputs_do_not_follow_their_inputs(strips: Path, tmp_path: Path, recipe: str, broken: str, key: str) -> None:
    """In either direction.  Healthy ones give back their input, which is as varied."""
    job = jobs.prepare(recipe, (*SMALL[:3], *(CYCLE[1:2] if recipe == "cyclegan" else ())), data=strips)
    told: list[str] = []
    alarm = training.make_collapse_detector(job, torch.device("cpu"), RunFolder(tmp_path), lambda: thumbnails(THUMBNAIL_SIZE), told.append)
    assert alarm is not None
    networks = {name: nn.Identity() for name in job.recipe.ema_modules}
    for reading in range(12):
        alarm(nn.ModuleDict(networks if reading < 6 else {**networks, broken: Constant()}), 1000 * (reading + 1))
    (rang,) = rings(log.read(tmp_path / "collapse.jsonl"))
    assert rang["images"] == 1000 * (6 + CONSECUTIVE_CHECKS)
    assert (rang["output"], rang["kind"]) == (key, "collapse")
    assert told[0].startswith("warning: collapse")
    with Image.open(tmp_path / rang["image"]) as sheet:
        assert sheet.width > 3 * 8 * 32                     # Inputs, outputs, targets.


def test_what_features_do_not_confirm_is_not_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not asked again at every look."""
    asked = []

    def blind(images: torch.Tensor) -> np.ndarray:
        asked.append(len(images))
        return np.random.default_rng(len(asked)).normal(size=(len(images), 8))

    monkeypatch.setattr(training, "best_embedding", lambda device, tell, *rest: alarms.Embedding("blind", blind, lambda images: blind(images)[:, None]))
    entries = ran(data, tmp_path / "run", "generator.kind=inter")
    assert not rings(entries)
    checks = [entry["images"] for entry in entries if "confirmed" in entry]
    assert len(checks) > 2
    assert all(later >= 1.1 * earlier for earlier, later in pairwise(checks))


def test_real_features_confirm_too(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "best_embedding", best_embedding)
    monkeypatch.setattr(alarms, "GENERATED_IMAGES", (48, 24))
    (rang,) = rings(ran(data, tmp_path / "run", "generator.kind=intra"))
    assert (rang["features"], rang["kind"]) == ("efficientnet_lite0", "intra-class")
