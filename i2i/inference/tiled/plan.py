"""Plan the computation of a network by rows: which tensors are kept, where, and how many rows at once."""

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from i2i.errors import RequestError
from i2i.inference.tiled.rules import (
    LIKE,
    NEW,
    Rows,
    Rule,
    arguments,
    aten,
    find_rule,
    height,
    shape_of,
    uses_statistics,
)

MAX_CONSTANT = 1 << 20      # Values of a tensor that does not depend on the image's.
MAX_DEPTH = 3               # Convolutions that are computed one after the other without keeping results.
OVERHEAD = 2.0              # Of the tensors of a band: what convolutions take beside them.
BAND_BYTES = 1 << 26        # Larger bands are not faster.
REDUCTIONS = {aten.sum.dim_IntList, aten.mean.dim}


@dataclass
class Step:
    """Compute one tensor that is kept.

    Attributes:
        target: what is computed.
        nodes: the operations that compute rows of it, in order; none: it is computed whole, or is the input.
        reductions: what is computed of the target in the same pass.
        rows: rows of the target that are computed at once.
        kept: the kept tensors that are read.
        last: those that no later step reads.
        on_disk: whether the target is kept on disk.
    """

    target: Node
    nodes: list[Node]
    reductions: list[Node]
    rows: int = 0
    kept: set[Node] = field(default_factory=set)
    last: set[Node] = field(default_factory=set)
    on_disk: bool = False


class Program:
    """The operations of a network on an image of one size.

    Attributes:
        constants: the values that do not depend on the image.
        steps: what is computed, in order.  The last makes the result.
    """

    def __init__(self, network: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
        graph, attributes = _trace(network, shape, device)
        graph.eliminate_dead_code()
        self.constants: dict[Node, Any] = {}
        self.rules: dict[Node, Rule] = {}
        self.whole: set[Node] = set()
        order = [node for node in graph.nodes if node.op != "output"]
        self.input = next(node for node in order if node.op == "placeholder")
        self.position = {node: i for i, node in enumerate(order)}
        self.output: Node = next(iter(graph.output_node().args))          # type: ignore[assignment]
        by_rows = [node for node in order if not self._is_constant(node, attributes)]
        for node in by_rows[1:] if by_rows[0] is self.input else by_rows:
            rule = None if _is_random(node) or node in self.whole else find_rule(node, self.constants)
            if rule:
                self.rules[node] = rule
            else:
                self.whole.add(node)
                self.whole |= {user for user in node.users if user.target is operator.getitem}
        self.reductions = {node for node in by_rows if self._is_reduction(node)}
        self.kept = self._choose_kept(by_rows)
        self.steps = self._make_steps(by_rows)

    def _is_constant(self, node: Node, attributes: Any) -> bool:
        """Whether a value does not depend on those of the image; it is computed at once."""
        if node.op == "get_attr":
            self.constants[node] = attributes(node.target)
            return True
        if node.op == "placeholder" or _is_random(node):
            return False
        values = self.constants
        if node.target in NEW | LIKE and prod(shape_of(node)) <= MAX_CONSTANT:     # Only type and size count.
            like = node.all_input_nodes[0].meta["val"]
            values = {node.all_input_nodes[0]: torch.empty(
                like.shape if node.target in LIKE else (), dtype=like.dtype, device=like.device)}
        elif any(arg not in self.constants for arg in node.all_input_nodes):
            return False
        self.constants[node] = node.target(*map_arg(node.args, values.__getitem__),     # type: ignore
                                           **map_arg(node.kwargs, values.__getitem__))
        return True

    def _is_reduction(self, node: Node) -> bool:
        """Whether it is a sum or mean over rows, or needs the statistics of its input."""
        if node in self.rules:
            return uses_statistics(node)
        if node.target not in REDUCTIONS:
            return False
        rank = len(shape_of(node.all_input_nodes[0]))
        return rank > 1 and rank - 2 in {d % rank for d in arguments(node)["dim"] or ()}

    def dependencies(self, node: Node) -> list[Node]:
        """The arguments that are computed by rows, or kept."""
        return [arg for arg in node.all_input_nodes if arg not in self.constants]

    def _choose_kept(self, order: list[Node]) -> set[Node]:
        """What whole operations and reductions need; and what would be computed more than once."""
        kept = {self.input, self.output, *self.whole}
        for node in self.whole | self.reductions:
            kept.update(self.dependencies(node))
        depth: dict[Node, int] = {}
        for node in order:
            before = max((0 if arg in kept else depth[arg] for arg in self.dependencies(node)), default=0)
            depth[node] = before + (node in self.rules and self.rules[node].heavy)
            if depth[node] > MAX_DEPTH:
                kept.update(_tensors_of(node))
                depth[node] = 0
        costly: set[Node] = set()
        origins: dict[Node, set[Node]] = {}
        for node in order:
            args = self.dependencies(node)
            origins[node] = set[Node]().union(*(({arg} if arg in kept else origins[arg]) for arg in args))
            heavy = node in self.rules and self.rules[node].heavy
            if heavy or len(origins[node]) > 1 or costly.intersection(args) - kept:
                costly.add(node)
        targets: dict[Node, set[Node]] = {}
        for node in reversed(order):
            users = [user for user in node.users if user in self.rules or user in self.whole]
            targets[node] = set[Node]().union(*({user} if user in kept else targets[user] for user in users))
            if node not in kept and node in costly and len(targets[node]) > 1:
                kept.update(_tensors_of(node))
        return kept

    def _make_steps(self, order: list[Node]) -> list[Step]:
        steps = []
        for target in (node for node in order if node in self.kept):
            if target in self.reductions and target in self.whole:
                continue
            reductions = [user for user in target.users if user in self.reductions]
            if target in self.whole:
                steps.append(Step(target, [], reductions, kept=set(self.dependencies(target))))
            elif target is self.input:
                if reductions:
                    steps.append(Step(target, [], reductions, kept={target}))
            elif target is not self.output:
                steps.append(self._rows_step(target, reductions))
        last = self._rows_step(self.output, []) if self.output in self.rules else Step(
            self.output, [], [], kept={self.output})
        steps.append(last)
        used: set[Node] = set()
        for step in reversed(steps):
            step.last = step.kept - used
            used |= step.kept
        return steps

    def _rows_step(self, target: Node, reductions: list[Node]) -> Step:
        nodes, kept, waiting = set[Node](), set[Node](), [target]
        while waiting:
            node = waiting.pop()
            nodes.add(node)
            for arg in self.dependencies(node):
                if arg in self.kept:
                    kept.add(arg)
                elif arg not in nodes:
                    waiting.append(arg)
            if node in self.reductions:
                kept.add(node.all_input_nodes[0])
        return Step(target, sorted(nodes, key=self.position.__getitem__), reductions, kept=kept)

    def ranges(self, step: Step, a: int, b: int) -> dict[Node, Rows]:
        """The rows of everything that rows of a step's target need."""
        found = {step.target: (a, b)}
        for node in reversed(step.nodes):
            if node in found:
                for arg, (low, high) in self.rules[node].needs(*found[node]).items():
                    before = found.get(arg, (low, high))
                    found[arg] = min(low, before[0]), max(high, before[1])
        return found

    def band_bytes(self, step: Step, rows: int) -> int:
        """About what a step takes to compute some rows."""
        total, middle = 0, max(0, (height(step.target) - rows) // 2)
        for node, (low, high) in self.ranges(step, middle, min(middle + rows, height(step.target))).items():
            total += size_of(node) * (high - low) // max(1, height(node)) if node not in self.constants else 0
        return int(OVERHEAD * total)


def size_of(node: Node) -> int:
    """Bytes of a result."""
    value = node.meta["val"]
    values: Iterable[Any] = value if isinstance(value, tuple | list) else [value]
    return sum(prod(each.shape) * each.dtype.itemsize for each in values if isinstance(each, Tensor))


def layer_of(node: Node) -> str:
    """The layer that calls an operation, for a message."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    name, kind = stack[-1] if stack else ("", "the model")
    kind = getattr(kind, "__name__", str(kind).rpartition(".")[2])
    return f"layer {name.partition('.')[2] or name} ({kind}, {node.target})"


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _tensors_of(node: Node) -> list[Node]:
    """The node, or of an operation with several results the tensors it computes them from."""
    return node.all_input_nodes[:1] if isinstance(node.meta["val"], tuple | list) else [node]


def _trace(network: nn.Module, shape: tuple[int, ...], device: torch.device
           ) -> tuple[Graph, Callable[[str], Any]]:
    """The operations of a network on tensors without data.  RequestError where they depend on values."""
    network.__dict__["_orig_mod"] = network         # So that operations know their layers.
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(shape, device=device)
    try:
        module = make_fx(network, tracing_mode="fake", _allow_non_fake_inputs=True,
                         record_module_stack=True)(image)
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RequestError(f"this model cannot be computed in parts: {reason}") from None
    return module.graph, lambda name: operator.attrgetter(name)(module)
