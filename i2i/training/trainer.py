"""The one training loop."""

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from i2i.errors import JobError, RequestError
from i2i.files import failpoint
from i2i.recipes.base import DataInfo, Recipe
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress, seed_step
from i2i.training.callbacks.base import CallbackList
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime, compile_networks
from i2i.training.interruption import Interrupted, Interruption
from i2i.training.run_state import AsyncWriter, RunState, SkippedFiles
from i2i.training.settings import build_device_augment

T = TypeVar("T")
# Results of `Trainer.run` and of the processes' votes, beside numbers of signals.
ENDED, STOPPED, FAILED = 2**14, 2**15, 2**16

# Position of the first image -> batches, until it is closed.
BatchSource = Callable[[int], Generator[Mapping[str, Tensor]]]


class Trainer:
    """A recipe, the state of its run and its run folder.

    Args:
        header: contents of the header of model files.
        callbacks: watch the run; in processes other than the main one, those that all processes call.
    """

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, runtime: Runtime,
                 folder: RunFolder, header: Mapping[str, Any],
                 callbacks: CallbackList | None = None) -> None:
        if config.batch_size % (n := runtime.world_size):
            raise RequestError(f"train.batch_size={config.batch_size} cannot be shared by {n} processes; "
                               f"accepted: a multiple of {n}")
        self.recipe, self.config, self.runtime, self.folder = recipe, config, runtime, folder
        self.callbacks, self.device = callbacks or CallbackList(), runtime.device
        self.state = RunState(recipe, info, config, runtime, folder, header, self.message)
        self.modules = self.state.modules
        self.ema_modules = self.state.ema.modules       # Those that are trained if no average is kept.
        self._augment = build_device_augment(config, info).to(runtime.device)
        self.skipped_files = SkippedFiles(folder.skipped, runtime, self.message)
        # Buffers that are averaged over processes after each step.
        self._synced = [getattr(module, name) for module in self.modules.modules()
                        for name in getattr(module, "synced_buffers", ())]
        self._buffers = list(self.modules.buffers())
        # Of the last step that was not skipped.
        self._valid_buffers = [buffer.clone() for buffer in self._buffers]
        self._last_log = time.perf_counter(), 0        # Time and images of the last log line.
        self._interruption = Interruption()
        self._incomplete = False        # A signal came before all that belongs to a checkpoint was made.
        self._stop_reason, self._is_early_end = "", False
        self.writer = AsyncWriter(background=config.async_writes)
        # After the average is made: it is used rarely, at other sizes of batches.
        if config.compile or config.cuda_graphs:
            trained = {name for player in recipe.players.values() for name in player.modules}
            compile_networks(self.modules, trained - set(recipe.second_order_modules), runtime.device,
                             cuda_graphs=config.cuda_graphs)

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.state.images

    @property
    def total_images(self) -> int:
        """Images of the whole run, which whole steps may exceed `train.images` by."""
        return self.config.steps * self.config.batch_size

    def message(self, text: str) -> None:
        """Tell the user something."""
        self.callbacks.message(text)

    @classmethod
    def for_trials(cls, recipe: Recipe, info: DataInfo, config: TrainConfig, device: str) -> "Trainer":
        """A trainer that measures the speed of settings and writes nothing."""
        return cls(recipe, info, replace(config, async_writes=False), Runtime.for_config(config, device),
                   RunFolder(os.devnull), {})

    def seconds(self, work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
        """Seconds of some work, until the device has done it."""
        start = clock()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    def stop(self, reason: str, *, as_wished: bool = False) -> None:
        """End the run after this step, with its state saved, by a JobError that says why.

        With `as_wished` the run is a success: it has ended early, as `train.stop_when` says.
        """
        if not self._stop_reason:
            self._stop_reason, self._is_early_end = reason, as_wished

    @property
    def early_end(self) -> str:
        """Why the run has ended early, as it should; empty if it has not."""
        return self._stop_reason if self._is_early_end else ""

    def passed(self, interval: int) -> bool:
        """Whether the last step passed a multiple of so many images."""
        return Progress(self.state.step - 1, self.config.batch_size, self.total_images).passes(interval)

    def advance(self, batch: Mapping[str, Tensor]) -> Progress:
        """Make one step of the recipe on this batch.  Returns the progress before it.

        If an update was skipped, the buffers that its forward pass wrote (running statistics, pools, singular
        vectors) go back to their values before the step, as they may be NaN too.  All this happens on the
        device.
        """
        config, state = self.config, self.state
        progress = Progress(state.step, config.batch_size, self.total_images, config.growth_images)
        batch = self.runtime.to_device(batch)
        batch |= {key: value.contiguous(memory_format=config.torch_memory_format)
                  for key, value in batch.items() if value.dim() == 4}
        if config.cuda_graphs:
            torch.compiler.cudagraph_mark_step_begin()      # What earlier steps returned is overwritten.
        seed_step(config.seed, self.runtime.rank, progress.step)
        images = [key for key in "ab" if key in batch]
        batch |= zip(images, self._augment(*(batch[key] for key in images)), strict=True)
        self.modules.train()
        state.optimizers.begin(progress)
        with self.runtime.autocast():
            self.recipe.step(self.modules, batch, progress, state.optimizers)
        self._settle_buffers(state.optimizers.finite)
        state.ema.update(progress)
        state.step += 1
        return progress

    @torch.no_grad()
    def _settle_buffers(self, finite: Tensor) -> None:
        for buffer in self._synced:
            buffer.copy_(self.runtime.all_reduce_mean(buffer))
        for new, valid in zip(self._buffers, self._valid_buffers, strict=True):
            torch.where(finite, new, valid, out=valid)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._valid_buffers)

    def restore(self, initialize: Callable[[nn.ModuleDict, nn.ModuleDict], None] | None = None) -> None:
        """Go back to the newest undamaged state, if there is one, and cut the logs to it.

        A run without a state begins with what `initialize` makes of the networks and their averages.
        """
        self.state.restore()
        if initialize and self.state.saved_step < 0:
            initialize(self.modules, self.ema_modules)
        self._valid_buffers = [buffer.clone() for buffer in self._buffers]

    def run(self, batch_source: BatchSource) -> int:
        """Train to the end of the run, with batches from the position of the first image on.

        Returns:
            0, or what ended the run after the state was saved: a signal's number, ENDED or STOPPED.

        Raises:
            JobError: if there are no more batches, a callback failed, or something cannot be written.
        """
        state, stopped = self.state, 0
        with self._interruption as interruption, self.writer:
            self.callbacks.notify(lambda each: each.on_start(self))
            if self._is_checkpoint:
                self._checkpoint()          # The first, or one in which the run was interrupted.
            self.writer.finish()            # No thread holds a lock while loader processes are forked.
            self._last_log = time.perf_counter(), self.images
            with closing(batch_source(self.images)) as batches:
                while state.step < self.config.steps:
                    try:
                        with interruption.interruptible():
                            batch = next(batches)
                    except Interrupted:
                        pass
                    except JobError as error:
                        self.callbacks.failure = error
                    # All have their images, or all stop here.
                    if stopped := self._vote(interruption.signal):
                        break
                    self._train_step(batch)
                    failpoint("after-step")
            if stopped and state.saved_step != state.step:
                self.save()        # Between two steps, so the state is whole.
            self.writer.finish()
            stopped = stopped or self._vote(interruption.signal if self._incomplete else 0)
        if stopped == FAILED:
            failure = self.callbacks.failure
            reason = failure or "another process of this job has ended, and its own last line says why"
            raise JobError(f"{reason}; saved at {self.images:,} images, to be continued with: "
                           f"i2i train --resume {self.folder.path}") from failure and failure.__cause__
        return stopped

    def _vote(self, signal: int) -> int:
        return self.runtime.all_reduce_max(
            FAILED if self.callbacks.failure else signal if not self._stop_reason else
            ENDED if self._is_early_end else STOPPED)

    def stop_reason(self) -> str:
        """Why the run was stopped.  Call it in all processes."""
        return self.runtime.broadcast(self._stop_reason)

    def _train_step(self, batch: Mapping[str, Tensor]) -> None:
        self.advance(batch)
        due = self.passed(self.config.log_every) or self.state.step == self.config.steps
        logs = self._log() if due else None
        self.callbacks.notify(lambda each: each.on_step(self, logs))
        if self._is_checkpoint:
            self._checkpoint()

    def _log(self) -> dict[str, float]:
        failpoint("before-log")
        self.skipped_files.write()
        logs = self.state.optimizers.means()
        if self.runtime.is_main_process:
            log.append(self.folder.log, {"images": self.images, **logs})
            now, (before, images) = time.perf_counter(), self._last_log
            speed = (self.images - images) / (now - before)        # Checkpoints included.
            self._last_log = now, self.images
            log.append(self.folder.speed, {"images": self.images, "unix": round(time.time(), 1),
                                           "images_per_second": round(speed, 2)})
        return logs

    @property
    def _is_checkpoint(self) -> bool:
        """Whether sample grid, state and evaluation are due: at both ends, and in regular intervals."""
        return self.state.step in (0, self.config.steps) or self.passed(self.config.checkpoint_every)

    def _checkpoint(self) -> None:
        """Make what is missing of a checkpoint; after a signal, the state alone."""
        self.callbacks.notify(lambda each: each.on_checkpoint(self))
        failpoint("after-checkpoint")
        self.runtime.barrier()

    def save(self) -> None:
        """Write the state, and what was skipped before it.  Call it in all processes."""
        self.skipped_files.write()
        self.state.save(self.writer)

    def unless_interrupted(self, make: Callable[[], T]) -> T | None:
        """What `make` returns, or None as soon as a signal comes; a resumed run makes what is missing."""
        try:
            with self._interruption.interruptible():
                return make()
        except Interrupted:
            self._incomplete = True
            return None
