"""Plugins: components of other packages and files, and their record in runs and models.

Installed packages register components by an entry point of the group `i2i.components`, loaded when a name is
looked up.  A file is run only if the user names it.
"""

import hashlib
import importlib.metadata
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from i2i.errors import RequestError, one_line, printable
from i2i.registry import components_of, names, origin, registering


class PluginFile(NamedTuple):
    """A file that was run as a plugin."""

    path: Path
    source: bytes
    sha256: str


_FILES: dict[str, PluginFile] = {}      # By name.


def load_plugin(path: str | Path) -> None:
    """Run a Python file that registers components; again, it does nothing.

    Raises:
        RequestError: if the file cannot be run, registers nothing, or another of its name is loaded.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise RequestError(f"--plugin {path} is no Python file; accepted: a file such as my_loss.py that "
                           "registers components")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RequestError(f"--plugin {path} cannot be read: {error.strerror}") from None
    _run(PluginFile(path, source, hashlib.sha256(source).hexdigest()))


def _run(file: PluginFile) -> None:
    path, source, sha256 = file
    name = path.name
    if name in _FILES:
        if _FILES[name].sha256 != sha256:
            raise RequestError(f"--plugin {path}: another plugin of that name is loaded, {_FILES[name].path}")
        return
    stem = re.sub(r"\W", "_", path.stem)
    module = ModuleType(f"i2i_plugin_{stem}_{sha256[:8]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    _FILES[name] = file._replace(path=path.absolute())      # Before it is run: it may load itself.
    try:
        with registering(name):
            exec(compile(source, str(path), "exec"), module.__dict__)
            if not components_of(name):
                raise RequestError("it registers no component (@i2i.registry.register)")
    except BaseException as error:      # Such as SystemExit.
        del sys.modules[module.__name__], _FILES[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
                 if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        reason = str(error) if isinstance(error, RequestError) else one_line(error)
        raise RequestError(f"--plugin {path}{line}: {reason[:300]}") from None


class LoadedPlugins:
    """Pickles as the plugin files of this process, and runs them in the process that unpickles it.

    Spawned processes need it before the objects whose classes the plugins define.
    """

    def __init__(self, *files: PluginFile) -> None:
        for file in files:
            _run(file)

    def __reduce__(self) -> tuple[Any, ...]:
        return LoadedPlugins, tuple(_FILES.values())


def describe_plugins(components: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The plugins of components (kind, name) as JSON data: name, SHA-256 or version, components."""
    by_origin: dict[str, list[str]] = {}
    for kind, name in dict.fromkeys(components):
        if source := origin(kind, name):
            by_origin.setdefault(source, []).append(f"{kind} {name}")
    return [{"name": source, **_identity(source), "components": found} for source, found in by_origin.items()]


def loaded_files(except_for: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The files that were loaded as plugins, except those with these names, as JSON data."""
    return [{"name": name, **_identity(name), "components": []} for name in _FILES if name not in except_for]


def _identity(source: str) -> dict[str, str]:
    if source in _FILES:
        return {"sha256": _FILES[source].sha256}
    try:
        return {"version": importlib.metadata.version(source)}
    except importlib.metadata.PackageNotFoundError:     # A package that was imported by hand.
        return {"version": ""}


def check_plugins(described: object, path: object, *, exact: bool) -> None:
    """Check the plugins that a run or model was made with; nothing is loaded.

    Args:
        described: what `describe_plugins` returned, as read from a file.
        path: the run or model.
        exact: whether a file that has changed is an error, and not only a warning.

    Raises:
        RequestError: if one is missing or has changed, with the plugin and what to type.
    """
    listed: list[Any] = described if isinstance(described, list) else [described]
    for each in listed:
        try:
            name, sha256, components = str(each["name"]), each.get("sha256"), [*map(str, each["components"])]
        except (TypeError, KeyError, AttributeError):
            raise RequestError(f"{path} is damaged: its list of plugins cannot be read") from None
        missing = [component for component in components
                   if component.partition(" ")[2] not in names(component.partition(" ")[0])]
        if missing or (sha256 and not components and name not in _FILES):
            what = f" ({', '.join(components)})" if components else ""
            how = (f"is not loaded; it is a program: if you trust it, give --plugin {name}, or call "
                   f"i2i.load_plugin({name!r})" if sha256 else "is not installed or imported")
            raise RequestError(printable(f"{path} was made with the plugin {name}{what}, which {how}"))
        if sha256 and name in _FILES and _FILES[name].sha256 != sha256:
            text = printable(f"the plugin {name} has changed since {path} was made with it (SHA-256 was "
                             f"{str(sha256)[:12]}…, is {_FILES[name].sha256[:12]}…)")
            if exact:
                raise RequestError(f"{text}; restore it to resume")
            print(f"warning: {text}", file=sys.stderr)
