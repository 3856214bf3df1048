"""What a run has learned (networks, their average, optimizers, the step number), and writing it to files."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from i2i.errors import RequestError, printable
from i2i.files import failpoint
from i2i.recipes.base import DataInfo, Recipe, set_checkpointing
from i2i.runs import checkpoint, log
from i2i.runs.folder import RunFolder
from i2i.seeding import seed_step
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.ema import EMA
from i2i.training.freezing import frozen_parameters
from i2i.training.player_optimizers import PlayerOptimizers

WEIGHTS_SEED = 2**32 - 1        # The "step" whose seed draws the initial weights.
MAX_MESSAGES = 10       # Skipped files named one by one; all are in skipped.jsonl.


class AsyncWriter:
    """Runs jobs one after the other in a thread or, without `background`, at once.

    An error of a job is raised by the next `finish` or at the end of the context; the jobs after it are
    dropped, as they may depend on it.  There is a thread only while there are jobs, so loader processes can
    be forked once `finish` has returned.
    """

    def __init__(self, *, background: bool) -> None:
        self.background = background
        self._last: threading.Thread | None = None
        self._error: BaseException | None = None

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors that no later step changes while they wait to be written: copies on the CPU."""
        if not self.background:
            return dict(tensors)
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job after those submitted before."""
        if not self.background:
            return job()
        self._last = threading.Thread(target=self._run, args=(self._last, job), name="writer")
        self._last.start()

    def _run(self, previous: threading.Thread | None, job: Callable[[], None]) -> None:
        if previous:
            previous.join()
        if self._error is None:
            try:
                job()
            except BaseException as error:      # Of any kind: it is raised where the run can end.
                self._error = error

    def finish(self) -> None:
        """Wait for all jobs; raise the error of the one that failed."""
        if self._last:
            self._last.join()
        self._last, error, self._error = None, self._error, None
        if error:
            raise error

    def __enter__(self) -> "AsyncWriter":
        return self

    def __exit__(self, error_type: object, *details: object) -> None:
        try:
            self.finish()
        except Exception:
            if error_type is None:      # An error that is on its way out comes first.
                raise


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
        frozen = frozen_parameters(recipe, self.modules, config.freeze)
        self.optimizers = PlayerOptimizers(recipe, self.modules, runtime, max_skips=config.max_skips,
                                           frozen={name for names in frozen.values() for name in names})
        self.step = 0
        self.saved_step = -1        # The step of the newest saved state.
        runtime.check_same(self.modules.named_parameters(), "at the start")

    @property
    def images(self) -> int:
        """Images seen so far."""
        return self.step * self.config.batch_size

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
            writer.submit(partial(self._write, {"step": self.step, "images": self.images}, model, copies,
                                  optimizers))
        self.saved_step = self.step
        self.runtime.barrier()

    def _write(self, progress: Mapping[str, int], model: Mapping[str, Tensor], tensors: Mapping[str, Tensor],
               optimizers: Mapping[str, Any]) -> None:
        self._write_model(self.folder.model, model, progress)
        header = {"kind": "state", **progress, "optimizers": optimizers}
        checkpoint.save(self.folder.state(progress["images"]), tensors, header)
        failpoint("before-retire")
        self.folder.retire(progress["images"], self.config.keep_checkpoints)

    def _write_model(self, path: Path, model: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
        checkpoint.save(path, model, {"kind": "model", **self.header, **progress})

    def save_model(self, path: Path, writer: AsyncWriter, picked_on: str = "") -> None:
        """Write the averaged model as it is now, and the split by which it is the best so far."""
        writer.submit(partial(self._write_model, path, writer.copy(self.ema.modules.state_dict()),
                              {"step": self.step, "images": self.images}
                              | ({"picked_on": picked_on} if picked_on else {})))

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
                damaged = path.rename(path.with_suffix(".damaged"))     # So that no run looks for it.
                self.warn(f"{problem}; set aside as {damaged.name}, going on from the state before it, at "
                          f"{self.images:,} images")
            self._clean_folder()
        failpoint("after-restore")
        self.runtime.barrier()

    def _clean_folder(self) -> None:
        """Make the folder what it was when the state was written."""
        for part in self.folder.partial_files():
            part.unlink(missing_ok=True)
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
                self.save_model(self.folder.model, AsyncWriter(background=False))

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


class SkippedFiles:
    """Collects skipped files between log lines and writes each once, whichever process met it."""

    def __init__(self, path: Path, runtime: Runtime, warn: Callable[[str], None]) -> None:
        self.path, self.runtime, self.warn = path, runtime, warn
        self._pending: list[dict[str, Any]] = []

    def add(self, images: int, file: str, reason: str) -> None:
        """The step that ends at so many images goes without a file."""
        self._pending.append({"images": images, "file": file, "reason": reason})

    def write(self) -> None:
        """Append what is new to the file, in the order of steps.  Call it in all processes."""
        entries, self._pending = self.runtime.all_gather_objects(self._pending), []
        if not entries or not self.runtime.is_main_process:
            return
        known = {entry["file"] for entry in log.read(self.path)}
        for entry in sorted(entries, key=lambda entry: (entry["images"], entry["file"])):
            if entry["file"] in known:
                continue
            known.add(entry["file"])
            log.append(self.path, entry)
            if len(known) <= MAX_MESSAGES:
                more = f"; all that follow are in {self.path}" if len(known) == MAX_MESSAGES else ""
                self.warn(printable(f"skipped: {entry['file']}: {entry['reason']}") + more)
