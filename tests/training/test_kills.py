"""kill -9 at any moment: the run is continued and ends with the bits of the run that nobody killed."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.recipes.presets import PRESETS
from i2i.registry import lookup
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.settings import recipe_or_preset
from tests.conftest import CUT, CYCLE, SMALL, drawing, two_styles
from tests.forked import FAILPOINTS, Work, images_of, live
from tests.training.test_resume import assert_same

PLAIN = ("generator.width=4", "generator.z_dim=8", "discriminator.width=4", "train.batch_size=4", "train.log_every=12", "train.checkpoint_every=16")
TINY = tuple(word for word in PLAIN if word != "generator.z_dim=8")
STYLED = (*PLAIN, "generator.max_channels=8", "generator.w_dim=8", "generator.mapping_layers=2", "discriminator.max_channels=8")
RUNS = {
    "pix2pix": ("pix2pix", *SMALL, "train.images=26", "data.on_error=skip"),
    "pix2pix, loaders": ("pix2pix", *SMALL, "train.images=26", "generator.norm=instance", "train.num_workers=1"),
    "cyclegan": ("cyclegan", *CYCLE, "train.images=22", "pool=5"),
    "dcgan": ("dcgan", *PLAIN, "train.images=56"),
    "wgan-gp": ("wgan-gp", *PLAIN, "d_steps=2", "train.images=56"),
    "stylegan2-ada": ("stylegan2-ada", *STYLED, "train.images=40", "g_penalty.every=2", "penalty.every=3", "augment.interval=2", "augment.speed=100"),
    "infogan": ("infogan", *PLAIN, "generator.z_dim=16", "train.images=56"),
    "cut": ("cut", *CUT, "train.images=22", "flip_equivariance=true")}
LOGS = ("log.jsonl", "metrics.jsonl", "skipped.jsonl", "collapse.jsonl")
CLOCKED = ("pix2pix", "cyclegan", "dcgan")          # Killed once more, by the clock.


def recipe_of(name: str) -> Any:
    return lookup("recipe", recipe_or_preset(name)[0])()


def translates(run: str) -> bool:
    return bool(recipe_of(RUNS[run][0] if run in RUNS else run).sources)


def work_of(words: tuple[str, ...], folder: Path) -> Work:
    """Strips of which one cannot be read, with some held out; two sides; or single pictures, of two classes where they are to be learned."""
    data = folder / "data"
    recipe = recipe_of(words[0])
    if recipe.dataset == "unpaired":
        return Work(words, two_styles(data, "val"))
    paired = recipe.dataset == "paired"
    for split, first, count in (("train", 0, 7), ("val", 50, 2)):
        (data / split).mkdir(parents=True)
        for i in range(first, first + count):
            name = data / split / ("" if paired or words[0] != "cgan" else f"class{i % 2}") / f"{i:02}.png"
            name.parent.mkdir(exist_ok=True)
            Image.fromarray(drawing(i)[:, 0 if paired else 32:]).save(name)
    if "data.on_error=skip" in words:
        (data / "train" / "03.png").write_bytes(b"no picture")
    return Work(words, data)


def entries(run: Path, name: str) -> list[dict[str, object]]:
    """Lines of a log; how long something took is no part of the result."""
    path = run / name
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in path.read_text().splitlines()] if path.exists() else []


def assert_nothing_was_lost(straight: Path, run: Path) -> None:
    assert_same(straight, run)
    for name in LOGS:
        assert entries(straight, name) == entries(run, name), name
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in straight.iterdir())
    if (straight / "best.safetensors").exists():
        (tensors, header), (others, other_header) = (checkpoint.load(each / "best.safetensors", "model") for each in (straight, run))
        assert header == other_header
        assert all(torch.equal(value, others[key]) for key, value in tensors.items())


def hit(run: Path, life: Callable[[int], int], n: int, last: int) -> None:
    """Have a life of this run end by kill -9 at moment n or, where it has seen more than `last` images by then, at half of it, and so on."""
    before = run.with_name("before")
    shutil.rmtree(before, ignore_errors=True)
    if run.exists():
        shutil.copytree(run, before)
    while (code := life(n)) != -signal.SIGKILL or (n > 1 and max(map(images_of, RunFolder(run).states()), default=0) > last):
        assert (code in (0, -signal.SIGKILL), n > 1) == (True, True)
        shutil.rmtree(run)
        if before.exists():
            shutil.copytree(before, run)
        n //= 2


def assert_kills_change_nothing(name: str, words: tuple[str, ...], folder: Path, kills: int, clocked: bool) -> None:
    """Each kill is at another failpoint, beginning with another one for each run; one more, the first, is of the clock.  All hit.

    They are far enough from each other for the run to get on, and near enough for it to be killed until its end: the clock's leaves
    two thirds of the run to the others, however fast the machine, and only the last may come after the last state.
    """
    work, straight, run = work_of(words, folder), folder / "straight", folder / "run"
    _, total = live(work, straight)
    reached = [failpoint for failpoint in FAILPOINTS if total[failpoint]]
    assert reached == FAILPOINTS
    setting = {key: int(value) for key, _, value in (word.partition("=") for word in words) if key in ("train.checkpoint_every", "train.images")}
    images = setting["train.images"]
    farthest = 1.5 * max(1 / kills, setting["train.checkpoint_every"] / images)
    g = np.random.default_rng([len(name), *name.encode()])
    if clocked:
        hit(run, lambda n: live(work, run, after=0, seconds=n / 1e3)[0], int(g.integers(1, 300)), images // 3)
    first = 3 * list(RUNS).index(name) if name in RUNS else int(g.integers(len(reached)))
    for kill in range(kills):
        failpoint = reached[(first + kill) % len(reached)]
        hit(run, lambda n, failpoint=failpoint: live(work, run, failpoint=failpoint, n=n)[0], int(g.integers(1, 2 + farthest * total[failpoint])),
            images if kill == kills - 1 else images - 1)
    assert live(work, run)[0] == 0
    assert_nothing_was_lost(straight, run)


def test_a_run_killed_before_its_last_save_retires_older_states_does_so_when_it_is_continued(tmp_path: Path) -> None:
    work, straight, run = work_of(RUNS["dcgan"], tmp_path), tmp_path / "straight", tmp_path / "run"
    _, total = live(work, straight)
    code, _ = live(work, run, failpoint="before-retire", n=total["before-retire"])
    assert code == -signal.SIGKILL
    assert len(list(run.glob("state-*.safetensors"))) == 3
    assert live(work, run)[0] == 0
    assert_nothing_was_lost(straight, run)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_three_times_ends_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    """Three times each of eight, and three of them a fourth time: 27 kills."""
    assert_kills_change_nothing(name, RUNS[name], tmp_path, kills=3, clocked=name in CLOCKED)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*RUNS, *(preset for preset in PRESETS if preset not in RUNS)])
def test_a_run_killed_twenty_times_ends_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    words = tuple(word for word in RUNS.get(name, (name, *(STYLED if name.startswith("stylegan2") else TINY))) if not word.startswith("train.images="))
    assert_kills_change_nothing(name, (*words, f"train.images={12 * 8 if translates(name) else 12 * 16}"), tmp_path, kills=19, clocked=True)
