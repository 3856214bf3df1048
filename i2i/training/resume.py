"""The job of a run that has been begun: `--resume` takes it from the folder, the same words mean it again,
other words are told what differs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from i2i.config import fields, from_dict, parse_assignments
from i2i.data.config import DataConfig
from i2i.data.format_detection import inspect_dataset, training_sizes
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.images.formats import ImageFormat
from i2i.recipes.base import Recipe
from i2i.recipes.presets import PRESETS
from i2i.registry import Spec, build, lookup, names, suggest
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.config import OPERATIONAL, TrainConfig
from i2i.training.job import Job, configure, differences, fingerprint, prepare

# What may change when a run goes on, by prefix.
CHANGEABLE = {"": (), "data.": ("on_error", "cache", "cache_folder"), "train.": OPERATIONAL}
CHANGEABLE_TEXT = ", ".join(prefix + key for prefix in ("train.", "data.") for key in CHANGEABLE[prefix])


@dataclass(frozen=True)
class StartedRun:
    """What config.json says."""

    name: str
    recipe: Recipe
    data: DataConfig
    train: TrainConfig
    where: str
    fingerprint: dict[str, str]
    kinds: tuple[ImageFormat, ImageFormat] | None     # Absent in runs of version 0.1.


def read_run(folder: RunFolder) -> StartedRun:
    """What a run was begun with.  RequestError if its config is none."""
    config = folder.read_config()
    try:
        name, where, known = config["recipe"]["name"], config["data"]["where"], config["data"]["fingerprint"]
        recipe: Any = from_dict(cast(Any, lookup("recipe", name)), config["recipe"]["settings"])
        data, train = from_dict(DataConfig, config["data"]["settings"]), from_dict(TrainConfig,
                                                                                   config["train"])
        kinds = (ImageFormat.of(config["kinds"]["a"]),
                 ImageFormat.of(config["kinds"]["b"])) if "kinds" in config else None
        if not isinstance(where, str) or "\0" in where or not isinstance(known, dict):
            raise TypeError("data.where is no path, or data.fingerprint no table")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RequestError(f"{folder.config} is not the config of a run: {str(error)[:300]}") from None
    return StartedRun(name, recipe, data, train, where, known, kinds)


def reopen_job(folder: RunFolder, assignments: Sequence[str] = ()) -> Job:
    """The job of an existing run; only operational settings may be given anew.  RequestError names what
    differs."""
    begun = read_run(folder)
    old = {"": begun.recipe, "data.": begun.data, "train.": begun.train}
    recipe, data, train = configure(begun.recipe, begun.data, begun.train, parse_assignments(assignments))
    for (prefix, config), changed in zip(old.items(), (recipe, data, train), strict=True):
        for key in fields(config):
            if getattr(config, key) != getattr(changed, key) and key not in CHANGEABLE[prefix]:
                raise RequestError(f"{prefix}{key} is {getattr(config, key)} in {folder.path} and cannot "
                                   f"become {getattr(changed, key)} "
                                   f"when it is resumed; free to change: {CHANGEABLE_TEXT}")
    splits = build("dataset", Spec(recipe.dataset), open_source(begun.where),
                   data.direction)
    _check_images(begun, splits)
    summary = inspect_dataset(splits["train"], data)
    crop, load = training_sizes(data, splits["train"], summary)
    return _with_formats(Job(begun.name, recipe, data, train, begun.where, splits, summary, crop, load), begun)


def same_job(folder: RunFolder, job: Job, measured: Sequence[str] = ()) -> Job:
    """The job as the run in this folder goes on with it.  RequestError names what differs.  `measured`:
    settings of `train` left to --autotune."""
    begun = read_run(folder)
    job = replace(job, train=replace(job.train, **{key: getattr(begun.train, key) for key in measured}))
    there, here = [], []
    if begun.name != job.name:
        there, here = [begun.name], [job.name]
    else:
        pairs: dict[str, tuple[Any, Any]] = {"": (begun.recipe, job.recipe), "data.": (begun.data, job.data),
                                             "train.": (begun.train, job.train)}
        for prefix, (one, other) in pairs.items():
            one = replace(one, **{key: getattr(other, key) for key in CHANGEABLE[prefix]})
            there += differences(one, other, prefix)
            here += differences(other, one, prefix)
    if begun.where != job.where:
        there, here = [*there, f"--data {begun.where}"], [*here, f"--data {job.where}"]
    if there or here:
        raise RequestError(f"{folder.path} holds another run: {' '.join(there)} there, {' '.join(here)} "
                           "here; "
                           f"accepted: the words it was started with, i2i train --resume {folder.path}, "
                           "which takes them from it "
                           f"(free to change: {CHANGEABLE_TEXT}), or another --out")
    _check_images(begun, job.splits)
    return _with_formats(job, begun)


def _check_images(begun: StartedRun, splits: Any) -> None:
    if fingerprint(splits) != begun.fingerprint:
        raise RequestError(f"the images in {begun.where} are not those the run was started with "
                           f"(were {begun.fingerprint}, are {fingerprint(splits)}); put them back to resume")


def _with_formats(job: Job, begun: StartedRun) -> Job:
    """With the kinds of image that the networks were made for, not what the images have become since."""
    return replace(job, summary=replace(job.summary, a=begun.kinds[0], b=begun.kinds[1])) if begun.kinds else job


def finished(folder: RunFolder, job: Job) -> bool:
    """Whether the run is at its end and all that a model needs is there and whole."""
    if not _is_finished(folder, job):
        return False
    try:
        checkpoint.load(folder.state(job.train.steps * job.train.batch_size), "state")
        checkpoint.load(folder.model, "model")
    except RequestError:
        return False        # Going on mends it.
    return True


def _is_finished(folder: RunFolder, job: Job) -> bool:
    return folder.verdict.exists() and folder.state(job.train.steps * job.train.batch_size).exists()


# ---------------------------------------------------------------------------------------------- where a run
# lies

def _folders(name: str) -> Iterator[Path]:
    """runs/NAME, runs/NAME-2, -3 …"""
    count = 1
    while True:
        yield Path("runs") / (name if count == 1 else f"{name}-{count}")
        count += 1


def folder_for(name: str, job: Job, measured: Sequence[str] = ()) -> RunFolder:
    """Where a job belongs if nobody says: in the newest of runs/NAME, -2, -3 … that holds this very job
    unfinished and in which nobody trains, else in the first of them that is free."""
    there: list[RunFolder] = []
    for path in _folders(name):
        if not path.exists():
            break
        there.append(RunFolder(path))
    for folder in reversed(there):
        try:
            same_job(folder, job, measured)
        except RequestError:
            continue
        if not _is_finished(folder, job) and not folder.busy():
            return folder
    return RunFolder(path)


def resolve_job(recipe: str, assignments: Sequence[str], *, data: str | Path | None, out: str | Path | None,
                epochs: float | None,
            resume: str | Path | None, measured: Sequence[str] = ()) -> tuple[RunFolder, Job]:
    """The run folder and the job that these words mean; if the folder holds a run, it is this job's.
    `measured`: settings left to --autotune."""
    if resume is None:
        if not recipe:
            raise RequestError("which recipe? i2i train RECIPE, or i2i train --resume RUN; "
                               + suggest("", [*PRESETS, *names("recipe")]))
        job = prepare(recipe, assignments, data=data, epochs=epochs)
        folder = RunFolder(out) if out else folder_for(recipe, job, measured)
        return folder, same_job(folder, job, measured) if folder.config.exists() else job
    for flag, value in (("a recipe", recipe), ("--data", data), ("--out", out), ("--epochs", epochs)):
        if value:
            raise RequestError(f"--resume takes everything from the run; {flag} ({value}) cannot be given "
                               "with it")
    folder = RunFolder(resume)
    return folder, reopen_job(folder, assignments)
