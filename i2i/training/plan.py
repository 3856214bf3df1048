"""What a job would do, as text: the plan of a dry run, the memory it takes, its command line."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import psutil
import torch
from torch import nn

from i2i.config import from_dict, parse_assignments, settings, to_dict
from i2i.data.config import DataConfig
from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset
from i2i.errors import RequestError
from i2i.inference.model_file import find_model
from i2i.recipes.base import Recipe
from i2i.recipes.meta_device import build_on_meta
from i2i.recipes.presets import PRESETS, Preset
from i2i.registry import Spec, build, lookup, schema
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress
from i2i.training import memory
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.freezing import describe_frozen
from i2i.training.initial_weights import Match, match_weights
from i2i.training.job import DEFAULT_DATA, Job
from i2i.training.settings import NEED_SIZES, Settings, check_components, configure

MAX_OVERCOMMIT = 4          # Jobs estimated to take this many times the available memory are refused.


def describe(job: Job) -> dict[str, Any]:
    """The whole plan.  RequestError if it is impossible.

    Returns:
        "recipe", "data" and "train": settings, as in config.json; "steps"; "parameters": by network;
        "memory": bytes; "lines": all of it, and more, for reading.
    """
    parts, estimate = memory.estimate_memory(job.recipe, job.info, batch_size=job.train.batch_size,
                                             **_memory_options(job))
    networks = {part.name: f"{part.parameters:>12,} parameters   {part.shapes}" for part in parts}
    height, width = job.crop_size
    of_pairs = isinstance(job.splits["train"], PairedDataset)
    counts = ", ".join(f"{len(split):,} {name}" if of_pairs else f"{split.description} {name}"
                       for name, split in job.splits.items())
    a, b = job.formats
    data = {"layout": f"{job.splits['train'].layout}: {counts}"}
    data |= {"direction": f"{job.data.direction[0].upper()} -> {job.data.direction[1].upper()}",
             "kinds": f"{a} -> {b}"} if job.recipe.sources else {"kind": str(b)}
    data |= {"classes": ", ".join(job.classes)} if job.classes else {}
    data["images"] = (f"{job.summary.width}x{job.summary.height}, "
                      f"loaded at {job.load_size[1]}x{job.load_size[0]}, cropped to {width}x{height}"
                      + (", half of them mirrored" if job.data.flip else ""))
    if job.pipelines:
        data["augmented"] = ", ".join(f"data.{name}={getattr(job.data, name)}" for name in job.pipelines)
    data |= {"notes": "; ".join(job.notes)} if job.notes else {}
    lines = [f"recipe {job.name}",
             *format_table({name: getattr(job.recipe, name) for name in settings(job.recipe)}),
             f"data {job.location}", *format_table(data), "networks", *format_table(networks),
             "training", *format_table(_describe_training(job, estimate)), *describe_start(job)]
    return {"lines": lines, "recipe": {"name": job.name, "settings": to_dict(job.recipe)},
            "data": {"where": job.location, "settings": to_dict(job.data)}, "train": to_dict(job.train),
            "steps": job.train.steps,
            "parameters": {part.name: part.parameters for part in parts},
            "memory": {"total": estimate.total, **asdict(estimate)}}


def describe_start(job: Job) -> list[str]:
    """What a run takes from another model and what it does not, and what it freezes.

    RequestError if nothing of the model fits.
    """
    weights, patterns = job.initial_weights, job.train.freeze
    modules = build_on_meta(job.recipe, job.info) if weights or patterns else nn.ModuleDict()
    try:
        match = match_weights(weights, job.recipe, modules) if weights else Match()
    except RequestError as error:
        raise RequestError(f"{error}{_networks_of(weights.model if weights else '', job)}") from None
    frozen = describe_frozen(job.recipe, modules, patterns, match.sources) if patterns else ""
    return [*match.lines, *([f"frozen: {frozen}"] if frozen else [])]


def _networks_of(model: str, job: Job) -> str:
    """The settings with which this job would have the networks of a model; empty if that is unknown."""
    recipe: Any = job.recipe
    try:
        header = checkpoint.read_header(find_model(model), "model")["recipe"]
        theirs = from_dict(type(recipe), header["settings"]) if header["name"] == job.name else recipe
    except (KeyError, TypeError, AttributeError, ValueError):
        return ""
    kinds = {key: option.kind for key, option in settings(recipe).items()}
    words = [word for word in differences(theirs, recipe)
             if kinds[word.partition("=")[0].partition(".")[0]] in NEED_SIZES]
    return f"; it was trained with {' '.join(words)}" if words else ""


def describe_extension(job: Job, recipe: Recipe, train: TrainConfig, images: int) -> str:
    """What the schedule does in a job that goes on, after so many images, where a shorter run has ended."""
    batch = train.batch_size

    def factor(recipe: Recipe, train: TrainConfig, images: int) -> float:
        schedule = build("schedule", next(iter(recipe.players.values())).schedule)
        return float(schedule(Progress(images // batch, batch, train.steps * batch)))

    before, after = factor(recipe, train, images - batch), factor(job.recipe, job.train, images)
    name = next(iter(job.recipe.players.values())).schedule.name
    rates = "the learning rates stay" if before == after else (
        f"the learning rates had come to {before:.1%} of their base and go on at {after:.1%}")
    return f"extended from {train.images:,} images; schedule {name} over all {job.train.images:,}: {rates}"


def format_table(rows: Mapping[str, Any]) -> list[str]:
    """Names and values as aligned lines."""
    width = max(map(len, rows))
    return [f"  {name:<{width}}  {value}" for name, value in rows.items()]


def _describe_training(job: Job, estimate: memory.MemoryEstimate) -> dict[str, Any]:
    train, size, evaluation = job.train, memory.format_bytes, "not while training: there are no val pairs"
    if isinstance(job.splits["train"], ImageDataset):
        name = "val images" if "val" in job.splits else "training images, as there are no val images"
        evaluation = f"KID, Fréchet distance, precision and recall against {name}"
    elif job.held_out_pairs("val"):
        evaluation = "L1, PSNR and SSIM of the val pairs"
    details = (f"weights, averages and moments {size(estimate.weights)}, activations and gradients "
               f"{size(estimate.working)}")
    if train.gradient_checkpointing:
        details += " with the generators' activations recomputed"
    if train.precision == "bf16":
        details += "; counted in fp32, bf16 takes less"
    return {
        "length": f"{train.images:,} images = {train.steps:,} steps of {train.batch_size} "
                  f"({train.images / len(job.splits['train']):.4g} epochs)",
        "files": f"sample grid, checkpoint and model every {train.checkpoint_every:,} images, log every "
                 f"{train.log_every:,}",
        "average": f"half-life {train.ema_half_life:,} images" if train.ema_half_life else "none",
        "evaluation": evaluation, "precision": train.precision, "seed": train.seed,
        "memory": f"about {size(estimate.total)} beside torch itself: {details}",
        "network": f"each process sends {size(estimate.gradients)} of gradients to the others per step",
        "disk": describe_disk(job, estimate)}


def describe_disk(job: Job, estimate: memory.MemoryEstimate) -> str:
    """What the training states of a job take on disk."""
    keep = job.train.keep_checkpoints
    return (f"about {memory.format_bytes(estimate.state * keep)}: train.keep_checkpoints={keep} of "
            f"{memory.format_bytes(estimate.state)} each, and one more while it is written")


def memory_estimate(job: Job, world_size: int = 1) -> memory.MemoryEstimate:
    """The memory that one of `world_size` processes takes.  RequestError if the networks are impossible."""
    return memory.estimate_memory(job.recipe, job.info, batch_size=max(1, job.train.batch_size // world_size),
                                  **_memory_options(job))[1]


def _memory_options(job: Job) -> dict[str, Any]:
    # On CPUs, the copy that the writer thread holds and the bytes of the file are in the same memory.
    copies = 0 if torch.cuda.is_available() else 1 + job.train.async_writes
    return {"ema": bool(job.train.ema_half_life), "gradient_checkpointing": job.train.gradient_checkpointing,
            "copies": copies}


def out_of_memory_message(job: Job, world_size: int, available: int) -> str:
    """One line about a step that did not fit into so many bytes, with the largest batch that would."""
    batch, each = job.train.batch_size // world_size, " in each process" if world_size > 1 else ""
    largest = world_size * memory.largest_batch_size(job.recipe, job.info, available, batch,
                                                     **_memory_options(job))
    needed = memory.format_bytes(memory_estimate(job, world_size).total)
    advice = (f"the largest batch that would fit is about train.batch_size={largest}" if largest
              else "no smaller batch would fit; reduce generator.width or data.size")
    if not job.train.gradient_checkpointing:
        advice += ", or set train.gradient_checkpointing=true"
    return (f"out of memory: a step of {batch} images{each} takes about {needed} beside torch itself, and "
            f"{memory.format_bytes(available)} were available; {advice}")


def format_value(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(format_value, value)) if isinstance(value, tuple | list) else str(value)


def differences(config: Any, base: Any, prefix: str = "") -> list[str]:
    """The KEY=VALUE assignments that turn `base` into `config`."""
    assignments = []
    for key, field in settings(config).items():
        new, old = getattr(config, key), getattr(base, key)
        if new == old:
            continue
        if not isinstance(new, Spec):
            assignments.append(f"{prefix}{key}={format_value(new)}")
            continue
        if new.name != old.name:
            assignments.append(f"{prefix}{key}={new.name}")
        before = dict(old.options) if new.name == old.name else {}
        defaults = {option: parameter.default
                    for option, parameter in schema(field.kind, new.name).items()}
        after = {option: defaults[option] for option in before} | dict(new.options)
        assignments += [f"{prefix}{key}.{option}={format_value(value)}" for option, value in after.items()
                        if before.get(option, defaults[option]) != value]
    return assignments


def command(job: Job, changes: Sequence[str] = ()) -> str | None:
    """The shortest `i2i train` command line for a changed job; None if changes are refused or do nothing."""
    try:
        settings = configure(job.recipe, job.data, job.train, parse_assignments(changes))
        if changes and settings == (job.recipe, job.data, job.train):
            return None
        check_components(settings[0])
        memory.estimate_memory(settings[0], job.info, batch_size=settings[2].batch_size, ema=False)
    except RequestError:
        return None
    presets = {job.name: Preset(job.name, (), "")} | {
        name: preset for name, preset in PRESETS.items() if preset.recipe == job.name}
    # By the job, so that changes do not change the name.
    name = min(presets, key=lambda name: len(_assignments(presets[name], (job.recipe, job.data, job.train))))
    data = [] if job.location == DEFAULT_DATA.get(job.recipe.dataset) else ["--data", job.location]
    return shlex.join(["i2i", "train", name, *data, *_assignments(presets[name], settings)])


def fitting_line(job: Job) -> str:
    """The command line of this job for a run of an hour."""
    line = command(replace(job, train=replace(job.train, images=0)))
    return f"{line or f'i2i train {job.requested}'} --minutes 60"


def _assignments(preset: Preset, settings: Settings) -> list[str]:
    base = configure(lookup("recipe", preset.recipe)(), DataConfig(), TrainConfig(),
                     parse_assignments(preset.settings))
    return [assignment for new, old, prefix in zip(settings, base, ("", "data.", "train."), strict=True)
            for assignment in differences(new, old, prefix)]


def announcement(job: Job, folder: RunFolder) -> list[str]:
    """The lines that a user reads before training."""
    resumed = f", resumed at {folder.images:,} images" if folder.config.exists() else ""
    return [f"{job.requested}: {job.splits['train'].description} to learn from in {job.location}, "
            f"{job.train.images:,} images in {job.train.steps:,} steps of {job.train.batch_size} "
            f"-> {folder.path}{resumed}", *(f"note: {note}" for note in job.notes),
            *([] if resumed else describe_start(job))]


def finished_line(folder: RunFolder, job: Job) -> str:
    """That a run is finished, and how to train on."""
    return (f"{folder.path} is finished: {folder.images:,} images, model {folder.model}; choose another "
            "--out to train again, or to go on: i2i train "
            f"--extend {folder.path} --images {2 * job.train.images}")


def check_memory(job: Job, runtime: Runtime, estimate: memory.MemoryEstimate,
                 available: int) -> list[str]:
    """Lines about the memory and the disk a run takes.  RequestError if far more memory than is available."""
    needed, size = estimate.total, memory.format_bytes
    if needed > MAX_OVERCOMMIT * available:
        raise RequestError(f"a step takes about {size(needed)} of memory, more than {MAX_OVERCOMMIT} times "
                           f"the {size(available)} that are available; to reduce it: "
                           f"train.batch_size={job.train.batch_size // runtime.world_size}, "
                           f"data.size={job.crop_size[0]},{job.crop_size[1]}, generator.width")
    present = psutil.Process().memory_info().rss
    where = ("on the GPU" if runtime.device.type == "cuda" else
             f"beside torch itself, {size(present + needed)} in all")
    return [f"memory: about {size(needed)} {where}" + (" in each process" if runtime.world_size > 1 else "")
            + (f"; warning: only {size(available)} are available" if available < needed else ""),
            f"disk: {describe_disk(job, estimate)}"]
