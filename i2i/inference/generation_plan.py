"""What a set of generated images is: everything that decides image number i of it, so that any one can be
made again alone."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from i2i.data.layouts import SIDE_FOLDERS, SPLITS
from i2i.errors import RequestError, require
from i2i.inference.model import Model

# Images in a set: their manifest stays below the 4 GiB that a zip's plain entries hold.
MOST = 10_000_000
LONGEST = 60                # Characters of a folder's name: 240 bytes at most, where file systems take 255.
RESERVED = {                # Folder names that mean something else: to data sets, to a Mac, to Windows.
    *SPLITS, *map(str.casefold, SIDE_FOLDERS), "__macosx",
    "con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


@dataclass(frozen=True)
class GenerationPlan:
    """Everything that decides the images of a set but their number.  Class `turn[i % len(turn)]` has its turn
    at image i."""

    model: str                      # sha256 of the model file.
    seed: int
    truncation: float
    classes: tuple[str, ...]        # Of the model, in its order; none without labels.
    turn: tuple[int, ...]
    # Images go through the network in batches i // batch, always whole, as rounding depends on them.
    batch: int
    suffix: str                     # ".png"
    i2i: str                        # Version.

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """The folder of each class."""
        return class_folders(self.classes)

    def label(self, index: int) -> int | None:
        """The class number of an image, None without labels."""
        return self.turn[index % len(self.turn)] if self.turn else None

    def file(self, index: int) -> str:
        """Where an image lies, with forward slashes."""
        label = self.label(index)
        return ("" if label is None else self.folders[label] + "/") + f"{index:08}{self.suffix}"

    def line(self, index: int) -> str:
        """What the manifest says of an image: one line of JSON."""
        label = self.label(index)
        return json.dumps({
            "file": self.file(index), "index": index, "seed": self.seed,
            "class": None if label is None else self.classes[label],
            "class_number": label, "truncation": self.truncation, "batch": self.batch, "model": self.model,
            "i2i": self.i2i}) + "\n"

    def labels(self, n: int) -> Iterator[str]:
        """The text of a `dataset.json` of the first n images, piece by piece: names of all classes, and each
        file's class."""
        yield f'{{"classes": {json.dumps(self.classes)},\n"labels": ['
        for index in range(n):
            yield f'{"," if index else ""}\n{json.dumps([self.file(index), self.label(index)])}'
        yield "\n]}\n"

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, where: str) -> GenerationPlan:
        """The plan that `to_json` wrote.  RequestError if it is none."""
        try:
            given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key,
                                     value in json.loads(text).items()}
            plan = GenerationPlan(**given)
            if not all(0 <= label < len(plan.classes) for label in plan.turn) or plan.batch < 1:
                raise ValueError("its numbers do not fit each other")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise RequestError(f"{where} is not what i2i generate writes ({error})") from None
        return plan

    def check_same(self, other: GenerationPlan, where: str) -> None:
        """RequestError names the first thing in which what lies there is of another set."""
        for field in fields(self):
            have, want = getattr(other, field.name), getattr(self, field.name)
            if have != want:
                raise RequestError(f"{where} holds images of another set: {field.name} {_short(have)}, not "
                                   f"{_short(want)}; choose another --out")


def _short(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 24 else f"{text[:20]}…"


def class_folders(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A folder for each class: its name, made safe where a system or a data set would take it for something
    else; no two differ by case alone."""
    found: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(classes):
        safe = re.sub(r"[^\w\-+() .]", "_",
                      unicodedata.normalize("NFC", name))[:LONGEST - 12].strip(" .") or "class"
        while safe.casefold() in taken or safe.casefold().split(".")[0] in RESERVED:
            safe = f"{number}-{safe}"[:LONGEST].strip(" .")
        taken.add(safe.casefold())
        found.append(safe)
    return tuple(found)


def class_of(model: Model, classes: str | None) -> tuple[int, ...]:
    """The class numbers that take turns, from `name,name`, numbers, or `balanced`: all.  RequestError for
    others, and without labels."""
    if classes is None or (classes == "balanced" and model.classes):
        return tuple(range(len(model.classes)))
    words = [word.strip() for word in classes.split(",")]
    numbers = [model.class_number(word if word in model.classes or not word.isdecimal() else int(word))
               for word in words]
    require(len(set(numbers)) == len(numbers), "--classes", classes, "each class once")
    return tuple(numbers)
