"""i2i train."""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from i2i.cli.completion import complete_train
from i2i.cli.options import NO_JSON, Device, Json, JsonOutput, Plugins, argument, option
from i2i.errors import RequestError
from i2i.files import read_json_lines
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks.progress import ProgressLines, format_losses

if TYPE_CHECKING:
    from i2i.training.trainer import Trainer


Minutes = Annotated[float | None, option(
    "N", "Time of the whole run: measures the speed of this machine and sets the length, and width, batch, "
         "precision and intervals unless they are given.")]
Extend = Annotated[str | None, option("RUN", "Go on with this finished run to the length --images.")]
Init = Annotated[str | None, option(
    "MODEL", "Start from the weights of this model or run, where they fit; see freeze=.")]


def train(
    args: Annotated[list[str] | None, argument(
        "RECIPE [KEY=VALUE]...",
        "A recipe or preset (pix2pix, cyclegan, dcgan ... stylegan2-ada: i2i list preset) and settings, e.g. "
        "generator=resnet lambda_l1=50 batch_size=8 lr=2e-4 images=400k.",
        autocompletion=complete_train)] = None,
    data: Annotated[str | None, option(
        "DIR|ZIP|MANIFEST|NAME", "Images; by default bundled ones: personas-edges-64 (pairs), "
                                 "lorelei-hair-64 (unpaired) or peeps-64 (from noise).")] = None,
    out: Annotated[str | None, option(
        "RUN", "The run folder; by default the next free runs/RECIPE. An unfinished run of the same command "
               "is resumed.")] = None,
    epochs: Annotated[float | None, option(None, "Length in epochs instead of train.images.")] = None,
    minutes: Minutes = None,
    images: Annotated[str | None, option("N", "Length in images, such as 500k; as train.images.")] = None,
    resume: Annotated[str | None, option("RUN", "Resume this run exactly where it stopped.")] = None,
    extend: Extend = None, init: Init = None,
    on_error: Annotated[str | None, option(
        "stop|skip", "At an image that cannot be read: stop (the default), or skip it and list it in "
                     "RUN/skipped.jsonl.", "--on-error")] = None,
    on_collapse: Annotated[str | None, option(
        "warn|stop|off", "When the generator makes the same image over and over: warn (the default), save "
                         "and stop, or do not check.", "--on-collapse")] = None,
    device: Device = "auto",
    autotune: Annotated[bool, option(
        None, "First measure which precision, memory format, threads, workers ... are fastest here and use "
              "them, except for those given as settings.", "--autotune")] = False,
    dry_run: Annotated[bool, option(None, "Print the whole plan and exit.", "--dry-run")] = False,
    json_output: Json = NO_JSON, plugin: Plugins = None,
) -> None:
    """Train a recipe; recipes, presets and settings are listed by `i2i list`."""
    from i2i.training import train as training
    from i2i.training.time_budget import TimeBudget
    if resume and Path(resume).suffix in (".pkl", ".pt", ".pth", ".ckpt"):
        raise RequestError(f"--resume takes a run folder of i2i, and {resume} is none; networks of another "
                           f"tool become a model by i2i convert {resume}, which --init takes")
    recipe, *overrides = args if args and "=" not in args[0] else ["", *(args or ())]
    budget = None if minutes is None else TimeBudget.since_start(minutes)
    try:
        folder = training.train(
            recipe, *overrides, data=data, out=out, epochs=epochs, minutes=budget, images=images,
            resume=resume, extend=extend, init=init, on_error=on_error, on_collapse=on_collapse,
            device=device, autotune=autotune, dry_run=dry_run,
            callbacks=[terminal_callback(), JsonPlan(json_output)])
    except training.TrainingInterrupted as interruption:
        if is_main_process():
            print(interruption, file=sys.stderr)
        raise typer.Exit(128 + interruption.signal) from None
    if not dry_run and is_main_process():
        json_output.write({"run": str(folder), **_outcome(folder)})


def _outcome(run: Path) -> dict[str, Any]:
    """The verdict of a finished run, its last losses and its last evaluation."""
    last = {key: (read_json_lines(run / file) or [{}])[-1]
            for key, file in (("losses", "log.jsonl"), ("evaluation", "metrics.jsonl"))}
    return {"verdict": json.loads((run / "verdict.json").read_bytes()), **last}


def is_main_process() -> bool:
    """Whether a launcher started this process as the first one, or there is no launcher."""
    return os.environ.get("RANK", "0") == "0"


def terminal_callback() -> Callback:
    """A progress bar on a terminal, plain lines elsewhere, silence in all processes but the main one."""
    if not is_main_process():
        return Callback()
    return ProgressBar() if sys.stdout.isatty() else ProgressLines()


class JsonPlan(Callback):
    """Writes the plan of a dry run as JSON."""

    def __init__(self, output: JsonOutput) -> None:
        self.output = output

    def on_plan(self, plan: Mapping[str, Any]) -> None:
        self.output.write(plan)


class ProgressBar(Callback):
    """Shows the progress as a live line on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        self.progress = Progress(
            BarColumn(None), MofNCompleteColumn(), TextColumn("images  {task.fields[speed]}"),
            TimeRemainingColumn(), TextColumn("{task.fields[losses]}"), console=Console(),
            refresh_per_second=4)

    def on_start(self, trainer: "Trainer") -> None:
        self.start_time, self.start_images = time.monotonic(), trainer.images
        self.task = self.progress.add_task("", total=trainer.total_images, completed=trainer.images, speed="",
                                           losses="")
        self.progress.start()

    def on_step(self, trainer: "Trainer", logs: Mapping[str, float] | None) -> None:
        speed = (trainer.images - self.start_images) / max(time.monotonic() - self.start_time, 1e-9)
        self.progress.update(self.task, completed=trainer.images, speed=f"{speed:.1f}/s")
        if logs:
            self.progress.update(self.task, losses=format_losses(logs))

    def on_message(self, message: str) -> None:
        self.progress.console.print(message, highlight=False, markup=False, soft_wrap=True)

    def on_end(self) -> None:
        self.progress.stop()
