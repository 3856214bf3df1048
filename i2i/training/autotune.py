"""Measure which speed settings are fastest for a recipe, its data and a device, by a few steps with each."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import psutil
import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.recipes.base import DataInfo, Recipe
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.trainer import Trainer

# In the order of trials.
TUNED_SETTINGS = ("threads", "precision", "memory_format", "compile", "num_workers")
MAX_TIME_RATIO = 0.95           # A setting that takes more of the time is not adopted: it may be chance.
TRIAL_STEPS, TRIAL_SECONDS = 3, 2.0         # Of each trial, whichever comes first.
MIN_BUDGET, BUDGET_SHARE = 20.0, 0.01       # Seconds, or a share of the run, for all trials; the larger one.
COMPILE_SECONDS = 60.0          # That torch.compile may take for a GAN.
BF16_NOTE = ("bf16: convolutions and matrix products have 8 significant bits instead of 24; weights, "
             "averages, optimizers and penalties stay fp32. Losses agree with fp32 to about a hundredth; "
             "train.precision=fp32 prevents it")
BatchSource = Callable[[TrainConfig, Runtime], Generator[Mapping[str, Tensor]]]


def assigned_settings(assignments: Sequence[str]) -> tuple[str, ...]:
    """The tuned settings that KEY=VALUE assignments decide."""
    keys = {assignment.partition("=")[0].removeprefix("train.") for assignment in assignments}
    return tuple(key for key in TUNED_SETTINGS if key in keys)


class Autotuner:
    """Tries one setting after the other on top of those found faster; the result is `config`.

    Args:
        config: where to begin; its settings that the KEY=VALUE assignments decide stay.
        batch_source: makes batches for a config.
    """

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, batch_source: BatchSource, *,
                 assignments: Sequence[str] = (), device: str = "auto",
                 log: Callable[[str], None] = lambda line: None) -> None:
        self.recipe, self.info, self.config, self.batch_source = recipe, info, config, batch_source
        self.assigned, self.device, self.log = assigned_settings(assignments), device, log
        self.step_seconds = float("inf")            # With `config`.
        self.trials: list[dict[str, Any]] = []      # Settings, and milliseconds of a step.
        self.skipped: dict[str, str] = {}           # Settings that were not tried -> why.
        self._default_threads = torch.get_num_threads()

    def tune(self) -> None:
        """Make all trials that the budget allows.  RequestError with several processes."""
        runtime, start = Runtime(device=self.device), time.perf_counter()
        if runtime.world_size > 1:
            raise RequestError("--autotune measures in one process; give what it chose to all as settings")
        self.log("autotune: measuring which settings are fastest here")
        with closing(self.batch_source(replace(self.config, num_workers=0), runtime)) as batches:
            batch = next(batches)
        self._try_step(self.config, batch)
        run_seconds = self.config.steps * self.step_seconds
        budget = max(MIN_BUDGET, BUDGET_SHARE * run_seconds)
        candidates: list[tuple[str, Any]] = [("precision", "bf16"), ("memory_format", "channels-last"),
                                             ("compile", True)]
        if runtime.device.type == "cpu":
            fewer = (self._default_threads // 2, self._default_threads // 4)
            candidates = [*(("threads", n) for n in fewer if n), *candidates]
        for key, value in candidates:
            if key in self.assigned:
                continue
            cost = self.step_seconds * (TRIAL_STEPS + 1) + (COMPILE_SECONDS if key == "compile" else 0)
            if time.perf_counter() - start + cost > budget:
                self.skipped[key] = f"takes about {cost:.0f} s, too long for a run of {run_seconds:.0f} s"
                continue
            try:
                self._try_step(replace(self.config, **{key: value}), batch)
            except (RequestError, RuntimeError) as error:       # No compiler, or out of memory.
                self.skipped[key] = str(error).splitlines()[0]
        self._set_threads(self.config)
        if "num_workers" not in self.assigned:
            self._tune_workers()
        first, last = self.trials[0]["ms"], min(trial["ms"] for trial in self.trials if trial["adopted"])
        settings = " ".join(f"train.{key}={str(value).lower()}" for key, value in self.chosen.items())
        self.log(f"autotune: {settings} ({last:.0f} ms a step, {first:.0f} before)")
        for key, reason in self.skipped.items():
            self.log(f"autotune: not tried: train.{key}: {reason}")
        if self.chosen.get("precision") == "bf16":
            self.log(f"autotune: {BF16_NOTE}")

    def _set_threads(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads or self._default_threads)

    def _trainer(self, config: TrainConfig) -> Trainer:
        gc.collect()                # Networks of earlier trials may contain reference cycles.
        return Trainer.for_trials(self.recipe, self.info, config, self.device)

    def _try_step(self, config: TrainConfig, batch: Mapping[str, Tensor]) -> None:
        """Time steps on one batch, and adopt the config if it is faster."""
        self._set_threads(config)
        trainer = self._trainer(config)
        trainer.advance(batch)      # Allocates the optimizers' state and compiles.
        seconds: list[float] = []
        while len(seconds) < TRIAL_STEPS and sum(seconds) < TRIAL_SECONDS:
            seconds.append(trainer.seconds(lambda: trainer.advance(batch)))
        best = min(seconds)         # Whatever else runs on the machine only adds.
        if self._record(config, best, self.step_seconds, steps=len(seconds)):
            self.step_seconds = best

    def _record(self, config: TrainConfig, seconds: float, reference: float, **details: Any) -> bool:
        """Note a trial, and adopt its config if it takes clearly less than the reference."""
        adopted = seconds < MAX_TIME_RATIO * reference
        self.trials.append({**{key: getattr(config, key) for key in TUNED_SETTINGS},
                            "ms": round(1e3 * seconds, 3), "adopted": adopted, **details})
        if adopted:
            self.config = config
        return adopted

    def _tune_workers(self) -> None:
        """Double the loader processes while steps become faster; none if a thread keeps up."""
        trainer = self._trainer(self.config)
        steps = max(3, min(50, round(TRIAL_SECONDS / self.step_seconds)))
        best, process = float("inf"), psutil.Process()
        cores = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
        for workers in (0, 1, 2, 4, 8, 16):
            if workers > cores:
                break
            config = replace(self.config, num_workers=workers,
                             prefetch_factor=max(self.config.prefetch_factor, 1 if workers else 0))
            with closing(self.batch_source(config, trainer.runtime)) as batches:
                def step(batches: Generator[Mapping[str, Tensor]] = batches) -> None:
                    trainer.advance(next(batches))

                # Use up what was prefetched.
                for _ in range(min(8, 1 + workers * config.prefetch_factor)):
                    step()
                seconds = statistics.median(trainer.seconds(step) for _ in range(steps))
            if not self._record(config, seconds, best, batches="read"):
                break
            best = seconds
            if best < self.step_seconds / MAX_TIME_RATIO:
                break

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that were decided, as in config.json."""
        return {key: getattr(self.config, key) for key in TUNED_SETTINGS if key not in self.assigned}

    def report(self) -> dict[str, Any]:
        """The contents of autotune.json."""
        device = Runtime(device=self.device).device
        name = (torch.cuda.get_device_name(device) if device.type == "cuda" else
                f"{device.type}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}")
        return {"device": name, "torch": torch.__version__, "chosen": self.chosen,
                "assigned": list(self.assigned), "trials": self.trials, "skipped": self.skipped}
