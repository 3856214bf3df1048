"""The callback interface of the training loop."""

from collections.abc import Mapping
from typing import Any


class Callback:
    """Follows a training run.  Override what is needed; by default every method does nothing."""

    def on_start(self, images: int, total: int) -> None:
        """Called before the first step, with the images seen so far and those of the whole run."""

    def on_step(self, images: int, logs: Mapping[str, float] | None) -> None:
        """Called after each step; `logs` are the mean losses since the last log line, if one was written."""

    def on_evaluation(self, images: int, entry: Mapping[str, Any]) -> None:
        """Called after each evaluation, with its line of metrics.jsonl."""

    def on_message(self, message: str) -> None:
        """Called with each line that a user should read."""

    def on_end(self) -> None:
        """Called when training ends, however it does."""
