"""Finds out which settings of speed are fastest for a recipe and its data on the device at hand, by a few
steps of each."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from i2i.errors import RequestError
from i2i.recipes.base import DataInfo, Recipe
from i2i.runs.folder import RunFolder
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.trainer import Trainer

# In the order in which they are decided.
TUNED_SETTINGS = ("threads", "precision", "memory_format", "compile", "num_workers")
MIN_SAVING = 0.95                # Of the time: what saves less is left as it is, since it may be chance.
STEPS, LONG = 3, 2.0        # Steps timed of each trial, or fewer once they have taken so many seconds.
SECONDS, SHARE = 20.0, 0.01     # Measuring takes about so long, or a hundredth of the run, whichever is more.
# Seconds that torch.compile may take for a GAN; a run must be long enough for that to be within the share.
COMPILING = 60.0
BF16 = ("bf16: convolutions and matrix products have 8 significant bits instead of 24; weights, averages, "
        "optimizers and penalties stay fp32. "
        "Losses are those of fp32 to about a hundredth; train.precision=fp32 says otherwise")
BatchSource = Callable[[TrainConfig, Runtime], Generator[Mapping[str, Tensor]]]


@dataclass
class AutotuneResult:
    """The settings found, and what was measured on the way."""

    train: TrainConfig
    said: tuple[str, ...] = ()                                      # By a person, and left alone.
    # Settings, and milliseconds for each step.
    trials: list[dict[str, Any]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)          # Not tried: setting -> why.

    @property
    def chosen(self) -> dict[str, Any]:
        """What was decided, as it is in config.json."""
        return {key: getattr(self.train, key) for key in TUNED_SETTINGS if key not in self.said}

    def report(self, device: torch.device) -> dict[str, Any]:
        """autotune.json."""
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores, " \
            f"{torch.backends.cpu.get_cpu_capability()}"
        return {"device": name, "torch": torch.__version__, "chosen": self.chosen, "said": list(self.said),
                "trials": self.trials,
                "left_out": self.left_out}

    def lines(self) -> list[str]:
        """What was decided and why, for a person."""
        first, last = self.trials[0]["ms"], min(trial["ms"] for trial in self.trials if trial["taken"])
        words = " ".join(f"train.{key}={value}" for key, value in self.chosen.items()).replace("=False",
                                                                                               "=false").replace("=True", "=true")
        told = [f"auto: {words} ({last:.0f} ms a step, {first:.0f} as set before)"]
        told += [f"auto: not tried: train.{key}: {why}" for key, why in self.left_out.items()]
        return [*told, *([f"auto: {BF16}"] if self.chosen.get("precision") == "bf16" else [])]


def assigned_settings(assignments: Sequence[str]) -> tuple[str, ...]:
    """Those of the tuned settings that a person's words decide."""
    keys = {word.partition("=")[0].removeprefix("train.") for word in assignments}
    return tuple(key for key in TUNED_SETTINGS if key in keys)


def autotune(recipe: Recipe, info: DataInfo, train: TrainConfig, feed: BatchSource, *,
             said: tuple[str, ...] = (), device: str = "auto",
         tell: Callable[[str], None] = lambda line: None) -> AutotuneResult:
    """Try one setting after the other, on top of those found faster.  What is in `said` is not touched.
    RequestError with several processes."""
    runtime = Runtime(device=device)
    if runtime.world_size > 1:
        raise RequestError("--autotune measures in one process; run it there, and give what it chose "
                           "(RUN/autotune.json) to all of them as settings")
    tell("auto: measuring which settings are fastest here")
    began, threads = time.perf_counter(), torch.get_num_threads()
    tuning = AutotuneResult(train, said)
    with closing(feed(replace(train, num_workers=0), runtime)) as batches:
        batch = next(batches)
    best = _try(tuning, recipe, info, train, batch, device, threads)
    limit = max(SECONDS, SHARE * train.steps * best)
    for key, values in _choices(runtime.device.type, threads).items():
        for value in () if key in said else values:
            cost = best * (STEPS + 1) + (COMPILING if key == "compile" else 0)
            if time.perf_counter() - began + cost > limit:
                tuning.left_out[key] = f"about {cost:.0f} s, too long to measure for a run of about {train.steps * best:.0f} s"
                break
            try:
                best = _try(tuning, recipe, info, replace(tuning.train, **{key: value}), batch, device,
                            threads, best)
            except (RequestError, RuntimeError) as error:       # No compiler, no memory for it.
                tuning.left_out[key] = str(error).splitlines()[0]
    _use_threads(tuning.train, threads)
    if "num_workers" not in said:
        _choose_workers(tuning, recipe, info, feed, device, best)
    for line in tuning.lines():
        tell(line)
    return tuning


def _choices(device: str, threads: int) -> dict[str, tuple[Any, ...]]:
    """What else than the defaults can be tried on a kind of device."""
    fewer = tuple(count for count in (threads // 2, threads // 4) if count) if device == "cpu" else ()
    return {"threads": fewer, "precision": ("bf16",), "memory_format": ("channels-last",), "compile": (True,)}


def _use_threads(train: TrainConfig, default: int) -> None:
    torch.set_num_threads(train.threads or default)


def _try(tuning: AutotuneResult, recipe: Recipe, info: DataInfo, train: TrainConfig,
         batch: Mapping[str, Tensor], device: str, threads: int,
         best: float = float("inf")) -> float:
    """Time these settings, and take them if they are worth it.  -> seconds of a step with what is best now"""
    _use_threads(train, threads)
    trainer = _trainer(recipe, info, train, device)
    trainer.advance(batch)      # Makes the optimizers' state, and compiles.
    times: list[float] = []
    while len(times) < STEPS and sum(times) < LONG:
        times.append(_time(trainer, lambda: trainer.advance(batch)))
    seconds = min(times)        # What else the machine does only adds.
    return _candidate(tuning, train, seconds, best, steps=len(times))


def _trainer(recipe: Recipe, info: DataInfo, train: TrainConfig, device: str) -> Trainer:
    gc.collect()                # Of the trial before, whose networks may refer to themselves.
    runtime = Runtime(precision=train.precision, device=device, threads=train.threads, tf32=train.tf32)
    # Nothing is written.
    return Trainer(recipe, info, replace(train, async_writes=False), runtime, RunFolder(os.devnull), {})


def _candidate(tuning: AutotuneResult, train: TrainConfig, seconds: float, best: float, **more: Any) -> float:
    taken = seconds < MIN_SAVING * best
    tuning.trials.append({**{key: getattr(train, key) for key in TUNED_SETTINGS},
                          "ms": round(1e3 * seconds, 3), "taken": taken, **more})
    if taken:
        tuning.train = train
    return min(seconds, best) if taken else best


def _time(trainer: Trainer, job: Callable[[], object]) -> float:
    start = time.perf_counter()
    job()
    if trainer.runtime.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _choose_workers(tuning: AutotuneResult, recipe: Recipe, info: DataInfo, feed: BatchSource, device: str,
                    step: float) -> None:
    """Loader processes, doubled as long as steps with real batches become faster; none if the thread that
    reads ahead keeps up."""
    trainer = _trainer(recipe, info, tuning.train, device)
    count = max(3, min(50, round(LONG / step)))
    best = float("inf")
    for workers in (0, 1, 2, 4, 8, 16):
        if workers > max(1,
                         len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
                         or 1):
            break
        train = replace(tuning.train, num_workers=workers,
                        prefetch_factor=max(tuning.train.prefetch_factor, 1 if workers else 0))
        with closing(feed(train, trainer.runtime)) as batches:
            def one(batches: Generator[Mapping[str, Tensor]] = batches) -> None:
                trainer.advance(next(batches))

            # What was read before the clock began does not count.
            for _ in range(min(8, 1 + workers * train.prefetch_factor)):
                one()
            seconds = statistics.median(_time(trainer, one) for _ in range(count))
        before, best = best, _candidate(tuning, train, seconds, best, batches="read")
        if best == before or best < step / MIN_SAVING:
            break
