"""Train and score one method on one benchmark with one seed; and time it against the baseline."""

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.benchmarks.benchmark import BENCHMARKS, Target
from i2i.benchmarks.methods import BASELINE, METHODS
from i2i.config import parse_assignments, settings
from i2i.errors import JobError
from i2i.recipes.base import Recipe, get_module
from i2i.registry import lookup
from i2i.runs.folder import RunFolder
from i2i.seeding import seed_step, stable_seed
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.settings import configure, initial_settings
from i2i.training.trainer import Trainer

GENERATION_BATCH = 500          # Samples generated at once.
MAX_PLOTTED = 2500              # Samples kept for plots.
SAMPLE_STEP = 2**32 - 3         # The step whose seed generates the samples.


@dataclass(frozen=True)
class Task:
    """One training run, described by names so that another process can execute it."""

    benchmark: str
    method: str
    seed: int
    steps: int                      # Updates of G.
    extra: tuple[str, ...] = ()     # The user's settings for all methods whose recipe has them.
    images: str = ""                # `Target.images`

    @property
    def settings(self) -> tuple[str, ...]:
        """Settings of the method's recipe, as on the command line."""
        benchmark, method = BENCHMARKS[self.benchmark], METHODS[self.method]
        penalty = benchmark.penalty_settings if method.has_gradient_penalty else ()
        common = (*benchmark.settings, *penalty, *self.extra)
        if method.recipe != "gan":
            known = {*settings(lookup("recipe", method.recipe)), "train"}
            common = tuple(word for word in self.extra if re.split(r"[.=]", word)[0] in known)
        return method.combine(common, benchmark.batch_size)

    @property
    def key(self) -> str:
        """A digest of everything that determines the result."""
        benchmark = BENCHMARKS[self.benchmark]
        identity = [self.benchmark, self.seed, self.steps, benchmark.batch_size, benchmark.samples,
                    self.settings, *([self.images] if self.images else [])]
        if METHODS[self.method].recipe != "gan":
            identity.append(METHODS[self.method].recipe)
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]

    def configure(self) -> tuple[Recipe, TrainConfig]:
        """The recipe and training settings.  RequestError for invalid settings."""
        batch_size = BENCHMARKS[self.benchmark].batch_size
        steps = self.steps * METHODS[self.method].d_steps
        initial = TrainConfig(images=steps * batch_size, batch_size=batch_size, seed=self.seed,
                              ema_half_life=0)
        recipe, data, _ = initial_settings(METHODS[self.method].recipe)[1]
        recipe, _, train = configure(recipe, data, initial, parse_assignments(self.settings))
        return recipe, replace(train, images=steps * train.batch_size)     # As many steps at any batch size.

    def samples_file(self, folder: Path) -> Path:
        """Where samples of the run are stored for plots."""
        return folder / "samples" / f"{self.benchmark}-{self.method}-{self.seed}-{self.key}.npy"


class TrainingRun:
    """The engine's trainer on a benchmark's target, without a run folder: a run takes seconds."""

    def __init__(self, task: Task, target: Target) -> None:
        recipe, train = task.configure()
        folder = RunFolder(f"{task.benchmark}-{task.method}-{task.seed}")       # Is not created.
        self.trainer = Trainer(recipe, target.info, train, Runtime(device="cpu"), folder, {})
        self.batches = target.batches(stable_seed(task.seed, len(task.benchmark)), train.batch_size)
        self.d_steps = METHODS[task.method].d_steps

    def advance(self) -> None:
        """Train until G has had one update."""
        for _ in range(self.d_steps):
            self.trainer.advance(next(self.batches))
            self.trainer.state.optimizers.check_skips()

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Images of the averaged generator in eval mode.  -> `(count, C, H, W)`"""
        modules, trainer = self.trainer.ema_modules, self.trainer
        modules.eval()
        seed_step(trainer.config.seed, 0, SAMPLE_STEP)
        eps = torch.randn(count, int(get_module(modules, "Z").noise_dim))
        return torch.cat([trainer.recipe.generate(modules, {"eps": chunk})["fake_b"]
                          for chunk in eps.split(GENERATION_BATCH)])


def execute(task: Task, target: Target) -> tuple[dict[str, Any], Tensor]:
    """Train and score, where it stopped if gradients are infinite.  -> line for results.jsonl, samples"""
    run, start, stopped = TrainingRun(task, target), time.process_time(), {}
    try:
        for _ in range(task.steps):
            run.advance()
    except JobError as error:
        stopped = {"stopped": f"{error} (step {run.trainer.state.step})"}
    seconds = time.process_time() - start
    samples = run.sample(BENCHMARKS[task.benchmark].samples)
    score, counts = target.score(samples)
    return {"kind": "run", "benchmark": task.benchmark, "method": task.method, "seed": task.seed,
            "steps": task.steps, "key": task.key, **asdict(score), "counts": counts,
            "seconds": round(seconds, 2), **stopped}, samples


def measure_cost(task: Task, target: Target, *, blocks: int = 7, block_steps: int = 20,
                 warmup: int = 10) -> dict[str, Any]:
    """CPU time of an update of G over the baseline's, in alternating blocks.  -> line for results.jsonl"""
    run, baseline = TrainingRun(task, target), TrainingRun(replace(task, method=BASELINE), target)

    def seconds(timed: TrainingRun, steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            timed.advance()
        return time.process_time() - start

    seconds(run, warmup)
    seconds(baseline, warmup)
    ratios, baseline_seconds = [], []
    for block in range(blocks):
        order = (run, baseline) if block % 2 else (baseline, run)
        spent = {timed: seconds(timed, block_steps) for timed in order}
        ratios.append(spent[run] / spent[baseline])
        baseline_seconds.append(spent[baseline])
    return {"kind": "cost", "benchmark": task.benchmark, "method": task.method, "key": task.key,
            "ratio": round(float(np.median(ratios)), 3), "low": round(min(ratios), 3),
            "high": round(max(ratios), 3),
            "baseline_ms": round(float(np.median(baseline_seconds)) / block_steps * 1e3, 3)}


def execute_and_save(task: Task, folder: Path, target: Target) -> dict[str, Any]:
    """Execute a task and store samples of the first seed for plots."""
    line, samples = execute(task, target)
    if task.seed == 0:
        file = task.samples_file(folder)
        file.parent.mkdir(exist_ok=True)
        np.save(file, samples[:MAX_PLOTTED].numpy().astype(np.float32))
    return line
