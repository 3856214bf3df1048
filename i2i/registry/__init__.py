"""Registry of components by name.  The signature of a registered callable is the schema of its options.

Parameters before the `*` are supplied by code; keyword-only parameters are the options a user may set, each
with its help in the annotation: `width: Annotated[int, Doc("channels of the first layer")] = 64`.
"""

import dataclasses
import difflib
import functools
import importlib.metadata
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from typing_extensions import Doc

from i2i.errors import RequestError, one_line, printable

T = TypeVar("T")
_COMPONENTS: dict[str, dict[str, Callable[..., Any]]] = {}
_COMBINERS: dict[str, Callable[..., Any]] = {}
_ORIGINS: dict[tuple[str, str], str] = {}       # Package or file of each component of a plugin.
KINDS = ("adversarial", "augment", "autoregressive_network", "callback", "dataset", "denoiser",
         "discriminator", "encoder", "feature_matching", "feature_network", "generator", "generator_penalty",
         "instance_noise", "invertible_network", "latent", "metric", "noise_generator", "norm", "optimizer",
         "paired_metric", "penalty", "perceptual", "preset", "recipe", "resize", "schedule", "unrolling",
         "weight_norm")
ENTRY_POINTS = "i2i.components"     # Group of the entry points of installed plugins.
MAX_NAME_LENGTH = 100       # Characters of a user's input that are compared with the known names.


@dataclass(frozen=True)
class Spec:
    """Name and options of a component, e.g. `Spec("unet", {"width": 32})`."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        options = ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else to_json(value)}"
                            for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


@dataclass(frozen=True)
class Option:
    """A value that a user may set: an option of a component or a setting of a config."""

    type: Any
    default: Any
    help: str
    kind: str = ""      # Of the component that a setting names; empty for a plain value.


def split_annotation(annotation: Any) -> tuple[Any, str]:
    """The type and the help of `Annotated[type, Doc(help)]`."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, ""
    to, *metadata = typing.get_args(annotation)
    return to, next((each.documentation for each in metadata if isinstance(each, Doc)), "")


def component(kind: str, name: str, **options: Any) -> Any:
    """A dataclass field that holds the Spec of a component of this kind."""
    return dataclasses.field(default=Spec(name, options), metadata={"kind": kind})


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator: register a callable, or a preset, as component `name` of a kind.

    A kind beyond KINDS needs a recipe, registered before, with a setting of it.  ValueError if there is
    no such kind or the name is taken, TypeError if the item cannot be called.
    """
    package = str(sys._getframe(1).f_globals.get("__name__", "")).partition(".")[0]

    def add(item: T) -> T:
        if kind not in KINDS and not _is_setting(kind):
            raise ValueError(f"no kind of component is called {kind!r}; {suggest(str(kind), KINDS)}")
        table = _COMPONENTS.setdefault(kind, {})
        if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set(" =,+"):
            raise ValueError(f"{kind} {name!r} cannot be typed; accepted: a name such as 'my-{kind}'")
        if kind != "preset" and not callable(item):
            raise TypeError(f"{kind} {name!r} is {type(item).__name__} and cannot be called")
        if name in table:
            if package != "i2i" or (kind, name) not in _ORIGINS:
                raise ValueError(f"{kind} {name!r} is registered twice")
            _warn(f"{kind} {name!r} of {_ORIGINS.pop((kind, name))} is left out: i2i has one of that name")
        table[name] = typing.cast(Callable[..., Any], item)
        if package != "i2i":
            _ORIGINS[kind, name] = _Plugins.loading or package
        return item
    return add


def _is_setting(kind: str) -> bool:
    """Whether a recipe has a component of this kind."""
    return any(field.metadata.get("kind") == kind for recipe in _COMPONENTS.get("recipe", {}).values()
               for field in getattr(recipe, "__dataclass_fields__", {}).values())


def register_combination(kind: str) -> Callable[[T], T]:
    """Decorator: several components of a kind can be used at once, as `patch+pixel`.

    The callable is passed the components by name, and returns one in place of them.
    """
    def add(item: T) -> T:
        _COMBINERS[kind] = typing.cast(Callable[..., Any], item)
        return item
    return add


def combinable(kind: str) -> bool:
    """Whether several components of a kind can be used at once."""
    return kind in _COMBINERS


def parts(kind: str, name: str) -> tuple[str, ...]:
    """The names in `patch+pixel` where components of a kind combine, or the name alone.

    RequestError for a name that comes twice.
    """
    found = tuple(name.split("+")) if combinable(kind) else (name,)
    if len(set(found)) < len(found):
        raise RequestError(f"{kind}={name[:MAX_NAME_LENGTH]} cannot be used: one of them comes twice; "
                           "accepted: each once")
    return found


class _Plugins:
    """State of the loading of plugins in this process."""

    loading = ""                # The package or file that is registering components.
    installed_loaded = False


@contextmanager
def registering(origin: str) -> Iterator[None]:
    """Record `origin` as the origin of the components that are registered in the block.

    They are removed if the block fails or the options of one of them cannot be read.
    """
    before, _Plugins.loading = _Plugins.loading, origin
    try:
        yield
        for kind, name in components_of(origin):
            if kind != "preset":
                schema.__wrapped__(kind, name)
    except BaseException:
        for kind, name in [key for key, each in _ORIGINS.items() if each == origin]:
            del _COMPONENTS[kind][name], _ORIGINS[kind, name]
        raise
    finally:
        _Plugins.loading = before


def _load_installed() -> None:
    """Load the plugins among the installed packages once; one that fails is a warning."""
    if _Plugins.installed_loaded:
        return
    _Plugins.installed_loaded = True
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist else point.value
        try:
            with registering(package):
                item = point.load()     # A module, or a function that registers components.
                if callable(item):
                    item()
        except KeyboardInterrupt:
            raise
        except BaseException as error:      # Such as SystemExit.
            _warn(f"the plugin {package} is left out: {one_line(error)[:200]}")


def _warn(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":      # Set by launchers.
        print("warning: " + printable(text.replace("\n", " ")), file=sys.stderr)


def origin(kind: str, name: str) -> str:
    """The package or file that a component comes from; empty if it is i2i's own."""
    return _ORIGINS.get((kind, name), "")


def components_of(origin: str) -> list[tuple[str, str]]:
    """Kind and name of each component of a package or file."""
    return [key for key, each in _ORIGINS.items() if each == origin]


def kinds() -> list[str]:
    """All kinds with registered components, sorted."""
    _load_installed()
    return sorted(kind for kind, table in _COMPONENTS.items() if table)


def names(kind: str) -> list[str]:
    """The names of all components of a kind, sorted."""
    _load_installed()
    return sorted(_COMPONENTS.get(kind, {}))


def suggest(name: str, known: Iterable[str], listed: Iterable[str] | None = None) -> str:
    """End of an error message about an unknown name: "did you mean ...? known: ...".

    Args:
        name: what the user wrote.
        known: the accepted names, of which the nearest is suggested.
        listed: the names to list, if not all.
    """
    known = list(known)
    lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name[:MAX_NAME_LENGTH].lower(), list(lower), n=1)
    hint = f"did you mean {lower[near[0]]!r}? " if near else ""
    return hint + "known: " + (", ".join(known if listed is None else listed) or "none")


def lookup(kind: str, name: str) -> Callable[..., Any]:
    """The registered component, or RequestError with the nearest name."""
    table = _COMPONENTS.setdefault(kind, {})
    if name not in table:
        _load_installed()
    if name not in table:
        shown = str(name)[:MAX_NAME_LENGTH]
        raise RequestError(f"no {kind} is called {shown!r}; {suggest(name, sorted(table))}")
    return table[name]


# Cached, as recipes build their losses in each step; it took a tenth of the time of small networks.
@functools.cache
def schema(kind: str, name: str) -> Mapping[str, Option]:
    """The options of a component, its keyword-only parameters; of `patch+pixel`: `patch.width` and so on."""
    if len(found := parts(kind, name)) > 1:
        return {f"{part}.{key}": option for part in found for key, option in schema(kind, part).items()}
    options = {}
    for key, p in inspect.signature(lookup(kind, name), eval_str=True).parameters.items():
        if p.kind is p.KEYWORD_ONLY:
            to, text = split_annotation(p.annotation)
            options[key] = Option(to, p.default, text)
    return options


def build(kind: str, spec: Spec, *supplied: Any, key: str = "") -> Any:
    """Build a component from its spec and arguments supplied by code.

    Args:
        key: the setting that holds the spec, for error messages; by default the kind.

    Raises:
        RequestError: for an unknown name, and if a value cannot be used.
    """
    check_options(kind, spec.name, spec.options)
    if len(names := parts(kind, spec.name)) > 1:
        return _COMBINERS[kind]({part: build(kind, _part(spec, part), *supplied, key=f"{kind}.{part}")
                                 for part in names})
    try:
        return lookup(kind, spec.name)(*supplied, **spec.options)
    except RequestError as error:
        text, key = str(error), key or kind
        head, sign = found.groups() if (found := re.match(r"(\w+)([.=])", text)) else ("", "")
        if head == kind and (sign == "." or "." not in key):
            text = key + text[len(kind):]
        elif head in KINDS and head in schema(kind, spec.name):     # Such as norm=virtual.
            text = f"{key}.{text}"
        raise RequestError(text) from None


def _part(spec: Spec, name: str) -> Spec:
    """One of the components that a spec combines."""
    prefix = f"{name}."
    return Spec(name, {key.removeprefix(prefix): value for key, value in spec.options.items()
                       if key.startswith(prefix)})


def check_options(kind: str, name: str, options: Iterable[str]) -> None:
    """Raise RequestError for the first option that the component does not have."""
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
