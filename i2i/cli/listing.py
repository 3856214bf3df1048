"""i2i list."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Any, Literal

from i2i import config, registry
from i2i.data.config import DataConfig
from i2i.errors import RequestError
from i2i.metrics import paired, set_metrics  # noqa: F401 - registers the metrics.
from i2i.recipes.presets import PRESETS
from i2i.training import optimizers, schedules  # noqa: F401 - registers them.
from i2i.training.config import TrainConfig

CONFIGS: dict[str, Any] = {"data": DataConfig, "train": TrainConfig}


def list_components(kind: str | None, name: str | None) -> None:
    """What can be chosen and set."""
    kinds = ({"preset": list(PRESETS)} | {kind: registry.names(kind) for kind in registry.kinds()}
             | {room: list(config.fields(config)) for room, config in CONFIGS.items()})
    if kind is None:
        for each in (each for each in kinds if each not in CONFIGS):
            print(f"{each:18}{', '.join(kinds[each])}")
        for room in CONFIGS:
            print()
            _print(_settings(CONFIGS[room]), f"{room}.", remarks=False)
        return
    if kind not in kinds:
        raise RequestError(f"no kind of piece is called {kind!r}; {registry.suggest(kind, kinds)}")
    if name is not None and name not in kinds[kind]:
        raise RequestError(f"no {f'setting of {kind}' if kind in CONFIGS else kind} is called {name!r}; "
                           f"{registry.suggest(name, kinds[kind])}")
    chosen = kinds[kind] if name is None else [name]
    if kind in CONFIGS:
        _print([row for row in _settings(CONFIGS[kind]) if row[0] in chosen], f"{kind}.")
    for each in () if kind in CONFIGS else chosen:
        if kind == "preset":
            preset = PRESETS[each]
            print(f"{each}: {preset.source}.  i2i train {' '.join((preset.recipe, *preset.words))}")
        else:
            item = registry.lookup(kind, each)
            print(f"{each}: {' '.join((inspect.getdoc(item) or '').split())}")
            _print(_settings(item) if kind == "recipe" else _options(kind, each), "  ")


def _print(rows: list[tuple[str, object, str, str]], before: str, *, remarks: bool = True) -> None:
    for key, default, accepted, remark in rows:
        told = "; ".join(part for part in (accepted, remark if remarks else "") if part)
        print(f"{before + key:24}{_text(default):20} {told}".rstrip())


def _text(value: object) -> str:
    return ",".join(map(_text, value)) if isinstance(value,
                                                     tuple) else str(value).lower() if isinstance(value,
                                                                                                  bool) else str(value)


def _choices(to: Any) -> str:
    return config.describe_type(to) if typing.get_origin(to) is Literal or to is bool else ""


def _options(kind: str, name: str) -> list[tuple[str, object, str, str]]:
    """The options of a piece: name, default, what is accepted where that is a few words; what they do is in
    the piece's docstring."""
    return [(key, parameter.default, _choices(parameter.annotation), "") for key,
            parameter in registry.schema(kind, name).items()]


def _settings(config: Any) -> list[tuple[str, object, str, str]]:
    """The settings of a recipe, of the data or of training: name, default, what is accepted, and the remark
    beside its definition."""
    types, remarks, rows = typing.get_type_hints(config), _remarks(config), []
    for key, field in config.fields(config).items():
        kind = field.metadata.get("kind")
        rows.append((key, field.default, f"i2i list {kind}" if kind else _choices(types[key]),
                     remarks.get(key, "")))
    return rows


def _remarks(config: Any) -> dict[str, str]:
    """The comments that stand beside the fields of a dataclass, of those it inherits too."""
    found: dict[str, str] = {}
    for each in reversed(config.__mro__[:-1]):
        try:
            found |= dict(re.findall(r"^    (\w+): [^#\n]*# *(.*)$", inspect.getsource(each), re.MULTILINE))
        except OSError:     # Installed without source files.
            continue
    return found
