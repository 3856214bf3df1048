"""Append-only JSON lines that can be cut back to a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from i2i.errors import JobError
from i2i.runs.folder import write_atomically

MAX_NUMBER = 1e300     # Numbers in logs: sums of them are finite too.


def append(path: Path, entry: Mapping[str, Any]) -> None:
    """One entry as one line; JobError if the disk refuses."""
    try:
        with open(path, "a") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise JobError(f"{path} could not be written: {error.strerror}") from None


def read(path: Path) -> list[dict[str, Any]]:
    """All whole entries; what a crash cut off, or a disk damaged, is left out."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(entry := json.loads(line), dict):
                entries.append(entry)
    return entries


def number(value: object) -> bool:
    """Whether it is a number that can be reckoned with."""
    # NaN is not.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


# By file: what the engine relies on when a run goes on.
SCHEMAS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "log.jsonl": lambda entry: all(map(number, entry.values())),
    "speed.jsonl": lambda entry: number(entry["images_per_second"]),
    "metrics.jsonl": lambda entry: number(entry["seconds"])
    and all(number(score["value"]) for score in entry["scores"].values()),
    "skipped.jsonl": lambda entry: isinstance(entry["file"], str),
    "collapse.jsonl": lambda entry: isinstance(entry.get("rang", {"sentence": ""})["sentence"], str) and all(
        all(map(number, value.values())) for key,
        value in entry.items() if isinstance(value, dict) and key not in ("rang", "confirmed"))}


def is_valid(entry: Mapping[str, Any], name: str) -> bool:
    """Whether this is an entry as i2i writes it into the file of this name."""
    try:
        return type(entry["images"]) is int and 0 <= entry["images"] <= MAX_NUMBER and SCHEMAS.get(name,
                                                                                                   lambda entry: True)(entry)
    except (KeyError, TypeError, AttributeError):
        return False


def cut(path: Path, images: int) -> None:
    """Drop what was written after so many images, so that a resumed run writes it again, and what no run has
    written."""
    if path.exists():
        kept = [entry for entry in read(path) if is_valid(entry, path.name) and entry["images"] <= images]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(path, lambda new: _write(new, text))


def _write(path: Path, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
