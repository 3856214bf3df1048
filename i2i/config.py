"""Settings: KEY=VALUE assignments of the command line, frozen dataclasses and JSON."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from inspect import get_annotations
from typing import Any, Literal, TypeVar

from i2i.errors import RequestError, require
from i2i.registry import (
    MAX_NAME_LENGTH,
    Option,
    Spec,
    check_options,
    kinds,
    names,
    parts,
    schema,
    split_annotation,
    suggest,
    to_json,
)

T = TypeVar("T")
VERSION = "0.1.0"           # Of the package; written into model files, run folders and results.
MAX_INTEGER = 2**53         # Up to here every integer is exact as a float.
_SUFFIXES = {"k": 1_000, "m": 1_000_000}


def describe_type(to: Any) -> str:
    """What a type accepts, for error messages."""
    if typing.get_origin(to) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(to))
    if typing.get_origin(to) is tuple:
        return f"{describe_type(typing.get_args(to)[0])}, or several separated by commas"
    descriptions = {int: "an integer (400000 or 400k)", float: "a number", bool: "true or false", str: "text"}
    return descriptions.get(to, str(getattr(to, "__name__", to)))


def parse(key: str, text: str, to: Any) -> Any:
    """Convert text to int, float, bool, str, a Literal or a tuple of one of them; numbers may end in k or M.

    RequestError with the name `key` if the text cannot be read as that type.
    """
    try:
        return _convert(key, text, to)
    except ValueError as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{key}={text} cannot be read; accepted: {describe_type(to)}") from None


def _convert(key: str, text: str, to: Any) -> Any:
    if typing.get_origin(to) is tuple:
        parts = text.split(",") if text else ()
        return tuple(_convert(key, part, typing.get_args(to)[0]) for part in parts)
    if to is str:
        return text
    choices = {"true": True, "false": False} if to is bool else {each: each for each in typing.get_args(to)}
    if choices:
        word = text.lower() if to is bool else text
        if word not in choices:
            raise ValueError
        return choices[word]
    factor = _SUFFIXES.get(text[-1:].lower(), 1)
    value = float(text[:-1] if factor > 1 else text) * factor
    if not math.isfinite(value) or (to is int and value != int(value)):
        raise ValueError
    require(to is float or abs(value) <= MAX_INTEGER, key, text, "an integer up to 2^53")
    return to(value)


def settings(config: Any) -> dict[str, Option]:
    """Settings of a config (a dataclass or an instance of one) by name; its own before inherited ones."""
    cls = config if isinstance(config, type) else type(config)
    types, found = typing.get_type_hints(cls, include_extras=True), {}
    depth = {name: i for i, base in reversed([*enumerate(cls.__mro__)]) for name in get_annotations(base)}
    for field in sorted(dataclasses.fields(cls), key=lambda field: depth[field.name]):
        to, text = split_annotation(types[field.name])
        found[field.name] = Option(to, field.default, text, field.metadata.get("kind", ""))
    return found


def components_in_use(config: Any) -> list[tuple[str, str]]:
    """Kind and name of each component that a config names, also in options such as generator.norm."""
    used = []
    for key, option in settings(config).items():
        if isinstance(spec := getattr(config, key), Spec):
            defaults = {each: found.default for each, found in schema(option.kind, spec.name).items()}
            options = [(each.rpartition(".")[2], value)
                       for each, value in (defaults | dict(spec.options)).items() if isinstance(value, str)]
            used += [*((option.kind, part) for part in parts(option.kind, spec.name)),
                     *((kind, value) for kind, value in options if kind in kinds())]
    return used


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON data."""
    return {name: to_json(getattr(config, name)) for name in settings(config)}


def validate(key: str, value: Any, to: Any) -> Any:
    """Check JSON data against the annotated type; lists become tuples.

    RequestError for another type, NaN, infinity or an integer above 2^53.
    """
    origin = typing.get_origin(to)
    if origin is tuple:
        types = typing.get_args(to)
        if isinstance(value, list | tuple) and (types[-1] is ... or len(types) == len(value)):
            return tuple(validate(key, each, types[0]) for each in value)
    elif origin is Literal:
        if value in typing.get_args(to) and isinstance(value, str):
            return value
    elif to in (bool, str):
        if isinstance(value, to):
            return value
    elif (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INTEGER) or (
            to is float and isinstance(value, float) and math.isfinite(value)):
        return value
    raise RequestError(f"{key}={str(value)[:60]} cannot be used; accepted: {describe_type(to)}")


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """Rebuild the config that `to_dict` wrote.  RequestError for unknown keys and values of another type."""
    known, values = settings(cls), {}
    for key, value in data.items():
        if key not in known:
            raise RequestError(f"{cls.__name__} has no setting {key!r}; {suggest(key, known)}")
        if known[key].kind:
            values[key] = _spec(key, known[key].kind, value)
        else:
            values[key] = validate(key, value, known[key].type)
    return cls(**values)


def _spec(key: str, kind: str, data: Mapping[str, Any]) -> Spec:
    if kind not in kinds():     # The package of this kind is not imported: nothing of it will be built.
        return Spec(data["name"], data["options"])
    check_options(kind, data["name"], data["options"])
    options = schema(kind, data["name"])
    return Spec(data["name"], {option: validate(f"{key}.{option}", value, options[option].type)
                               for option, value in data["options"].items()})


def parse_assignments(assignments: Sequence[str]) -> list[tuple[str, str]]:
    """Split KEY=VALUE assignments; components come before their options, whatever the order was."""
    pairs = []
    for assignment in assignments:
        key, equals, value = str(assignment).partition("=")
        if not equals or not key:
            raise RequestError(f"{assignment!r} is not KEY=VALUE, such as lambda_l1=50 or generator.width=32")
        pairs.append((key, value))
    return sorted(pairs, key=lambda pair: "." in pair[0])


def override(config: T, pairs: Sequence[tuple[str, str]], prefix: str = "") -> T:
    """A copy of a config with (setting, text) and (component.option, text) pairs applied.

    The pairs are those of `parse_assignments`; `prefix` goes before the settings' names in error messages.
    """
    for key, text in pairs:
        known = settings(config)
        head, _, option = key.partition(".")
        if head not in known:
            raise RequestError(f"no setting {prefix + head!r}; {suggest(head, known)}")
        kind = known[head].kind
        if option and kind:
            new = _with_option(getattr(config, head), kind, prefix + head, option, text)
        elif option:
            raise RequestError(f"{prefix + head} has no options; it takes {describe_type(known[head].type)}")
        elif kind and (unknown := set(parts(kind, text)) - set(names(kind))):
            raise RequestError(f"{prefix + head}={text[:MAX_NAME_LENGTH]} cannot be used: there is no such "
                               f"{kind}; {suggest(min(unknown), names(kind))}")
        elif kind:
            old = getattr(config, head)
            new = old if text == old.name else Spec(text)
        else:
            new = parse(prefix + key, text, known[head].type)
        config = dataclasses.replace(config, **{head: new})  # type: ignore[type-var]
    return config


def _with_option(old: Spec, kind: str, key: str, option: str, text: str) -> Spec:
    options = schema(kind, old.name)
    if option not in options:
        others = ", ".join(name for name in names(kind) if name != old.name)
        hint = suggest(option, options) if options else f"it has none; {key} can be {others}"
        raise RequestError(f"{kind} {old.name!r} has no option {option!r}; {hint}")
    return Spec(old.name, {**old.options, option: parse(f"{key}.{option}", text, options[option].type)})
