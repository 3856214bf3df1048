"""One remedy takes one test with one seed; and what a round of it costs beside a round of the plain GAN."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.benchmarks.remedies import PLAIN, ROWS
from i2i.benchmarks.trials import BENCHMARKS, Benchmark, Target
from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.errors import JobError
from i2i.recipes.base import Recipe, get_module
from i2i.recipes.gan import GAN
from i2i.runs.folder import RunFolder
from i2i.seeding import seed_step, stable_seed
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.job import configure
from i2i.training.trainer import Trainer

JUDGED = 500                    # Samples made at once.
SHOWN = 2500                    # Samples kept of a run that is to be looked at.
SAMPLE_SEED = 2**32 - 3         # The "step" whose seed is set before samples are made.
BLOCK, BLOCKS, WARM = 20, 7, 10         # Rounds timed in a row, how often, and rounds before the first.


@dataclass(frozen=True)
class Task:
    """One run, all by names so that another process can do it."""

    trial: str
    remedy: str
    seed: int
    steps: int
    extra: tuple[str, ...] = ()     # Words for all remedies alike.
    pictures: str = ""              # What is stacked.

    @property
    def words(self) -> tuple[str, ...]:
        """Settings of the recipe `gan`, as on the command line."""
        trial, remedy = BENCHMARKS[self.trial], ROWS[self.remedy]
        return remedy.on((*trial.words, *(trial.without_batchnorm if remedy.differentiates else ()),
                          *self.extra), trial.batch)

    @property
    def key(self) -> str:
        """A digest of all that decides the result: what was run under other settings is not taken for it."""
        trial = BENCHMARKS[self.trial]
        decides = [self.trial, self.seed, self.steps, trial.batch, trial.samples, self.words,
                   *([self.pictures] if self.pictures else [])]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]


def settle(task: Task) -> tuple[Recipe, TrainConfig]:
    """The recipe and the training settings that the task's words mean; RequestError as on the command
    line."""
    trial, rounds = BENCHMARKS[task.trial], ROWS[task.remedy].rounds
    length = TrainConfig(images=task.steps * rounds * trial.batch, batch_size=trial.batch, seed=task.seed,
                         ema_half_life=0)
    recipe, _, train = configure(GAN(), DataConfig(), length, parse_assignments(task.words))
    # As many rounds, whatever a remedy makes of the batch.
    return recipe, replace(train, images=task.steps * rounds * train.batch_size)


class Run:
    """A trainer of the engine and the images it learns from."""

    def __init__(self, task: Task, target: Target) -> None:
        recipe, train = settle(task)
        # No run folder is made: a run takes seconds and is done again as a whole.
        self.trainer = Trainer(recipe, target.info, train, Runtime(device="cpu"),
                               RunFolder(f"{task.trial}-{task.remedy}-{task.seed}"), {})
        self.real = target.batches(stable_seed(task.seed, len(task.trial)), train.batch_size)
        self.rounds = ROWS[task.remedy].rounds

    def round(self) -> None:
        """One round of the algorithm: G has one turn."""
        for _ in range(self.rounds):
            self.trainer.advance(next(self.real))

    @torch.no_grad()
    def samples(self, count: int) -> Tensor:
        """Images from the generator as it would be kept, in eval mode.  -> NCHW"""
        modules, trainer = self.trainer.average.modules, self.trainer
        modules.eval()
        seed_step(trainer.config.seed, 0, SAMPLE_SEED)
        eps = torch.randn(count, int(get_module(modules, "Z").noise_dim))
        return torch.cat([trainer.recipe.generate(modules, {"eps": some})["fake_b"]
                          for some in eps.split(JUDGED)])


def execute(task: Task, target: Target) -> tuple[dict[str, Any], Tensor]:
    """Train and judge.  -> a line for results.jsonl, the samples

    A run whose gradients are no longer finite ends there and is judged as it is then.
    """
    run, began, stopped = Run(task, target), time.process_time(), None
    try:
        for _ in range(task.steps):
            run.round()
    except JobError as error:
        stopped = f"{error} (step {run.trainer.step})"
    seconds = time.process_time() - began
    samples = run.samples(BENCHMARKS[task.trial].samples)
    score, counts = target.judge(samples)
    line = {"kind": "run", "trial": task.trial, "remedy": task.remedy, "seed": task.seed,
            "steps": task.steps, "key": task.key, **asdict(score),
            "counts": counts, "seconds": round(seconds, 2)}
    return line | ({"stopped": stopped} if stopped else {}), samples


def cost(task: Task, target: Target) -> dict[str, Any]:
    """The CPU time of a round relative to one of the plain GAN, both in turns so that whatever else the
    machine does meets both.

    -> a line for results.jsonl: median of the ratios of blocks, lowest and highest, and milliseconds of a
    plain round
    """
    ours, plain = Run(task, target), Run(replace(task, remedy=PLAIN), target)
    times: list[tuple[float, float]] = []
    for block in range(-1, BLOCKS):
        spent = []
        for run in (ours, plain) if block % 2 else (plain, ours):
            began = time.process_time()
            for _ in range(BLOCK if block >= 0 else WARM):
                run.round()
            spent.append(time.process_time() - began)
        if block >= 0:
            times.append((spent[0], spent[1]) if block % 2 else (spent[1], spent[0]))
    ratios = [a / b for a, b in times]
    return {"kind": "cost", "trial": task.trial, "remedy": task.remedy, "key": task.key,
            "ratio": round(float(np.median(ratios)), 3),
            "low": round(min(ratios), 3), "high": round(max(ratios), 3),
            "plain_ms": round(float(np.median([b for _, b in times])) / BLOCK * 1e3, 3)}


def samples_file(folder: Path, task: Task) -> Path:
    """Where the samples of a run are kept for the plots."""
    return folder / "samples" / f"{task.trial}-{task.remedy}-{task.seed}-{task.key}.npy"


def keep_samples(path: Path, samples: Tensor) -> None:
    """What plots need of the samples."""
    path.parent.mkdir(exist_ok=True)
    np.save(path, samples.numpy().astype(np.float32))


def tasks(trial: Benchmark, remedies: Sequence[str], seeds: int, steps: int | None, extra: tuple[str, ...],
          pictures: str = "") -> list[Task]:
    """Seed by seed, so that a bench that is stopped has compared all remedies on the seeds it has done.

    A remedy that the test's own words contain is the plain GAN there, and is left out.
    """
    first = [Task(trial.name, remedy, 0, steps or trial.steps, extra, pictures) for remedy in remedies]
    plain = Task(trial.name, PLAIN, 0, steps or trial.steps, extra).words
    other = [task for task in first if task.remedy == PLAIN or task.words != plain]
    return [replace(task, seed=seed) for seed in range(seeds) for task in other]
