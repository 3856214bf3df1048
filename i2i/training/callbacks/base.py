"""Who looks on while a run trains: a person who follows it, who judges it, who may stop it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn


class Evaluator(Protocol):
    """Whoever evaluates the run while it trains."""

    @property
    def metric(self) -> str:
        """Which of the `scores` decides what is best."""
        ...

    def __call__(self, live: nn.ModuleDict, averaged: nn.ModuleDict, images: int) -> dict[str, Any]:
        """One line of metrics.jsonl; `scores` holds the deciding metric's value, lower is better."""
        ...


class StopCriterion(Protocol):
    """Whoever may stop a run that is lost.  It looks every `train.collapse_every` images and keeps what it
    knows in the run folder."""

    def __call__(self, live: nn.ModuleDict, images: int) -> bool:
        """Whether the run is to be saved and stopped."""
        ...


class Callback(Protocol):
    """Whoever wants to follow a run."""

    def on_start(self, images: int, total: int) -> None:
        """The first step is about to run."""
        ...

    def on_step(self, images: int, logs: Mapping[str, float] | None) -> None:
        """A step is done; `logs` are given when a log line was written."""
        ...

    def on_message(self, line: str) -> None:
        """Something a person should read."""
        ...


class NoCallback:
    """An observer that tells nobody."""

    def on_start(self, images: int, total: int) -> None:
        """Nothing."""

    def on_step(self, images: int, logs: Mapping[str, float] | None) -> None:
        """Nothing."""

    def on_message(self, line: str) -> None:
        """Nothing."""
