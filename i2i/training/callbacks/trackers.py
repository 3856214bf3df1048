"""Losses, metrics, sample grids and settings of a run for TensorBoard, Weights & Biases and MLflow."""

import contextlib
import importlib.util
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from i2i.config import settings
from i2i.errors import JobError, RequestError
from i2i.runs import log
from i2i.training.callbacks.base import Callback
from i2i.training.job import Job
from i2i.training.trainer import Trainer

INSTALL_COMMANDS = {
    "tensorboard": "pip install 'i2i-toolkit[tensorboard]'", "wandb": "pip install 'i2i-toolkit[wandb]'",
    "mlflow": "pip install 'i2i-toolkit[mlflow]'"}
PROJECT = "i2i"         # Name of the project (wandb) or experiment (mlflow).
MAX_REASON = 500        # Characters of a tracker's error that are shown.


def check_installed(names: Sequence[str]) -> None:
    """RequestError for the first tracker that is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise RequestError(f"train.trackers={name}: {name} is not installed; install it with: "
                               + INSTALL_COMMANDS[name])


def flat_settings(job: Job) -> dict[str, bool | int | float | str]:
    """All settings of a job by their full keys."""
    sections = (("", job.recipe), ("data.", job.data), ("train.", job.train))
    values = {prefix + key: getattr(section, key)
              for prefix, section in sections for key in settings(section)}
    return {key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in values.items()}


class Trackers(Callback):
    """Hands what log.jsonl and metrics.jsonl have, and the sample grids, to accelerate's trackers.

    One thread does it, as MLflow's runs belong to threads, after the writer has written the files.
    trackers.json remembers what has been handed over, by tracker and kind; what is missing when a run is
    resumed, or a tracker is added, comes from the files.  A tracker that fails is left out from then on.
    """

    def __init__(self, job: Job) -> None:
        self.names, self.settings = job.train.trackers, flat_settings(job)
        self.trackers: dict[str, Any] = {}
        self._thread = ThreadPoolExecutor(1, "trackers")
        self._warnings: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        self.message, self.folder, self.writer = trainer.message, trainer.folder, trainer.writer
        self.record: dict[str, Any] = {"ids": {}, "written": {}}
        with contextlib.suppress(OSError, ValueError, TypeError):
            self.record |= json.loads((self.folder.path / "trackers.json").read_bytes())
        grids = sorted(int(path.stem) for path in (self.folder.path / "samples").glob("*.png"))
        made = {"logs": log.read(self.folder.log), "metrics": log.read(self.folder.metrics),
                "samples": [{"images": images} for images in grids if images <= trainer.images]}
        for name in self.names:
            kinds = [kind for kind in made if made[kind]]
            self._attempt(name, partial(self._start, name, kinds, trainer.images))
        self._hand_over("settings", {"images": 0})
        for kind, entries in made.items():
            for entry in entries:
                self._hand_over(kind, entry)

    def _start(self, name: str, kinds: Sequence[str], images: int) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
        ids, path, title = self.record["ids"], self.folder.path, self.folder.path.name
        written = self.record["written"].setdefault(name, {})
        if name == "tensorboard":
            # Its events up to here are certain; later ones, of a killed process, become void, and come again.
            certain = min([images, *(written.get(kind, -1) for kind in kinds)])
            written |= {kind: min(last, certain) for kind, last in written.items()}
            while any(path.glob(f"tensorboard/*.tfevents.{int(time.time()):010}.*")):
                time.sleep(0.05)        # Files are read in the order of their names, in which seconds count.
            tracker = LOGGER_TYPE_TO_CLASS[name]("tensorboard", path, purge_step=certain + 1)
        elif name == "wandb":
            run_id = ids.setdefault(name, uuid.uuid4().hex)
            tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, name=title, id=run_id, resume="allow",
                                                 dir=str(path))
        else:
            tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, run_name=title, run_id=ids.get(name))
        if hasattr(tracker, "start"):       # Older versions start when they are made.
            tracker.start()
        if name == "mlflow":
            ids[name] = tracker.tracker.info.run_id
        self.trackers[name] = tracker

    def on_step(self, trainer: Trainer, logs: Mapping[str, float] | None) -> None:
        self._warn()
        if logs:
            self._hand_over("logs", {"images": trainer.images, **logs})

    def on_evaluation(self, trainer: Trainer, entry: Mapping[str, Any]) -> None:
        self._hand_over("metrics", entry)

    def on_checkpoint(self, trainer: Trainer) -> None:
        self._hand_over("samples", {"images": trainer.images})

    def on_end(self) -> None:
        for name, tracker in list(self.trackers.items()):
            self._attempt(name, tracker.finish)
        self._thread.shutdown()
        self._warn()

    def _hand_over(self, kind: str, entry: Mapping[str, Any]) -> None:
        """Have each tracker that does not have an entry yet take it."""
        def job() -> None:
            if kind == "samples" and not self.folder.sample(entry["images"]).exists():
                return      # A signal came before it was made.
            for name, tracker in list(self.trackers.items()):
                written = self.record["written"][name]
                if entry["images"] > written.get(kind, -1):
                    self._attempt(name, partial(self._write, name, tracker, kind, entry))
                    written[kind] = entry["images"]
            with contextlib.suppress(JobError):
                self.folder.write_json("trackers.json", self.record)

        if self.trackers:
            self.writer.submit(job)

    def _write(self, name: str, tracker: Any, kind: str, entry: Mapping[str, Any]) -> None:
        images = entry["images"]
        if kind == "settings":
            if name == "tensorboard":       # It shows Markdown.
                tracker.log({"settings": f"```\n{json.dumps(self.settings, indent=1)}\n```"}, step=0)
            else:
                tracker.store_init_configuration(self.settings)
        elif kind == "logs":
            tracker.log({f"train/{key}": entry[key] for key in entry if key != "images"}, step=images)
        elif kind == "metrics":
            scores = {key: score["value"] for key, score in entry["scores"].items()} | entry["readings"]
            tracker.log({f"evaluation/{key}": value for key, value in scores.items()}, step=images)
        else:
            path = self.folder.sample(images)
            grid = {"samples": np.asarray(Image.open(path))[None]}
            if name == "mlflow":
                tracker.log_artifact(str(path), "samples")
            elif name == "wandb":
                tracker.log_images(grid, step=images)
            else:
                tracker.log_images(grid, step=images, dataformats="NHWC")
                tracker.tracker.flush()

    def _attempt(self, name: str, call: Callable[[], object]) -> None:
        try:
            self._thread.submit(call).result()
        except Exception as error:      # Of any kind: it is others' code, a network, an account.
            self.trackers.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]} …"
            self._warnings.append(f"warning: train.trackers={name} failed and is left out from here on; the "
                                  f"run goes on, and its folder has everything: {reason}")

    def _warn(self) -> None:
        while self._warnings:       # Not in the writer thread.
            self.message(self._warnings.pop(0))
