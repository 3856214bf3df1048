"""A training job: from a request in words to a run folder.  Rooms meet here; nothing below imports it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

import i2i
from i2i import plan, recipes  # noqa: F401 - importing recipes registers them.
from i2i.data.datasets import DataConfig, Facts, Pairs, look, training_sizes, with_channels
from i2i.data.files import Unreadable, bundled, open_source
from i2i.data.stream import batches, training
from i2i.data.transforms import fit
from i2i.data.unpaired import Sides, apart
from i2i.engine.config import OPERATIONAL, TrainConfig
from i2i.engine.runtime import Runtime
from i2i.engine.train import Observer, Trainer
from i2i.errors import RequestError
from i2i.images import Kind, to_tensor
from i2i.infer import header_for
from i2i.recipes.base import DataInfo, Recipe
from i2i.runs import log
from i2i.runs.folder import RunFolder, write_atomically
from i2i.spec import Spec, build, from_dict, lookup, names, nearest, override, settings, split, to_dict
from i2i.watch import METRIC, Watch, conclude

DEFAULT_DATA = {"pix2pix": "openmoji-64", "cyclegan": "noto-twemoji-64"}
Splits = Mapping[str, Pairs | Sides]
DEFAULT_EPOCHS = 200        # Isola et al. 2017, section 6.2: facades; and the reference implementation's 100 + 100.
SAMPLES = 12                # Pictures in a sample grid.


@dataclass(frozen=True)
class Job:
    """Everything that decides a run."""

    name: str
    recipe: Recipe
    data: DataConfig
    train: TrainConfig
    where: str
    splits: Splits
    facts: Facts
    crop: tuple[int, int]
    load: tuple[int, int]

    @property
    def info(self) -> DataInfo:
        """What the networks have to know of the data."""
        return DataInfo(self.crop, self.kinds[0].channels, self.kinds[1].channels)

    @property
    def kinds(self) -> tuple[Kind, Kind]:
        """Kinds of source and target images."""
        return self.facts.a, self.facts.b

    @property
    def shown(self) -> Pairs | Sides:
        """The split that sample grids are made of: validation, else test, else training images."""
        split = next(self.splits[name] for name in ("val", "test", "train") if name in self.splits)
        return apart(split) if isinstance(self.splits["train"], Sides) else split

    def held_out(self, name: str) -> Pairs | None:
        """A split whose images can be compared, if it is there: pairs of one size."""
        split = self.splits.get(name)
        try:
            return split if isinstance(split, Pairs) and look(split, on_error="skip") else None
        except RequestError:
            return None

    def header(self) -> dict[str, Any]:
        """What the model file says of itself."""
        return header_for(self.name, to_dict(self.recipe), self.info, self.kinds,
                          i2i=i2i.__version__, direction=self.data.direction, data=self.where)

    def config(self) -> dict[str, Any]:
        """config.json."""
        return {
            "i2i": i2i.__version__, "recipe": {"name": self.name, "settings": to_dict(self.recipe)},
            "data": {"where": self.where, "settings": to_dict(self.data), "fingerprint": fingerprint(self.splits)},
            "train": to_dict(self.train),
            "sizes": {"crop": list(self.crop), "load": list(self.load)}, "channels": [kind.channels for kind in self.kinds],
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "pillow": PIL.__version__}}


def fingerprint(splits: Splits) -> dict[str, str]:
    """What must stay the same for a run to be continued."""
    return {name: f"{split.counted}, {split.fingerprint()}" for name, split in splits.items()}


# ---------------------------------------------------------------------------------------------- from words to a job

def prepare(recipe_name: str, assignments: Sequence[str] = (), *, data: str | Path | None = None, epochs: float | None = None) -> Job:
    """A job from a recipe's name and KEY=VALUE words; everything that can be wrong is found here.  RequestError says what."""
    make = lookup("recipe", recipe_name)
    recipe, data_config, train_config = configure(make(), DataConfig(), TrainConfig(), split(assignments))
    check_pieces(recipe)
    if data is None:
        data = DEFAULT_DATA[recipe_name]
    where = str(data) if str(data).partition("/")[0] in bundled() and not Path(data).exists() else str(Path(data).absolute())
    splits = build("dataset", Spec(recipe.dataset), open_source(data), data_config.direction)
    if "train" not in splits:
        raise RequestError(f"{data} has {' and '.join(splits)} images but none to train on; accepted: train/ or trainA/ and trainB/")
    if epochs is not None and train_config.images:
        raise RequestError("--epochs and train.images both say how long to train; give one of them")
    if not train_config.images:
        if epochs is not None and epochs <= 0:
            raise RequestError(f"--epochs {epochs:g} cannot be used; accepted: more than 0")
        train_config = replace(train_config, images=round((epochs or DEFAULT_EPOCHS) * len(splits["train"])) or 1)
    facts = look(splits["train"], on_error=data_config.on_error)
    crop, load = training_sizes(data_config, facts)
    return Job(recipe_name, recipe, data_config, train_config, where, splits, facts, crop, load)


def configure(recipe: Recipe, data: DataConfig, train: TrainConfig, pairs: Sequence[tuple[str, str]]) -> tuple[Recipe, DataConfig, TrainConfig]:
    """Each KEY=VALUE goes to the recipe, to `data.` or to `train.`; the prefix may be left out where only one of them knows the key."""
    rooms: dict[str, Any] = {"": recipe, "data.": data, "train.": train}
    every = [prefix + key for prefix, config in rooms.items() for key in settings(config)]
    sorted_out: dict[str, list[tuple[str, str]]] = {prefix: [] for prefix in rooms}
    for key, text in pairs:
        head = key.split(".")[0]
        prefix = f"{head}." if f"{head}." in rooms and "." in key else ""
        rest = key[len(prefix):]
        if not prefix and head not in settings(recipe):
            prefix = next((p for p in ("data.", "train.") if head in settings(rooms[p])), "")
        if rest.split(".")[0] not in settings(rooms[prefix]):
            raise RequestError(f"no setting {key!r}; {nearest(key, every)}")
        sorted_out[prefix].append((rest, text))
    out = [override(config, sorted_out[prefix], prefix) for prefix, config in rooms.items()]
    return out[0], out[1], out[2]


def check_pieces(recipe: Recipe) -> None:
    """Try every piece but the networks, which need the data's size, so that a wrong option is found before any data is read."""
    for name, field in settings(recipe).items():
        kind = field.metadata.get("kind")
        if kind and kind not in ("generator", "discriminator"):
            supplied = [[torch.nn.Parameter(torch.zeros(1))]] if kind == "optimiser" else []
            build(kind, getattr(recipe, name), *supplied)


def reopen(folder: RunFolder, assignments: Sequence[str] = ()) -> Job:
    """The job of an existing run; only operational settings may be given anew.  RequestError names what differs."""
    config = folder.read_config()
    try:
        recipe = from_dict(lookup("recipe", config["recipe"]["name"]), config["recipe"]["settings"])  # type: ignore[arg-type]
        data, train = from_dict(DataConfig, config["data"]["settings"]), from_dict(TrainConfig, config["train"])
        name, where, known = config["recipe"]["name"], config["data"]["where"], config["data"]["fingerprint"]
    except (KeyError, TypeError) as error:
        raise RequestError(f"{folder.config} is not the config of a run: {error}") from None
    new = configure(recipe, data, train, split(assignments))
    for prefix, old, changed in zip(("", "data.", "train."), (recipe, data, train), new, strict=True):
        for key in settings(old):
            if getattr(old, key) != getattr(changed, key) and key not in (*OPERATIONAL, "on_error"):
                raise RequestError(f"{prefix}{key} is {getattr(old, key)} in {folder.path} and cannot become {getattr(changed, key)} "
                                   f"when it is resumed; free to change: {', '.join('train.' + word for word in OPERATIONAL)}, data.on_error")
    splits = build("dataset", Spec(new[0].dataset), open_source(where), new[1].direction)
    if fingerprint(splits) != known:
        raise RequestError(f"the images in {where} are not those the run was started with "
                           f"(were {known}, are {fingerprint(splits)}); put them back to resume")
    facts = look(splits["train"], on_error=new[1].on_error)
    crop, load = training_sizes(new[1], facts)
    return Job(name, new[0], new[1], new[2], where, splits, facts, crop, load)


def next_folder(name: str) -> Path:
    """runs/NAME, or the first runs/NAME-2, -3 … that is free."""
    count = 1
    while (path := Path("runs") / (name if count == 1 else f"{name}-{count}")).exists():
        count += 1
    return path


# ---------------------------------------------------------------------------------------------- running

def describe(job: Job) -> list[str]:
    """The whole plan as lines: data, networks, settings, steps, memory.  Raises RequestError where a network does not fit."""
    parts, estimate = plan.inspect(job.recipe, job.info, batch=job.train.batch, averages=bool(job.train.ema_half_life))
    height, width = job.crop
    counts = ", ".join(f"{split.counted} {name}" if isinstance(split, Sides) else f"{len(split):,} {name}" for name, split in job.splits.items())
    judged = "L1, PSNR, SSIM of the val pairs" if job.held_out("val") else "not while training: there are no val pairs"
    steps, train = job.train.steps, job.train
    recipe = {name: getattr(job.recipe, name) for name in settings(job.recipe)}
    return [
        f"recipe {job.name}", *plan.as_lines(recipe),
        f"data {job.where}", *plan.as_lines({
            "layout": f"{job.splits['train'].layout}: {counts}", "direction": f"{job.data.direction[0].upper()} -> {job.data.direction[1].upper()}",
            "channels": f"{job.kinds[0].channels} -> {job.kinds[1].channels}",
            "pictures": f"{job.facts.width}x{job.facts.height}, loaded at {job.load[1]}x{job.load[0]}, cropped to {width}x{height}"
                        + (", mirrored half of the time" if job.data.flip else "")}),
        "networks", *plan.table(parts),
        "training", *plan.as_lines({
            "length": f"{train.images:,} images = {steps:,} steps of {train.batch} ({train.images / len(job.splits['train']):.4g} epochs)",
            "files": f"sample grid, checkpoint and model every {train.tick:,} images, log every {train.log:,}",
            "average": f"half-life {train.ema_half_life:,} images" if train.ema_half_life else "none",
            "judged": judged,
            "precision": train.precision, "seed": train.seed,
            "memory": f"about {plan.size_in_words(estimate.total)} beside torch itself: weights, averages and moments "
                      f"{plan.size_in_words(estimate.weights)}, gradients {plan.size_in_words(estimate.gradients)}, "
                      f"activations {plan.size_in_words(estimate.activations)}",
            "disk": f"about {plan.size_in_words(estimate.weights * (train.keep + 1))}"})]


def samples(job: Job) -> dict[str, Tensor]:
    """The same pictures for every grid, at the training size."""
    rows: list[tuple[Tensor, Tensor]] = []
    for index in np.unique(np.linspace(0, len(job.shown) - 1, SAMPLES).astype(int)):
        try:
            a, b = with_channels(job.shown[int(index)], job.kinds)
        except Unreadable as error:
            if job.data.on_error == "stop":
                raise RequestError(str(error)) from None
            continue
        rows.append((to_tensor(fit(a, job.crop)), to_tensor(fit(b, job.crop))))
    if not rows:
        raise RequestError(f"none of the {len(job.shown)} images in {job.shown.split} that were tried can be read")
    return {"a": torch.stack([a for a, _ in rows]), "b": torch.stack([b for _, b in rows])}


def execute(job: Job, folder: RunFolder, *, resume: bool, device: str = "auto", observer: Observer | None = None) -> int:
    """Run or continue a job in its folder.  -> 0, or the signal that interrupted it after everything was saved"""
    runtime = Runtime(precision=job.train.precision, device=device)
    plan.inspect(job.recipe, job.info, batch=1, averages=False)     # A network that does not fit is refused before anything is written.
    sample = samples(job)
    folder = RunFolder(runtime.first(str(folder.path)))     # Each process may have found another folder to be free.
    if not resume and runtime.leads:
        folder.create(job.config())
    runtime.barrier()
    if runtime.leads:
        folder.lock()
    watch = watching(job, runtime)
    trainer = Trainer(job.recipe, job.info, job.train, runtime, folder, job.header(), observer, watch, METRIC)
    trainer.restore()
    dataset = training(job.splits["train"], job.crop, job.load, job.kinds, flip=job.data.flip, seed=job.train.seed, on_error=job.data.on_error)

    def from_position(start: int) -> Iterator[Mapping[str, Tensor]]:
        return batches(dataset, seed=job.train.seed, start=start, batch=job.train.batch, rank=runtime.rank, world=runtime.world,
                       workers=job.train.workers, pin=runtime.device.type == "cuda")

    try:
        interrupted = trainer.run(from_position, sample)
        if not interrupted and runtime.leads and watch:
            conclude_run(job, folder, watch, trainer)
        return interrupted
    finally:
        folder.unlock()


def watching(job: Job, runtime: Runtime) -> Watch | None:
    """Who judges the run on its validation pairs; nobody where there are none."""
    held_out = job.held_out("val")
    if held_out is None:
        return None
    return Watch(job.recipe, job.splits["train"], held_out, job.kinds, job.crop, runtime.device)


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


def request(recipe: str, assignments: Sequence[str], *, data: str | Path | None, out: str | Path | None, epochs: float | None,
            resume: str | Path | None) -> tuple[RunFolder, Job]:
    """The run folder and the job that these words mean."""
    if resume is None:
        if not recipe:
            raise RequestError("which recipe? i2i train RECIPE, or i2i train --resume RUN; " + nearest("", names("recipe")))
        job = prepare(recipe, assignments, data=data, epochs=epochs)
        return RunFolder(out or next_folder(recipe)), job
    for flag, value in (("a recipe", recipe), ("--data", data), ("--out", out), ("--epochs", epochs)):
        if value:
            raise RequestError(f"--resume takes everything from the run; {flag} ({value}) cannot be given with it")
    folder = RunFolder(resume)
    return folder, reopen(folder, assignments)

