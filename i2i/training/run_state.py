"""What a run has learned: networks, their average, optimizers and the step number, and its files."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from i2i.errors import RequestError
from i2i.files import failpoint
from i2i.recipes.base import DataInfo, Recipe, set_checkpointing
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder
from i2i.seeding import seed_step
from i2i.training.async_writer import AsyncWriter
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.ema import EMA
from i2i.training.optimization import PlayerOptimizers

WEIGHTS_SEED = 2**32 - 1        # The "step" whose seed draws the initial weights.


class RunState:
    """Networks, their average, optimizers and the step of a run, which writes `header` into model files."""

    def __init__(self, recipe: Recipe, info: DataInfo, config: TrainConfig, runtime: Runtime,
                 folder: RunFolder, header: Mapping[str, Any], warn: Callable[[str], None]) -> None:
        self.config, self.runtime, self.folder, self.header, self.warn = config, runtime, folder, header, warn
        seed_step(config.seed, 0, WEIGHTS_SEED)     # The same initial weights in every process.
        modules = recipe.modules(info).to(runtime.device)
        self.modules = modules.to(memory_format=config.torch_memory_format)
        set_checkpointing(recipe, self.modules, config.gradient_checkpointing)
        self.ema = EMA(self.modules, recipe.ema_modules, config)
        self.optimizers = PlayerOptimizers(recipe, self.modules, runtime, max_skips=config.max_skips)
        self.step = 0
        self.saved_step = -1        # The step of the newest saved state.
        runtime.check_same(self.modules.named_parameters(), "at the start")

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

    @property
    def _progress(self) -> dict[str, int]:
        return {"step": self.step, "images": self.images}

    def save(self, writer: AsyncWriter) -> None:
        """Write model and training state, and retire older states.  Call it in all processes."""
        self.runtime.check_same(self.modules.named_parameters(), f"at {self.images:,} images")
        writer.finish()        # At most one state waits in memory.
        buffers = self.runtime.gather_tensors(dict(self.modules.named_buffers()))
        tensors, optimizers = self.optimizers.state()
        if self.runtime.is_main_process:
            tensors |= {f"rank{rank}.{k}": v for rank, others in buffers.items() for k, v in others.items()}
            tensors |= {f"modules.{k}": v for k, v in self.modules.state_dict().items()}
            if self.config.ema_half_life:
                tensors |= {f"ema.{k}": v for k, v in self.ema.modules.state_dict().items()}
            copies = writer.copy(tensors)
            prefix = "ema" if self.config.ema_half_life else "modules"
            model = {name: copies[f"{prefix}.{name}"] for name in self.ema.modules.state_dict()}
            writer.submit(partial(self._write, self._progress, model, copies, optimizers))
        self.saved_step = self.step
        self.runtime.barrier()

    def _write(self, progress: Mapping[str, int], model: Mapping[str, Tensor], tensors: Mapping[str, Tensor],
               optimizers: Mapping[str, Any]) -> None:
        self._write_model(self.folder.model, model, progress)
        header = {"kind": "state", **progress, "optimizers": optimizers}
        checkpoint.save(self.folder.state(progress["images"]), tensors, header)
        failpoint("before-retire")
        self.folder.retire(progress["images"], self.config.keep_checkpoints)

    def _write_model(self, path: Path, model: Mapping[str, Tensor], progress: Mapping[str, int]) -> None:
        checkpoint.save(path, model, {"kind": "model", **self.header, **progress})

    def best_model_writer(self, writer: AsyncWriter) -> Callable[[], None]:
        """A function that writes the averaged model as it is now as the best one."""
        model = writer.copy(self.ema.modules.state_dict())
        return partial(self._write_model, self.folder.best, model, self._progress)

    def restore(self) -> None:
        """Go back to the newest undamaged state and cut the logs to it.  RequestError if all are damaged."""
        problems: dict[Path, str] = {}
        for path in reversed(self.folder.states()):
            try:
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
                self.warn(f"{problem}; set aside as {self.folder.set_aside(path).name}, going on from the "
                          f"state before it, at {self.images:,} images")
            self._clean_folder()
        failpoint("after-restore")
        self.runtime.barrier()

    def _clean_folder(self) -> None:
        """Make the folder what it was when the state was written."""
        self.folder.remove_partial_files()
        # There is a verdict where the collapse detector stopped the run.
        if self.step < self.config.steps:
            self.folder.verdict.unlink(missing_ok=True)
        for path in (self.folder.log, self.folder.speed, self.folder.metrics, self.folder.skipped,
                     self.folder.collapse):
            log.cut(path, self.images)
        if self.saved_step == self.step:
            # The run may have been killed after the state was written and before older ones were deleted.
            self.folder.retire(self.images, self.config.keep_checkpoints)
            try:
                checkpoint.load(self.folder.model, "model")
            except RequestError as error:
                self.warn(f"{error}; written anew from the state")
                self._write_model(self.folder.model, self.ema.modules.state_dict(), self._progress)

    def _load(self, path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        try:
            buffers = checkpoint.subset(tensors, f"rank{self.runtime.rank}")
            self.modules.load_state_dict(checkpoint.subset(tensors, "modules") | buffers)
            if self.config.ema_half_life:
                self.ema.modules.load_state_dict(checkpoint.subset(tensors, "ema"))
            self.optimizers.restore(tensors, header["optimizers"])
            step, images = header["step"], header["images"]
            if (type(step) is not int or not 0 <= step <= self.config.steps
                    or images != step * self.config.batch_size):
                raise ValueError(f"it is of step {str(step)[:20]}, at {str(images)[:20]} images")
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError,
                RuntimeError) as error:
            missing = isinstance(error, KeyError)
            reason = f"it has no {error}" if missing else str(error).splitlines()[-1].strip()
            raise RequestError(f"{path} does not fit the networks: {reason[:300]}") from None
        self.step = self.saved_step = step
