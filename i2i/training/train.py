"""Carries out a job: from its data and its recipe to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2i.data.dataset import OnSkip
from i2i.data.labeled import ImageDataset
from i2i.data.loader import batches
from i2i.data.sampler import evenly_spaced
from i2i.data.sources import Unreadable
from i2i.errors import I2IError, JobError, RequestError
from i2i.recipes.base import Batch, get_module, meta_networks
from i2i.registry import build
from i2i.runs import log
from i2i.runs.folder import RunFolder, write_atomically
from i2i.seeding import noise_for
from i2i.training import memory
from i2i.training.autotune import TUNED_SETTINGS, assigned_settings, autotune
from i2i.training.callbacks.base import Callback, NoCallback
from i2i.training.callbacks.collapse_advice import collapse_advice
from i2i.training.callbacks.collapse_detector import Advice, CollapseDetector
from i2i.training.callbacks.embedding import Embedding, best_embedding
from i2i.training.callbacks.fixed_inputs import image_inputs, noise_inputs
from i2i.training.callbacks.loss_balance import loss_warnings
from i2i.training.callbacks.noise_evaluator import MAX_IMAGES as NOISE_MOST
from i2i.training.callbacks.noise_evaluator import MIN_IMAGES, NoiseEvaluator
from i2i.training.callbacks.paired_evaluator import PairedEvaluator
from i2i.training.callbacks.verdict import conclude
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.job import Job, command, memory_estimate, out_of_memory_message
from i2i.training.resume import finished, resolve_job
from i2i.training.trainer import STOPPED_BY_DETECTOR, Trainer

GRID_TRANSLATIONS = 12                # Translations in a sample grid,
GRID_GENERATED = 60                   # or pictures made from noise.
DETECTOR_GENERATED = 64, 128        # Pictures of the alarm's first and second look,
DETECTOR_TRANSLATIONS = 16, 64      # and translations.
REFUSE_ABOVE = 4                # Times the memory that is there: what is estimated to take more is not begun.


def fixed_noise(job: Job) -> Callable[[int], Tensor]:
    """The same noise for each number every time.  -> inputs"""
    inputs = int(get_module(meta_networks(job.recipe, job.info), "Z").noise_dim)
    return lambda i: noise_for(job.train.seed, i, inputs)


def fixed_samples(job: Job) -> dict[str, Tensor]:
    """The same pictures for every grid, at the training size; or the same noise, class by class."""
    if isinstance(job.shown, ImageDataset):
        eps = torch.stack(list(map(fixed_noise(job), range(GRID_GENERATED))))
        return {"eps": eps} | ({"c": torch.arange(GRID_GENERATED) * len(job.classes) // GRID_GENERATED}
                               if job.classes else {})
    def on_skip(error: Unreadable) -> None:
        if job.data.on_error == "stop":
            raise RequestError(str(error))

    dataset = job.shown.for_evaluation(job.kinds, job.crop)
    _, samples = dataset.batch(evenly_spaced(len(dataset), GRID_TRANSLATIONS), on_skip)
    if not samples:
        raise RequestError(f"none of the {len(dataset)} images in {dataset.split} that were tried can be read")
    return samples


def job_batches(job: Job, runtime: Runtime, start: int, on_skip: OnSkip | None = None, *,
                folder: Path | None = None,
                warn: Callable[[str], None] | None = None) -> Generator[Mapping[str, Tensor]]:
    """This process's batches of a job from position `start` on; closed, no thread or process of it goes on.
    `folder`: where decoded images are kept on disk, if the job wants that and says nothing else."""
    cache_folder = Path(job.data.cache_folder) if job.data.cache_folder else folder
    free = memory.available_memory(torch.device("cpu")) // runtime.local_world_size
    dataset = job.splits["train"].for_training(job.crop, job.load, job.kinds, flip=job.data.flip,
                                               seed=job.train.seed, on_error=job.data.on_error)
    dataset = dataset.with_cache(job.data.cache, (job.summary.height, job.summary.width), free, cache_folder)
    return batches(dataset, start=start, batch_size=job.train.batch_size, rank=runtime.rank,
                   world_size=runtime.world_size, num_workers=job.train.num_workers,
                   prefetch_factor=job.train.prefetch_factor,
                   pin_memory=job.train.pin_memory and runtime.device.type == "cuda",
                   on_skip=on_skip, warn=warn)


def autotune_job(job: Job, assignments: Sequence[str], *, device: str = "auto",
                 callback: Callback | None = None,
          resume: bool = False) -> tuple[Job, Mapping[str, Any]]:
    """The job with the settings that are fastest here, but for those that the assignments decide; and what
    was measured, for autotune.json."""
    if resume:
        raise RequestError("--autotune cannot be given with --resume: the run goes on with the settings it "
                           "was started with")

    def stream(train: TrainConfig, runtime: Runtime) -> Generator[Mapping[str, Tensor]]:
        return job_batches(replace(job, train=train), runtime, 0)

    tell = callback.on_message if callback else lambda line: None
    tuning = autotune(job.recipe, job.info, job.train, stream, said=assigned_settings(assignments),
                      device=device, tell=tell)
    return replace(job, train=tuning.train), tuning.report(Runtime(device=device).device)


def tuned_settings(auto: bool, assignments: Sequence[str]) -> list[str]:
    """The settings of `train` that --autotune decides."""
    return [key for key in TUNED_SETTINGS if auto and key not in assigned_settings(assignments)]


def run_job(job: Job, folder: RunFolder, *, device: str = "auto", callback: Callback | None = None,
            auto: Mapping[str, Any] | None = None) -> int:
    """Run a job in its folder, or continue it there; `auto` is what its settings were chosen by.

    -> 0, or the signal that interrupted it after everything was saved
    """
    runtime = Runtime(precision=job.train.precision, device=device, threads=job.train.threads,
                      tf32=job.train.tf32)
    # A network that does not fit is refused before anything is written.
    estimate, there = memory_estimate(job, runtime.world_size), memory.available_memory(runtime.device)
    if estimate.total > REFUSE_ABOVE * there:
        raise RequestError(f"a step takes about {memory.format_bytes(estimate.total)} of memory, more than "
                           f"{REFUSE_ABOVE} times the "
                           f"{memory.format_bytes(there)} that are there; to make smaller: "
                           f"train.batch_size={job.train.batch_size // runtime.world_size}, "
                           f"data.size={job.crop[0]},{job.crop[1]}, generator.width")
    sample = fixed_samples(job)
    # Each process may have found another folder to be free.
    folder = RunFolder(runtime.broadcast(str(folder.path)))
    if callback:
        callback.on_message(f"memory: about {memory.format_bytes(estimate.total)} beside torch itself"
                            + (" in each process" if runtime.world_size > 1 else "")
                      + (f"; warning: there are only {memory.format_bytes(there)}" if there < estimate.total
                         else ""))
    if runtime.is_main_process and not folder.config.exists():
        folder.create(job.config())
        if auto:
            folder.write_json("autotune.json", auto)
    runtime.barrier()
    if runtime.is_main_process:
        folder.lock()
    try:
        return _run(job, folder, runtime, sample, callback)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, I2IError) or not memory.is_out_of_memory(error):
            raise
        raise JobError(out_of_memory_message(job, runtime.world_size, there)) from None
    finally:
        folder.unlock()


def _run(job: Job, folder: RunFolder, runtime: Runtime, sample: Batch, callback: Callback | None) -> int:
    callback = callback or NoCallback()
    look = cache(lambda: best_embedding(runtime.device, callback.on_message))
    watch = make_evaluator(job, runtime, look) if runtime.is_main_process else None
    alarm = make_collapse_detector(job, runtime, folder, look,
                                   callback.on_message) if runtime.is_main_process else None
    trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), callback, watch, alarm)
    trainer.restore()

    def from_position(start: int) -> Generator[Mapping[str, Tensor]]:
        return job_batches(job, runtime, start,
                           on_skip=lambda problem: trainer.left_out(problem.name, problem.reason),
                           folder=folder.path / "decoded",
                    warn=lambda line: callback.on_message(f"warning: {line}"))

    rung = alarm.rung if alarm else None
    interrupted = trainer.run(from_position, sample)
    if interrupted in (0, STOPPED_BY_DETECTOR) and runtime.is_main_process:
        write_verdict(job, folder, watch, alarm, trainer)
    if interrupted == STOPPED_BY_DETECTOR or (alarm and alarm.stops and alarm.rung != rung):
        raise JobError(f"stopped at {trainer.images:,} images, where the alarm rang; all is saved; to go on "
                       "nevertheless: "
                       f"i2i train --resume {folder.path}")
    return interrupted


def make_evaluator(job: Job, runtime: Runtime,
                   look: Callable[[], Embedding]) -> PairedEvaluator | NoiseEvaluator | None:
    """Who judges the run: pairs on the validation split, nobody where there are none; images from noise on
    held-out pictures or those learned from."""
    learned = job.splits["train"].for_evaluation(job.kinds, job.crop)
    if isinstance(learned, ImageDataset):
        held_out = (job.pictured or learned).for_evaluation(job.kinds, job.crop)
        probe, of_learned = (noise_inputs(split, fixed_noise(job), NOISE_MOST, told=bool(job.classes))
                             for split in (held_out, learned))
        enough = min(len(probe.rows), len(of_learned.rows)) >= MIN_IMAGES
        return NoiseEvaluator(job.recipe, probe, of_learned, held_out.split, runtime.device,
                              look) if enough else None
    pairs = job.held_out("val")
    if pairs is None:
        return None
    return PairedEvaluator(job.recipe, learned, pairs.for_evaluation(job.kinds, job.crop), runtime.device)


def make_collapse_detector(job: Job, runtime: Runtime, folder: RunFolder, look: Callable[[], Embedding],
                           tell: Callable[[str], None]) -> CollapseDetector | None:
    """Who looks for collapse, unless that is not wanted or there are too few pictures to tell."""
    if job.train.on_collapse == "off":
        return None
    learned = job.splits["train"].for_evaluation(job.kinds, job.crop)
    if isinstance(learned, ImageDataset):
        first, second = (noise_inputs(learned, fixed_noise(job), n, told=bool(job.classes))
                         for n in DETECTOR_GENERATED)
    else:
        first, second = (image_inputs(learned, n, job.recipe) for n in DETECTOR_TRANSLATIONS)
    if min(len(first.rows), len(second.rows)) < MIN_IMAGES:
        return None

    return CollapseDetector(job.recipe, first, second, folder, runtime.device, look=look,
                            advise=lambda kind: advice_for(job, kind), tell=tell,
                 batch=job.train.batch_size, stops=job.train.on_collapse == "stop")


def advice_for(job: Job, kind: str) -> list[Advice]:
    """What to try against a kind of collapse: only what this recipe accepts on these data."""
    return collapse_advice(kind, bool(job.recipe.sources), lambda words: command(job, words),
                           halved_rates(job))


def halved_rates(job: Job) -> list[str]:
    """Words for half of both players' learning rates, where they have one."""
    rates = {key: build("optimizer", getattr(job.recipe, key),
                        [torch.zeros(1, requires_grad=True)]).param_groups[0]["lr"]
             for key in ("g_optimizer", "d_optimizer") if hasattr(job.recipe, key)}
    return [f"{key}.lr={lr / 2:g}" for key, lr in rates.items()]


def write_verdict(job: Job, folder: RunFolder, watch: PairedEvaluator | NoiseEvaluator | None,
                  alarm: CollapseDetector | None, trainer: Trainer) -> None:
    """Write the verdict, and where pairs were judged the best and worst of the test split, or of the
    validation split where there is no other."""
    if isinstance(watch, PairedEvaluator):
        test = job.held_out("test")
        pairs = test.for_evaluation(job.kinds, job.crop) if test else watch.heldout
        written = watch.extremes(trainer.average.modules, pairs, lambda name,
                                 write: write_atomically(folder.path / name, write))
        folder.write_json("pairs.json", written)
    judged = log.read(folder.metrics)
    if watch and not judged:
        judged = [watch(trainer.modules, trainer.average.modules, trainer.images)]
    try:
        verdict = conclude(judged, watch.metric if watch else "")
        figures, problems = loss_warnings(log.read(folder.log), job.recipe)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"{folder.metrics} or {folder.log.name} holds lines that no run has written "
                       f"({type(error).__name__}: {error})") from None
    rung = alarm.rung if alarm else None
    verdict |= {"warnings": [*([rung["sentence"]] if rung else []), *verdict["warnings"], *problems],
                "losses": figures}
    folder.write_json(folder.verdict.name, verdict)
    for warning in verdict["warnings"]:
        trainer.callback.on_message(f"warning: {warning}")
    trainer.callback.on_message(verdict["sentence"])


def train(recipe: str = "", *assignments: str, data: str | Path | None = None, out: str | Path | None = None,
          epochs: float | None = None, resume: str | Path | None = None, device: str = "auto",
          callback: Callback | None = None,
          auto: bool = False) -> Path:
    """Train a recipe, or continue a run, and return its folder.  `auto` first measures which settings of
    speed are fastest here.

    train("pix2pix", "train.batch_size=8", "generator.width=32", data="drawings/", out="runs/x", epochs=20)
    train(resume="runs/x")

    The first line again continues the run in runs/x, or does nothing if it is finished.  RequestError if
    something about the request is wrong, JobError if training fails, KeyboardInterrupt after an interruption
    that was saved.
    """
    folder, job = resolve_job(recipe, assignments, data=data, out=out, epochs=epochs, resume=resume,
                              measured=tuned_settings(auto, assignments))
    begun, measured = folder.config.exists(), None
    if begun and resume is None and finished(folder, job):
        return folder.path
    if auto and (resume or not begun):
        job, measured = autotune_job(job, assignments, device=device, callback=callback,
                                     resume=resume is not None)
    if run_job(job, folder, device=device, callback=callback, auto=measured):
        raise KeyboardInterrupt
    return folder.path
