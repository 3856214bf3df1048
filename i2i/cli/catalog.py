"""What `i2i list` can show: components, recipes, presets and settings."""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from i2i import registry
from i2i.config import settings
from i2i.data.config import DataConfig
from i2i.errors import RequestError
from i2i.metrics import paired, set_metrics  # noqa: F401 - registers the metrics.
from i2i.registry import Option, Spec
from i2i.training.config import TrainConfig
from i2i.training.settings import initial_settings, recipe_or_preset

SECTIONS: dict[str, Any] = {"data": DataConfig, "train": TrainConfig}


@dataclass(frozen=True)
class Setting:
    """A setting or an option of a component, as it is typed."""

    key: str
    value: object           # The default.
    option: Option
    users: tuple[str, ...] = ()     # Recipes or components that have it, if not all.


def names() -> dict[str, list[str]]:
    """The names of all components by kind; recipes and presets first."""
    kinds = {kind: registry.names(kind) for kind in registry.kinds()}
    return {"recipe": kinds.pop("recipe"), "preset": kinds.pop("preset")} | kinds


def description(kind: str, name: str) -> str:
    """What a component, recipe or preset is; the first line says it in short."""
    if kind == "preset":
        try:
            recipe, assignments = recipe_or_preset(name)
        except RequestError as error:       # Of a plugin.
            return str(error)
        source = cast(Any, registry.lookup("preset", name)).source
        return (f"{source} ({recipe}).\n"
                f"The same as: i2i train {' '.join((recipe, *assignments))}")
    text = inspect.getdoc(registry.lookup(kind, name)) or ""
    return re.split(r"\n\n(?:Args|Attributes):", text)[0]


def summary(kind: str, name: str) -> str:
    """One line about a component, recipe or preset, and where it comes from if it is not i2i's own."""
    source = registry.origin(kind, name)
    return description(kind, name).partition("\n")[0] + (f"  [from {source}]" if source else "")


def families() -> dict[str, tuple[str, str]]:
    """What the models of each recipe can do: the name of the family, and the rest as text."""
    found = {}
    for name in registry.names("recipe"):
        recipe = cast(Any, registry.lookup("recipe", name))
        family = getattr(recipe, "family", None)        # Not of every plugin.
        learns = f"learns from {'' if recipe.dataset == 'images' else f'{recipe.dataset} '}images"
        steps = getattr(family, "steps", 1)
        if isinstance(steps, str):
            steps = "one for each pixel" if steps == "pixels" else f"by the setting {steps}"
        found[name] = ("", learns) if family is None else (
            family.name, f"density {family.density}, inversion {family.inversion}, steps to sample "
                         f"{steps}; {learns}")
    return found


def section_settings(section: str) -> list[Setting]:
    """The settings of data or of training."""
    return [Setting(f"{section}.{key}", option.default, option)
            for key, option in settings(SECTIONS[section]).items()]


def options(kind: str, name: str, prefix: str = "") -> list[Setting]:
    """The options of a component, or the settings of a recipe."""
    found = settings(registry.lookup(kind, name)) if kind == "recipe" else registry.schema(kind, name)
    return [Setting(prefix + key, option.default, option) for key, option in found.items()]


def _merge(found: Iterable[Setting]) -> list[Setting]:
    """Make one of settings that differ in their users alone."""
    merged: list[Setting] = []
    for each in found:
        same = next((i for i, other in enumerate(merged)
                     if (other.key, other.option) == (each.key, each.option)), None)
        if same is None:
            merged.append(each)
        else:
            merged[same] = replace(each, users=merged[same].users + each.users)
    return merged


def recipe_settings() -> list[Setting]:
    """The settings of all recipes."""
    return _merge(replace(setting, users=(recipe,)) for recipe in registry.names("recipe")
                  for setting in options("recipe", recipe))


def kinds_by_setting() -> dict[str, list[str]]:
    """The kinds of component that a setting can be: `generator` takes those from images and from noise."""
    found: dict[str, list[str]] = {}
    for setting in recipe_settings():
        if setting.option.kind and setting.option.kind not in found.setdefault(setting.key, []):
            found[setting.key].append(setting.option.kind)
    return found


def in_use(name: str) -> list[Setting]:
    """The settings of a recipe or preset, after each component its options, and what a preset changes."""
    recipe, *configs = initial_settings(name)[1]
    found = []
    for key, option in settings(recipe).items():
        value = getattr(recipe, key)
        found.append(Setting(key, value.name if isinstance(value, Spec) else value, option))
        if isinstance(value, Spec):
            found += [replace(each, value=value.options.get(each.key.partition(".")[2], each.value))
                      for each in options(option.kind, value.name, f"{key}.")]
    return found + [Setting(f"{section}.{key}", getattr(config, key), option)
                    for section, config in zip(SECTIONS, configs, strict=True)
                    for key, option in settings(config).items() if getattr(config, key) != option.default]


def find_settings(key: str) -> list[Setting]:
    """The settings and options of this name, with or without the prefix that it is typed with, or after
    the name of the recipe or component that has it, such as unet.width."""
    if owned := _options_of(*key.rpartition(".")[::2]):
        return owned
    every = [*section_settings("data"), *section_settings("train"), *recipe_settings()]
    return [each for each in (*every, *component_options(key.rpartition(".")[2]))
            if key in (each.key, each.key.rpartition(".")[2])]


def _options_of(name: str, option: str) -> list[Setting]:
    """The settings of this name of a recipe, or of a component, as they are typed."""
    owners = [kind for kind, listed in names().items() if name in listed and kind != "preset"]
    settings_of = {kind: [f"{key}." for key, kinds in kinds_by_setting().items() if kind in kinds]
                   for kind in owners}
    return [replace(each, users=(name,)) for kind in owners for prefix in settings_of[kind] or [""]
            for each in options(kind, name, prefix) if each.key.rpartition(".")[2] == option]


def component_options(name: str) -> list[Setting]:
    """The options of this name, of all components that a setting can be."""
    return _merge(Setting(f"{key}.{name}", option.default, option, (component,))
                  for key, kinds in kinds_by_setting().items() for kind in kinds
                  for component in registry.names(kind)
                  if (option := registry.schema(kind, component).get(name)))


def known_words() -> list[str]:
    """All words that can be listed, for suggestions."""
    keys = [each.key for section in SECTIONS for each in section_settings(section)]
    optional = [f"{word}.{option}" for key, kinds in kinds_by_setting().items() for kind in kinds
                for component in registry.names(kind) for option in registry.schema(kind, component)
                for word in (key, component)]
    return [*(word for kind, listed in names().items() for word in (kind, *listed)), *SECTIONS, *keys,
            *(key.partition(".")[2] for key in keys), *(each.key for each in recipe_settings()), *optional]
