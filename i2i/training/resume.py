"""Existing run folders: reopening the job of a run, and finding the run that a job continues."""

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from i2i.config import from_dict, parse_assignments, settings
from i2i.data.config import DataConfig
from i2i.data.format_detection import inspect_dataset, training_sizes
from i2i.data.pipeline import read_pipelines
from i2i.data.sources import open_source
from i2i.errors import RequestError
from i2i.images.format import ImageFormat
from i2i.recipes.base import Recipe
from i2i.registry import Spec, build, lookup, names, suggest
from i2i.registry.plugins import check_plugins
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training.config import OPERATIONAL, TrainConfig
from i2i.training.initial_weights import InitialWeights, find_initial_weights
from i2i.training.job import AnyDataset, Job, fingerprint, prepare
from i2i.training.plan import differences
from i2i.training.settings import Settings, assigned_keys, configure, initial_settings

# Settings that may change when a run is resumed, by prefix.
CHANGEABLE = {"": (), "data.": ("on_error", "max_pixels", "cache", "cache_folder"), "train.": OPERATIONAL}
EXTENDABLE = {"": ("schedule",), "data.": (), "train.": ("images", "checkpoint_every", "log_every")}
CHANGEABLE_TEXT = ", ".join(prefix + key for prefix in ("train.", "data.") for key in CHANGEABLE[prefix])


@dataclass(frozen=True)
class StartedRun:
    """The contents of a run's config.json."""

    name: str
    requested: str
    recipe: Recipe
    data: DataConfig
    train: TrainConfig
    location: str
    fingerprint: dict[str, str]
    formats: tuple[ImageFormat, ImageFormat]
    pipelines: dict[str, Any]
    time_plan: dict[str, Any]
    initial_weights: InitialWeights | None

    @property
    def sections(self) -> dict[str, Any]:
        """The settings by the prefix of their keys."""
        return {"": self.recipe, "data.": self.data, "train.": self.train}


@dataclass(frozen=True)
class Measured:
    """What a request leaves to measurements, whose results are in the run that it continues.

    Args:
        tuned: settings of `train` that --autotune chooses.
        minutes: those of --minutes.
        assigned: full keys of the settings that are not left to the clock.
    """

    tuned: Collection[str] = ()
    minutes: float | None = None
    assigned: Collection[str] = ()


def read_run(folder: RunFolder) -> StartedRun:
    """Read what a run was started with.  RequestError if its config.json is damaged or too old."""
    config = folder.read_config()
    check_plugins(config.get("plugins", []) if isinstance(config, dict) else [], folder.path, exact=True)
    try:
        name, location = config["recipe"]["name"], config["data"]["where"]
        requested = str(config["recipe"].get("requested", name))
        known = config["data"]["fingerprint"]
        recipe: Any = from_dict(cast(Any, lookup("recipe", name)), config["recipe"]["settings"])
        data = from_dict(DataConfig, config["data"]["settings"])
        train = from_dict(TrainConfig, config["train"])
        formats = ImageFormat.of(config["formats"]["a"]), ImageFormat.of(config["formats"]["b"])
        pipelines, time_plan = config["data"].get("pipelines", {}), config.get("minutes", {})
        initial_weights = InitialWeights.from_config(config["init"]) if "init" in config else None
        if (not isinstance(location, str) or "\0" in location
                or not all(isinstance(each, dict) for each in (known, pipelines, time_plan))):
            raise TypeError("data.where is no path, or data.fingerprint, data.pipelines or minutes no table")
        if time_plan and not (float(time_plan["limit"]) > 0 and isinstance(time_plan["chosen"], dict)
                              and float(time_plan["measured"]["images_per_second"]) > 0):
            raise TypeError("minutes has no limit, no speed, or no table of what was chosen")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RequestError(f"{folder.config} is not the config of a run: {str(error)[:300]}") from None
    return StartedRun(name, requested, recipe, data, train, location, known, formats, pipelines, time_plan,
                      initial_weights)


def reopen_job(folder: RunFolder, assignments: Sequence[str] = (), *, extend: bool = False) -> Job:
    """The job of a run, with operational settings changed; to `extend` it, its length and schedule too.

    RequestError if other settings or the data changed.
    """
    run = read_run(folder)
    recipe, data, train = configure(run.recipe, run.data, run.train, parse_assignments(assignments))
    for (prefix, old), new in zip(run.sections.items(), (recipe, data, train), strict=True):
        for key in settings(old):
            if getattr(old, key) == getattr(new, key) or key in CHANGEABLE[prefix]:
                continue
            if not extend or key not in EXTENDABLE[prefix]:
                raise RequestError(f"{prefix}{key} is {getattr(old, key)} in {folder.path} and cannot become "
                                   f"{getattr(new, key)} when it is resumed (may change: {CHANGEABLE_TEXT}); "
                                   + _instead(folder, run, prefix + key, (recipe, data, train)))
    source = open_source(run.location, max_pixels=data.max_pixels)
    splits = build("dataset", Spec(recipe.dataset), source, data.direction)
    _check_fingerprint(run, splits)
    summary = inspect_dataset(splits["train"], data)
    crop_size, load_size = training_sizes(data, splits["train"], summary)
    # With the formats that the networks were built for, whatever the images are now.
    summary = replace(summary, a=run.formats[0], b=run.formats[1])
    return Job(run.name, run.requested, recipe, data, train, run.location, splits, summary, crop_size,
               load_size, summary.notes, read_pipelines(data, run.pipelines), run.time_plan,
               run.initial_weights).check_pipelines()


def _instead(folder: RunFolder, run: StartedRun, key: str, new: Settings) -> str:
    """What to type for a setting that cannot change: a longer run, or a new one from the weights of this."""
    if key == "train.images" and new[2].images > run.train.images:
        return f"to go on after its end: i2i train --extend {folder.path} --images {new[2].images}"
    base = initial_settings(run.requested)[1]
    words = [word for config, default, prefix in zip(new, base, ("", "data.", "train."), strict=True)
             for word in differences(config, default, prefix)]
    line = ["i2i", "train", run.requested, "--init", str(folder.path), "--data", run.location, *words]
    return f"to begin a new run from its weights: {shlex.join(line)}"


def extend_job(folder: RunFolder, assignments: Sequence[str]) -> Job:
    """The job of a finished run with a new length, or of one that is being extended to this length.

    Networks that grow and noise that fades keep to the old length; schedules go over the new one.
    """
    old, job = read_run(folder).train, reopen_job(folder, assignments, extend=True)
    if job.train.images == old.images:
        return reopen_job(folder, assignments)
    if job.train.images < old.images:
        raise RequestError(f"{folder.path} has a length of {old.images:,} images already; --extend takes a "
                           f"larger one, such as --images {2 * old.images}")
    if not is_finished(folder, reopen_job(folder)):
        raise RequestError(f"{folder.path} is not finished, with {folder.images:,} of {old.images:,} images; "
                           f"first: i2i train --resume {folder.path}")
    growth = old.growth_images or old.images
    return replace(job, train=replace(job.train, growth_images=growth), time_plan={})


def same_job(folder: RunFolder, job: Job, measured: Measured | None = None) -> Job:
    """The job as the run in this folder continues it.

    What was chosen by measuring is taken from the run.

    Raises:
        RequestError: if the run is of another job; the message lists the differences.
    """
    run, measured = read_run(folder), measured or Measured()
    limit, minutes = run.time_plan.get("limit"), measured.minutes
    if run.name == job.name and limit is not None and limit == minutes:
        chosen = {key: value for key, value in run.time_plan["chosen"].items()
                  if key not in measured.assigned}
        job = replace(job.with_settings(chosen), time_plan=run.time_plan)
    job = replace(job, train=replace(job.train, **{key: getattr(run.train, key) for key in measured.tuned}))
    theirs, ours = [], []
    if run.name != job.name:
        theirs, ours = [run.name], [job.name]
    else:
        for (prefix, old), new in zip(run.sections.items(), (job.recipe, job.data, job.train), strict=True):
            old = replace(old, **{key: getattr(new, key) for key in CHANGEABLE[prefix]})
            theirs += differences(old, new, prefix)
            ours += differences(new, old, prefix)
    run_init, job_init = (each.initial_weights and each.initial_weights.model for each in (run, job))
    if run.location != job.location:
        theirs, ours = [*theirs, f"--data {run.location}"], [*ours, f"--data {job.location}"]
    for words, init in ((theirs, run_init), (ours, job_init)):
        words += [f"--init {init}" if init else "no --init"] if run_init != job_init else []
    if minutes != limit and (theirs or ours or minutes is not None):
        theirs, ours = ([*words, "no --minutes" if each is None else f"--minutes {each:g}"]
                        for each, words in ((limit, theirs), (minutes, ours)))
    if theirs or ours:
        raise RequestError(f"{folder.path} holds another run, with {' '.join(theirs)} instead of "
                           f"{' '.join(ours)}; accepted: the command it was started with, i2i train --resume "
                           f"{folder.path}, or another --out (may change: {CHANGEABLE_TEXT})")
    _check_fingerprint(run, job.splits)
    return replace(job, summary=replace(job.summary, a=run.formats[0], b=run.formats[1]),
                   initial_weights=run.initial_weights, pipelines=read_pipelines(job.data, run.pipelines))


def _check_fingerprint(run: StartedRun, splits: Mapping[str, AnyDataset]) -> None:
    current = fingerprint(splits)
    if current != run.fingerprint:
        raise RequestError(f"the images in {run.location} are not those the run was started with "
                           f"(were {run.fingerprint}, are {current}); restore them to resume")


def is_finished(folder: RunFolder, job: Job) -> bool:
    """Whether the run is complete and intact, and there is nothing that a killed process left."""
    last = folder.state(_last_images(folder, job.train))
    try:
        checkpoint.load(last, "state")
        checkpoint.load(folder.model, "model")
    except RequestError:        # Resuming repairs it.
        return False
    states = folder.states()
    return (folder.verdict.exists() and states[-1] == last and len(states) <= job.train.keep_checkpoints
            and not folder.partial_files())


def _last_images(folder: RunFolder, train: TrainConfig) -> int:
    """The images of a run's last state: those of its length, or at which it has ended early."""
    length = train.steps * train.batch_size
    if train.stop_when == "never":
        return length
    try:
        return int(json.loads(folder.verdict.read_bytes())["ended"]["images"])
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return length


def folder_for(name: str, job: Job, measured: Measured | None = None) -> RunFolder:
    """The newest of runs/NAME, runs/NAME-2 … with this job unfinished and not in use, else a new one."""
    path, existing = Path("runs") / name, list[RunFolder]()
    while path.exists():
        existing.append(RunFolder(path))
        path = Path("runs") / f"{name}-{len(existing) + 1}"
    for folder in reversed(existing):
        try:
            train = same_job(folder, job, measured).train
        except RequestError:
            continue
        final_state = folder.state(_last_images(folder, train))
        if not (folder.verdict.exists() and final_state.exists()) and not folder.is_locked():
            return folder
    return RunFolder(path)


def resolve_job(recipe: str, assignments: Sequence[str], *, tuned: Collection[str] = (),
                data: str | Path | None, out: str | Path | None, epochs: float | None,
                minutes: float | None = None, resume: str | Path | None,
                init: str | Path | None = None,
                extend: str | Path | None = None) -> tuple[RunFolder, Job]:
    """The run folder and the job that the arguments of `train` mean, checked against a run in the folder."""
    if resume is None and extend is None:
        if not recipe:
            raise RequestError("which recipe? i2i train RECIPE, or i2i train --resume RUN; "
                               + suggest("", [*names("preset"), *names("recipe")]))
        assigned = assigned_keys(recipe, assignments)
        if minutes is not None and (epochs is not None or "train.images" in assigned):
            other = "train.images" if epochs is None else "--epochs"
            raise RequestError(f"--minutes and {other} both say how long to train; give one of them")
        measured = Measured(tuned, minutes, assigned)
        job = prepare(recipe, assignments, data=data, epochs=epochs, init=init)
        folder = RunFolder(out) if out else folder_for(recipe, job, measured)
        if folder.config.exists():
            return folder, same_job(folder, job, measured)
        if weights := job.initial_weights:
            job = replace(job, initial_weights=find_initial_weights(weights.model))
        return folder, job
    option = "--resume" if extend is None else "--extend"
    for flag, value in (("a recipe", recipe), ("--data", data), ("--out", out), ("--epochs", epochs),
                        ("--minutes", minutes), ("--init", init), ("--resume", extend and resume)):
        if value:
            raise RequestError(f"{option} takes everything from the run; {flag} ({value}) cannot be given")
    if extend is None:
        folder = RunFolder(cast(Path, resume))
        return folder, reopen_job(folder, assignments)
    folder = RunFolder(extend)
    return folder, extend_job(folder, assignments)
