"""Runs by the clock: measure the speed of this machine, and choose a length that ends in time."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import Tensor

from i2i.config import settings
from i2i.errors import RequestError, require
from i2i.recipes.base import Batch
from i2i.registry import Spec, schema
from i2i.training.callbacks.checkpoint import sample_grid
from i2i.training.callbacks.evaluation import TRIAL_IMAGES
from i2i.training.callbacks.evaluator import MAX_IMAGES, Evaluator
from i2i.training.distributed import Runtime
from i2i.training.job import Job
from i2i.training.plan import memory_estimate
from i2i.training.run_length import (
    CHECKPOINTS,
    Timing,
    affordable_images,
    round_down,
    seconds_beside_steps,
)
from i2i.training.settings import assigned_keys
from i2i.training.trainer import Trainer

MAX_MINUTES = 10_000_000        # 19 years.
MEASURED_SHARE, MEASURED_SECONDS = 0.03, (2.0, 15.0)    # Of the time, for the steps that decide the length.
TRIAL_STEPS = 3                 # Of each width and precision that is tried.
UNSEEN_BATCHES = 8              # From this one on: trials read the first, and loaders read ahead.
LOG_LINES = 100                 # Of a run, or more: every 1,000 images at least.
BF16_GAIN = 0.85                # bf16 is taken if a step takes at most this share of its time in fp32.

# By kind of data: shares of the default width, and the images a run should see with it at least.  Measured,
# pix2pix on personas-edges-64 at equal CPU time: half of the width and a quarter give the same PSNR where the
# former sees 5,000 images, and a quarter is better before (docs/benchmarks.md).  The others are guesses.
WIDTHS: Mapping[str, Sequence[tuple[float, int]]] = {
    "paired": ((1, 150_000), (1 / 2, 5_000), (1 / 4, 0)),
    "unpaired": ((1, 150_000), (1 / 2, 10_000), (1 / 4, 0)),
    "images": ((1, 400_000), (1 / 2, 50_000), (1 / 4, 0))}
# For recipes whose default is one image a step: steps of several, and learning rates that go with them.
BATCHES: Mapping[str, Mapping[str, Any]] = {
    "paired": {"train.batch_size": 8, "g_optimizer.lr": 4e-4},
    "unpaired": {"train.batch_size": 4, "g_optimizer.lr": 4e-4, "d_optimizer.lr": 4e-4},
    "images": {}}


class TimeBudget:
    """The time that a whole run may take, from its start-up to its last file.

    Args:
        clock: counts seconds.
        elapsed: seconds that have passed before.
    """

    def __init__(self, minutes: float, *, clock: Callable[[], float] = time.monotonic,
                 elapsed: float = 0.0) -> None:
        require(0 < minutes <= MAX_MINUTES, "--minutes", f"{minutes:g}", "more than 0, such as 10")
        self.minutes, self.clock = minutes, clock
        self.deadline = clock() - elapsed + 60 * minutes

    @classmethod
    def since_start(cls, minutes: float) -> "TimeBudget":
        """Minutes that began when this process did, whose imports take seconds."""
        return cls(minutes, elapsed=time.time() - psutil.Process().create_time())

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.deadline - self.clock()


def requested_budget(minutes: float | TimeBudget | None, autotune: bool, resume: object) -> TimeBudget | None:
    """The time of a run, if it is limited.  RequestError if the ways of measuring do not go together."""
    budget = minutes if isinstance(minutes, TimeBudget | None) else TimeBudget(minutes)
    if autotune and resume:
        raise RequestError("--autotune cannot be given with --resume or --extend: the run keeps its settings")
    if autotune and budget:
        raise RequestError("--autotune and --minutes both choose settings by measuring; give one of them")
    return budget


class RunPlanner:
    """Chooses length, width, batch, precision and intervals of a run, except for what is assigned.

    Args:
        job: the run without a time limit.
        assignments: KEY=VALUE words of the request; those of a preset count too.
        batch_source: makes the batches of a job from a position on, of images with one cache.
        sample: the batch of the sample grids.
        make_evaluator: the evaluator of a job, if it has one.
    """

    def __init__(self, job: Job, budget: TimeBudget, assignments: Sequence[str], *, device: str,
                 batch_source: Callable[[Job, Runtime, int], Generator[Mapping[str, Tensor]]], sample: Batch,
                 make_evaluator: Callable[[Job, torch.device], Evaluator | None], available: int) -> None:
        self.job, self.budget, self.device, self.available = job, budget, device, available
        self.batch_source, self.sample, self.make_evaluator = batch_source, sample, make_evaluator
        self.assigned = assigned_keys(job.requested, assignments)
        self.runtime = Runtime(device=device, threads=job.train.threads)
        self.chosen: dict[str, Any] = {}

    def plan(self) -> Job:
        """The job that fits.  Call it in all processes.  RequestError if the time is too short for a step."""
        self._choose_batch()
        per_image = self._choose_width()
        if "train.precision" not in self.assigned:
            bf16 = self._with({"train.precision": "bf16"})
            if (seconds := self._try(bf16)) < BF16_GAIN * per_image:
                self.chosen["train.precision"], per_image = "bf16", seconds
        job = self._with({})
        timing = self._measure(job, per_image * job.train.batch_size)
        self._choose_length(job, timing)
        planned = self._with({})
        measured = {"images_per_second": float(f"{1 / timing.image:.4g}"),
                    "decoding_seconds": round(timing.epoch * timing.decoding, 3),
                    "grid_seconds": round(timing.grid, 3), "evaluation_seconds": round(timing.trial, 3)}
        return replace(planned, time_plan={"limit": self.budget.minutes, "chosen": self.chosen,
                                           "measured": measured})

    def summary(self) -> str:
        """What was chosen, in one line."""
        values = dict(self.chosen)
        images = values.pop("train.images")
        return (f"{self.budget.minutes:g} minutes are about {images:,} images here, with "
                + " ".join(f"{key}={value}" for key, value in values.items()))

    def _with(self, changes: Mapping[str, Any]) -> Job:
        return self.job.with_settings({**self.chosen, **changes})

    def _choose_batch(self) -> None:
        if self.job.train.batch_size > 1 or "train.batch_size" in self.assigned:
            return
        free = {key: value for key, value in BATCHES[self.job.recipe.dataset].items()
                if key not in self.assigned and (key.startswith("train.") or self._has_option(key))}
        batch = free.pop("train.batch_size", 1)
        while batch > 1 and not self._fits({"train.batch_size": batch}):
            batch //= 2
        n = self.runtime.world_size
        self.chosen |= {"train.batch_size": max(1, batch // n) * n} | (free if batch > 1 else {})

    def _choose_width(self) -> float:
        """Seconds for an image with the widest networks of the table that see enough images."""
        table = WIDTHS[self.job.recipe.dataset]
        keys = [key for key in ("generator.width", "discriminator.width")
                if key not in self.assigned and self._has_option(key)]
        if not keys:
            return self._try(self._with({}))
        for share, least in table:
            widths = {key: max(1, round(share * self._default(key))) for key in keys}
            last = (share, least) == table[-1]
            if last or self._fits(widths):
                seconds = self._try(self._with(widths))
                if last or seconds * least <= self.budget.minutes * 60:
                    break
        if share < 1:
            self.chosen |= widths
        return seconds

    def _has_option(self, key: str) -> bool:
        setting, option = key.split(".")
        spec = getattr(self.job.recipe, setting, None)
        return isinstance(spec, Spec) and option in schema(self._kind(setting), spec.name)

    def _default(self, key: str) -> Any:
        setting, option = key.split(".")
        return schema(self._kind(setting), getattr(self.job.recipe, setting).name)[option].default

    def _kind(self, setting: str) -> str:
        return settings(self.job.recipe)[setting].kind

    def _fits(self, changes: Mapping[str, Any]) -> bool:
        needed = memory_estimate(self._with(changes), self.runtime.world_size).total
        return self.runtime.broadcast(needed <= self.available)

    def _trainer(self, job: Job) -> Trainer:
        return Trainer.for_trials(job.recipe, job.info, job.train, self.device)

    def _seconds(self, trainer: Trainer, work: Callable[[], object]) -> float:
        """Seconds of some work, those of the main process in all."""
        return self.runtime.broadcast(trainer.seconds(work, self.budget.clock))

    def _try(self, job: Job) -> float:
        """Seconds for an image, by a few steps; those of the first alone if they are hopelessly many."""
        trainer = self._trainer(job)
        with closing(self.batch_source(job, trainer.runtime, 0)) as batches:
            batch = next(batches)
        first = self._seconds(trainer, lambda: trainer.advance(batch))
        if first > MEASURED_SHARE * 60 * self.budget.minutes:
            return first / job.train.batch_size
        return min(self._seconds(trainer, lambda: trainer.advance(batch))
                   for _ in range(TRIAL_STEPS)) / job.train.batch_size

    def _measure(self, job: Job, step: float) -> Timing:
        """Time steps with their batches, a sample grid and an evaluation of a few images."""
        trainer, (low, high), batch = self._trainer(job), MEASURED_SECONDS, job.train.batch_size
        seconds = min(max(MEASURED_SHARE * 60 * self.budget.minutes, low), high)
        count = min(max(1, int(seconds / 2 / max(step, 1e-9))), job.train.steps)

        def steps(start: int, count: int) -> float:
            """Seconds of steps with the images from a position on."""
            with closing(self.batch_source(job, trainer.runtime, start)) as batches:
                return self._seconds(trainer, lambda: [trainer.advance(next(batches)) for _ in range(count)])

        if count > 1:
            steps(0, 1)         # The first is slower.
        # With images that no trial has seen, and with these again: once decoded, they may be cached.
        first, again = (steps(UNSEEN_BATCHES * batch, count) for _ in range(2))
        epoch = len(job.splits["train"])
        decoding = max(0.0, first - again) / min(count * batch, epoch)
        grid = min(self._seconds(trainer, lambda: sample_grid(
            job.recipe, trainer.ema_modules, self.sample, trainer.device, job.train.seed)) for _ in range(2))
        evaluator, fresh = (self.make_evaluator(job, trainer.device) if self.runtime.is_main_process else None
                            for _ in range(2))
        trial = evaluator.limited(TRIAL_IMAGES) if evaluator else None
        self._seconds(trainer, lambda: evaluator and evaluator.embedding())     # The first imports libraries.
        loading = self._seconds(trainer, lambda: fresh and fresh.embedding())
        took = self._seconds(trainer, lambda: trial and trial(trainer.modules, trainer.ema_modules, 0))
        evaluated = len(evaluator.limited(MAX_IMAGES).heldout.indices) if evaluator else 0
        return Timing(again / count / batch, decoding, epoch, grid, loading, took,
                      self.runtime.broadcast(evaluated))

    def _choose_length(self, job: Job, timing: Timing) -> None:
        every = job.train.checkpoint_every if "train.checkpoint_every" in self.assigned else 0
        remaining = self.runtime.broadcast(self.budget.remaining)
        images = affordable_images(timing, remaining, every,
                                   memory_estimate(job, self.runtime.world_size).state)
        batch = job.train.batch_size
        if images < batch:
            needed = 60 * self.budget.minutes - remaining + timing.image * batch + \
                seconds_beside_steps(timing, 0.0, 1, 0)
            raise RequestError(f"--minutes {self.budget.minutes:g} is too short here, where starting, "
                               f"measuring and one step of {batch} take about {math.ceil(needed)} s; "
                               f"accepted: more, such as {math.ceil(10 * needed / 60)}")
        self.chosen["train.images"] = images = round_down(images, batch)
        for key, value in (("train.checkpoint_every", max(batch, -(-images // CHECKPOINTS))),
                           ("train.log_every", max(batch, min(job.train.log_every, images // LOG_LINES)))):
            if key not in self.assigned:
                self.chosen[key] = value
