"""A batch that is not finite, in one process or in one of two, costs a step and nothing else."""

import json
from pathlib import Path

import pytest
import torch

from i2i import recipes  # noqa: F401 - registers them.
from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.errors import JobError
from i2i.recipes.base import DataInfo
from i2i.registry import lookup
from i2i.runs.folder import RunFolder
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.settings import configure, recipe_or_preset
from i2i.training.trainer import Trainer
from tests.two_processes import start

SIZE = 32
NETWORKS = ("generator.width=4", "discriminator.width=4")
RUNS = {
    "batch norm": ("pix2pix", *NETWORKS, "discriminator.layers=1"),
    "pools": ("cyclegan", *NETWORKS, "generator.blocks=1", "discriminator.layers=1", "pool=3", "generator.norm=batch", "discriminator.norm=batch"),
    "singular vectors, running statistics": ("sngan", *NETWORKS, "discriminator.norm=none"),
    "mean style, ada, mean path length": ("stylegan2-ada", *NETWORKS),
    "history": ("dcgan", *NETWORKS, "lambda_history=0.1"),
}


def trainer(words: tuple[str, ...], folder: Path, rank: int = 0, **train: object) -> Trainer:
    """A trainer of small networks, as it is in the process of this rank."""
    name, preset = recipe_or_preset(words[0])
    recipe, data, config = lookup("recipe", name)(), DataConfig(), TrainConfig(images=64, batch_size=2, **train)
    for each in (preset, words[1:]):
        recipe, data, config = configure(recipe, data, config, parse_assignments(each))
    folder.mkdir()
    runtime = Runtime(device="cpu")
    runtime.rank = rank or runtime.rank
    return Trainer(recipe, DataInfo((SIZE, SIZE)), config, runtime, RunFolder(folder), {})


def batch(step: int, level: float = 1.0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(step)
    return {side: level * (torch.rand(2, 3, SIZE, SIZE, generator=g) * 2 - 1) for side in "ab"}


@pytest.mark.parametrize("words", RUNS.values(), ids=list(RUNS))
@pytest.mark.parametrize("level", [float("nan"), float("inf")])
def test_nothing_of_a_batch_that_is_not_finite_stays(words: tuple[str, ...], level: float, tmp_path: Path) -> None:
    run = trainer(words, tmp_path / "run")
    for step in range(3):
        run.advance(batch(step))
    run.state.optimizers.means()
    buffers = {key: value.clone() for key, value in run.modules.named_buffers()}
    assert buffers
    run.advance(batch(3, level))
    assert any(key.startswith("skipped_") for key in run.state.optimizers.means())
    for key, value in run.modules.named_buffers():
        assert torch.equal(value, buffers[key]), key
    for tensor in [*run.modules.parameters(), *run.ema_modules.state_dict().values()]:
        assert torch.isfinite(tensor).all()
    run.advance(batch(4))
    logs = run.state.optimizers.means()
    assert not any(key.startswith("skipped_") for key in logs)
    assert all(torch.isfinite(value).all() for value in run.modules.state_dict().values())


def test_buffers_are_written_in_place_so_that_they_can_be_taken_back(tmp_path: Path) -> None:
    for name, words in RUNS.items():
        run = trainer(words, tmp_path / name.replace(" ", "-"))
        before = [id(buffer) for buffer in run.modules.buffers()]
        for step in range(2):
            run.advance(batch(step))
        assert [id(buffer) for buffer in run.modules.buffers()] == before, name


def test_an_infinite_loss_does_not_hide_the_others(tmp_path: Path) -> None:
    run = trainer(RUNS["batch norm"], tmp_path / "run")
    optimizers, infinite = run.state.optimizers, torch.tensor(float("inf"))
    for value in (1.0, float("inf"), 3.0, float("nan")):
        loss = sum(p.square().sum() for p in run.modules["G"].parameters())
        optimizers("G", loss, x=torch.tensor(value), y=infinite)
    means = run.state.optimizers.means()
    assert means["x"] == 2
    assert "y" not in means
    json.dumps(means, allow_nan=False)


def test_after_too_many_in_a_row_the_run_stops_and_names_the_player(tmp_path: Path) -> None:
    run = trainer(RUNS["batch norm"], tmp_path / "run", max_skips=3)
    run.advance(batch(0))
    for step in (1, 2):
        run.advance(batch(step, float("nan")))
    run.state.optimizers.means()
    run.advance(batch(3, float("nan")))
    for step in (4, 5):     # Noticed although good steps followed.
        run.advance(batch(step))
    for notice in (run.state.optimizers.means, run.save):
        with pytest.raises(JobError, match="player D were not finite for 3 steps in a row"):
            notice()


OF_TWO = """
import os, torch
from pathlib import Path
from tests.training.test_nan import RUNS, batch, trainer
torch.set_num_threads(1)
run = trainer(RUNS["batch norm"], Path(os.environ["RANK"]) / "run")
for step in range(3):
    bad = step == 1 and run.runtime.rank == 1
    run.advance({key: value[:1] for key, value in batch(step, float("nan") if bad else 1.0).items()})
logs = run.state.optimizers.means()
whole = torch.cat([p.detach().double().flatten() for p in run.modules.parameters()])
print(logs["skipped_D"], logs["skipped_G"], bool(torch.isfinite(whole).all()), float(whole.sum()), all(bool(torch.isfinite(b).all()) for b in run.modules.buffers()))
"""


def test_what_one_of_two_processes_cannot_use_is_passed_over_by_both(tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
    ended = [process.communicate(timeout=120) for process in start(["-c", OF_TWO], tmp_path)]
    told = [out.strip() for out, _ in ended]
    assert told[0] == told[1], ended
    skipped_d, skipped_g, finite, _, buffers = told[0].split()
    assert (float(skipped_d), float(skipped_g), finite, buffers) == (1, 1, "True", "True")
