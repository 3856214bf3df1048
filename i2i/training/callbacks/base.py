"""The callback interface: what watches a training run."""

import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2i.errors import I2IError, JobError, RequestError, one_line
from i2i.registry import Spec, build

if TYPE_CHECKING:
    from i2i.training.trainer import Trainer


class Callback:
    """Watches a training run.  Override what is needed; by default every method does nothing.

    All methods are called between two steps, in the main process.  A callback may read `trainer.images`,
    `total_images`, `recipe`, `config`, `folder`, `device`, `modules` and `ema_modules`, put the modules into
    eval mode and draw random numbers; `trainer.message(text)` prints a line for the user, and
    `trainer.stop(reason)` ends the run after this step.  An error ends the run, with its state saved.
    """

    def on_plan(self, plan: Mapping[str, Any]) -> None:
        """Called by a dry run, with settings, steps, parameters by network, memory in bytes, and in
        `lines` what is printed."""

    def on_start(self, trainer: "Trainer") -> None:
        """Called before the first step of this process."""

    def on_step(self, trainer: "Trainer", logs: Mapping[str, float] | None) -> None:
        """Called after each step; `logs` is the line that was written into log.jsonl, if one was."""

    def on_checkpoint(self, trainer: "Trainer") -> None:
        """Called every `train.checkpoint_every` images and at both ends of the run, after `on_step`."""

    def on_evaluation(self, trainer: "Trainer", entry: Mapping[str, Any]) -> None:
        """Called after each evaluation, with its line of metrics.jsonl."""

    def on_message(self, message: str) -> None:
        """Called with each line that a user should read, also before the run."""

    def on_end(self) -> None:
        """Called when training ends, however it does."""


class CallbackList:
    """Calls the callbacks of a run in turn, and keeps the first error of one in `failure`."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = list(callbacks)
        self.failure: JobError | None = None

    def notify(self, call: Callable[[Callback], None]) -> None:
        """Make a call on each callback.  Raises only what the callback itself could not have caused."""
        for callback in self.callbacks:
            try:
                call(callback)
            except BaseException as error:
                from i2i.training.memory import is_out_of_memory  # Not above: it imports torch.
                if isinstance(error, I2IError | KeyboardInterrupt) or is_out_of_memory(error):
                    raise
                line = traceback.extract_tb(error.__traceback__)[-1]
                failure = JobError(f"callback {type(callback).__name__} failed ({Path(line.filename).name}, "
                                   f"line {line.lineno}): {one_line(error)}")
                failure.__cause__ = error
                self.failure = self.failure or failure

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Pass on what a dry run plans, and its lines."""
        self.notify(lambda each: each.on_plan(plan))
        self.messages(plan["lines"])

    def messages(self, lines: Iterable[str]) -> None:
        """Pass on several lines."""
        for line in lines:
            self.message(line)

    def message(self, text: str) -> None:
        """Pass on a line that a user should read."""
        self.notify(lambda each: each.on_message(text))


def registered_callbacks(names: Sequence[str]) -> list[Callback]:
    """The registered callbacks of these names.  RequestError for one that cannot be made."""
    made: list[Callback] = []
    for name in names:
        try:
            made.append(build("callback", Spec(name)))
        except I2IError:
            raise
        except Exception as error:      # Whatever a constructor of theirs raises.
            raise RequestError(f"train.callbacks={name} cannot be made: {one_line(error)}") from error
    return check_callbacks(made)


def check_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks as a list.  RequestError for what is none."""
    listed = isinstance(callbacks, list | tuple)
    wrong = [each for each in callbacks if not isinstance(each, Callback)] if listed else [callbacks]
    if wrong:
        raise RequestError(f"{str(wrong[0])[:100]!r} cannot be used; accepted: a list of callbacks, objects "
                           "of classes that inherit from i2i.Callback")
    return list(callbacks)
