"""i2i list."""

import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from i2i.cli.options import argument
from i2i.errors import RequestError
from i2i.registry import Option


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
             | {section: list(config.settings(cls)) for section, cls in configs.items()})
    if kind is None:
        for each in (each for each in names if each not in configs):
            print(f"{each:18}{', '.join(names[each])}")
        for section, cls in configs.items():
            print()
            _print(_rows(config.settings(cls)), f"{section}.", with_help=False)
        return
    kinds = _kinds_by_setting().get(kind, [kind])
    if not set(kinds) <= set(names):
        raise RequestError(f"no kind of component is called {kind!r}; {registry.suggest(kind, names)}")
    known = [each for one in kinds for each in names[one]]
    if name is not None and name not in known:
        raise RequestError(f"no {f'setting of {kind}' if kind in configs else kind} is called {name!r}; "
                           f"{registry.suggest(name, known)}")
    if kind in configs:
        _print([row for row in _rows(config.settings(configs[kind])) if name in (None, row.name)], f"{kind}.")
        return
    for kind, each in ((one, each) for one in kinds for each in names[one] if name in (None, each)):
        if kind == "preset":
            preset = PRESETS[each]
            print(f"{each}: {preset.source}.  i2i train {' '.join((preset.recipe, *preset.settings))}")
            continue
        component = registry.lookup(kind, each)
        print(f"{each}: {' '.join((inspect.getdoc(component) or '').split())}")
        options = config.settings(component) if kind == "recipe" else registry.schema(kind, each)
        _print(_rows(options), "  ")


def _kinds_by_setting() -> dict[str, list[str]]:
    """The kinds of component that a setting can be: `generator` takes those from images and from noise."""
    from i2i import config, registry
    found: dict[str, list[str]] = {}
    for recipe in registry.names("recipe"):
        for key, option in config.settings(registry.lookup("recipe", recipe)).items():
            if option.kind and option.kind not in found.setdefault(key, []):
                found[key].append(option.kind)
    return found


def _print(rows: Iterable[Setting], prefix: str, *, with_help: bool = True) -> None:
    from i2i.training.plan import format_value
    for row in rows:
        remark = "; ".join(part for part in (row.accepted, row.help if with_help else "") if part)
        print(f"{prefix + row.name:30}{format_value(row.default):20} {remark}".rstrip())


def _accepted(annotation: Any) -> str:
    from i2i.config import describe_type
    return describe_type(annotation) if typing.get_origin(annotation) is Literal or annotation is bool else ""


def _rows(options: Mapping[str, Option]) -> list[Setting]:
    return [Setting(key, option.default, f"i2i list {option.kind}" if option.kind else _accepted(option.type),
                    option.help) for key, option in options.items()]
