"""The one training loop."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from i2i.clock import Clock, seed_step
from i2i.engine.average import Average
from i2i.engine.config import TrainConfig
from i2i.engine.interruption import Interrupted, Interruption
from i2i.engine.learner import Learner
from i2i.engine.observers import Guard, Judge, Observer, Silent
from i2i.engine.runtime import Runtime, compile_networks
from i2i.engine.sheet import sample_sheet
from i2i.engine.writer import Writer
from i2i.errors import JobError, RequestError, Unverified, printable
from i2i.recipes.base import Batch, DataInfo, Recipe, recompute
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder, write_atomically

WEIGHTS_SEED = 2**32 - 1        # The "step" whose seed draws the initial weights.
SHARE = 0.1                     # Of the time, at most, goes into evaluation.
TOLD = 10                       # Files left out that are told one by one; all are in skipped.jsonl.
ALARMED = 2**15                 # Returned in place of a signal's number by a run that the guard has stopped.
FAILED = 2**16                  # What the processes agree on where one of them gets no more images.

BatchesFrom = Callable[[int], Generator[Mapping[str, Tensor]]]      # Position of the first image -> batches, until it is closed.


class Trainer:
    """A recipe, its state and its run folder."""

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, runtime: Runtime, folder: RunFolder,
                 header: Mapping[str, Any], observer: Observer | None = None, judge: Judge | None = None, guard: Guard | None = None) -> None:
        if config.batch % runtime.world:
            raise RequestError(f"train.batch={config.batch} cannot be shared by {runtime.world} processes; accepted: a multiple of {runtime.world}")
        self.recipe, self.config, self.runtime, self.folder, self.header = recipe, config, runtime, folder, header
        self.observer, self.judge, self.guard = observer or Silent(), judge, guard
        self._began, self._judging = time.perf_counter(), 0.0
        self._logged = self._began, 0       # When the last log line was written, and at how many images.
        seed_step(config.seed, 0, WEIGHTS_SEED)     # The same initial weights in every process.
        self.format = torch.channels_last if config.memory_format == "channels-last" else torch.contiguous_format
        self.modules = recipe.modules(info).to(runtime.device).to(memory_format=self.format)
        recompute(recipe, self.modules, config.recompute)
        self.average = Average(self.modules, recipe.averaged, config)
        self.learner = Learner(recipe, self.modules, runtime, max_skips=config.max_skips)
        self.shared = [getattr(module, name) for module in self.modules.modules() for name in getattr(module, "shared", ())]
        self._buffers = list(self.modules.buffers())
        self._before = [torch.empty_like(buffer) for buffer in self._buffers]       # What they were when the step began.
        self.step = 0
        self._saved = -1        # The step of the newest state.
        self._interruption = Interruption()
        self._incomplete = False        # Whether a signal came before all that belongs to a tick was made.
        runtime.check_same(self.modules.named_parameters(), "at the start")
        self._writer = Writer(background=config.background)
        if config.compile:      # After the average is made: it is used rarely, at other sizes of batches.
            players = {name for player in recipe.players.values() for name in player.modules}
            compile_networks(self.modules, players - set(recipe.differentiated_twice), runtime.device)
        self._missing: list[dict[str, Any]] = []        # Left out by this process since skipped.jsonl was last written.

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch

    # ------------------------------------------------------------------------------------------ state

    def save(self) -> None:
        """Write the model and the training state, after which all that belongs to it is there; older states go once the new one is safe."""
        self.runtime.check_same(self.modules.named_parameters(), f"at {self.images:,} images")
        self._write_skipped()
        self._writer.finish()        # At most one state waits in memory.
        others = self.runtime.gather(dict(self.modules.named_buffers()))       # All must take part.
        tensors, data = self.learner.state()
        if self.runtime.leads:
            tensors |= {f"rank{rank}.{k}": v for rank, buffers in others.items() for k, v in buffers.items()}
            tensors |= {f"modules.{k}": v for k, v in self.modules.state_dict().items()}
            if self.config.ema_half_life:
                tensors |= {f"average.{k}": v for k, v in self.average.modules.state_dict().items()}
            held = self._writer.hold(tensors)
            kept = "average" if self.config.ema_half_life else "modules"
            model = {name: held[f"{kept}.{name}"] for name in self.average.modules.state_dict()}
            self._writer.submit(partial(self._write, self._progress, model, held, data))
        self._saved = self.step
        self.runtime.barrier()

    @property
    def _progress(self) -> dict[str, int]:
        return {"step": self.step, "images": self.images}

    def _write(self, progress: Mapping[str, int], model: Mapping[str, Tensor], tensors: Mapping[str, Tensor], learner: Mapping[str, Any]) -> None:
        self._write_model(self.folder.model, model, progress)
        checkpoint.save(self.folder.state(progress["images"]), tensors, {"kind": "state", **progress, "learner": learner})
        self.folder.retire(progress["images"], self.config.keep)

    def _write_model(self, path: Path, model: Mapping[str, Tensor], progress: Mapping[str, int]) -> None:
        checkpoint.save(path, model, {"kind": "model", **self.header, **progress})

    def restore(self) -> None:
        """Go back to the newest state that is whole, and cut the logs to it.  RequestError if none is."""
        problems: dict[Path, str] = {}
        doubts: list[warnings.WarningMessage] = []
        for path in reversed(self.folder.states()):
            try:
                with warnings.catch_warnings(record=True) as doubts:
                    warnings.simplefilter("always", Unverified)
                    tensors, header = checkpoint.load(path, "state")
                self._load(path, tensors, header)
                break
            except RequestError as error:
                problems[path] = str(error)
        else:
            if problems:
                raise RequestError("; ".join(problems.values()))
        self.runtime.barrier()          # All have read what is set aside now.
        if self.runtime.leads:
            for path, problem in problems.items():
                self.observer.said(f"{problem}; set aside as {self.folder.set_aside(path).name}, going on from the state before it, "
                                   f"at {self.images:,} images")
            for doubt in doubts:
                self.observer.said(str(doubt.message))
            self._tidy()
        self.runtime.barrier()
        speeds = log.read(self.folder.speed)
        before = [0, *(line["images"] for line in speeds)]
        self._judging = sum(entry["seconds"] for entry in log.read(self.folder.metrics))
        self._began -= sum((line["images"] - first) / max(line["images_per_second"], 0.01) for line, first in zip(speeds, before, strict=False))

    def _tidy(self) -> None:
        """Make the folder what it was when the state was written."""
        self.folder.tidy()
        if self.step < self.config.steps:       # There is one where the alarm stopped the run.
            self.folder.verdict.unlink(missing_ok=True)
        for log_file in (self.folder.log, self.folder.speed, self.folder.metrics, self.folder.skipped, self.folder.alarm):
            log.cut(log_file, self.images)
        if self._saved == self.step:
            try:
                checkpoint.load(self.folder.model, "model")
            except RequestError as error:
                self.observer.said(f"{error}; written anew from the state")
                self._write_model(self.folder.model, self.average.modules.state_dict(), self._progress)

    def _load(self, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        try:
            self.modules.load_state_dict({**checkpoint.part(tensors, "modules"), **checkpoint.part(tensors, f"rank{self.runtime.rank}")})
            if self.config.ema_half_life:
                self.average.modules.load_state_dict(checkpoint.part(tensors, "average"))
            self.learner.restore(tensors, header["learner"])
            step, images = header["step"], header["images"]
            if type(step) is not int or not 0 <= step <= self.config.steps or images != step * self.config.batch:
                raise ValueError(f"it is of step {str(step)[:20]}, at {str(images)[:20]} images")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RuntimeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[-1].strip()
            raise RequestError(f"{path} does not fit the networks: {reason[:300]}") from None
        self.step = self._saved = step

    # ------------------------------------------------------------------------------------------ files that are left out

    def left_out(self, name: str, reason: str) -> None:
        """The next step goes without a file that could not be read."""
        self._missing.append({"images": self.images + self.config.batch, "file": name, "reason": reason})

    def _write_skipped(self) -> None:
        """Tell each file once, in the order of steps, whatever process met it.  All processes must take part."""
        missing, self._missing = self.runtime.collect(self._missing), []
        if not missing or not self.runtime.leads:
            return
        known = {entry["file"] for entry in log.read(self.folder.skipped)}
        for entry in sorted(missing, key=lambda entry: (entry["images"], entry["file"])):
            if entry["file"] not in known:
                known.add(entry["file"])
                log.append(self.folder.skipped, entry)
                if len(known) <= TOLD:
                    more = f"; all that follow are in {self.folder.skipped}" if len(known) == TOLD else ""
                    self.observer.said(printable(f"skipped: {entry['file']}: {entry['reason']}") + more)

    # ------------------------------------------------------------------------------------------ the loop

    def run(self, batches_from: BatchesFrom, sample: Batch) -> int:
        """Train to the end of the run.  -> 0, or what interrupted it after the state was saved: a signal's number, or ALARMED"""
        config = self.config
        stopped, failure = 0, None
        with self._interruption as interruption, self._writer:
            if self._ticks:
                self._tick(sample)      # The first, or one in which the run was interrupted.
            self._writer.finish()       # No thread holds a lock while loader processes are forked.
            self.observer.started(self.images, config.steps * config.batch)
            batches = batches_from(self.images)
            self._logged = time.perf_counter(), self.images
            with closing(batches):
                while self.step < config.steps:
                    try:
                        with interruption.leaving():
                            batch = next(batches)
                    except Interrupted:
                        pass
                    except JobError as error:
                        failure = error
                    if stopped := self.runtime.largest(FAILED if failure else interruption.signal):     # All have their images, or all stop here.
                        break
                    clock = self.advance(batch)
                    logs = self._log() if clock.passes(config.log) or self.step == config.steps else None
                    if self.guard and self.runtime.leads and clock.passes(config.alarm) and self.guard(self.modules, self.images):
                        interruption.signal = interruption.signal or ALARMED
                    if self._ticks:
                        self._tick(sample)
                    self.observer.progressed(self.images, logs)
            if stopped and self._saved != self.step:
                self.save()     # Between two steps, so the state is whole: nothing learnt is lost.
            self._writer.finish()
            stopped = stopped or self.runtime.largest(interruption.signal if self._incomplete else 0)
        if stopped == FAILED:
            raise JobError(f"{failure or 'another process of this job has ended, and its own last line says why'}; saved at {self.images:,} images, "
                           f"to be continued with: i2i train --resume {self.folder.path}")
        return stopped

    @property
    def _ticks(self) -> bool:
        """Whether a sample grid, a state and an evaluation belong to where the run is: its beginning, its end, and every `tick` images."""
        return self.step in (0, self.config.steps) or Clock(self.step - 1, self.config.batch, self.config.images).passes(self.config.tick)

    def advance(self, batch: Mapping[str, Tensor]) -> Clock:
        """One step of the recipe on this batch.  -> where the run stood before it

        Where a player is skipped, what its forward pass wrote (running statistics, pools, singular vectors) is taken back: it may be NaN too.
        """
        clock = Clock(self.step, self.config.batch, self.config.steps * self.config.batch)
        batch = {key: self._at_hand(value) for key, value in batch.items()}
        seed_step(self.config.seed, 0, clock.step)      # The same in all processes, of which each takes its share.
        self.modules.train()
        self.learner.begin(clock)
        overwrite(self._before, self._buffers)
        with self.runtime.autocast(), self.runtime.share():
            self.recipe.step(self.modules, batch, clock, self.learner)
        if self.learner.skips:
            overwrite(self._buffers, self._before)
        for buffer in self.shared:
            buffer.copy_(self.runtime.mean(buffer))
        self.average.update(clock)
        self.step += 1
        return clock

    def _at_hand(self, value: Tensor) -> Tensor:
        value = value.to(self.runtime.device, non_blocking=True)
        return value.contiguous(memory_format=self.format) if value.dim() == 4 else value

    def _log(self) -> dict[str, float]:
        self._write_skipped()
        logs = self.learner.means()
        if self.runtime.leads:
            log.append(self.folder.log, {"images": self.images, **logs})
            now = time.perf_counter()
            speed = (self.images - self._logged[1]) / (now - self._logged[0])       # Since the last line, ticks included.
            self._logged = now, self.images
            log.append(self.folder.speed, {"images": self.images, "unix": round(time.time(), 1), "images_per_second": round(speed, 2)})
        return logs

    def _tick(self, sample: Batch) -> None:
        """A sample grid, the state, an evaluation; what is there already is not made again.  A signal leaves out what is no state: it is made
        when the run is continued."""
        with self._left_at_a_signal():
            if self.runtime.leads and not self.folder.sample(self.images).exists():
                with self._interruption.leaving():
                    sheet = Image.fromarray(sample_sheet(self.recipe, self.average.modules, sample, self.runtime.device, self.config.seed))
                self._writer.submit(partial(write_atomically, self.folder.sample(self.images), lambda path: sheet.save(path, "png")))
        if self._saved != self.step:
            self.save()
        if self.judge and self.runtime.leads and self.step:
            with self._left_at_a_signal():
                self._evaluate(self.judge)
        self.runtime.barrier()

    @contextmanager
    def _left_at_a_signal(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            self._incomplete = True

    def _evaluate(self, judge: Judge) -> None:
        """Evaluate unless evaluations would then have taken more than a tenth of the time; always at the end.  Keeps the best model."""
        entries = log.read(self.folder.metrics)
        if any(entry["images"] == self.images for entry in entries):
            return
        cost = entries[-1]["seconds"] if entries else 0.0
        if self.step < self.config.steps and self._judging + cost > SHARE * (time.perf_counter() - self._began):
            return
        began = time.perf_counter()
        with self._interruption.leaving():
            entry = judge(self.modules, self.average.modules, self.images)
        seconds = time.perf_counter() - began
        self._judging += seconds
        before = [old["scores"][judge.metric]["value"] for old in entries if judge.metric in old["scores"]]
        best = all(entry["scores"][judge.metric]["value"] < value for value in before)
        model = self._writer.hold(self.average.modules.state_dict()) if best else {}
        self._writer.submit(partial(self._write_evaluation, {**entry, "seconds": round(seconds, 3)}, model, self._progress))
        figures = "  ".join(f"{name} {score['value']:.4g}" for name, score in entry["scores"].items())
        self.observer.said(f"{entry['split']} at {self.images:,} images: {figures}  ({entry['n']} images, {seconds:.1f} s)")

    def _write_evaluation(self, entry: Mapping[str, Any], best: Mapping[str, Tensor], progress: Mapping[str, int]) -> None:
        if best:
            self._write_model(self.folder.best, best, progress)
        log.append(self.folder.metrics, entry)      # Last: what it tells of is there.


@torch.no_grad()
def overwrite(old: list[Tensor], new: list[Tensor]) -> None:
    """Copy tensors over others, each over its own."""
    if old:
        torch._foreach_copy_(old, new)
