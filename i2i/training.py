"""Carries out a job: from its data and its recipe to a run folder."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i import plan
from i2i.begun import finished, request
from i2i.data.cache import Wanted, cache_for
from i2i.data.datasets import with_kinds
from i2i.data.files import Unreadable
from i2i.data.labelled import Images
from i2i.data.loader import Told, batches
from i2i.data.stream import training
from i2i.data.transforms import fit
from i2i.engine.config import TrainConfig
from i2i.engine.observers import Observer, Silent
from i2i.engine.runtime import Runtime
from i2i.engine.train import ALARMED, Trainer
from i2i.errors import I2IError, JobError, RequestError
from i2i.images import to_tensor
from i2i.infer import noise_of
from i2i.jobs import Job, command, needs, shortage
from i2i.recipes.base import Batch, networks, piece_of
from i2i.runs import log
from i2i.runs.folder import RunFolder, write_atomically
from i2i.spec import build
from i2i.tuning import TUNED, said, tune
from i2i.watch import Alarm, Look, NoiseWatch, Remedy, Watch, best_look, conclude, from_noise, from_pictures, remedies, unbalanced
from i2i.watch.noise import FEWEST
from i2i.watch.noise import MOST as NOISE_MOST

SAMPLES = 12                # Translations in a sample grid,
MADE = 60                   # or pictures made from noise.
NOISE_SEEN = 64, 128        # Pictures of the alarm's first and second look,
PICTURES_SEEN = 16, 64      # and translations.
HOPELESS = 4                # Times the memory that is there: what is estimated to take more is not begun.


def noise(job: Job) -> Callable[[int], Tensor]:
    """The same noise for each number every time.  -> inputs"""
    inputs = int(piece_of(networks(job.recipe, job.info), "Z").inputs)
    return lambda i: noise_of(job.train.seed, i, inputs)


def samples(job: Job) -> dict[str, Tensor]:
    """The same pictures for every grid, at the training size; or the same noise, class by class."""
    if isinstance(job.shown, Images):
        eps = torch.stack(list(map(noise(job), range(MADE))))
        return {"eps": eps} | ({"c": torch.arange(MADE) * len(job.classes) // MADE} if job.classes else {})
    rows: list[tuple[Tensor, Tensor]] = []
    for index in np.unique(np.linspace(0, len(job.shown) - 1, SAMPLES).astype(int)):
        try:
            a, b = with_kinds(job.shown[int(index)], job.kinds)
        except Unreadable as error:
            if job.data.on_error == "stop":
                raise RequestError(str(error)) from None
            continue
        rows.append((to_tensor(fit(a, job.crop), job.kinds[0]), to_tensor(fit(b, job.crop), job.kinds[1])))
    if not rows:
        raise RequestError(f"none of the {len(job.shown)} images in {job.shown.split} that were tried can be read")
    return {"a": torch.stack([a for a, _ in rows]), "b": torch.stack([b for _, b in rows])}


def feed(job: Job, runtime: Runtime, start: int, told: Told | None = None, *, folder: Path | None = None,
         warn: Callable[[str], None] | None = None) -> Generator[Mapping[str, Tensor]]:
    """This process's batches of a job from position `start` on; closed, no thread or process of it goes on.  `folder`: where decoded images are
    kept on disk, if the job wants that and says nothing else."""
    kept = Path(job.data.cache_folder) if job.data.cache_folder else folder
    room = plan.room(torch.device("cpu")) // runtime.neighbours
    cache = cache_for(job.splits["train"], Wanted(job.data.cache, job.load, job.kinds, (job.facts.height, job.facts.width), room, kept))
    dataset = training(job.splits["train"], job.crop, job.load, job.kinds, flip=job.data.flip, seed=job.train.seed, on_error=job.data.on_error,
                       cache=cache)
    return batches(dataset, seed=job.train.seed, start=start, batch=job.train.batch, rank=runtime.rank, world=runtime.world,
                   workers=job.train.workers, prefetch=job.train.prefetch, pin=job.train.pin and runtime.device.type == "cuda", told=told, warn=warn)


def tuned(job: Job, assignments: Sequence[str], *, device: str = "auto", observer: Observer | None = None,
          resume: bool = False) -> tuple[Job, Mapping[str, Any]]:
    """The job with the settings that are fastest here, but for those that the assignments decide; and what was measured, for auto.json."""
    if resume:
        raise RequestError("--auto cannot be given with --resume: the run goes on with the settings it was started with")

    def stream(train: TrainConfig, runtime: Runtime) -> Generator[Mapping[str, Tensor]]:
        return feed(replace(job, train=train), runtime, 0)

    tell = observer.said if observer else lambda line: None
    tuning = tune(job.recipe, job.info, job.train, stream, said=said(assignments), device=device, tell=tell)
    return replace(job, train=tuning.train), tuning.report(Runtime(device=device).device)


def left_to(auto: bool, assignments: Sequence[str]) -> list[str]:
    """The settings of `train` that --auto decides."""
    return [key for key in TUNED if auto and key not in said(assignments)]


def execute(job: Job, folder: RunFolder, *, device: str = "auto", observer: Observer | None = None,
            auto: Mapping[str, Any] | None = None) -> int:
    """Run a job in its folder, or continue it there; `auto` is what its settings were chosen by.

    -> 0, or the signal that interrupted it after everything was saved
    """
    runtime = Runtime(precision=job.train.precision, device=device, threads=job.train.threads, tf32=job.train.tf32)
    estimate, there = needs(job, runtime.world), plan.room(runtime.device)      # A network that does not fit is refused before anything is written.
    if estimate.total > HOPELESS * there:
        raise RequestError(f"a step takes about {plan.size_in_words(estimate.total)} of memory, more than {HOPELESS} times the "
                           f"{plan.size_in_words(there)} that are there; to make smaller: train.batch={job.train.batch // runtime.world}, "
                           f"data.size={job.crop[0]},{job.crop[1]}, generator.width")
    sample = samples(job)
    folder = RunFolder(runtime.told(str(folder.path)))     # Each process may have found another folder to be free.
    if observer:
        observer.said(f"memory: about {plan.size_in_words(estimate.total)} beside torch itself" + (" in each process" if runtime.world > 1 else "")
                      + (f"; warning: there are only {plan.size_in_words(there)}" if there < estimate.total else ""))
    if runtime.leads and not folder.config.exists():
        folder.create(job.config())
        if auto:
            folder.write_json("auto.json", auto)
    runtime.barrier()
    if runtime.leads:
        folder.lock()
    try:
        return _carried_out(job, folder, runtime, sample, observer)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, I2IError) or not plan.out_of_memory(error):
            raise
        raise JobError(shortage(job, runtime.world, there)) from None
    finally:
        folder.unlock()


def _carried_out(job: Job, folder: RunFolder, runtime: Runtime, sample: Batch, observer: Observer | None) -> int:
    observer = observer or Silent()
    look = cache(lambda: best_look(runtime.device, observer.said))
    watch = watching(job, runtime, look) if runtime.leads else None
    alarm = alarm_for(job, runtime, folder, look, observer.said) if runtime.leads else None
    trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), observer, watch, alarm)
    trainer.restore()

    def from_position(start: int) -> Generator[Mapping[str, Tensor]]:
        return feed(job, runtime, start, told=lambda problem: trainer.left_out(problem.name, problem.reason), folder=folder.path / "decoded",
                    warn=lambda line: observer.said(f"warning: {line}"))

    rung = alarm.rung if alarm else None
    interrupted = trainer.run(from_position, sample)
    if interrupted in (0, ALARMED) and runtime.leads:
        conclude_run(job, folder, watch, alarm, trainer)
    if interrupted == ALARMED or (alarm and alarm.stops and alarm.rung != rung):
        raise JobError(f"stopped at {trainer.images:,} images, where the alarm rang; all is saved; to go on nevertheless: "
                       f"i2i train --resume {folder.path}")
    return interrupted


def watching(job: Job, runtime: Runtime, look: Callable[[], Look]) -> Watch | NoiseWatch | None:
    """Who judges the run: pairs on the validation split, nobody where there are none; images from noise on held-out pictures or those learnt from."""
    learnt = job.splits["train"]
    if isinstance(learnt, Images):
        held_out = job.pictured or learnt
        probe, of_learnt = (from_noise(split, noise(job), NOISE_MOST, job.kinds[1], job.crop, told=bool(job.classes)) for split in (held_out, learnt))
        enough = min(len(probe.rows), len(of_learnt.rows)) >= FEWEST
        return NoiseWatch(job.recipe, probe, of_learnt, held_out.split, runtime.device, look) if enough else None
    pairs = job.held_out("val")
    return None if pairs is None else Watch(job.recipe, learnt, pairs, job.kinds, job.crop, runtime.device)


def alarm_for(job: Job, runtime: Runtime, folder: RunFolder, look: Callable[[], Look], tell: Callable[[str], None]) -> Alarm | None:
    """Who looks for collapse, unless that is not wanted or there are too few pictures to tell."""
    if job.train.on_collapse == "off":
        return None
    learnt = job.splits["train"]
    if isinstance(learnt, Images):
        first, second = (from_noise(learnt, noise(job), n, job.kinds[1], job.crop, told=bool(job.classes)) for n in NOISE_SEEN)
    else:
        first, second = (from_pictures(learnt, n, job.recipe, job.kinds, job.crop) for n in PICTURES_SEEN)
    if min(len(first.rows), len(second.rows)) < FEWEST:
        return None

    return Alarm(job.recipe, first, second, folder, runtime.device, look=look, advise=lambda kind: advised(job, kind), tell=tell,
                 batch=job.train.batch, stops=job.train.on_collapse == "stop")


def advised(job: Job, kind: str) -> list[Remedy]:
    """What to try against a kind of collapse: only what this recipe accepts on these data."""
    return remedies(kind, bool(job.recipe.sources), lambda words: command(job, words), slower(job))


def slower(job: Job) -> list[str]:
    """Words for half of both players' learning rates, where they have one."""
    rates = {key: build("optimiser", getattr(job.recipe, key), [torch.zeros(1, requires_grad=True)]).param_groups[0]["lr"]
             for key in ("g_optimiser", "d_optimiser") if hasattr(job.recipe, key)}
    return [f"{key}.lr={lr / 2:g}" for key, lr in rates.items()]


def conclude_run(job: Job, folder: RunFolder, watch: Watch | NoiseWatch | None, alarm: Alarm | None, trainer: Trainer) -> None:
    """Write the verdict, and where pairs were judged the best and worst of the test split, or of the validation split where there is no other."""
    if isinstance(watch, Watch):
        pairs = job.held_out("test") or watch.heldout
        written = watch.extremes(trainer.average.modules, pairs, lambda name, write: write_atomically(folder.path / name, write))
        folder.write_json("pairs.json", written)
    judged = log.read(folder.metrics)
    if watch and not judged:
        judged = [watch(trainer.modules, trainer.average.modules, trainer.images)]
    try:
        verdict = conclude(judged, watch.metric if watch else "")
        figures, problems = unbalanced(log.read(folder.log), job.recipe)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise JobError(f"{folder.metrics} or {folder.log.name} holds lines that no run has written ({type(error).__name__}: {error})") from None
    rung = alarm.rung if alarm else None
    verdict |= {"warnings": [*([rung["sentence"]] if rung else []), *verdict["warnings"], *problems], "losses": figures}
    folder.write_json(folder.verdict.name, verdict)
    for warning in verdict["warnings"]:
        trainer.observer.said(f"warning: {warning}")
    trainer.observer.said(verdict["sentence"])


def train(recipe: str = "", *assignments: str, data: str | Path | None = None, out: str | Path | None = None,
          epochs: float | None = None, resume: str | Path | None = None, device: str = "auto", observer: Observer | None = None,
          auto: bool = False) -> Path:
    """Train a recipe, or continue a run, and return its folder.  `auto` first measures which settings of speed are fastest here.

    train("pix2pix", "train.batch=8", "generator.width=32", data="drawings/", out="runs/x", epochs=20)
    train(resume="runs/x")

    The first line again continues the run in runs/x, or does nothing if it is finished.  RequestError if something about the request is wrong,
    JobError if training fails, KeyboardInterrupt after an interruption that was saved.
    """
    folder, job = request(recipe, assignments, data=data, out=out, epochs=epochs, resume=resume, measured=left_to(auto, assignments))
    begun, measured = folder.config.exists(), None
    if begun and resume is None and finished(folder, job):
        return folder.path
    if auto and (resume or not begun):
        job, measured = tuned(job, assignments, device=device, observer=observer, resume=resume is not None)
    if execute(job, folder, device=device, observer=observer, auto=measured):
        raise KeyboardInterrupt
    return folder.path
