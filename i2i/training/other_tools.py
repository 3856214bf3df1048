"""What to type instead of the words of other tools: pytorch-CycleGAN-and-pix2pix, StyleGAN, diffusers, …"""

import csv
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from i2i.config import settings
from i2i.registry import Spec, lookup, names, schema


@cache
def _equivalents() -> Mapping[str, dict[str, str]]:
    """What to type by word and value (empty: any); the first of several ` | ` that the recipe accepts.

    `{}` is the value, `{4}` four times the value, `{batch}` the value in images instead of steps.
    """
    found: dict[str, dict[str, str]] = {}
    with open(Path(__file__).with_name("other_tools.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["word"], {})[row["value"].lower()] = row["type"]
    return found


def normalize(word: str) -> str:
    """A word without its dashes and capitals, and without the section before it."""
    word = word.lstrip("-").replace("-", "_").lower()
    return re.sub(r"^(train|trainer|data|model|recipe|optimizer|optim)\.", "", word)


def what_to_type(word: str, value: str, sections: Mapping[str, Any], accepts: Callable[[str], bool]) -> str:
    """What to type instead of an unknown setting or option; empty if nothing like it is known.

    Args:
        word: the setting or option as the user wrote it.
        value: its value, empty if it has none.
        sections: the recipe, data and training settings by the prefix of their keys.
        accepts: whether settings such as `generator=resnet generator.blocks=9` can be used.
    """
    word = normalize(word)
    equivalents = _equivalents().get(word, {})
    pattern = equivalents.get(value.lower(), equivalents.get(""))
    if pattern is not None:
        texts = _fill(pattern, value, sections["train."].batch_size).split(" | ")
        if text := next((text for text in texts if not is_settings(text) or accepts(text)), None):
            return text
        key = texts[0].partition("=")[0]
        if "." in key:
            return f"{texts[0]} with a component that has it (i2i list {key})"
        return _with_recipes(key, texts[0])
    recipe = sections[""]
    used = [f"{key}.{word}" for key, option in settings(recipe).items()
            if isinstance(spec := getattr(recipe, key), Spec) and word in schema(option.kind, spec.name)]
    for candidates in ([word], used):
        if accepted := [text for key in candidates if accepts(text := f"{key}={value or 'true'}")]:
            return " or ".join(accepted)
    return _with_recipes(word, f"{word}={value or '…'}")


def _with_recipes(key: str, text: str) -> str:
    """A setting and the recipes that have it; empty if none has."""
    recipes = [name for name in names("recipe") if key in settings(lookup("recipe", name))]
    return f"{text} with {' or '.join(recipes)}" if recipes else ""


def called_here(word: str) -> str:
    """What to type for a word of other tools, whatever its value; empty if nothing like it is known."""
    equivalents = _equivalents().get(normalize(word), {})
    patterns = [equivalents[""]] if "" in equivalents else dict.fromkeys(equivalents.values())
    return " or ".join(_fill(pattern, "", 1).partition(" | ")[0] for pattern in patterns)


def is_settings(text: str) -> bool:
    """Whether a suggestion is KEY=VALUE settings, not an option or a command."""
    return all("=" in word and not word.startswith("-") for word in text.split())


def _fill(pattern: str, value: str, batch_size: int) -> str:
    def number(match: re.Match[str]) -> str:
        try:
            return f"{float(value) * (batch_size if match[1] == 'batch' else int(match[1])):.0f}"
        except (ValueError, OverflowError):
            return "…"

    return re.sub(r"\{(batch|\d+)\}", number, pattern).replace("{}", value or "…")


def known_words() -> list[str]:
    """The words of other tools that have an equivalent here."""
    return list(_equivalents())
