"""Training as one flow: `train()` turns a request into a run folder."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.data.dataset import OnSkip
from i2i.data.labeled import ImageDataset
from i2i.data.loader import batches
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable, check_local
from i2i.errors import I2IError, JobError, RequestError, printable
from i2i.recipes.base import Batch
from i2i.registry import lookup
from i2i.runs import log
from i2i.runs.folder import RunFolder
from i2i.training import memory
from i2i.training.autotune import TUNED_SETTINGS, Autotuner, assigned_settings
from i2i.training.callbacks.base import Callback, CallbackList, check_callbacks, registered_callbacks
from i2i.training.callbacks.checkpoint import ModelKeeper, SampleGrid, StateSaver
from i2i.training.callbacks.collapse_detector import make_collapse_detector
from i2i.training.callbacks.diagnosis import write_verdict
from i2i.training.callbacks.evaluation import EarlyStopping, Evaluation
from i2i.training.callbacks.evaluator import make_evaluator
from i2i.training.callbacks.fixed_inputs import best_embedding
from i2i.training.callbacks.progress import LongRunNote, PaceNote
from i2i.training.callbacks.speed_estimate import SpeedEstimate
from i2i.training.callbacks.trackers import Trackers, check_installed
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.initial_weights import load_weights
from i2i.training.job import AnyDataset, Job
from i2i.training.plan import (
    announcement,
    check_memory,
    describe,
    describe_extension,
    finished_line,
    fitting_line,
    memory_estimate,
    out_of_memory_message,
)
from i2i.training.resume import is_finished, read_run, resolve_job
from i2i.training.time_budget import RunPlanner, TimeBudget, requested_budget
from i2i.training.trainer import ENDED, STOPPED, Trainer

GRID_TRANSLATIONS, GRID_GENERATED = 12, 60      # Images in a sample grid.


def fixed_samples(job: Job) -> dict[str, Tensor]:
    """The batch that every sample grid shows: images at the training size, or noise, class by class."""
    if isinstance(job.sample_split, ImageDataset):
        batch = {"eps": torch.stack(list(map(job.fixed_noise(), range(GRID_GENERATED))))}
        if job.classes:
            batch["c"] = torch.arange(GRID_GENERATED) * len(job.classes) // GRID_GENERATED
        return batch

    def on_skip(error: Unreadable) -> None:
        if job.data.on_error == "stop":
            raise RequestError(str(error))

    dataset = job.sample_split.for_evaluation(job.formats, job.crop_size)
    _, samples = dataset.batch(evenly_spaced(len(dataset), GRID_TRANSLATIONS), on_skip)
    if not samples:
        raise RequestError(f"none of the {len(dataset)} images in {dataset.split} that were tried can be "
                           "read")
    return samples


def cached_dataset(job: Job, runtime: Runtime, folder: Path | None = None) -> AnyDataset:
    """The training images and their cache: with data.cache=disk and no data.cache_folder, in `folder`."""
    folder = Path(job.data.cache_folder) if job.data.cache_folder else folder
    available = memory.available_memory(torch.device("cpu")) // runtime.local_world_size
    return job.training_dataset.with_cache(job.data.cache, (job.summary.height, job.summary.width),
                                           available, folder)


def job_batches(job: Job, runtime: Runtime, start: int, on_skip: OnSkip | None = None, *,
                dataset: AnyDataset | None = None,
                warn: Callable[[str], None] | None = None) -> Generator[Mapping[str, Tensor]]:
    """This process's batches from position `start` on.  Closing it ends its threads and processes."""
    return batches(dataset or cached_dataset(job, runtime), start=start, batch_size=job.train.batch_size,
                   rank=runtime.rank, world_size=runtime.world_size, num_workers=job.train.num_workers,
                   prefetch_factor=job.train.prefetch_factor,
                   pin_memory=job.train.pin_memory and runtime.device.type == "cuda",
                   on_skip=on_skip, warn=warn)


def autotune_job(job: Job, assignments: Sequence[str], *, device: str,
                 log: Callable[[str], None]) -> tuple[Job, Mapping[str, Any]]:
    """The job with the fastest settings on this machine, except for those assigned, and the measurements."""
    def stream(train: TrainConfig, runtime: Runtime) -> Generator[Mapping[str, Tensor]]:
        return job_batches(replace(job, train=train), runtime, 0)

    tuner = Autotuner(job.recipe, job.info, job.train, stream, device=device, log=log,
                      assignments=assignments)
    tuner.tune()
    return replace(job, train=tuner.config), tuner.report()


def fit_to_time(job: Job, budget: TimeBudget, assignments: Sequence[str], *, device: str,
                log: Callable[[str], None]) -> Job:
    """The job with the length that fits on this machine, and with what else is not assigned."""
    log("measuring the speed of this machine")
    runtime = Runtime(device=device)
    dataset = cached_dataset(job, runtime)
    planner = RunPlanner(
        job, budget, assignments, device=device, sample=fixed_samples(job),
        batch_source=lambda job, runtime, start: job_batches(job, runtime, start, dataset=dataset),
        make_evaluator=lambda job, device: make_evaluator(
            job, device,
            cache(lambda: best_embedding(device, log, job.header().get("feature_networks", {})))),
        available=memory.available_memory(runtime.device))
    job = planner.plan()
    log(planner.summary())
    return job


def fitted(job: Job, assignments: Sequence[str], budget: TimeBudget | None, autotune: bool, device: str,
           log: Callable[[str], None]) -> tuple[Job, Mapping[str, Any] | None]:
    """The job with the settings that this machine is measured for, and the measurements of --autotune."""
    if autotune:
        return autotune_job(job, assignments, device=device, log=log)
    return (fit_to_time(job, budget, assignments, device=device, log=log) if budget else job), None


def run_job(job: Job, folder: RunFolder, *, device: str = "auto", callbacks: Sequence[Callback] = (),
            measurements: Mapping[str, Any] | None = None) -> int:
    """Run or continue a job in its folder.  Returns 0, or the signal that ended it after all was saved."""
    watching = CallbackList([*callbacks, *registered_callbacks(job.train.callbacks)])
    watching.messages(announcement(job, folder))
    runtime = Runtime.for_config(job.train, device)
    available = memory.available_memory(runtime.device)
    estimate = memory_estimate(job, runtime.world_size)
    watching.messages(check_memory(job, runtime, estimate, available))
    sample = fixed_samples(job)
    # Each process may have found another free folder.
    folder = RunFolder(runtime.broadcast(str(folder.path)))
    if runtime.is_main_process and not folder.config.exists():
        folder.create(job.config())
        if measurements:
            folder.write_json("autotune.json", measurements)
    runtime.barrier()
    if runtime.is_main_process:
        folder.lock()
        if (before := read_run(folder)).train.images < job.train.images:
            watching.message(describe_extension(job, before.recipe, before.train, folder.images))
            folder.write_json(folder.config.name, job.config())
    try:
        result = _train_in_folder(job, folder, runtime, sample, watching, estimate.flops)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, I2IError) or not memory.is_out_of_memory(error):
            raise
        raise JobError(out_of_memory_message(job, runtime.world_size, available)) from None
    finally:
        try:
            watching.notify(lambda each: each.on_end())
        finally:
            folder.unlock()
    if watching.failure:
        raise JobError(f"{watching.failure}; all is saved in {folder.path}") from watching.failure.__cause__
    return result


def _train_in_folder(job: Job, folder: RunFolder, runtime: Runtime, sample: Batch,
                     watching: CallbackList, flops: int) -> int:
    evaluation = detector = None
    callbacks: list[Callback] = [StateSaver()]
    if runtime.is_main_process:
        trained_with = job.header().get("feature_networks", {})
        embedding = cache(lambda: best_embedding(runtime.device, watching.message, trained_with))
        evaluator = make_evaluator(job, runtime.device, embedding)
        evaluation = Evaluation(evaluator) if evaluator else None
        detector = make_collapse_detector(job, runtime.device, folder, embedding, watching.message)
        note = PaceNote(job.time_plan, len(job.splits["train"])) if job.time_plan else \
            LongRunNote(partial(fitting_line, job))
        callbacks = [SpeedEstimate(flops, sample), *([detector] if detector else []),
                     SampleGrid(sample), *callbacks, ModelKeeper(),
                     *([evaluation] if evaluation else []), note,
                     *([EarlyStopping()] if job.train.stop_when != "never" else []),
                     *([Trackers(job)] if job.train.trackers else []), *watching.callbacks]
    watching.callbacks = callbacks
    trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), watching)
    weights = job.initial_weights
    trainer.restore(partial(load_weights, weights, job.recipe) if weights else None)

    dataset = cached_dataset(job, runtime, folder.path / "decoded")

    def from_position(start: int) -> Generator[Mapping[str, Tensor]]:
        def on_skip(problem: Unreadable) -> None:       # The next step goes without the file.
            trainer.skipped_files.add(trainer.images + job.train.batch_size, problem.name, problem.reason)

        return job_batches(job, runtime, start, on_skip, dataset=dataset,
                           warn=lambda line: watching.message(f"warning: {line}"))

    result = trainer.run(from_position)
    if result in (0, ENDED, STOPPED) and runtime.is_main_process:
        write_verdict(job, folder, evaluation.evaluator if evaluation else None, detector, trainer)
    if result == STOPPED:
        raise JobError(f"stopped at {trainer.images:,} images because {trainer.stop_reason()}; all is saved; "
                       f"to continue nevertheless: i2i train --resume {folder.path}")
    if result in (0, ENDED) and runtime.is_main_process:
        if result:
            watching.message(f"ended at {trainer.images:,} of {trainer.total_images:,} images: "
                             f"{trainer.early_end}; to go on: i2i train --resume {folder.path} "
                             "train.stop_when=never")
        report_results(folder, watching.message)
    return 0 if result == ENDED else result


def report_results(folder: RunFolder, message: Callable[[str], None]) -> None:
    """Say what a finished run has left."""
    if skipped := log.read(folder.skipped):
        message(f"{len(skipped):,} {'file' if len(skipped) == 1 else 'files'} skipped as not readable, such "
                f"as {printable(skipped[0]['file'])}: see {folder.skipped}")
    newest = max((folder.path / "samples").glob("*.png"))
    message(f"done: model {folder.model}, samples {newest}, "
            f"peak memory {memory.format_bytes(memory.peak_memory())}")


def check_watchers(job: Job) -> None:
    """RequestError for a tracker that is not installed, a callback that is not registered, or no evaluations
    to stop by."""
    check_installed(job.train.trackers)
    for name in job.train.callbacks:
        lookup("callback", name)
    if job.train.stop_when != "never" and job.recipe.sources and not job.held_out_pairs("val"):
        raise RequestError(f"train.stop_when={job.train.stop_when} cannot be used: there are no val pairs in "
                           f"{job.location} to evaluate while training; accepted: never")


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended the training after everything was saved in `folder`."""

    def __init__(self, folder: Path, signal: int) -> None:
        super().__init__(f"stopped and saved; continue with: i2i train --resume {folder}")
        self.folder, self.signal = folder, signal


def train(recipe: str = "", *assignments: str, data: str | Path | None = None, out: str | Path | None = None,
          epochs: float | None = None, minutes: float | TimeBudget | None = None,
          images: int | str | None = None, resume: str | Path | None = None,
          extend: str | Path | None = None, init: str | Path | None = None, on_error: str | None = None,
          on_collapse: str | None = None, device: str = "auto", autotune: bool = False, dry_run: bool = False,
          callbacks: Sequence[Callback] = ()) -> Path:
    """Train a recipe or resume a run: `train("pix2pix", "batch_size=8", data="drawings/", epochs=20)`.

    Returns the run folder.  The same call resumes an unfinished run, and does nothing if it is finished.

    Args:
        recipe, assignments: a recipe or preset; settings as KEY=VALUE, as on the command line.
        data: images: a folder, zip, manifest, URL or the name of a bundled dataset (the default).
        out: the run folder; by default the next free runs/RECIPE.
        epochs, images: length of the run; images may end in k or M.
        minutes: time of the whole run, which sets its length and what else is not given (README).
        resume: a run folder, whose recipe, data and settings are used.
        extend: a finished run, which goes on to the length `images`.
        init: a model file or run folder whose weights the run starts from, where they fit.
        on_error: "stop" at an image that cannot be read (the default), or "skip" it.
        on_collapse: when the generator collapses, "warn" (the default), "stop" or "off" (do not check).
        device: "auto", "cpu", "cuda" or "mps".
        autotune: first measure which settings of speed are fastest, and use them.
        dry_run: pass the plan to the callbacks and train nothing.
        callbacks: watch the run.

    Raises:
        RequestError, JobError: if the request is wrong; if training fails.
        TrainingInterrupted: after an interruption (a KeyboardInterrupt), with everything saved.
    """
    message = (watching := CallbackList(check_callbacks(callbacks))).message
    check_local("--out", out)
    flags = {"train.images": images, "data.on_error": on_error, "train.on_collapse": on_collapse}
    assignments = (*assignments, *(f"{key}={value}" for key, value in flags.items() if value))
    budget = requested_budget(minutes, autotune, resume or extend)
    tuned = set(TUNED_SETTINGS) - set(assigned_settings(assignments)) if autotune else ()
    folder, job = resolve_job(recipe, assignments, tuned=tuned, data=data, out=out, epochs=epochs, init=init,
                              minutes=budget.minutes if budget else None, resume=resume, extend=extend)
    started = folder.config.exists()
    if started and not dry_run and is_finished(folder, job):
        message(finished_line(folder, job))
        return folder.path
    check_watchers(job)
    job, measured = (job, None) if started else fitted(job, assignments, budget, autotune, device, message)
    if dry_run:
        watching.plan(describe(job))
    elif signal := run_job(job, folder, device=device, callbacks=callbacks, measurements=measured):
        raise TrainingInterrupted(folder.path, signal)
    return folder.path
