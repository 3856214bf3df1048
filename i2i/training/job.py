"""A training job: from a request in words to a run folder.  Rooms meet here; nothing below imports it."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

import i2i
from i2i import recipes  # noqa: F401 - importing recipes registers them.
from i2i.config import MAX_INTEGER, fields, override, parse_assignments, to_dict
from i2i.data.config import DataConfig
from i2i.data.format_detection import DatasetSummary, inspect_dataset, training_sizes
from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset
from i2i.data.sources import Unreadable, bundled_datasets, is_url, open_source
from i2i.data.unpaired import UnpairedDataset, unpair
from i2i.errors import RequestError
from i2i.images.formats import ImageFormat
from i2i.inference.model import model_header
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.presets import PRESETS, Preset
from i2i.registry import Spec, build, lookup, names, schema, suggest
from i2i.training import (
    memory,
    optimizers,  # noqa: F401 - registers them.
    schedules,  # noqa: F401 - registers them.
)
from i2i.training.config import TrainConfig

# By kind of data set.
DEFAULT_DATA = {"paired": "openmoji-64", "unpaired": "noto-twemoji-64", "images": "fluent3d-64"}
Splits = Mapping[str, PairedDataset | UnpairedDataset | ImageDataset]
INSPECTED = 16                 # Held-out pairs of which one must be of the kinds that are learned.
# Isola et al. 2017, section 6.2: facades; and the reference implementation's 100 + 100.
DEFAULT_EPOCHS = 200


@dataclass(frozen=True)
class Job:
    """Everything that decides a run."""

    name: str
    recipe: Recipe
    data: DataConfig
    train: TrainConfig
    where: str
    splits: Splits
    summary: DatasetSummary
    crop: tuple[int, int]
    load: tuple[int, int]

    @property
    def info(self) -> DataInfo:
        """What the networks have to know of the data."""
        return DataInfo(self.crop, self.kinds[0].channels, self.kinds[1].channels, len(self.classes))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the recipe tells apart."""
        split = self.splits["train"]
        return split.classes if isinstance(split, ImageDataset) and "c" in self.recipe.needs else ()

    @property
    def kinds(self) -> tuple[ImageFormat, ImageFormat]:
        """Kinds of source and target images."""
        return self.summary.a, self.summary.b

    @property
    def shown(self) -> PairedDataset | UnpairedDataset | ImageDataset:
        """The split that sample grids are made of: validation, else test, else training images."""
        split = next(self.splits[name] for name in ("val", "test", "train") if name in self.splits)
        return unpair(split) if isinstance(self.splits["train"], UnpairedDataset) and not isinstance(split,
                                                                                                     ImageDataset) else split

    def held_out(self, name: str) -> PairedDataset | None:
        """A split whose images can be compared, if it is there: pairs of the kinds that are learned."""
        split = self.splits.get(name)
        if not isinstance(split, PairedDataset):
            return None
        try:
            inspect_dataset(split, replace(self.data, on_error="skip"))
            return split if any(self._readable(split, index)
                                for index in range(min(INSPECTED, len(split)))) else None
        except RequestError:
            return None

    @property
    def pictured(self) -> ImageDataset | None:
        """Of images from noise, the split that they are judged by: one that is held out, else what is learned
        from."""
        splits = [split for name in ("val", "test", "train")
                  if isinstance(split := self.splits.get(name), ImageDataset)]
        return splits[0] if splits and isinstance(self.splits["train"], ImageDataset) else None

    @property
    def judged(self) -> str:
        """By what, in words."""
        if self.pictured:
            which = "of training pictures, as none are held out" if self.pictured.split == "train" else f"of the {self.pictured.split} pictures"
            return f"KID (Fréchet distance, precision and recall beside it) {which}"
        return "L1, PSNR, SSIM of the val pairs" if self.held_out("val") else "not while training: there are no val pairs"

    def _readable(self, split: PairedDataset, index: int) -> bool:
        try:
            return bool(split.for_evaluation(self.kinds).sample(index))
        except Unreadable:
            return False

    def header(self) -> dict[str, Any]:
        """What the model file says of itself."""
        return model_header(self.name, to_dict(self.recipe), self.info, self.kinds,
                          i2i=i2i.__version__, direction=self.data.direction, data=self.where,
                            classes=list(self.classes))

    def config(self) -> dict[str, Any]:
        """config.json."""
        return {
            "i2i": i2i.__version__, "recipe": {"name": self.name, "settings": to_dict(self.recipe)},
            "data": {"where": self.where, "settings": to_dict(self.data),
                     "fingerprint": fingerprint(self.splits)},
            "train": to_dict(self.train),
            "sizes": {"crop": list(self.crop), "load": list(self.load)}, "kinds": self.header()["kinds"],
            "versions": {"python": platform.python_version(), "torch": torch.__version__,
                         "numpy": np.__version__, "pillow": PIL.__version__}}


def fingerprint(splits: Splits) -> dict[str, str]:
    """What must stay the same for a run to be continued."""
    return {name: f"{split.description}, {split.fingerprint()}" for name, split in splits.items()}


# ---------------------------------------------------------------------------------------------- from words
# to a job

def prepare(recipe_name: str, assignments: Sequence[str] = (), *, data: str | Path | None = None,
            epochs: float | None = None) -> Job:
    """A job from a recipe's name and KEY=VALUE words; everything that can be wrong is found here.
    RequestError says what."""
    recipe_name, words = recipe_or_preset(recipe_name)
    recipe, data_config, train_config = lookup("recipe", recipe_name)(), DataConfig(), TrainConfig()
    # A preset's first, whole, so that what a person says comes on top of it.
    for each in (words, assignments):
        recipe, data_config, train_config = configure(recipe, data_config, train_config,
                                                      parse_assignments(each))
    check_components(recipe)
    if data is None:
        data = DEFAULT_DATA[recipe.dataset]
    ours = str(data).partition("/")[0] in bundled_datasets() and not Path(data).exists()
    where = str(data) if ours or is_url(data) else str(Path(data).absolute())
    splits = build("dataset", Spec(recipe.dataset), open_source(data),
                   data_config.direction)
    if "train" not in splits:
        raise RequestError(f"{data} has {' and '.join(splits)} images but none to train on; accepted: train/ "
                           "or trainA/ and trainB/")
    if "c" in recipe.needs and not getattr(splits["train"], "classes", ()):
        raise RequestError(f"{data} has no labels, which {recipe_name} with conditional=true learns from; "
                           "accepted: a folder for each class, "
                           "or labels in dataset.json")
    if epochs is not None and train_config.images:
        raise RequestError("--epochs and train.images both say how long to train; give one of them")
    if not train_config.images:
        if epochs is not None and not 0 < epochs * len(splits["train"]) <= MAX_INTEGER:
            raise RequestError(f"--epochs {epochs:g} cannot be used; accepted: more than 0, and up to 2^53 "
                               "images")
        train_config = replace(train_config,
                               images=round((epochs or DEFAULT_EPOCHS) * len(splits["train"])) or 1)
    summary = inspect_dataset(splits["train"], data_config)
    crop, load = training_sizes(data_config, splits["train"], summary)
    return Job(recipe_name, recipe, data_config, train_config, where, splits, summary, crop, load)


def recipe_or_preset(name: str) -> tuple[str, tuple[str, ...]]:
    """The recipe that a name stands for, and the settings that go with it.  RequestError for other words."""
    if name in PRESETS:
        return PRESETS[name].recipe, PRESETS[name].words
    if name not in names("recipe"):
        raise RequestError(f"no recipe or preset is called {name!r}; "
                           f"{suggest(name, [*PRESETS, *names('recipe')])}")
    return name, ()


def configure(recipe: Recipe, data: DataConfig, train: TrainConfig,
              pairs: Sequence[tuple[str, str]]) -> tuple[Recipe, DataConfig, TrainConfig]:
    """Each KEY=VALUE goes to the recipe, to `data.` or to `train.`; the prefix may be left out where only one
    of them knows the key."""
    rooms: dict[str, Any] = {"": recipe, "data.": data, "train.": train}
    known = {prefix: [prefix + key for key in fields(config)] for prefix, config in rooms.items()}
    sorted_out: dict[str, list[tuple[str, str]]] = {prefix: [] for prefix in rooms}
    for key, text in pairs:
        head = key.split(".")[0]
        prefix = f"{head}." if f"{head}." in rooms and "." in key else ""
        rest = key[len(prefix):]
        if not prefix and head not in fields(recipe):
            prefix = next((p for p in ("data.", "train.") if head in fields(rooms[p])), "")
        if rest.split(".")[0] not in fields(rooms[prefix]):
            others = [] if prefix else ["and those of data. and train. (i2i list)"]
            every = [key for keys in known.values() for key in keys]
            raise RequestError(f"no setting {key!r}; {suggest(key, every, [*known[prefix], *others])}")
        sorted_out[prefix].append((rest, text))
    out = [override(config, sorted_out[prefix], prefix) for prefix, config in rooms.items()]
    return out[0], out[1], out[2]


def check_components(recipe: Recipe) -> None:
    """Try every piece but the networks, which need the data's size, so that a wrong option is found before
    any data is read."""
    for name, field in fields(recipe).items():
        kind = field.metadata.get("kind")
        if kind and kind not in ("generator", "noise_generator", "discriminator", "latent"):
            layer = torch.nn.Linear(1, 1)
            supplied: dict[str, Any] = {"optimizer": layer.parameters(), "weight_norm": layer,
                                        "unrolling": layer}
            build(kind, getattr(recipe, name), *([supplied[kind]] if kind in supplied else []))


# ---------------------------------------------------------------------------------------------- and back to
# words

def settings_dict(value: Any) -> str:
    """A setting as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(settings_dict, value)) if isinstance(value, tuple | list) else str(value)


def differences(config: Any, base: Any, prefix: str = "") -> list[str]:
    """The KEY=VALUE words that make `config` of `base`."""
    words = []
    for key, field in fields(config).items():
        new, old = getattr(config, key), getattr(base, key)
        if new == old:
            continue
        if not isinstance(new, Spec):
            words.append(f"{prefix}{key}={settings_dict(new)}")
            continue
        options = dict(old.options) if new.name == old.name else {}
        words += [f"{prefix}{key}={new.name}"] if new.name != old.name else []
        defaults = {option: parameter.default for option,
                    parameter in schema(field.metadata["kind"], new.name).items()}
        wanted = {**{option: defaults[option] for option in options}, **new.options}
        words += [f"{prefix}{key}.{option}={settings_dict(value)}" for option,
                  value in wanted.items() if options.get(option, defaults[option]) != value]
    return words


def command(job: Job, changes: Sequence[str] = ()) -> str | None:
    """The `i2i train` line for this job with these changes, by the name that says most of it; None if they
    change nothing or are refused."""
    try:
        recipe, data, train = configure(job.recipe, job.data, job.train, parse_assignments(changes))
        if changes and (recipe, data, train) == (job.recipe, job.data, job.train):
            return None
        check_components(recipe)
        memory.estimate_memory(recipe, job.info, batch=train.batch_size, averages=False)
    except RequestError:
        return None
    named = {job.name: Preset(job.name, (), "")} | {name: preset for name,
                                                    preset in PRESETS.items() if preset.recipe == job.name}
    def words(name: str, wanted: tuple[Any, Any, Any]) -> list[str]:
        plain = configure(lookup("recipe", named[name].recipe)(), DataConfig(), TrainConfig(),
                          parse_assignments(named[name].words))
        return [word for one, other,
                prefix in zip(wanted, plain, ("", "data.", "train."), strict=True)
                for word in differences(one, other, prefix)]

    name = min(named, key=lambda name: len(words(name, (job.recipe, job.data, job.train))))
    where = [] if job.where == DEFAULT_DATA[job.recipe.dataset] else ["--data", job.where]
    return shlex.join(["i2i", "train", name, *where, *words(name, (recipe, data, train))])


# ---------------------------------------------------------------------------------------------- running

def memory_estimate(job: Job, world_size: int = 1) -> memory.MemoryEstimate:
    """The memory that one of `world` processes takes.  RequestError from a network that does not fit."""
    return memory.estimate_memory(job.recipe, job.info, batch=max(1, job.train.batch_size // world_size),
                                  **_memory_hints(job))[1]


def _memory_hints(job: Job) -> dict[str, Any]:
    # Where the copy takes the memory that training takes.
    held = job.train.async_writes and not torch.cuda.is_available()
    return {"averages": bool(job.train.ema_half_life), "again": job.train.gradient_checkpointing,
            "held": held}


def out_of_memory_message(job: Job, world_size: int, room: int) -> str:
    """What to say, in one line, where a step did not fit into so many bytes."""
    estimate, batch = memory_estimate(job, world_size), job.train.batch_size
    most = memory.largest_batch(job.recipe, job.info, room, batch // world_size,
                                **_memory_hints(job)) * world_size
    told = (f"out of memory: a step of {batch // world_size} "
            f"images{' in each process' if world_size > 1 else ''} takes about "
            f"{memory.format_bytes(estimate.total)} beside torch itself, and there were "
            f"{memory.format_bytes(room)}; ")
    again = "" if job.train.gradient_checkpointing else ", or train.gradient_checkpointing=true"
    if most >= 1:
        return told + f"the largest batch that would fit is about train.batch_size={most}{again}"
    return told + f"no smaller batch would fit: a smaller generator.width or data.size is needed{again}"


def describe(job: Job) -> list[str]:
    """The whole plan as lines: data, networks, settings, steps, memory.  Raises RequestError where a network
    does not fit."""
    parts, estimate = memory.estimate_memory(job.recipe, job.info, batch=job.train.batch_size,
                                             **_memory_hints(job))
    height, width = job.crop
    counts = ", ".join(f"{len(split):,} {name}" if isinstance(split, PairedDataset)
                       else f"{split.description} {name}" for name, split in job.splits.items())
    judged = job.judged
    sided = {"direction": f"{job.data.direction[0].upper()} -> {job.data.direction[1].upper()}",
             "kinds": f"{job.kinds[0]} -> {job.kinds[1]}"} if job.recipe.sources else {"kind": job.kinds[1]}
    notes = {"notes": "; ".join(job.summary.notes)} if job.summary.notes else {}
    labels = {"classes": ", ".join(job.classes)} if job.classes else {}
    steps, train = job.train.steps, job.train
    recipe = {name: getattr(job.recipe, name) for name in fields(job.recipe)}
    return [
        f"recipe {job.name}", *memory.format_table(recipe),
        f"data {job.where}", *memory.format_table({
            "layout": f"{job.splits['train'].layout}: {counts}", **sided, **labels,
            "pictures": f"{job.summary.width}x{job.summary.height}, loaded at {job.load[1]}x{job.load[0]}, "
                        f"cropped to {width}x{height}"
                        + (", mirrored half of the time" if job.data.flip else ""), **notes}),
        "networks", *memory.table(parts),
        "training", *memory.format_table({
            "length": f"{train.images:,} images = {steps:,} steps of {train.batch_size} "
                      f"({train.images / len(job.splits['train']):.4g} epochs)",
            "files": f"sample grid, checkpoint and model every {train.checkpoint_every:,} images, log every "
                     f"{train.log_every:,}",
            "average": f"half-life {train.ema_half_life:,} images" if train.ema_half_life else "none",
            "judged": judged,
            "precision": train.precision, "seed": train.seed,
            "memory": f"about {memory.format_bytes(estimate.total)} beside torch itself: weights, averages "
                      "and moments "
                      f"{memory.format_bytes(estimate.weights)}, activations and gradients "
                      f"{memory.format_bytes(estimate.working)}"
                      + (", the generators' computed again" if train.gradient_checkpointing else "")
                      + (", in fp32; bf16 takes less" if train.precision == "bf16" else ""),
            "several": f"gradients of {memory.format_bytes(estimate.sent)} go from each process to the "
                       "others in a step",
            "disk": f"about {memory.format_bytes(estimate.weights * (train.keep_checkpoints + 1))}"})]
