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

from i2i.errors import JobError, RequestError, Unverified, printable
from i2i.recipes.base import Batch, DataInfo, Recipe, set_checkpointing
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder, write_atomically
from i2i.seeding import Progress, seed_step
from i2i.training.async_writer import AsyncWriter
from i2i.training.callbacks.base import Callback, Evaluator, StopCriterion
from i2i.training.callbacks.sample_grid import sample_grid
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime, compile_networks
from i2i.training.ema import EMA
from i2i.training.interruption import Interrupted, Interruption
from i2i.training.optimization import PlayerOptimizers

WEIGHTS_SEED = 2**32 - 1        # The "step" whose seed draws the initial weights.
EVALUATION_SHARE = 0.1                     # Of the time, at most, goes into evaluation.
# Files left out that are told one by one; all are in skipped.jsonl.
MAX_SKIP_MESSAGES = 10
# Returned in place of a signal's number by a run that the guard has stopped.
STOPPED_BY_DETECTOR = 2**15
OUT_OF_DATA = 2**16                  # What the processes agree on where one of them gets no more images.

# Position of the first image -> batches, until it is closed.
BatchesFrom = Callable[[int], Generator[Mapping[str, Tensor]]]


class Trainer:
    """A recipe, its state and its run folder."""

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, runtime: Runtime,
                 folder: RunFolder,
                 header: Mapping[str, Any], callback: Callback | None = None, judge: Evaluator | None = None,
                 guard: StopCriterion | None = None) -> None:
        if config.batch_size % runtime.world_size:
            raise RequestError(f"train.batch_size={config.batch_size} cannot be shared by "
                               f"{runtime.world_size} processes; accepted: a multiple of {runtime.world_size}")
        self.recipe, self.config, self.runtime, self.folder, self.header = recipe, config, runtime, folder, header
        self.callback, self.judge, self.guard = callback or Callback(), judge, guard
        self._began, self._judging = time.perf_counter(), 0.0
        self._logged = self._began, 0       # When the last log line was written, and at how many images.
        seed_step(config.seed, 0, WEIGHTS_SEED)     # The same initial weights in every process.
        self.format = torch.channels_last if config.memory_format == "channels-last" else torch.contiguous_format
        self.modules = recipe.modules(info).to(runtime.device).to(memory_format=self.format)
        set_checkpointing(recipe, self.modules, config.gradient_checkpointing)
        self.average = EMA(self.modules, recipe.ema_modules, config)
        self.learner = PlayerOptimizers(recipe, self.modules, runtime, max_skips=config.max_skips)
        self.shared = [getattr(module, name) for module in self.modules.modules()
                       for name in getattr(module, "synced_buffers", ())]
        self._buffers = list(self.modules.buffers())
        # What they were when the step began.
        self._before = [torch.empty_like(buffer) for buffer in self._buffers]
        self.step = 0
        self._saved = -1        # The step of the newest state.
        self._interruption = Interruption()
        self._incomplete = False        # Whether a signal came before all that belongs to a tick was made.
        runtime.check_same(self.modules.named_parameters(), "at the start")
        self._writer = AsyncWriter(background=config.async_writes)
        if config.compile:      # After the average is made: it is used rarely, at other sizes of batches.
            players = {name for player in recipe.players.values() for name in player.modules}
            compile_networks(self.modules, players - set(recipe.second_order_modules), runtime.device)
        # Left out by this process since skipped.jsonl was last written.
        self._missing: list[dict[str, Any]] = []

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    # ------------------------------------------------------------------------------------------ state

    def save(self) -> None:
        """Write the model and the training state, after which all that belongs to it is there; older states
        go once the new one is safe."""
        self.runtime.check_same(self.modules.named_parameters(), f"at {self.images:,} images")
        self._write_skipped()
        self._writer.finish()        # At most one state waits in memory.
        others = self.runtime.gather_tensors(dict(self.modules.named_buffers()))       # All must take part.
        tensors, data = self.learner.state()
        if self.runtime.is_main_process:
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

    def _write(self, progress: Mapping[str, int], model: Mapping[str, Tensor], tensors: Mapping[str, Tensor],
               learner: Mapping[str, Any]) -> None:
        self._write_model(self.folder.model, model, progress)
        checkpoint.save(self.folder.state(progress["images"]), tensors,
                        {"kind": "state", **progress, "learner": learner})
        self.folder.retire(progress["images"], self.config.keep_checkpoints)

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
        if self.runtime.is_main_process:
            for path, problem in problems.items():
                self.callback.on_message(f"{problem}; set aside as {self.folder.set_aside(path).name}, going "
                                         "on from the state before it, "
                                   f"at {self.images:,} images")
            for doubt in doubts:
                self.callback.on_message(str(doubt.message))
            self._tidy()
        self.runtime.barrier()
        speeds = log.read(self.folder.speed)
        before = [0, *(line["images"] for line in speeds)]
        self._judging = sum(entry["seconds"] for entry in log.read(self.folder.metrics))
        self._began -= sum((line["images"] - first) / max(line["images_per_second"], 0.01) for line,
                           first in zip(speeds, before, strict=False))

    def _tidy(self) -> None:
        """Make the folder what it was when the state was written."""
        self.folder.tidy()
        if self.step < self.config.steps:       # There is one where the alarm stopped the run.
            self.folder.verdict.unlink(missing_ok=True)
        for log_file in (self.folder.log, self.folder.speed, self.folder.metrics, self.folder.skipped,
                         self.folder.alarm):
            log.cut(log_file, self.images)
        if self._saved == self.step:
            try:
                checkpoint.load(self.folder.model, "model")
            except RequestError as error:
                self.callback.on_message(f"{error}; written anew from the state")
                self._write_model(self.folder.model, self.average.modules.state_dict(), self._progress)

    def _load(self, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        try:
            self.modules.load_state_dict({**checkpoint.subset(tensors, "modules"),
                                          **checkpoint.subset(tensors, f"rank{self.runtime.rank}")})
            if self.config.ema_half_life:
                self.average.modules.load_state_dict(checkpoint.subset(tensors, "average"))
            self.learner.restore(tensors, header["learner"])
            step, images = header["step"], header["images"]
            if type(step) is not int or not 0 <= step <= self.config.steps or images != step * self.config.batch_size:
                raise ValueError(f"it is of step {str(step)[:20]}, at {str(images)[:20]} images")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError,
                RuntimeError) as error:
            reason = f"it has no {error}" if isinstance(error,
                                                        KeyError) else str(error).splitlines()[-1].strip()
            raise RequestError(f"{path} does not fit the networks: {reason[:300]}") from None
        self.step = self._saved = step

    # ------------------------------------------------------------------------------------------ files that
    # are left out

    def left_out(self, name: str, reason: str) -> None:
        """The next step goes without a file that could not be read."""
        self._missing.append({"images": self.images + self.config.batch_size, "file": name, "reason": reason})

    def _write_skipped(self) -> None:
        """Tell each file once, in the order of steps, whatever process met it.  All processes must take
        part."""
        missing, self._missing = self.runtime.all_gather_objects(self._missing), []
        if not missing or not self.runtime.is_main_process:
            return
        known = {entry["file"] for entry in log.read(self.folder.skipped)}
        for entry in sorted(missing, key=lambda entry: (entry["images"], entry["file"])):
            if entry["file"] not in known:
                known.add(entry["file"])
                log.append(self.folder.skipped, entry)
                if len(known) <= MAX_SKIP_MESSAGES:
                    more = f"; all that follow are in {self.folder.skipped}" if len(known) == MAX_SKIP_MESSAGES else ""
                    self.callback.on_message(printable(f"skipped: {entry['file']}: {entry['reason']}") + more)

    # ------------------------------------------------------------------------------------------ the loop

    def run(self, batches_from: BatchesFrom, sample: Batch) -> int:
        """Train to the end of the run.  -> 0, or what interrupted it after the state was saved: a signal's
        number, or ALARMED"""
        config = self.config
        stopped, failure = 0, None
        with self._interruption as interruption, self._writer:
            if self._ticks:
                self._tick(sample)      # The first, or one in which the run was interrupted.
            self._writer.finish()       # No thread holds a lock while loader processes are forked.
            self.callback.on_start(self.images, config.steps * config.batch_size)
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
                    # All have their images, or all stop here.
                    if stopped := self.runtime.all_reduce_max(OUT_OF_DATA if failure
                                                              else interruption.signal):
                        break
                    progress = self.advance(batch)
                    logs = self._log() if progress.passes(config.log_every) or self.step == config.steps else None
                    if self.guard and self.runtime.is_main_process and progress.passes(config.collapse_every) and self.guard(self.modules, self.images):
                        interruption.signal = interruption.signal or STOPPED_BY_DETECTOR
                    if self._ticks:
                        self._tick(sample)
                    self.callback.on_step(self.images, logs)
            if stopped and self._saved != self.step:
                self.save()     # Between two steps, so the state is whole: nothing learned is lost.
            self._writer.finish()
            stopped = stopped or self.runtime.all_reduce_max(interruption.signal if self._incomplete else 0)
        if stopped == OUT_OF_DATA:
            raise JobError(f"{failure or 'another process of this job has ended, and its own last line says why'}; saved at {self.images:,} images, "
                           f"to be continued with: i2i train --resume {self.folder.path}")
        return stopped

    @property
    def _ticks(self) -> bool:
        """Whether a sample grid, a state and an evaluation belong to where the run is: its beginning, its
        end, and every `tick` images."""
        return self.step in (0, self.config.steps) or Progress(self.step - 1, self.config.batch_size,
                                                               self.config.images).passes(self.config.checkpoint_every)

    def advance(self, batch: Mapping[str, Tensor]) -> Progress:
        """One step of the recipe on this batch.  -> where the run stood before it

        Where a player is skipped, what its forward pass wrote (running statistics, pools, singular vectors)
        is taken back: it may be NaN too.
        """
        progress = Progress(self.step, self.config.batch_size, self.config.steps * self.config.batch_size)
        batch = {key: self._at_hand(value) for key, value in batch.items()}
        seed_step(self.config.seed, self.runtime.rank, progress.step)
        self.modules.train()
        self.learner.begin(progress)
        overwrite(self._before, self._buffers)
        with self.runtime.autocast():
            self.recipe.step(self.modules, batch, progress, self.learner)
        if self.learner.skips:
            overwrite(self._buffers, self._before)
        for buffer in self.shared:
            buffer.copy_(self.runtime.all_reduce_mean(buffer))
        self.average.update(progress)
        self.step += 1
        return progress

    def _at_hand(self, value: Tensor) -> Tensor:
        value = value.to(self.runtime.device, non_blocking=True)
        return value.contiguous(memory_format=self.format) if value.dim() == 4 else value

    def _log(self) -> dict[str, float]:
        self._write_skipped()
        logs = self.learner.means()
        if self.runtime.is_main_process:
            log.append(self.folder.log, {"images": self.images, **logs})
            now = time.perf_counter()
            # Since the last line, ticks included.
            speed = (self.images - self._logged[1]) / (now - self._logged[0])
            self._logged = now, self.images
            log.append(self.folder.speed,
                       {"images": self.images, "unix": round(time.time(), 1),
                        "images_per_second": round(speed, 2)})
        return logs

    def _tick(self, sample: Batch) -> None:
        """A sample grid, the state, an evaluation; what is there already is not made again.  A signal leaves
        out what is no state: it is made when the run is continued."""
        with self._left_at_a_signal():
            if self.runtime.is_main_process and not self.folder.sample(self.images).exists():
                with self._interruption.leaving():
                    sheet = Image.fromarray(sample_grid(self.recipe, self.average.modules, sample,
                                                        self.runtime.device, self.config.seed))
                self._writer.submit(partial(write_atomically, self.folder.sample(self.images),
                                            lambda path: sheet.save(path, "png")))
        if self._saved != self.step:
            self.save()
        if self.judge and self.runtime.is_main_process and self.step:
            with self._left_at_a_signal():
                self._evaluate(self.judge)
        self.runtime.barrier()

    @contextmanager
    def _left_at_a_signal(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            self._incomplete = True

    def _evaluate(self, judge: Evaluator) -> None:
        """Evaluate unless evaluations would then have taken more than a tenth of the time; always at the end.
        Keeps the best model."""
        entries = log.read(self.folder.metrics)
        if any(entry["images"] == self.images for entry in entries):
            return
        cost = entries[-1]["seconds"] if entries else 0.0
        if self.step < self.config.steps and self._judging + cost > EVALUATION_SHARE * (time.perf_counter() - self._began):
            return
        began = time.perf_counter()
        with self._interruption.leaving():
            entry = judge(self.modules, self.average.modules, self.images)
        seconds = time.perf_counter() - began
        self._judging += seconds
        before = [old["scores"][judge.metric]["value"] for old in entries if judge.metric in old["scores"]]
        best = all(entry["scores"][judge.metric]["value"] < value for value in before)
        model = self._writer.hold(self.average.modules.state_dict()) if best else {}
        self._writer.submit(partial(self._write_evaluation, {**entry, "seconds": round(seconds, 3)}, model,
                                    self._progress))
        self.callback.on_evaluation(self.images, entry)
        figures = "  ".join(f"{name} {score['value']:.4g}" for name, score in entry["scores"].items())
        self.callback.on_message(f"{entry['split']} at {self.images:,} images: {figures}  ({entry['n']} "
                                 f"images, {seconds:.1f} s)")

    def _write_evaluation(self, entry: Mapping[str, Any], best: Mapping[str, Tensor],
                          progress: Mapping[str, int]) -> None:
        if best:
            self._write_model(self.folder.best, best, progress)
        log.append(self.folder.metrics, entry)      # Last: what it tells of is there.


@torch.no_grad()
def overwrite(old: list[Tensor], new: list[Tensor]) -> None:
    """Copy tensors over others, each over its own."""
    if old:
        torch._foreach_copy_(old, new)
