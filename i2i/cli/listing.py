"""i2i list."""

from __future__ import annotations

import fnmatch
import shutil
import textwrap
import typing
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from i2i.cli.completion import complete_list
from i2i.cli.options import NO_JSON, Json, Plugins, argument
from i2i.errors import RequestError

if TYPE_CHECKING:
    from i2i.cli.catalog import Setting

MAX_NAME_WIDTH, MAX_VALUE_WIDTH = 36, 22     # Characters; longer cells push the rest of their row aside.
MIN_TEXT_WIDTH = 30
MAX_CHOICES = 12                # Components that are named beside a setting.


class Row(NamedTuple):
    """A line of a table."""

    name: str
    value: str
    text: str


class Table(NamedTuple):
    """Rows under a title, with a line below them."""

    rows: Sequence[Row]
    title: str = ""
    note: str = ""


def list_components(
    name: Annotated[str | None, argument(
        "[NAME", "A recipe or preset (pix2pix), a component (unet), a setting (batch_size, generator.width), "
                 "a kind of component (generator), data, train, family (what models of each recipe can do), "
                 "or a pattern (\"*gan*\").", autocompletion=complete_list)] = None,
    member: Annotated[str | None, argument("[NAME]]", "One of that kind, or a pattern.")] = None,
    json_output: Json = NO_JSON, plugin: Plugins = None,
) -> None:
    """List recipes, presets, components and settings: what each is, its default, and what is accepted."""
    if name is None or (member is None and is_pattern(name)):
        tables = _matches(name or "*")
    elif name == "family":
        tables = _families(member or "*")
    else:
        tables = _everything_named(name) if member is None else _members(name, member)
    for table in tables:
        _print_table(table)
    json_output.write({"tables": [{"title": table.title, "rows": [row._asdict() for row in table.rows]}
                                  for table in tables if table.rows or table.title]})


def is_pattern(text: str) -> bool:
    """Whether a text holds wildcards."""
    return any(letter in text for letter in "*?[")


def matches(text: str, pattern: str) -> bool:
    """Whether a text matches a pattern, whatever their case."""
    return fnmatch.fnmatchcase(text.lower(), pattern.lower())


def _matches(pattern: str) -> list[Table]:
    """A line for each recipe, preset, component and setting whose name matches."""
    from i2i.cli import catalog
    groups = {kind: [Row(name, "", catalog.summary(kind, name)) for name in names
                     if matches(name, pattern)] for kind, names in catalog.names().items()}
    sections = {f"settings of {section}": catalog.section_settings(section) for section in catalog.SECTIONS}
    for title, settings in (sections | {"settings of recipes": catalog.recipe_settings()}).items():
        groups[title] = _rows(each for each in settings if matches(each.key, pattern)
                              or matches(each.key.partition(".")[2], pattern))
    tables = [Table(rows, title, "\n") for title, rows in groups.items() if rows]
    if not tables:
        raise RequestError(f"nothing matches {pattern!r}; i2i list shows everything there is")
    return [*tables, Table([], note="i2i list NAME shows one of them: its options, defaults and accepted "
                                    "values\n")]


def _members(kind: str, name: str) -> list[Table]:
    """Components of a kind, or of the kinds that a setting can be, or settings of a section."""
    from i2i.cli import catalog
    names = catalog.names()
    sections = {section: catalog.section_settings(section) for section in catalog.SECTIONS}
    kinds = catalog.kinds_by_setting().get(kind, [kind])
    if kind not in sections and not set(kinds) <= set(names):
        known = [*names, *sections, *catalog.kinds_by_setting()]
        raise RequestError(f"no kind of component is called {kind!r}; {_hint(kind, known, names)}")
    if kind in sections:
        known = [each.key.partition(".")[2] for each in sections[kind]]
        if rows := _rows(each for each in sections[kind] if matches(each.key, f"{kind}.{name}")):
            return [Table(rows)]
    else:
        known = [each for one in kinds for each in names[one]]
        if found := [(one, each) for one in kinds for each in names[one] if matches(each, name)]:
            return _components(found) + (_combinations(kinds) if name == "*" else [])
    raise RequestError(f"no {f'setting of {kind}' if kind in sections else kind} is called {name!r}; "
                       f"{_hint(name, known)}")


def _families(pattern: str) -> list[Table]:
    """What the models of each recipe whose name matches can do."""
    from i2i.cli import catalog
    rows = [Row(name, *text) for name, text in catalog.families().items() if matches(name, pattern)]
    if not rows:
        raise RequestError(f"no recipe is called {pattern!r}; {_hint(pattern, catalog.names()['recipe'])}")
    return [Table(rows)]


def _combinations(kinds: Sequence[str]) -> list[Table]:
    """How several components of these kinds are used at once, where they can be."""
    from i2i import registry
    tables = []
    for kind in filter(registry.combinable, kinds):
        first, second = registry.names(kind)[:2]
        option = next(iter(registry.schema(kind, second)))
        tables.append(Table([], note=f"Several at once: {kind}={first}+{second}, each with options of its "
                                     f"own: {kind}.{second}.{option}=…\n"))
    return tables


def _everything_named(name: str) -> list[Table]:
    """All that a name means: a kind, a recipe or preset, components, settings."""
    from i2i.cli import catalog
    names = catalog.names()
    if name in names or name in catalog.SECTIONS or name in catalog.kinds_by_setting():
        return _members(name, "*")
    found = [(kind, name) for kind, listed in names.items() if name in listed]
    settings = catalog.find_settings(name)
    if not found and not settings:
        raise RequestError(f"no component, recipe, preset or setting is called {name!r}; "
                           f"{_hint(name, catalog.known_words(), [*names, *catalog.SECTIONS])}")
    return [*_components(found), Table(_rows(settings))]


def _hint(word: str, known: Sequence[str], listed: Iterable[str] | None = None) -> str:
    """End of an error message: what an unknown word of another tool is called here, or the nearest name."""
    from i2i.registry import suggest
    from i2i.training.other_tools import called_here, is_settings, normalize
    if here := called_here(word):
        option = "i2i train RECIPE " if here.startswith("--") else ""
        return f"type {option}{here}" + (f" (i2i list {here.partition('=')[0]})" if is_settings(here) else "")
    return f"type i2i list {normalize(word)}" if normalize(word) in known else suggest(word, known, listed)


def _components(components: Sequence[tuple[str, str]]) -> list[Table]:
    """Each component with its options; a recipe or preset, if it is the only one, with all it uses."""
    from i2i.cli import catalog
    from i2i.registry import origin
    recipes = [each for each in components if each[0] in ("recipe", "preset")]
    whole, tables = len({name for _, name in recipes}) == 1, []
    for kind, name in components:
        text = " ".join(catalog.description(kind, name).split())
        source = f", from {origin(kind, name)}" if origin(kind, name) else ""
        title, rows, note = f"{name} ({kind}{source}): {text}", list[Row](), ""
        if kind not in ("recipe", "preset"):
            rows = _rows(catalog.options(kind, name))
        elif whole and (kind, name) == recipes[-1]:     # A preset may have the name of its recipe.
            rows, note = (_rows(catalog.in_use(name)),
                          "and those of data and training: i2i list data, i2i list train\n")
        tables.append(Table(rows, title, note))
    return tables


def _print_table(table: Table) -> None:
    """Print the title, the rows in columns, the last one wrapped at the terminal's width, and the note."""
    rows, indent = table.rows, "  " if table.title else ""
    for line in _wrap(table.title, _terminal_width()):
        print(line)
    names, values = (min(most, max((len(row[i]) for row in rows), default=0))
                     for i, most in enumerate((MAX_NAME_WIDTH, MAX_VALUE_WIDTH)))
    start = len(indent) + names + 2 + (values + 2 if values else 0)
    for row in rows:
        left = f"{indent}{row.name:{names}}  " + (f"{row.value:{values}}  " if values else "")
        first, *more = _wrap(row.text, _terminal_width() - start, max(0, len(left) - start)) or [""]
        print(f"{left}{first.lstrip()}".rstrip())
        for line in more:
            print(" " * start + line)
    print(table.note, end="")


def _wrap(text: str, width: int, taken: int = 0) -> list[str]:
    """Lines of a text; the first begins with the space that is taken already."""
    return textwrap.wrap(text, max(MIN_TEXT_WIDTH, width), initial_indent=" " * taken, break_on_hyphens=False,
                         break_long_words=False)


def _terminal_width() -> int:
    """Columns of the terminal; where there is none, such as in a pipe, lines are not wrapped."""
    return shutil.get_terminal_size((10_000, 24)).columns


def _rows(settings: Iterable[Setting]) -> list[Row]:
    from i2i.training.plan import format_value
    rows = []
    for each in settings:
        users = f"in {', '.join(each.users)}" if each.users else ""
        accepted = "; ".join(filter(None, (_accepted(each), users)))
        text = f"{each.option.help} ({accepted})" if accepted else each.option.help
        rows.append(Row(each.key, format_value(each.value), text.strip()))
    return rows


def _accepted(setting: Setting) -> str:
    """What a setting accepts, where that is a choice."""
    from i2i import registry
    from i2i.config import describe_type
    to, option = setting.option.type, setting.key.rpartition(".")[2]
    if kind := setting.option.kind or (option if to is str and option in registry.kinds() else ""):
        names = registry.names(kind)
        return ", ".join(names) if len(names) <= MAX_CHOICES else f"i2i list {kind}"
    return describe_type(to) if to is bool or typing.get_origin(to) in (Literal, tuple) else ""
