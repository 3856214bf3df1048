"""i2i train."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from i2i.data.sources import check_local
from i2i.errors import printable
from i2i.runs import log
from i2i.training import job as jobs
from i2i.training import resume as resuming
from i2i.training import train as training
from i2i.training.callbacks.base import Callback, NoCallback
from i2i.training.memory import format_bytes, peak_memory

LEADS = os.environ.get("RANK", "0") == "0"      # As launchers tell each process.
SHOWN = ("grad_norm_", "real_logits", "fake_logits")       # Logged, but not shown while training.


def train(words: list[str], *, data: str | None, out: str | None, epochs: float | None, resume: str | None,
          on_error: str | None,
          on_collapse: str | None, device: str, auto: bool, dry_run: bool) -> None:
    """Plan, and unless it is a dry run, train."""
    check_local("--out", out)
    flags = {"data.on_error": on_error, "train.on_collapse": on_collapse}
    words = [*words, *(f"{key}={value}" for key, value in flags.items() if value)]
    recipe = words[0] if words and "=" not in words[0] else ""
    if recipe:
        jobs.recipe_or_preset(recipe)
    folder, job = resuming.resolve_job(recipe, words[1:] if recipe else words, data=data, out=out,
                                       epochs=epochs, resume=resume,
                                measured=training.tuned_settings(auto, words))
    callback, measured, goes_on = observer_for_this_terminal(), None, folder.config.exists()
    if goes_on and resume is None and not dry_run and resuming.finished(folder, job):
        callback.on_message(f"{folder.path} is finished: {job.train.images:,} images, model {folder.model}; "
                            "another --out begins anew")
        return
    if auto and (resume or not goes_on):
        job, measured = training.autotune_job(job, words, device=device, callback=callback,
                                              resume=resume is not None)
    if dry_run:
        print("\n".join(jobs.describe(job)))
        return
    callback.on_message(f"{recipe or job.name}: {job.splits['train'].description} to learn from in {job.where}, "
                        f"{job.train.images:,} images in "
                  f"{job.train.steps:,} steps of {job.train.batch_size} -> {folder.path}"
                        + (", which holds a part of it" if goes_on else ""))
    for note in job.summary.notes:
        callback.on_message(f"note: {note}")
    try:
        interrupted = training.run_job(job, folder, device=device, callback=callback, auto=measured)
    finally:
        if isinstance(callback, Bar):
            callback.progress.stop()
    if interrupted:
        if LEADS:
            print(f"stopped and saved; continue with: i2i train --resume {folder.path}", file=sys.stderr)
        raise typer.Exit(128 + interrupted)
    if not LEADS:
        return
    if missing := log.read(folder.skipped):
        print(f"{len(missing):,} {'file' if len(missing) == 1 else 'files'} could not be read and had to be "
              "left out, such as "
              f"{printable(missing[0]['file'])}: all in {folder.skipped}")
    newest = sorted((Path(folder.path) / "samples").glob("*.png"))[-1]
    print(f"done: model {folder.model}, samples {newest}, peak memory {format_bytes(peak_memory())}")


def observer_for_this_terminal() -> Callback:
    """A progress bar on a terminal, plain lines elsewhere, nothing on processes that do not lead."""
    if not LEADS:
        return NoCallback()
    return Bar() if sys.stdout.isatty() else Lines()


def in_words(logs: Mapping[str, float]) -> str:
    """The losses a person follows."""
    return "  ".join(f"{key} {value:.4g}" for key, value in logs.items() if not key.startswith(SHOWN))


class Lines:
    """A line for each log entry, but at most one every few seconds."""

    seconds = 10.0

    def on_start(self, images: int, total: int) -> None:
        """The first step is about to run."""
        self.began, self.first, self.total, self.told = time.monotonic(), images, total, 0.0

    def on_step(self, images: int, logs: Mapping[str, float] | None) -> None:
        """A step is done."""
        now = time.monotonic()
        if logs and (now - self.told >= self.seconds or images >= self.total):
            self.told = now
            speed = (images - self.first) / max(now - self.began, 1e-9)
            left = int((self.total - images) / max(speed, 1e-9))
            progress = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
            print(f"{images:,}/{self.total:,} images  {speed:.1f} images/s  {progress} left  {in_words(logs)}", flush=True)

    def on_message(self, line: str) -> None:
        """Something a person should read."""
        print(line, flush=True)


class Bar:
    """A live line on a terminal."""

    def __init__(self) -> None:
        self.progress = Progress(
            BarColumn(None), MofNCompleteColumn(), TextColumn("images  {task.fields[speed]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"), console=Console(), refresh_per_second=4)

    def on_start(self, images: int, total: int) -> None:
        """The first step is about to run."""
        self.began, self.first = time.monotonic(), images
        self.task = self.progress.add_task("", total=total, completed=images, speed="", losses="")
        self.progress.start()

    def on_step(self, images: int, logs: Mapping[str, float] | None) -> None:
        """A step is done."""
        speed = (images - self.first) / max(time.monotonic() - self.began, 1e-9)
        self.progress.update(self.task, completed=images, speed=f"{speed:.1f}/s")
        if logs:
            self.progress.update(self.task, losses=in_words(logs))

    def on_message(self, line: str) -> None:
        """Something a person should read."""
        self.progress.console.print(line, highlight=False, markup=False, soft_wrap=True)


