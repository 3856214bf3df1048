"""Carries out a job: from its data and its recipe to a run folder."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i2i import plan
from i2i.data.datasets import with_kinds
from i2i.data.files import Unreadable
from i2i.data.labelled import Images
from i2i.data.loader import batches
from i2i.data.stream import training
from i2i.data.transforms import fit
from i2i.engine.runtime import Runtime
from i2i.engine.train import Observer, Trainer
from i2i.errors import I2IError, JobError, RequestError
from i2i.images import to_tensor
from i2i.infer import noise_of
from i2i.jobs import Job, needs, request, shortage
from i2i.recipes.base import Batch, piece_of
from i2i.runs import log
from i2i.runs.folder import RunFolder, write_atomically
from i2i.watch import METRIC, Watch, conclude

SAMPLES = 12                # Translations in a sample grid,
MADE = 60                   # or pictures made from noise.


def samples(job: Job) -> dict[str, Tensor]:
    """The same pictures for every grid, at the training size; or the same noise, class by class."""
    if isinstance(job.shown, Images):
        with torch.device("meta"):
            inputs = int(piece_of(job.recipe.modules(job.info), "Z").inputs)
        noise = {"eps": torch.stack([noise_of(job.train.seed, i, inputs) for i in range(MADE)])}
        return noise | ({"c": torch.arange(MADE) * len(job.classes) // MADE} if job.classes else {})
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


def execute(job: Job, folder: RunFolder, *, resume: bool, device: str = "auto", observer: Observer | None = None) -> int:
    """Run or continue a job in its folder.  -> 0, or the signal that interrupted it after everything was saved"""
    runtime = Runtime(precision=job.train.precision, device=device, threads=job.train.threads)
    estimate, there = needs(job, runtime.world), plan.room(runtime.device)      # A network that does not fit is refused before anything is written.
    sample = samples(job)
    folder = RunFolder(runtime.told(str(folder.path)))     # Each process may have found another folder to be free.
    if observer:
        observer.said(f"memory: about {plan.size_in_words(estimate.total)} beside torch itself" + (" in each process" if runtime.world > 1 else "")
                      + (f"; warning: there are only {plan.size_in_words(there)}" if there < estimate.total else ""))
    if not resume and runtime.leads:
        folder.create(job.config())
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
    watch = watching(job, runtime)
    trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), observer, watch, METRIC)
    trainer.restore()
    dataset = training(job.splits["train"], job.crop, job.load, job.kinds, flip=job.data.flip, seed=job.train.seed, on_error=job.data.on_error)

    def from_position(start: int) -> Generator[Mapping[str, Tensor]]:
        return batches(dataset, seed=job.train.seed, start=start, batch=job.train.batch, rank=runtime.rank, world=runtime.world,
                       workers=job.train.workers, prefetch=job.train.prefetch,
                       pin=job.train.pin and runtime.device.type == "cuda",
                       told=lambda problem: trainer.left_out(problem.name, problem.reason))

    interrupted = trainer.run(from_position, sample)
    if not interrupted and runtime.leads and watch:
        conclude_run(job, folder, watch, trainer)
    return interrupted


def watching(job: Job, runtime: Runtime) -> Watch | None:
    """Who judges the run on its validation pairs; nobody where there are none."""
    learnt, held_out = job.splits["train"], job.held_out("val")
    if held_out is None or isinstance(learnt, Images):
        return None
    return Watch(job.recipe, learnt, held_out, job.kinds, job.crop, runtime.device)


def conclude_run(job: Job, folder: RunFolder, watch: Watch, trainer: Trainer) -> None:
    """Write the verdict and the best and worst pairs of the test split, or of the validation split where there is no other."""
    pairs = job.held_out("test") or watch.heldout
    folder.write_json("pairs.json", watch.extremes(trainer.average.modules, pairs, lambda name, write: write_atomically(folder.path / name, write)))
    told = conclude(log.read(folder.metrics) or [watch(trainer.modules, trainer.average.modules, trainer.images)])
    folder.write_json("verdict.json", told)
    for warning in told["warnings"]:
        trainer.observer.said(f"warning: {warning}")
    trainer.observer.said(told["sentence"])


def train(recipe: str = "", *assignments: str, data: str | Path | None = None, out: str | Path | None = None,
          epochs: float | None = None, resume: str | Path | None = None, device: str = "auto", observer: Observer | None = None) -> Path:
    """Train a recipe, or continue a run, and return its folder.

    train("pix2pix", "train.batch=8", "generator.width=32", data="drawings/", out="runs/x", epochs=20)
    train(resume="runs/x")

    RequestError if something about the request is wrong, JobError if training fails, KeyboardInterrupt after an interruption
    that was saved.
    """
    folder, job = request(recipe, assignments, data=data, out=out, epochs=epochs, resume=resume)
    if execute(job, folder, resume=resume is not None, device=device, observer=observer):
        raise KeyboardInterrupt
    return folder.path
