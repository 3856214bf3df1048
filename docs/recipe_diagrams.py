"""Who feeds whom in every recipe, drawn from the code: `python docs/recipe_diagrams.py`.

One step of each recipe is run on tensors without data.  Every call of a network is recorded with what it
was computed from, and every `update` with the terms of its loss.  The result is one picture for each recipe
and the page that shows them, docs/understand/recipes.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from svg_graph import Edge, Node, picture
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from i2i import registry
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.meta_device import build_on_meta
from i2i.seeding import Progress

FOLDER = Path(__file__).parent / "understand"
RANDOM = ("rand", "randn", "randint", "rand_like", "randn_like", "normal", "bernoulli", "randperm")
INPUTS = {"paired": {"a": "a: source", "b": "b: target"}, "images": {"b": "b: real"},
          "unpaired": {"a": "a: one side", "b": "b: other side"}}
HEAD = """# Who feeds whom

A GAN is several networks that are trained in turns, each by a loss of its own. These pictures show, for each
recipe with its default settings, which network gets what from which, and what each turn minimizes.

They are not drawn by hand: one step of each recipe is run, and every call of a network is recorded
(`python docs/recipe_diagrams.py`; a test compares the pictures with the code).

| in the pictures | is |
|---|---|
| gray, round | what comes from the data set, or random numbers |
| blue | a network whose weights this turn changes |
| white | a network that is used in this turn and stays as it is, or a pool of earlier images |
| yellow | a term of the loss that this turn minimizes |
| dashed arrow | values alone: no gradient flows back |

A network that is called several times is drawn several times. Images that go through a network in one batch
share one box, as `a` and `b` in the generators of CycleGAN, which need the other side for the identity loss.

"""
TITLES = {"D": "D's turn", "G": "G's turn", "model": "The only turn"}


class Trace(TorchFunctionMode):
    """Remember of each tensor which calls it was computed from."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[str, str] = {}                 # Name of a call -> its network or input.
        self.edges: list[Edge] = []
        self.known: dict[Any, str] = {}
        self.inside = False

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        if getattr(func, "__name__", "") in RANDOM:
            origins = frozenset({self.input("noise")})
        else:
            origins = self.origins((args, kwargs))
        if not self.inside:
            self.mark(out, origins)
        return out

    def input(self, name: str) -> str:
        """The node of something that comes from outside."""
        self.nodes.setdefault(name, name)
        return name

    @staticmethod
    def origins(tree: Any) -> frozenset[str]:
        """The calls that the tensors within anything were computed from."""
        return frozenset().union(*(getattr(x, "_from", ()) for x in pytree.tree_leaves(tree)
                                   if isinstance(x, Tensor)))

    @staticmethod
    def mark(tree: Any, origins: frozenset[str]) -> None:
        """Say what the tensors within anything were computed from."""
        for x in pytree.tree_leaves(tree):
            if isinstance(x, Tensor) and not isinstance(x, torch.nn.Parameter):
                x._from = origins

    def call(self, name: str, inputs: Any) -> str:
        """The node of a call: one for calls of a network on the same inputs."""
        sources = sorted({(origin, not x.requires_grad) for x in pytree.tree_leaves(inputs)
                          if isinstance(x, Tensor) for origin in getattr(x, "_from", ())})
        node = self.known.setdefault((name, *sources), f"{name}#{len(self.known)}")
        if node not in self.nodes:
            self.nodes[node] = name
            self.edges += [(origin, node, constant) for origin, constant in sources if origin != node]
        return node

    def watch(self, module: torch.nn.Module, name: str) -> None:
        """Record the calls of a network, and of methods of its own that code outside uses."""
        for method in ["forward", *(each for each in dir(type(module)) if not each.startswith("_")
                                    and not hasattr(torch.nn.Module, each))]:
            function = getattr(module, method)
            if inspect.ismethod(function):
                setattr(module, method, self.recorded(name, function))

    def recorded(self, name: str, function: Callable) -> Callable:
        """A function whose results come from a call of this name."""
        def run(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return function(*args, **kwargs)
            self.inside = True
            try:
                out = function(*args, **kwargs)
            finally:
                self.inside = False
            if any(isinstance(x, Tensor) for x in pytree.tree_leaves(out)) and self.origins((args, kwargs)):
                self.mark(out, frozenset({self.call(name, (args, kwargs))}))
            return out
        return run


def terms(loss: Tensor, logs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The logged values that the loss is a sum of: those that its gradient goes through."""
    found, queue = set(), [loss.grad_fn]
    while queue:
        if (node := queue.pop()) is not None and node not in found:
            found.add(node)
            queue += [parent for parent, _ in node.next_functions]
    return {name: value for name, value in logs.items() if value.grad_fn in found} or {"loss": loss}


Turn = tuple[str, dict[str, Node], list[Edge]]


def turn(player: str, recipe: Recipe, trace: Trace, losses: dict[str, Tensor]) -> Turn:
    """The graph of one player's turn: all that its losses are computed from."""
    edges = [(a, b, dashed and (a, b, False) not in trace.edges) for a, b, dashed in trace.edges]
    edges += [(origin, f"loss {key}", False) for key, value in losses.items()
              for origin in sorted(trace.origins(value))]
    reach, size = {f"loss {key}" for key in losses}, 0
    while size < len(reach):
        size = len(reach)
        reach |= {a for a, b, _ in edges if b in reach}
    trained = [name for name in recipe.players[player].modules if name in trace.nodes.values()]
    nodes = {node: Node(INPUTS[recipe.dataset].get(what, what), "input" if what == node else
                        "trained" if what in trained else "frozen")
             for node, what in trace.nodes.items() if node in reach}
    nodes |= {f"loss {key}": Node(key.replace("_", " "), "loss") for key in losses}
    return (f"{TITLES[player]}: {', '.join(trained)}", nodes, list(dict.fromkeys(
        (a, b, dashed and nodes[a].style != "input") for a, b, dashed in edges if a in reach and b in reach)))


def turns(name: str) -> list[Turn]:
    """The graph of each player's turn: title, nodes, edges."""
    recipe = registry.lookup("recipe", name)()
    info = DataInfo((64, 64) if name != "autoregressive" else (16, 16))
    modules, trace = build_on_meta(recipe, info), Trace()
    with torch.device("meta"):
        batch = {key: torch.empty(2, 3, *info.size) for key in INPUTS[recipe.dataset]}
        batch["c"] = torch.empty(2, dtype=torch.int64)
    found: list[Turn] = []

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        found.append(turn(player, recipe, trace, terms(loss, logs)))

    for key, module in modules.items():
        if any(x.numel() for x in (*module.parameters(), *module.buffers())):
            trace.watch(module, key)
    for key, tensor in batch.items():
        tensor._from = frozenset({trace.input(key)})
    with trace:
        recipe.step(modules, batch, Progress(0, 2, 2), update)
    return found


def page(names: list[str]) -> str:
    """The page that shows all pictures."""
    parts = [HEAD]
    for name in names:
        recipe = registry.lookup("recipe", name)
        parts += [f"## {name}\n\n{inspect.getdoc(recipe).splitlines()[0]}\n\n",
                  f"![the networks of {name} and what they get from each other](recipes/{name}.svg)\n\n",
                  f"{' '.join((inspect.getdoc(recipe.modules) or '').split())}\n\n"]
    return "".join(parts).rstrip() + "\n"


def files() -> dict[Path, str]:
    """Everything that is written: path -> text."""
    names = registry.names("recipe")
    return {FOLDER / "recipes.md": page(names),
            **{FOLDER / "recipes" / f"{name}.svg": picture(turns(name)) for name in names}}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
