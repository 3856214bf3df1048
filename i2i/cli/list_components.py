"""i2i list."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from i2i.cli.options import argument
from i2i.errors import RequestError


class Setting(NamedTuple):
    """One line of the listing."""

    name: str
    default: object
    accepted: str       # Empty where any value of the type is.
    help: str


def list_components(
    kind: Annotated[str | None, argument(
        "[KIND", "preset, recipe, data, train, or a kind of component, such as generator.")] = None,
    name: Annotated[str | None, argument("[NAME]]", "One of them.")] = None,
) -> None:
    """List presets, recipes, their components and every setting: its default, accepted values and meaning."""
    from i2i import config, registry
    from i2i.data.config import DataConfig
    from i2i.metrics import paired, set_metrics  # noqa: F401 - registers the metrics.
    from i2i.recipes.presets import PRESETS
    from i2i.training import optimizers  # noqa: F401 - registers them.
    from i2i.training.config import TrainConfig
    configs: dict[str, Any] = {"data": DataConfig, "train": TrainConfig}
    names = ({"preset": list(PRESETS)} | {kind: registry.names(kind) for kind in registry.kinds()}
             | {section: list(config.fields(cls)) for section, cls in configs.items()})
    if kind is None:
        for each in (each for each in names if each not in configs):
            print(f"{each:18}{', '.join(names[each])}")
        for section, cls in configs.items():
            print()
            _print(_config_settings(cls), f"{section}.", with_help=False)
        return
    kinds = _kinds_by_setting().get(kind, [kind])
    if not set(kinds) <= set(names):
        raise RequestError(f"no kind of component is called {kind!r}; {registry.suggest(kind, names)}")
    known = [each for one in kinds for each in names[one]]
    if name is not None and name not in known:
        raise RequestError(f"no {f'setting of {kind}' if kind in configs else kind} is called {name!r}; "
                           f"{registry.suggest(name, known)}")
    if kind in configs:
        _print([row for row in _config_settings(configs[kind]) if name in (None, row.name)], f"{kind}.")
        return
    for kind, each in ((one, each) for one in kinds for each in names[one] if name in (None, each)):
        if kind == "preset":
            preset = PRESETS[each]
            print(f"{each}: {preset.source}.  i2i train {' '.join((preset.recipe, *preset.settings))}")
            continue
        component = registry.lookup(kind, each)
        print(f"{each}: {' '.join((inspect.getdoc(component) or '').split())}")
        _print(_config_settings(component) if kind == "recipe" else _options(kind, each), "  ")


def _kinds_by_setting() -> dict[str, list[str]]:
    """The kinds of component that a setting can be: `generator` takes those from images and from noise."""
    from i2i import config, registry
    found: dict[str, list[str]] = {}
    for recipe in registry.names("recipe"):
        for field in config.fields(registry.lookup("recipe", recipe)).values():
            kind = field.metadata.get("kind")
            if kind and kind not in found.setdefault(field.name, []):
                found[field.name].append(kind)
    return found


def _print(rows: Iterable[Setting], prefix: str, *, with_help: bool = True) -> None:
    from i2i.training.plan import format_value
    for row in rows:
        remark = "; ".join(part for part in (row.accepted, row.help if with_help else "") if part)
        print(f"{prefix + row.name:30}{format_value(row.default):20} {remark}".rstrip())


def _accepted(annotation: Any) -> str:
    from i2i.config import describe_type
    return describe_type(annotation) if typing.get_origin(annotation) is Literal or annotation is bool else ""


def _options(kind: str, name: str) -> list[Setting]:
    from i2i.registry import schema
    return [Setting(key, parameter.default, _accepted(parameter.annotation), "")
            for key, parameter in schema(kind, name).items()]


def _config_settings(cls: Any) -> list[Setting]:
    """The settings of a recipe, of the data or of training, with the comments beside their definitions."""
    from i2i.config import fields
    types, comments, rows = typing.get_type_hints(cls), _comments(cls), []
    for key, field in fields(cls).items():
        kind = field.metadata.get("kind")
        rows.append(Setting(key, field.default, f"i2i list {kind}" if kind else _accepted(types[key]),
                            comments.get(key, "")))
    return rows


def _comments(cls: Any) -> dict[str, str]:
    """The comments at or above the fields of a dataclass and its bases."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__[:-1]):
        try:
            source = inspect.getsource(each)
        except OSError:     # Installed without source files.
            continue
        above: list[str] = []
        for line in source.splitlines():
            if comment := re.match(r"    # (.*)$", line):
                above.append(comment[1])
                continue
            if field := re.match(r"    (\w+): [^#\n]*(?:# *(.*))?$", line):
                found[field[1]] = " ".join(above) or field[2] or ""
            above = []
    return found
