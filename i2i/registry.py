"""Components chosen by name.  The signature of a registered callable is the schema of its options.

Parameters before the `*` are supplied by code; keyword-only parameters are the options a user may set.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from i2i.errors import RequestError

T = TypeVar("T")
_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}
MAX_WORD = 100              # Characters of a user's word that are compared with the known names.


@dataclass(frozen=True)
class Spec:
    """A component's name and options, e.g. `Spec("unet", {"width": 32})`."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{key}={to_json(value)}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


def component(kind: str, name: str, **options: Any) -> Any:
    """A dataclass field that holds the Spec of a component of this kind."""
    return dataclasses.field(default=Spec(name, options), metadata={"kind": kind})


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator that registers a callable as component `name` of a kind.

    Raises:
        ValueError: if the name is taken.
    """

    def add(item: T) -> T:
        table = _COMPONENTS.setdefault(kind, {})
        if name in table:
            raise ValueError(f"{kind} {name!r} is registered twice")
        table[name] = typing.cast(Callable[..., Any], item)
        return item

    return add


def kinds() -> list[str]:
    """The kinds of component that have been registered, sorted."""
    return sorted(_COMPONENTS)


def names(kind: str) -> list[str]:
    """The names of all components of a kind, sorted."""
    return sorted(_COMPONENTS.get(kind, {}))


def suggest(word: str, known: Iterable[str], shown: Iterable[str] | None = None) -> str:
    """The end of an error message about an unknown word: "did you mean …? known: …".

    Args:
        word: what the user wrote.
        known: the accepted words, among which the nearest is looked for.
        shown: the words to list as known, if not all of them.
    """
    known = list(known)
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word[:MAX_WORD].lower(), list(lower), n=1)
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return hint + "known: " + (", ".join(known if shown is None else shown) or "none")


def lookup(kind: str, name: str) -> Callable[..., Any]:
    """The registered component.  RequestError with the nearest name if there is none."""
    table = _COMPONENTS.get(kind, {})
    if name not in table:
        raise RequestError(f"no {kind} is called {str(name)[:MAX_WORD]!r}; {suggest(name, sorted(table))}")
    return table[name]


# Recipes build their losses in each step; uncached, this took a tenth of the time of small networks.
@functools.cache
def schema(kind: str, name: str) -> Mapping[str, inspect.Parameter]:
    """The options of a component: its keyword-only parameters, with evaluated annotations."""
    parameters = inspect.signature(lookup(kind, name), eval_str=True).parameters
    return {key: p for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def build(kind: str, spec: Spec, *supplied: Any) -> Any:
    """Make a component from its spec and the arguments supplied by code.  RequestError for unknown
    options."""
    check_options(kind, spec.name, spec.options)
    return lookup(kind, spec.name)(*supplied, **spec.options)


def check_options(kind: str, name: str, options: Iterable[str]) -> None:
    """RequestError for the first option that the component does not have."""
    known = schema(kind, name)
    for key in options:
        if key not in known:
            raise RequestError(f"{kind} {name!r} has no option {key!r}; {suggest(key, known)}")


def to_json(value: Any) -> Any:
    """A setting as JSON data: specs become dicts, tuples become lists."""
    if isinstance(value, Spec):
        return {"name": value.name, "options": {k: to_json(v) for k, v in value.options.items()}}
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    return value
