"""Logs of a run: JSON lines that can be cut back to a checkpoint."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from i2i.files import append_json_line as append
from i2i.files import read_json_lines as read
from i2i.files import write_text

__all__ = ["append", "cut", "is_number", "is_valid", "read"]
MAX_NUMBER = 1e300     # Numbers in logs: sums of them are finite too.


def is_number(value: object) -> bool:
    """Whether a value is a finite number that can be summed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


# Whether an entry is valid, by file: the engine relies on this when it resumes a run.
SCHEMAS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "log.jsonl": lambda entry: all(map(is_number, entry.values())),
    "speed.jsonl": lambda entry: is_number(entry["images_per_second"]),
    "metrics.jsonl": lambda entry: is_number(entry["seconds"])
    and all(is_number(score["value"]) for score in entry["scores"].values()),
    "skipped.jsonl": lambda entry: isinstance(entry["file"], str),
    "collapse.jsonl": lambda entry: isinstance(entry.get("detection", {"sentence": ""})["sentence"], str)
    and all(is_number(ratio) for key, ratios in entry.items() if isinstance(ratios, dict)
            and key not in ("detection", "confirmed") for ratio in ratios.values())}


def is_valid(entry: Mapping[str, Any], name: str) -> bool:
    """Whether an entry is one that i2i writes into the file of this name."""
    images_valid = type(entry.get("images")) is int and 0 <= entry["images"] <= MAX_NUMBER
    try:
        return images_valid and SCHEMAS.get(name, lambda entry: True)(entry)
    except (KeyError, TypeError, AttributeError):
        return False


def cut(path: Path, images: int) -> None:
    """Drop invalid lines, and entries beyond an image count, which a resumed run writes again."""
    if path.exists():
        entries = [entry for entry in read(path) if is_valid(entry, path.name) and entry["images"] <= images]
        write_text(path, "".join(json.dumps(entry) + "\n" for entry in entries))
