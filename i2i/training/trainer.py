"""The one training loop."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from i2i.errors import JobError, RequestError
from i2i.files import failpoint, write_atomically
from i2i.recipes.base import Batch, DataInfo, Recipe
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress, seed_step
from i2i.training.async_writer import AsyncWriter
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.evaluator import Evaluator
from i2i.training.callbacks.sample_grid import sample_grid
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime, compile_networks
from i2i.training.interruption import Interrupted, Interruption
from i2i.training.run_state import RunState
from i2i.training.skipped_files import SkippedFiles

EVALUATION_SHARE = 0.1          # Evaluation takes at most this share of the time.
# Results of `Trainer.run` and of the processes' votes, beside numbers of signals.
STOPPED_BY_DETECTOR = 2**15
OUT_OF_DATA = 2**16

# Position of the first image -> batches, until it is closed.
BatchSource = Callable[[int], Generator[Mapping[str, Tensor]]]


class Trainer:
    """A recipe, the state of its run and its run folder.

    Args:
        header: contents of the header of model files.
        callback: observes the run.
        evaluator: scores the run at each checkpoint, in the main process.
        stop_criterion: may end the run, every `train.collapse_every` images, in the main process.
    """

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, runtime: Runtime,
                 folder: RunFolder, header: Mapping[str, Any], callback: Callback | None = None,
                 evaluator: Evaluator | None = None,
                 stop_criterion: Callable[[nn.ModuleDict, int], bool] | None = None) -> None:
        if config.batch_size % (n := runtime.world_size):
            raise RequestError(f"train.batch_size={config.batch_size} cannot be shared by {n} processes; "
                               f"accepted: a multiple of {n}")
        self.recipe, self.config, self.runtime, self.folder = recipe, config, runtime, folder
        self.callback = callback or Callback()
        self.evaluator, self.stop_criterion = evaluator, stop_criterion
        self.state = RunState(recipe, info, config, runtime, folder, header, self.callback.on_message)
        self.modules = self.state.modules
        self.ema_modules = self.state.ema.modules       # Those that are trained if no average is kept.
        self.skipped_files = SkippedFiles(folder.skipped, runtime, self.callback.on_message)
        # Buffers that are averaged over processes after each step.
        self._synced = [getattr(module, name) for module in self.modules.modules()
                        for name in getattr(module, "synced_buffers", ())]
        self._buffers = list(self.modules.buffers())
        # Of the last step that was not skipped.
        self._valid_buffers = [buffer.clone() for buffer in self._buffers]
        self._start_time, self._evaluation_time = time.perf_counter(), 0.0
        self._last_log = self._start_time, 0        # Time and images of the last log line.
        self._interruption = Interruption()
        self._incomplete = False        # A signal came before all that belongs to a checkpoint was made.
        self._writer = AsyncWriter(background=config.async_writes)
        if config.compile:      # After the average is made: it is used rarely, at other sizes of batches.
            trained = {name for player in recipe.players.values() for name in player.modules}
            compile_networks(self.modules, trained - set(recipe.second_order_modules), runtime.device)

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.state.images

    def advance(self, batch: Mapping[str, Tensor]) -> Progress:
        """Make one step of the recipe on this batch.  Returns the progress before it.

        If an update was skipped, the buffers that its forward pass wrote (running statistics, pools, singular
        vectors) go back to their values before the step, as they may be NaN too.  All this happens on the
        device.
        """
        config, state = self.config, self.state
        progress = Progress(state.step, config.batch_size, config.steps * config.batch_size)
        batch = {key: self._to_device(value) for key, value in batch.items()}
        seed_step(config.seed, self.runtime.rank, progress.step)
        self.modules.train()
        state.optimizers.begin(progress)
        with self.runtime.autocast():
            self.recipe.step(self.modules, batch, progress, state.optimizers)
        self._settle_buffers(state.optimizers.finite)
        state.ema.update(progress)
        state.step += 1
        return progress

    def _to_device(self, value: Tensor) -> Tensor:
        value = value.to(self.runtime.device, non_blocking=True)
        return value.contiguous(memory_format=self.config.torch_memory_format) if value.dim() == 4 else value

    @torch.no_grad()
    def _settle_buffers(self, finite: Tensor) -> None:
        for buffer in self._synced:
            buffer.copy_(self.runtime.all_reduce_mean(buffer))
        for new, valid in zip(self._buffers, self._valid_buffers, strict=True):
            torch.where(finite, new, valid, out=valid)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._valid_buffers)

    def skip_file(self, name: str, reason: str) -> None:
        """Note that the next step goes without a file that could not be read."""
        self.skipped_files.add(self.images + self.config.batch_size, name, reason)

    def restore(self) -> None:
        """Go back to the newest undamaged state, if there is one, and cut the logs to it."""
        self.state.restore()
        self._valid_buffers = [buffer.clone() for buffer in self._buffers]
        speeds = log.read(self.folder.speed)
        starts = [0, *(line["images"] for line in speeds)]
        self._evaluation_time = sum(entry["seconds"] for entry in log.read(self.folder.metrics))
        self._start_time -= sum((line["images"] - start) / max(line["images_per_second"], 0.01)
                                for line, start in zip(speeds, starts, strict=False))

    def run(self, batch_source: BatchSource, sample: Batch) -> int:
        """Train to the end of the run.

        Args:
            batch_source: makes batches from the position of the first image on.
            sample: the inputs of sample grids.

        Returns:
            0, or what ended the run after the state was saved: a signal's number or STOPPED_BY_DETECTOR.
        """
        config, state = self.config, self.state
        stopped, failure = 0, None
        with self._interruption as interruption, self._writer:
            if self._is_checkpoint:
                self._checkpoint(sample)    # The first, or one in which the run was interrupted.
            self._writer.finish()           # No thread holds a lock while loader processes are forked.
            self.callback.on_start(self.images, config.steps * config.batch_size)
            self._last_log = time.perf_counter(), self.images
            with closing(batch_source(self.images)) as batches:
                while state.step < config.steps:
                    try:
                        with interruption.interruptible():
                            batch = next(batches)
                    except Interrupted:
                        pass
                    except JobError as error:
                        failure = error
                    # All have their images, or all stop here.
                    vote = OUT_OF_DATA if failure else interruption.signal
                    if stopped := self.runtime.all_reduce_max(vote):
                        break
                    self._train_step(batch, sample)
                    failpoint("after-step")
            if stopped and state.saved_step != state.step:
                self.save()        # Between two steps, so the state is whole.
            self._writer.finish()
            stopped = stopped or self.runtime.all_reduce_max(interruption.signal if self._incomplete else 0)
        if stopped == OUT_OF_DATA:
            reason = failure or "another process of this job has ended, and its own last line says why"
            raise JobError(f"{reason}; saved at {self.images:,} images, to be continued with: "
                           f"i2i train --resume {self.folder.path}")
        return stopped

    def _train_step(self, batch: Mapping[str, Tensor], sample: Batch) -> None:
        config = self.config
        progress = self.advance(batch)
        is_last = self.state.step == config.steps
        logs = self._log() if progress.passes(config.log_every) or is_last else None
        if (self.stop_criterion and self.runtime.is_main_process and progress.passes(config.collapse_every)
                and self.stop_criterion(self.modules, self.images)):
            self._interruption.signal = self._interruption.signal or STOPPED_BY_DETECTOR
        if self._is_checkpoint:
            self._checkpoint(sample)
        self.callback.on_step(self.images, logs)

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
        step, config = self.state.step, self.config
        return step in (0, config.steps) or Progress(step - 1, config.batch_size,
                                                     config.images).passes(config.checkpoint_every)

    def _checkpoint(self, sample: Batch) -> None:
        """Make the sample grid, state and evaluation that are missing; after a signal, the state alone."""
        grid_path = self.folder.sample(self.images)
        with self._incomplete_if_interrupted():
            if self.runtime.is_main_process and not grid_path.exists():
                with self._interruption.interruptible():
                    grid = Image.fromarray(sample_grid(self.recipe, self.ema_modules, sample,
                                                       self.runtime.device, self.config.seed))
                self._writer.submit(partial(write_atomically, grid_path, lambda path: grid.save(path, "png")))
        failpoint("after-sample-grid")
        if self.state.saved_step != self.state.step:
            self.save()
        failpoint("after-save")
        if self.evaluator and self.runtime.is_main_process and self.state.step:
            with self._incomplete_if_interrupted():
                self._evaluate(self.evaluator)
        failpoint("after-evaluation")
        self.runtime.barrier()

    def save(self) -> None:
        """Write the state, and what was skipped before it.  Call it in all processes."""
        self.skipped_files.write()
        self.state.save(self._writer)

    @contextmanager
    def _incomplete_if_interrupted(self) -> Iterator[None]:
        try:
            yield
        except Interrupted:
            self._incomplete = True

    def _evaluate(self, evaluator: Evaluator) -> None:
        """Evaluate and keep the best model, if there is time for it; always at the end."""
        entries = log.read(self.folder.metrics)
        if any(entry["images"] == self.images for entry in entries):
            return
        start, cost = time.perf_counter(), entries[-1]["seconds"] if entries else 0.0
        allowed = EVALUATION_SHARE * (start - self._start_time)
        if self.state.step < self.config.steps and self._evaluation_time + cost > allowed:
            return
        with self._interruption.interruptible():
            entry = evaluator(self.modules, self.ema_modules, self.images)
        seconds = time.perf_counter() - start
        self._evaluation_time += seconds
        metric = evaluator.metric
        before = [old["scores"][metric]["value"] for old in entries if metric in old["scores"]]
        if all(entry["scores"][metric]["value"] < value for value in before):
            self._writer.submit(self.state.best_model_writer(self._writer))
        # Last, so that the best model is there once its entry is.
        self._writer.submit(partial(log.append, self.folder.metrics, {**entry, "seconds": round(seconds, 3)}))
        self.callback.on_evaluation(self.images, entry)
        scores = "  ".join(f"{name} {score['value']:.4g}" for name, score in entry["scores"].items())
        self.callback.on_message(f"{entry['split']} at {self.images:,} images: {scores}  "
                                 f"({entry['n']} images, {seconds:.1f} s)")
