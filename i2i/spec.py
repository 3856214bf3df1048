"""Pieces chosen by name.  The signature of a registered callable is the schema of its options:
what stands before the `*` is supplied by code, what stands after it may be set by a person."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from i2i.errors import RequestError

T = TypeVar("T")
_PIECES: dict[str, dict[str, Callable[..., Any]]] = {}
LONGEST = 100               # Characters of a word that are looked at to find one like it.
LARGEST = 2**53             # Whole numbers up to it are floats too.


@dataclass(frozen=True)
class Spec:
    """A piece and its options, e.g. Spec("unet", {"width": 32})."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={plain(value)}" for key, value in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


def piece(kind: str, name: str, **options: Any) -> Any:
    """A dataclass field that holds the Spec of a piece of this kind."""
    return dataclasses.field(default=Spec(name, options), metadata={"kind": kind})


def register(kind: str, name: str) -> Callable[[T], T]:
    """Make a callable known as `name` among the pieces of this kind."""

    def add(item: T) -> T:
        table = _PIECES.setdefault(kind, {})
        if name in table:
            raise ValueError(f"{kind} {name!r} is registered twice")
        table[name] = typing.cast(Callable[..., Any], item)
        return item

    return add


def kinds() -> list[str]:
    """All kinds of piece that are registered."""
    return sorted(_PIECES)


def names(kind: str) -> list[str]:
    """All pieces of a kind."""
    return sorted(_PIECES.get(kind, {}))


def nearest(word: str, among: Iterable[str], told: Iterable[str] | None = None) -> str:
    """'did you mean …? known: …', to end an error message; known are all, or those `told`."""
    among = list(among)
    lower = {name.lower(): name for name in among}
    near = difflib.get_close_matches(word[:LONGEST].lower(), list(lower), n=1)
    return (f"did you mean {lower[near[0]]!r}? " if near else "") + "known: " + (", ".join(among if told is None else told) or "none")


def lookup(kind: str, name: str) -> Callable[..., Any]:
    """The registered piece; RequestError with the nearest name if there is none."""
    table = _PIECES.get(kind, {})
    if name not in table:
        raise RequestError(f"no {kind} is called {str(name)[:LONGEST]!r}; {nearest(name, sorted(table))}")
    return table[name]


@functools.cache        # Recipes build their losses in each step, which for small networks was a tenth of its time.
def schema(kind: str, name: str) -> Mapping[str, inspect.Parameter]:
    """Options of a piece: its keyword-only parameters, with evaluated annotations."""
    parameters = inspect.signature(lookup(kind, name), eval_str=True).parameters
    return {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def build(kind: str, spec: Spec, *supplied: Any) -> Any:
    """The piece made from its spec and what code supplies; unknown options raise RequestError."""
    known = schema(kind, spec.name)
    for key in spec.options:
        if key not in known:
            raise RequestError(f"{kind} {spec.name!r} has no option {key!r}; {nearest(key, known)}")
    return lookup(kind, spec.name)(*supplied, **spec.options)


def require(condition: bool, key: str, value: Any, accepted: str) -> None:
    """Raise RequestError unless the value of a setting is acceptable."""
    if not condition:
        raise RequestError(f"{key}={plain(value)} cannot be used; accepted: {accepted}")


# ---------------------------------------------------------------------------------------------- text to values

_SUFFIX = {"k": 1_000, "m": 1_000_000}


def _number(text: str) -> float:
    factor = _SUFFIX.get(text[-1:].lower(), 1)
    value = float(text[:-1] if factor > 1 else text) * factor
    if not math.isfinite(value):
        raise ValueError
    return value


def expected(to: Any) -> str:
    """What a type accepts, in words."""
    if typing.get_origin(to) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(to))
    if typing.get_origin(to) is tuple:
        return f"{expected(typing.get_args(to)[0])}, or several with commas between"
    words = {int: "a whole number (400000 or 400k)", float: "a number", bool: "true or false", str: "text"}
    return words.get(to, str(getattr(to, "__name__", to)))


def parse(key: str, text: str, to: Any) -> Any:
    """Text from a command line as the annotated type; numbers may end in k or M.  RequestError names the key."""
    refused = RequestError(f"{key}={text} cannot be read; accepted: {expected(to)}")
    origin = typing.get_origin(to)
    if origin is Literal:
        if text not in typing.get_args(to):
            raise refused
        return text
    if origin is tuple:
        try:
            return tuple(parse(key, part, typing.get_args(to)[0]) for part in text.split(","))
        except RequestError:
            raise refused from None
    if to is bool:
        if text.lower() not in ("true", "false"):
            raise refused
        return text.lower() == "true"
    if to is str:
        return text
    try:
        value = _number(text)
    except ValueError:
        raise refused from None
    if to is int:
        if value != int(value):
            raise refused
        require(abs(value) <= LARGEST, key, text, "a whole number up to 2^53")
        return int(value)
    return value


def plain(value: Any) -> Any:
    """A setting as JSON data."""
    if isinstance(value, Spec):
        return {"name": value.name, "options": {k: plain(v) for k, v in value.options.items()}}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


# ---------------------------------------------------------------------------------------------- configs

def settings(config: Any) -> dict[str, dataclasses.Field[Any]]:
    """The fields of a frozen config."""
    return {f.name: f for f in dataclasses.fields(config)}


def to_dict(config: Any) -> dict[str, Any]:
    """A frozen config as JSON data."""
    return {name: plain(getattr(config, name)) for name in settings(config)}


def checked(key: str, value: Any, to: Any) -> Any:
    """JSON data as the annotated type; RequestError if it is of another, or no number that can be counted with."""
    origin = typing.get_origin(to)
    if origin is tuple:
        types = typing.get_args(to)
        if isinstance(value, list | tuple) and (types[-1] is ... or len(types) == len(value)):
            return tuple(checked(key, each, types[0]) for each in value)
    elif origin is Literal:
        if value in typing.get_args(to) and isinstance(value, str):
            return value
    elif to in (bool, str):
        if isinstance(value, to):
            return value
    elif (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST) or (
            to is float and isinstance(value, float) and math.isfinite(value)):
        return value
    raise RequestError(f"{key}={str(value)[:60]} cannot be used; accepted: {expected(to)}")


def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
    """The config that `to_dict` wrote; keys that the class does not know, and values of another type, raise RequestError."""
    known, values = settings(cls), {}
    types = typing.get_type_hints(cls)
    for key, value in data.items():
        if key not in known:
            raise RequestError(f"{cls.__name__} has no setting {key!r}; {nearest(key, known)}")
        if "kind" in known[key].metadata:
            values[key] = _spec(key, known[key].metadata["kind"], value)
        else:
            values[key] = checked(key, value, types[key])
    return cls(**values)


def _spec(key: str, kind: str, data: Mapping[str, Any]) -> Spec:
    if kind not in _PIECES:         # Kinds of rooms that are not loaded will not be built.
        return Spec(data["name"], data["options"])
    options = schema(kind, data["name"])
    for option in data["options"]:
        if option not in options:
            raise RequestError(f"{kind} {data['name']!r} has no option {option!r}; {nearest(option, options)}")
    return Spec(data["name"], {option: checked(f"{key}.{option}", value, options[option].annotation) for option, value in data["options"].items()})


def split(assignments: Sequence[str]) -> list[tuple[str, str]]:
    """KEY=VALUE words as pairs, whole pieces before their options so that the order of words does not matter."""
    pairs = []
    for word in assignments:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise RequestError(f"{word!r} is not KEY=VALUE, such as lambda_l1=50 or generator.width=32")
        pairs.append((key, value))
    return sorted(pairs, key=lambda pair: "." in pair[0])


def override(config: T, pairs: Sequence[tuple[str, str]], prefix: str = "") -> T:
    """A copy of a frozen config with (key, text) and (piece.option, text) applied."""
    types = typing.get_type_hints(type(config))
    for key, text in pairs:
        known = settings(config)
        head, _, option = key.partition(".")
        if head not in known:
            raise RequestError(f"no setting {prefix + head!r}; {nearest(head, known)}")
        kind = known[head].metadata.get("kind")
        old = getattr(config, head)
        if option and not kind:
            raise RequestError(f"{prefix + head} has no options; it takes {expected(types[head])}")
        if option and kind:
            options = schema(kind, old.name)
            if option not in options:
                others = ", ".join(name for name in names(kind) if name != old.name)
                told = nearest(option, options) if options else f"it has none; {head} can be {others}"
                raise RequestError(f"{kind} {old.name!r} has no option {option!r}; {told}")
            new: Any = Spec(old.name, {**old.options, option: parse(prefix + key, text, options[option].annotation)})
        elif kind:
            if text not in names(kind):
                raise RequestError(f"{prefix + key}={text[:LONGEST]} cannot be used: no {kind} is called so; {nearest(text, names(kind))}")
            new = old if text == old.name else Spec(text)
        else:
            new = parse(prefix + key, text, types[head])
        config = dataclasses.replace(config, **{head: new})  # type: ignore[type-var]
    return config
