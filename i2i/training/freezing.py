"""Layers that keep their weights while others learn.  FreezeD: Mo et al. 2020, arXiv:2002.10964."""

import difflib
import fnmatch
import re
from collections.abc import Collection, Sequence

from torch import nn

from i2i.errors import RequestError
from i2i.recipes.base import Recipe

MAX_RANGE = 10_000      # Layers in a range.
MAX_NAMED = 8           # Names that a message lists.


def frozen_parameters(recipe: Recipe, modules: nn.ModuleDict,
                      patterns: Sequence[str]) -> dict[str, list[str]]:
    """The names of the parameters that each pattern freezes, such as `D.layers.0-2` or `G.down.*`.

    A pattern begins with a player or a network and goes on along the path of a parameter; * and ? match parts
    of it, `0-2` the layers 0, 1 and 2.  Whatever lies below what it matches is frozen.

    Raises:
        RequestError: if a pattern matches nothing, or nothing of a player is left to learn.
    """
    paths = _paths(recipe, modules)
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        expression = re.compile(_expression(pattern) + r"(\..*)?", re.DOTALL)
        found[pattern] = [name for name, paths_of in paths.items()
                          if any(expression.fullmatch(path) for path in paths_of)]
        if not found[pattern]:
            raise RequestError(f"train.freeze={pattern[:100]} matches no parameter; "
                               + _near(pattern[:100], [path for each in paths.values() for path in each]))
    frozen = {name for names in found.values() for name in names}
    for player, of_player in recipe.players.items():
        own = [name for name in paths if name.partition(".")[0] in of_player.modules]
        if patterns and own and frozen.issuperset(own):
            raise RequestError(f"train.freeze={','.join(patterns)[:100]} cannot be used: it freezes all that "
                               f"player {player} could learn")
    return found


def describe_frozen(recipe: Recipe, modules: nn.ModuleDict, patterns: Sequence[str],
                    taken: Collection[str]) -> str:
    """How many parameters of each player are frozen, and how many of them were not `taken` from a model."""
    frozen = {name for names in frozen_parameters(recipe, modules, patterns).values() for name in names}
    parts = []
    for player, each in recipe.players.items():
        sizes = {f"{name}.{key}": p.numel() for name in each.modules
                 for key, p in modules[name].named_parameters()}
        if count := sum(sizes[name] for name in sizes if name in frozen):
            random = sum(sizes[name] for name in sizes if name in frozen and name not in taken)
            parts.append(f"{count:,} of the {sum(sizes.values()):,} parameters of {player}"
                         + (f", {random:,} of them at random values" if random else ""))
    return "; ".join(parts)


def _paths(recipe: Recipe, modules: nn.ModuleDict) -> dict[str, tuple[str, ...]]:
    """Of each parameter that is trained, its paths from its network and from its player."""
    return {f"{name}.{key}": (f"{name}.{key}", f"{player}.{key}")
            for player, each in recipe.players.items() for name in each.modules
            for key, _ in modules[name].named_parameters()}


def _expression(pattern: str) -> str:
    parts = []
    for part in pattern.split("."):
        if ends := re.fullmatch(r"(\d{1,6})-(\d{1,6})", part):
            first, last = map(int, ends.groups())
            if not first <= last < first + MAX_RANGE:
                raise RequestError(f"train.freeze={pattern[:100]} cannot be used; accepted: ranges such as "
                                   "D.layers.0-2")
            parts.append(f"(?:{'|'.join(map(str, range(first, last + 1)))})")
        else:
            parts.append(fnmatch.translate(part)[:-2])      # Without the end.
    return r"\.".join(parts)


def _near(pattern: str, paths: Collection[str]) -> str:
    """The nearest path, and what there is below the part of the pattern that exists."""
    known = dict.fromkeys(".".join(parts[:n]) for parts in (path.split(".") for path in paths)
                          for n in range(1, len(parts) + 1))
    near = difflib.get_close_matches(pattern.removesuffix(".*"), known, n=1, cutoff=0.5)
    parts = pattern.split(".")
    start = next((".".join(parts[:n]) + "." for n in range(len(parts), 0, -1)
                  if ".".join(parts[:n]) in known), "")
    below = [name for name in known if name.startswith(start) and "." not in name[len(start):]]
    more = f" and {len(below) - MAX_NAMED} more" if len(below) > MAX_NAMED else ""
    return (f"did you mean {near[0]}? " if near else "") + f"known: {', '.join(below[:MAX_NAMED])}{more}"
