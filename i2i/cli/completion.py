"""Words that the shell completes, read from the source: importing what registers them takes seconds."""

import ast
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

import typer

from i2i.files import bundled_folder

PACKAGE = Path(__file__).parents[1]
ROOMS = ("augment", "data", "losses", "metrics", "nets", "recipes", "training")     # With components.
Node = ast.ClassDef | ast.FunctionDef


def complete_model(incomplete: str) -> list[str]:
    """Names of bundled models."""
    catalog = json.loads((bundled_folder("weights") / "models" / "catalog.json").read_bytes())
    return _starting(incomplete, catalog)


def complete_data(incomplete: str) -> list[str]:
    """Names of bundled datasets."""
    return _starting(incomplete, [path.stem for path in bundled_folder("datasets").glob("*.zip")])


def complete_train(context: typer.Context, incomplete: str) -> list[str]:
    """Recipes and presets, and after one of them settings."""
    started = context.params.get("args")
    return _starting(incomplete, [f"{key}=" for key in settings()] if started else [*recipes(), *presets()])


def complete_list(incomplete: str) -> list[str]:
    """What `i2i list` explains."""
    names = (name for listed in _registered().values() for name in listed)
    kinds = {"data", "train", "family", "preset", *_registered()}
    return _starting(incomplete, {*kinds, *names, *presets(), *settings()})


def recipes() -> list[str]:
    """Names of recipes."""
    return list(_registered()["recipe"])


def presets() -> list[str]:
    """Names of presets."""
    text = (PACKAGE / "recipes" / "presets.py").read_text(encoding="utf-8")
    return re.findall(r'^    \("([\w-]+)", "', text, re.MULTILINE)


def settings() -> set[str]:
    """Keys of data, of training, and of all recipes and their components."""
    found = {f"{section}.{key}" for section, name in (("data", "DataConfig"), ("train", "TrainConfig"))
             for key in _options(_by_name()[name])}
    for recipe in _registered()["recipe"].values():
        for key, kind in _options(recipe).items():
            found |= {key, *(f"{key}.{option}" for component in _registered().get(kind, {}).values()
                             for option in _options(component))}
    return found


@cache
def _nodes() -> list[Node]:
    """Classes and functions of the source."""
    sources = (path.read_bytes() for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))
    return [node for source in sources if b"@register" in source or b"@dataclass" in source
            for node in ast.parse(source).body if isinstance(node, Node)]


@cache
def _by_name() -> dict[str, Node]:
    return {node.name: node for node in _nodes()}


@cache
def _registered() -> dict[str, dict[str, Node]]:
    """What is decorated with `register(kind, name)`, by kind and name."""
    found: dict[str, dict[str, Node]] = {}
    for node in _nodes():
        for call in node.decorator_list:
            if _called(call) == "register":
                kind, name = map(ast.literal_eval, cast(ast.Call, call).args)
                found.setdefault(kind, {})[name] = node
    return found


def _options(node: Node) -> dict[str, str]:
    """Options of a component or config, and the kind of component that each is, if it is one."""
    if isinstance(node, ast.FunctionDef):
        return dict.fromkeys((arg.arg for arg in node.args.kwonlyargs), "")
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _options(each)
    found: dict[str, str] = {}
    for base in map(_name, node.bases):
        found |= _options(_by_name()[base]) if base in _by_name() else {}
    if "dataclass" in map(_called, node.decorator_list):
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and "ClassVar" not in map(_name, ast.walk(each.annotation)):
                value: Any = each.value
                is_component = _called(value) == "component"
                found[_name(each.target)] = ast.literal_eval(value.args[0]) if is_component else ""
    return found


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _called(node: ast.AST | None) -> str:
    """The name of what is called."""
    return _name(node.func) if isinstance(node, ast.Call) else ""


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(incomplete))
