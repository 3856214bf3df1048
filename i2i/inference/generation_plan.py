"""The plan of a set of generated images: all that decides image i, so that each can be made again alone."""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from i2i.config import VERSION
from i2i.data.layouts import SIDE_FOLDERS, SPLITS
from i2i.errors import RequestError, require
from i2i.images.encode import FILE_FORMATS, formats_for
from i2i.inference.memory import format_bytes
from i2i.inference.model import Model
from i2i.inference.model_file import find_model

LAYOUTS = ("imagefolder", "webdataset", "parquet", "coco")
MAX_IMAGES = 10_000_000         # In a set.
MAX_FOLDER_NAME = 60            # Characters: 240 bytes at most, where file systems accept 255.
RESERVED_NAMES = {              # Folder names that mean something else to datasets, macOS or Windows.
    *SPLITS, *map(str.casefold, SIDE_FOLDERS), "__macosx",
    "con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


@dataclass(frozen=True)
class GenerationPlan:
    """Everything that decides the images of a set but their number."""

    model: str                  # SHA-256 of the model file.
    seed: int
    truncation: float
    classes: tuple[str, ...]    # Names of all classes of the model; empty without labels.
    turn: tuple[int, ...]       # Class numbers that take turns: image i is of class `turn[i % len(turn)]`.
    batch_size: int             # Image i is in batch i // batch_size, always whole: rounding depends on it.
    suffix: str                 # Format of the files, such as ".png".
    i2i: str                    # Version of the package.
    # Those that the model was trained with: name, sha256.
    feature_networks: Mapping[str, str] = field(default_factory=dict)
    steps: int | None = None            # Of models that sample in steps; None: the model's own.
    guidance: float | None = None       # The same.
    layout: str = LAYOUTS[0]

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """The folder of each class."""
        return class_folders(self.classes)

    def label(self, index: int) -> int | None:
        """The class number of an image; None without labels."""
        return self.turn[index % len(self.turn)] if self.turn else None

    def file(self, index: int) -> str:
        """The path of an image within the set, with forward slashes."""
        label = self.label(index)
        return ("" if label is None else self.folders[label] + "/") + f"{index:08}{self.suffix}"

    def line(self, index: int) -> str:
        """The line of an image in the manifest, as JSON."""
        label = self.label(index)
        sampling = {"steps": self.steps, "guidance": self.guidance}
        return json.dumps({
            "file": self.file(index), "index": index, "seed": self.seed,
            "class": None if label is None else self.classes[label], "class_number": label,
            "truncation": self.truncation, "batch_size": self.batch_size, "model": self.model,
            "i2i": self.i2i, **{key: value for key, value in sampling.items() if value is not None}}) + "\n"

    def labels(self, n: int) -> Iterator[str]:
        """The text of the `dataset.json` of the first n images, in parts."""
        yield f'{{"classes": {json.dumps(self.classes)},\n"labels": ['
        for index in range(n):
            yield f'{"," if index else ""}\n{json.dumps([self.file(index), self.label(index)])}'
        yield "\n]}\n"

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, path: str) -> "GenerationPlan":
        """The plan that `to_json` wrote to a path; RequestError if it is none."""
        try:
            values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                                      for key, value in json.loads(text).items()}
            plan = GenerationPlan(**values)
            dict[str, str](plan.feature_networks)
            if not all(0 <= label < len(plan.classes) for label in plan.turn) or plan.batch_size < 1:
                raise ValueError("its numbers do not fit each other")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RequestError(f"{path} is not what i2i generate writes ({error})") from None
        return plan

    def check_same(self, other: "GenerationPlan", path: str) -> None:
        """Raise RequestError naming the first difference to the plan of the set at a path."""
        for name in [each.name for each in fields(self)]:
            theirs, ours = getattr(other, name), getattr(self, name)
            if theirs != ours:
                raise RequestError(f"{path} holds images of another set: {name} {_short(theirs)}, not "
                                   f"{_short(ours)}; choose another --out")


def plan_generation(path: str | Path, model: Model, *, seed: int = 0, truncation: float = 1.0,
                    steps: int | None = None, guidance: float | None = None, classes: str | None = None,
                    batch_size: int = 0, suffix: str = "", layout: str = LAYOUTS[0]) -> GenerationPlan:
    """Plan a set of images by the model of a file or run folder; RequestError if it cannot make them.

    `classes`: names or numbers, separated by commas, that take turns; by default, and as "balanced", all.
    `batch_size` 0 fits the image size.  `suffix`: by default ".png" if that format holds the model's images.
    """
    model.set_truncation(truncation)
    model.set_sampling(steps, guidance)
    require(seed >= 0, "--seed", seed, "0 or more")
    require(layout in LAYOUTS, "--layout", layout, ", ".join(LAYOUTS))
    _check_batch(model, batch_size)
    image_format = model.formats["b"]
    suffix = parse_suffix(suffix or formats_for(image_format)[0])
    if not FILE_FORMATS[suffix].supports(image_format):
        raise RequestError(f"--format {suffix[1:]} does not hold {image_format}; accepted: "
                           f"{', '.join(formats_for(image_format))}")
    if layout == "parquet" and suffix == ".npy":
        raise RequestError("--layout parquet holds images that Pillow reads, which npy files are not; "
                           "accepted: another --format, or --layout webdataset")
    return GenerationPlan(sha256(path), seed, float(truncation), model.classes, parse_classes(model, classes),
                          batch_size or model.batch_size(), suffix, VERSION,
                          model.header.get("feature_networks", {}), steps, guidance, layout)


def _check_batch(model: Model, batch_size: int) -> None:
    """RequestError for a batch whose noise and images alone do not fit in memory."""
    require(batch_size >= 0, "--batch", batch_size, "1 or more; 0 goes by the size of the images")
    values = cast(int, model.modules["Z"].noise_dim) + model.formats["b"].channels * math.prod(
        model.header["info"]["size"])
    needed, available = 4 * values * batch_size, model.available_memory()
    if needed > available:
        raise RequestError(f"--batch {batch_size:,} takes {format_bytes(needed)} of memory or more, and "
                           f"{format_bytes(available)} are free; accepted: fewer, or 0, which goes by the "
                           "size of the images")


def parse_suffix(text: str) -> str:
    """The suffix of a file format, `.png` for png or .PNG.  RequestError if no image is written so."""
    suffix = f".{text.lower().lstrip('.')}"
    if suffix not in FILE_FORMATS:
        raise RequestError(f"--format {suffix[1:]} is not known; accepted: "
                           f"{', '.join(key[1:] for key in FILE_FORMATS)}")
    return suffix


def check_model(plan: GenerationPlan, path: str | Path) -> None:
    """Raise RequestError if a model file is not the one the plan was made with."""
    if (found := sha256(path)) != plan.model:
        raise RequestError(f"{path} is not the model that made those images: its sha256 is {found[:12]}…, "
                           f"theirs {plan.model[:12]}…")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a model file or of the model in a run folder."""
    with open(find_model(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse_classes(model: Model, classes: str | None) -> tuple[int, ...]:
    """Class numbers from "name,name", numbers, or "balanced" for all learned; RequestError for anything
    else."""
    if classes is None or (classes == "balanced" and model.classes):
        return model.learned_classes
    names = [name.strip() for name in classes.split(",")]
    numbers = [model.class_number(name if name in model.classes or not name.isdecimal() else int(name))
               for name in names]
    require(len(set(numbers)) == len(numbers), "--classes", classes, "each class once")
    return tuple(numbers)


def class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A folder name for each class: safe on all systems, and distinct even without regard to case."""
    folders: dict[str, str] = {}
    for number, name in enumerate(classes):
        name = re.sub(r"[^\w\-+() .]", "_", unicodedata.normalize("NFC", name))
        name = name[:MAX_FOLDER_NAME - 12].strip(" .") or "class"
        while name.casefold() in folders or name.casefold().split(".")[0] in RESERVED_NAMES:
            name = f"{number}-{name}"[:MAX_FOLDER_NAME].strip(" .")
        folders[name.casefold()] = name
    return tuple(folders.values())


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"
