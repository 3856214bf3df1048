"""kill -9 at any moment: the run is continued and ends with the bits of the run that nobody killed."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.runs import checkpoint
from tests.conftest import CYCLE, SMALL, drawing, two_styles
from tests.engine.test_resume import assert_same
from tests.lives import ROOMS, Work, live

PLAIN = ("generator.width=4", "generator.z_dim=8", "discriminator.width=4", "train.batch=4", "train.log=12", "train.tick=16")
STYLED = (*PLAIN, "generator.max_channels=8", "generator.w_dim=8", "generator.mapping_layers=2", "discriminator.max_channels=8")
RUNS = {
    "pix2pix": ("pix2pix", *SMALL, "train.images=26", "data.on_error=skip"),
    "pix2pix, loaders": ("pix2pix", *SMALL, "train.images=26", "generator.norm=instance", "train.workers=1"),
    "cyclegan": ("cyclegan", *CYCLE, "train.images=22", "pool=5"),
    "dcgan": ("dcgan", *PLAIN, "train.images=56"),
    "wgan-gp": ("wgan-gp", *PLAIN, "d_steps=2", "train.images=56"),
    "stylegan2-ada": ("stylegan2-ada", *STYLED, "train.images=40", "g_penalty.every=2", "penalty.every=3", "augment.interval=2", "augment.speed=100"),
    "infogan": ("infogan", *PLAIN, "generator.z_dim=16", "train.images=56")}
LOGS = ("log.jsonl", "metrics.jsonl", "skipped.jsonl")


def work_of(words: tuple[str, ...], folder: Path) -> Work:
    """Strips of which one cannot be read, with some held out; two sides; or single pictures."""
    data = folder / "data"
    if words[0] == "cyclegan":
        return Work(words, two_styles(data, "val"))
    paired = words[0] == "pix2pix"
    for split, first, count in (("train", 0, 7), ("val", 50, 2)):
        (data / split).mkdir(parents=True)
        for i in range(first, first + count):
            Image.fromarray(drawing(i)[:, 0 if paired else 32:]).save(data / split / f"{i:02}.png")
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


def kill_and_compare(name: str, words: tuple[str, ...], folder: Path, kills: int) -> None:
    """Half of the moments are lines that the engine executes, half are lines of what writes and reads the run folder; one is of the clock."""
    work, straight, run = work_of(words, folder), folder / "straight", folder / "run"
    _, total = live(work, straight)
    g = np.random.default_rng([len(name), *name.encode()])
    dead = 0
    for kill in range(kills):
        room = ROOMS[kill % 2]
        code, _ = live(work, run, room=room, n=int(g.integers(1, 1 + 1.5 * total[room] / kills)))
        assert code in (0, -signal.SIGKILL)
        dead += code == -signal.SIGKILL
    assert dead >= kills - 1
    live(work, run, seconds=g.uniform(0.2, 0.5))
    assert live(work, run)[0] == 0
    assert_nothing_was_lost(straight, run)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_three_times_ends_as_one_that_was_not(tmp_path: Path, name: str) -> None:
    kill_and_compare(name, RUNS[name], tmp_path, kills=3)
