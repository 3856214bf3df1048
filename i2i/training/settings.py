"""The settings that a request means: a recipe's or preset's, with KEY=VALUE assignments applied."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from i2i import recipes  # noqa: F401 - registers recipes, networks and losses.
from i2i.config import override, parse_assignments, settings
from i2i.data.config import DataConfig
from i2i.errors import RequestError, require
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.presets import Preset
from i2i.registry import build, lookup, names, origin, schema, suggest
from i2i.training import optimizers, schedules  # noqa: F401 - registers them.
from i2i.training.config import TrainConfig
from i2i.training.other_tools import what_to_type

# Kinds of component that are built for data of a size.
NEED_SIZES = ("generator", "noise_generator", "discriminator", "encoder", "denoiser", "invertible_network",
              "autoregressive_network",
              "latent")
Settings = tuple[Recipe, DataConfig, TrainConfig]
SECTIONS: Mapping[str, Any] = {"data": DataConfig, "train": TrainConfig}


def recipe_or_preset(name: str) -> tuple[str, tuple[str, ...]]:
    """The name of the recipe that a recipe or preset means, and the preset's assignments."""
    known, presets = names("recipe"), names("preset")
    if name in presets:
        preset: Any = lookup("preset", name)
        if not isinstance(preset, Preset):
            raise RequestError(f"preset {name!r} of {origin('preset', name)} is a {type(preset).__name__}; "
                               "accepted: an i2i.recipes.presets.Preset")
        if preset.recipe not in known:
            raise RequestError(f"preset {name!r} is one of a recipe {preset.recipe!r}, which does not exist; "
                               f"{suggest(preset.recipe, known)}")
        return preset.recipe, preset.settings
    if name not in known:
        raise RequestError(f"no recipe or preset is called {name!r}; {suggest(name, [*presets, *known])}")
    return name, ()


def initial_settings(name: str) -> tuple[str, Settings]:
    """The name of the recipe that a recipe or preset means, and its settings before any assignment."""
    recipe_name, preset = recipe_or_preset(name)
    settings = lookup("recipe", recipe_name)(), DataConfig(), TrainConfig()
    try:
        return recipe_name, configure(*settings, parse_assignments(preset), hints=False)
    except RequestError as error:
        raise RequestError(f"preset {name!r} cannot be used: {error}") from None


def configure(recipe: Recipe, data: DataConfig, train: TrainConfig, pairs: Sequence[tuple[str, str]], *,
              hints: bool = True) -> Settings:
    """Apply KEY=VALUE pairs to the settings of the recipe, of the data (`data.`) and of training (`train.`).

    Without a prefix a key means the recipe's setting of that name, if there is one.  An option that only
    optimizers have, such as `lr`, is set for all players.  With `hints` the error about an unknown setting
    says what to type instead.
    """
    sections: dict[str, Any] = {"": recipe, "data.": data, "train.": train}
    by_section: dict[str, list[tuple[str, str]]] = {prefix: [] for prefix in sections}
    expanded = [(full, text) for key, text in pairs for full in full_keys(recipe, key)]
    # Components are chosen before their options.
    for key, text in sorted(expanded, key=lambda pair: "." in pair[0]):
        prefix = next((f"{name}." for name in SECTIONS if key.startswith(f"{name}.")), "")
        name = key[len(prefix):]
        if name.split(".")[0] not in settings(sections[prefix]):
            if hints and (better := hint(key, text, (recipe, data, train), pairs)):
                raise RequestError(f"no setting {key!r}; type {better}")
            known = [p + each for p, config in sections.items() for each in settings(config)]
            shown = [prefix + each for each in settings(sections[prefix])]
            others = [] if prefix else ["and those of data. and train. (i2i list)"]
            raise RequestError(f"no setting {key!r}; {suggest(key, known, [*shown, *others])}")
        by_section[prefix].append((name, text))
    new = [override(config, by_section[prefix], prefix) for prefix, config in sections.items()]
    return new[0], new[1], new[2]


def full_keys(recipe: Recipe, key: str) -> list[str]:
    """A key with its prefix; one key for each player's optimizer if it is an option of optimizers alone."""
    head = key.split(".")[0]
    if head in settings(recipe) or (head in SECTIONS and "." in key):
        return [key]
    for name, config in SECTIONS.items():
        if head in settings(config):
            return [f"{name}.{key}"]
    return [key] if "." in key else optimizer_keys(recipe, key) or [key]


def assigned_keys(name: str, assignments: Sequence[str]) -> set[str]:
    """The full keys that a preset and KEY=VALUE assignments set."""
    recipe_name, preset = recipe_or_preset(name)
    recipe = lookup("recipe", recipe_name)()
    return {full for key, _ in parse_assignments([*preset, *assignments]) for full in full_keys(recipe, key)}


def hint(word: str, value: str, base: Settings, pairs: Sequence[tuple[str, str]]) -> str:
    """What to type instead of an unknown setting or option, beside these pairs; empty if that is unknown."""
    def apply(pairs: Sequence[tuple[str, str]]) -> Settings | None:
        try:
            return configure(*base, pairs, hints=False)
        except RequestError:
            return None

    def accepts(assignments: str) -> bool:
        return apply(parse_assignments(assignments.split())) is not None

    for pair in pairs:
        base = apply([pair]) or base
    return what_to_type(word, value, dict(zip(("", "data.", "train."), base, strict=True)), accepts)


def optimizer_keys(recipe: Recipe, option: str) -> list[str]:
    """The full keys of an option that all the recipe's optimizers have, if nothing else has this name."""
    specs = {key: getattr(recipe, key) for key, field in settings(recipe).items()
             if field.kind == "optimizer"}
    taken = any(option in settings(config) for config in (recipe, DataConfig, TrainConfig))
    if taken or not all(option in schema("optimizer", spec.name) for spec in specs.values()):
        return []
    return [f"{key}.{option}" for key in specs]


def build_device_augment(config: TrainConfig, info: DataInfo) -> Any:
    """What augments batches on the device.  RequestError if it does not go with the images."""
    augment = build("augment", config.device_augment)
    require(not augment.adaptive, "train.device_augment", config.device_augment.name,
            "none, kornia or diffaugment, as this one adapts to a discriminator")
    augment.check((info.a_channels, info.b_channels), info.size, twice=False)
    return augment


def check_components(recipe: Recipe) -> None:
    """Find wrong options early: build all components but the networks, which need the size of the data."""
    refused: dict[str, list[str]] = {}      # An unprefixed option, such as lr, is one of several components.
    for name, setting in settings(recipe).items():
        kind = setting.kind
        if kind and kind not in NEED_SIZES:
            layer = torch.nn.Linear(1, 1)
            arguments: dict[str, Any] = {"optimizer": layer.parameters(), "weight_norm": layer,
                                         "unrolling": layer}
            try:
                build(kind, getattr(recipe, name), *([arguments[kind]] if kind in arguments else []))
            except RequestError as error:
                refused.setdefault(str(error).removeprefix(kind), []).append(name)
    for text, keys in refused.items():
        option, equals, rest = text.partition("=")
        named = " and ".join(key + option for key in keys) if text.startswith(".") else option
        raise RequestError(named + equals + rest)
