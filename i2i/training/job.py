"""A training job: the recipe, data and settings that a request means."""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL
import torch
from torch import Tensor

from i2i.config import MAX_INTEGER, VERSION, components_in_use, parse_assignments, settings, to_dict
from i2i.data.config import DataConfig
from i2i.data.format_detection import DatasetSummary, inspect_dataset, training_sizes
from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset
from i2i.data.palette import with_palette
from i2i.data.pipeline import make_pipelines, read_pipelines
from i2i.data.sources import Unreadable, absolute_location, find_left_out, open_source
from i2i.data.unpaired import UnpairedDataset, unpair
from i2i.errors import RequestError
from i2i.images.convert import palette_values
from i2i.images.format import ImageFormat
from i2i.inference.model_file import model_header
from i2i.metrics.feature_networks import frozen_network
from i2i.recipes.base import (
    DataInfo,
    Recipe,
    class_channels,
    data_defaults,
    feature_networks,
    get_module,
)
from i2i.recipes.meta_device import build_on_meta
from i2i.registry import Spec, build
from i2i.registry.plugins import describe_plugins, loaded_files
from i2i.seeding import noise_for
from i2i.training.config import TrainConfig
from i2i.training.freezing import frozen_parameters
from i2i.training.initial_weights import InitialWeights, absolute
from i2i.training.settings import (
    build_device_augment,
    check_components,
    configure,
    initial_settings,
    optimizer_keys,
)

DEFAULT_DATA = {"paired": "personas-edges-64", "unpaired": "lorelei-hair-64", "images": "peeps-64"}
DEFAULT_EPOCHS = 200        # Isola et al. 2017, section 6.2; 100 + 100 in their implementation.
CHECKED_PAIRS = 16          # Held-out pairs of which one must have the formats of the training pairs.

AnyDataset = PairedDataset | UnpairedDataset | ImageDataset


@dataclass(frozen=True)
class Job:
    """Everything that determines a run.

    Args:
        name: of the recipe.
        requested: the recipe or preset as the user named it.
        location: the data: a path, a URL or the name of a bundled dataset.
        crop_size, load_size: height and width.
        notes: what the user should know about how the request was understood.
        pipelines: contents of the files of data.transforms and its like, by setting.
        time_plan: what was chosen for a run by the clock: the limit in minutes, settings, measurements.
        initial_weights: what the run starts from, if it is another model.
    """

    name: str
    requested: str
    recipe: Recipe
    data: DataConfig
    train: TrainConfig
    location: str
    splits: Mapping[str, AnyDataset]
    summary: DatasetSummary
    crop_size: tuple[int, int]
    load_size: tuple[int, int]
    notes: tuple[str, ...] = ()
    pipelines: Mapping[str, Any] = field(default_factory=dict)
    time_plan: Mapping[str, Any] = field(default_factory=dict)
    initial_weights: InitialWeights | None = None

    @property
    def info(self) -> DataInfo:
        """What the networks need to know about the data."""
        a, b = self.formats
        return DataInfo(self.crop_size, a.channels, b.channels, len(self.classes), palette_values(a))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the recipe is conditioned on."""
        split = self.splits["train"]
        return split.classes if isinstance(split, ImageDataset) and "c" in self.recipe.required_keys else ()

    @property
    def formats(self) -> tuple[ImageFormat, ImageFormat]:
        """Formats of the source and target images."""
        return self.summary.a, self.summary.b

    @property
    def sample_split(self) -> AnyDataset:
        """The split that sample grids show: validation, else test, else training images."""
        split = next(self.splits[name] for name in ("val", "test", "train") if name in self.splits)
        if isinstance(self.splits["train"], UnpairedDataset) and not isinstance(split, ImageDataset):
            return unpair(split)
        return split

    @property
    def training_dataset(self) -> AnyDataset:
        """The training images, in random order and augmented."""
        split = self.splits["train"]
        pipelines = make_pipelines(self.pipelines, self.data, list(split.stream_sizes), self.formats,
                                   self.crop_size)
        return split.for_training(self.crop_size, self.load_size, self.formats, flip=self.data.flip,
                                  seed=self.train.seed, on_error=self.data.on_error, pipelines=pipelines)

    def with_settings(self, values: Mapping[str, object]) -> "Job":
        """This job with other settings of recipe and training, by full key."""
        recipe, data, train = configure(self.recipe, self.data, self.train,
                                        [(key, str(value)) for key, value in values.items()])
        return replace(self, recipe=recipe, data=data, train=train)

    def check_pipelines(self) -> "Job":
        """This job.  RequestError if an albumentations pipeline cannot be used for its images."""
        for pipeline in self.training_dataset.pipelines:
            pipeline.check(self.load_size)
        return self

    def held_out_pairs(self, name: str) -> PairedDataset | None:
        """A split of pairs whose formats are those of the training pairs, or None."""
        split = self.splits.get(name)
        if not isinstance(split, PairedDataset):
            return None
        try:
            inspect_dataset(split, replace(self.data, on_error="skip"))
        except RequestError:
            return None
        for index in range(min(CHECKED_PAIRS, len(split))):
            try:
                split.for_evaluation(self.formats).sample(index)
                return split
            except Unreadable:
                continue
        return None

    def fixed_noise(self) -> Callable[[int], Tensor]:
        """A function from an index to its noise, the same in all runs with this seed."""
        size = int(get_module(build_on_meta(self.recipe, self.info), "Z").noise_dim)
        return lambda index: noise_for(self.train.seed, index, size)

    def header(self) -> dict[str, Any]:
        """The header of the model file."""
        empty = getattr(self.splits["train"], "empty_classes", []) if self.classes else []
        plugins = describe_plugins([("recipe", self.name), *components_in_use(self.recipe)])
        networks = dict(self.initial_weights.feature_networks) if self.initial_weights else {}
        networks |= {name: frozen_network(name).weights for name in feature_networks(self.recipe)}
        more = {"empty_classes": empty, "plugins": plugins, "feature_networks": networks}
        return model_header(self.name, to_dict(self.recipe), self.info, self.formats, i2i=VERSION,
                            direction=self.data.direction, data=self.location, classes=list(self.classes),
                            **{key: value for key, value in more.items() if value})

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        callbacks = [("callback", name) for name in self.train.callbacks]
        plugins = describe_plugins([("recipe", self.name), ("preset", self.requested),
                                    *components_in_use(self.recipe), *callbacks])
        plugins += loaded_files(except_for=[plugin["name"] for plugin in plugins])
        return {
            "i2i": VERSION, **({"plugins": plugins} if plugins else {}),
            "recipe": {"name": self.name, "requested": self.requested, "settings": to_dict(self.recipe)},
            "data": {"where": self.location, "settings": to_dict(self.data),
                     "fingerprint": fingerprint(self.splits), "pipelines": dict(self.pipelines)},
            "train": to_dict(self.train),
            **({"minutes": dict(self.time_plan)} if self.time_plan else {}),
            **({"init": vars(self.initial_weights).copy()} if self.initial_weights else {}),
            "sizes": {"crop": list(self.crop_size), "load": list(self.load_size)},
            "formats": self.header()["formats"],
            "versions": {"python": platform.python_version(), "torch": torch.__version__,
                         "numpy": np.__version__, "pillow": PIL.__version__}}


def fingerprint(splits: Mapping[str, AnyDataset]) -> dict[str, str]:
    """What must not change in the data of a run that is resumed, by split."""
    return {name: f"{split.description}, {split.fingerprint()}" for name, split in splits.items()}


def prepare(recipe_name: str, assignments: Sequence[str] = (), *, data: str | Path | None = None,
            epochs: float | None = None, init: str | Path | None = None) -> Job:
    """Make a job from a recipe's or preset's name and KEY=VALUE assignments.  RequestError if it is wrong."""
    requested, (recipe_name, initial) = recipe_name, initial_settings(recipe_name)
    recipe, data_config, train_config = configure(*initial, parse_assignments(assignments))
    check_components(recipe)
    if data is None:
        if recipe.dataset not in DEFAULT_DATA:      # Of a plugin.
            raise RequestError(f"--data is needed: nothing bundled is a dataset of kind {recipe.dataset!r}")
        data = DEFAULT_DATA[recipe.dataset]
    location = absolute_location(data)
    source = open_source(data, max_pixels=data_config.max_pixels)
    splits = build("dataset", Spec(recipe.dataset), source, data_config.direction)
    if "train" not in splits:
        raise RequestError(f"{data} has {' and '.join(splits)} images but none to train on; accepted: train/ "
                           "or trainA/ and trainB/")
    if "c" in recipe.required_keys and not getattr(splits["train"], "classes", ()):
        raise RequestError(f"{data} has no labels ({splits['train'].layout}), which {recipe_name} with "
                           "conditional=true learns from; accepted: a folder for each class, or labels in "
                           "dataset.json")
    if train_config.images and epochs is not None:
        raise RequestError("--epochs and train.images both say how long to train; give one of them")
    images = train_config.images or (DEFAULT_EPOCHS if epochs is None else epochs) * len(splits["train"])
    if not 0 < images <= MAX_INTEGER:
        raise RequestError(f"--epochs {epochs:g} cannot be used; accepted: more than 0, up to 2^53 images")
    train_config = replace(train_config, images=round(images) or 1)
    summary = inspect_dataset(splits["train"], data_config)
    summary = with_palette(summary, splits["train"], class_channels(recipe, summary.a.channels), data_config)
    crop_size, load_size = training_sizes(data_config, splits["train"], summary)
    shared = [f"{key}={text} sets {' and '.join(full)}" for key, text in parse_assignments(assignments)
              if "." not in key and len(full := optimizer_keys(recipe, key)) > 1]
    left_out = "" if source.manifest() else find_left_out(source).note()
    further = [line for line in (_unused_classes(recipe, splits["train"]), left_out) if line]
    job = Job(recipe_name, requested, recipe, data_config, train_config, location, splits, summary,
              crop_size, load_size, (*shared, *summary.notes, *further),
              read_pipelines(data_config), {}, InitialWeights(absolute(init)) if init else None)
    job = _with_data_defaults(job.check_pipelines(), {key for key, _ in parse_assignments(assignments)})
    if job.train.freeze:
        frozen_parameters(job.recipe, build_on_meta(job.recipe, job.info), job.train.freeze)
    build_device_augment(job.train, job.info)       # Refused now, not when the run has a folder.
    return job


def _unused_classes(recipe: Recipe, split: AnyDataset) -> str:
    """What should be known where the data have classes and the recipe does not learn them; "" elsewhere."""
    classes = getattr(split, "classes", ())
    if not classes or "c" in recipe.required_keys:
        return ""
    hint = "; conditional=true learns them" if "conditional" in settings(recipe) else ""
    return f"the {len(classes)} classes of the data are ignored{hint}"


def _with_data_defaults(job: Job, given: set[str]) -> Job:
    """Change the defaults that do not fit the data, unless the user gave the setting, and say so."""
    changed = {key: value for key, value in data_defaults(job.recipe, job.info).items() if key not in given}
    notes = (f"{key} is {value:g} by default: {reason}" for key, (value, reason) in changed.items())
    values: dict[str, Any] = {key: value for key, (value, _) in changed.items()}
    return replace(job, recipe=replace(cast(Any, job.recipe), **values), notes=(*job.notes, *notes))
