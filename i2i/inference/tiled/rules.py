"""How operations compute some rows of their results from some rows of their arguments.

A row is an index of the dimension before the last, which in images is the height.  A rule holds for any
tensor, whatever that dimension means; operations without a rule are computed on whole tensors.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg
from torch.nn import functional as F

aten = torch.ops.aten
Rows = tuple[int, int]                      # First, and one past the last.
Values = Mapping[Node, Any]

NORMS = {aten.native_batch_norm.default, aten.cudnn_batch_norm.default, aten.miopen_batch_norm.default}
POOLS = {aten.max_pool2d_with_indices.default, aten.avg_pool2d.default}
VIEWS = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
# Operations with a `dim`, which leave the other dimensions as they are.
BY_DIM = {aten.cat.default, aten.slice.Tensor, aten.flip.default, aten.select.int, aten.unsqueeze.default,
          aten.squeeze.dim, aten.squeeze.dims, aten.sum.dim_IntList, aten.mean.dim, aten.amax.default,
          aten.amin.default, aten.argmax.default, aten.argmin.default, aten._softmax.default,
          aten.unbind.int, aten.split.Tensor, aten.split_with_sizes.default}
COPIES = {aten._to_copy.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
LIKE = {aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.empty_like.default}
NEW = {aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default}


@dataclass(frozen=True)
class Rule:
    """How an operation is computed by rows.

    Attributes:
        needs: rows of the result -> the rows it needs of its arguments; of constants that are not named, all.
        compute: rows of the result, and these rows of the arguments -> the result.
        heavy: whether it costs more to compute again than to keep.
    """

    needs: Callable[[int, int], dict[Node, Rows]]
    compute: Callable[[int, int, Values], Any]
    heavy: bool = False


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a result; of several, that of the first."""
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, tuple | list) else value).shape)


def height(node: Node) -> int:
    """Rows of a result; 1 below two dimensions."""
    shape = shape_of(node)
    return shape[-2] if len(shape) > 1 else 1


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operation by name, defaults included."""
    given, schema = dict(node.kwargs), node.target._schema.arguments      # type: ignore[union-attr]
    return {arg.name: node.args[i] if i < len(node.args) else given.get(arg.name, arg.default_value)
            for i, arg in enumerate(schema)}


def call(node: Node, values: Values, **changed: Any) -> Any:
    """Compute an operation with other values for its nodes, and some arguments changed."""
    if node.target is operator.getitem:
        return values[node.args[0]][node.args[1]]                          # type: ignore[index]
    named = map_arg({**arguments(node), **changed}, lambda n: values[n])
    schema = node.target._schema.arguments                                 # type: ignore[union-attr]
    return node.target(*[named[arg.name] for arg in schema if not arg.kwarg_only],     # type: ignore
                       **{arg.name: named[arg.name] for arg in schema if arg.kwarg_only})


def find_rule(node: Node, constants: Values) -> Rule | None:
    """The rule of an operation, or None if it can only be computed on whole tensors."""
    if node.target is operator.getitem:
        return _same_rows(node)
    target, rank = node.target, len(shape_of(node))
    if rank < 2 or not isinstance(target, torch._ops.OpOverload) or target._schema.is_mutable:
        return None
    if torch.Tag.pointwise in target.tags or target in COPIES | LIKE:
        return _same_rows(node)
    named = arguments(node)
    if target is aten.convolution.default and rank == 4:
        return _convolution(node, named)
    if target in POOLS and not named["ceil_mode"]:
        kernel, stride, padding = (_first(named[key]) for key in ("kernel_size", "stride", "padding"))
        dilation = _first(named.get("dilation", 1))
        return _windowed(node, dilation * (kernel - 1) + 1, stride or kernel, padding)
    if target in NORMS:
        return _batch_norm(node, named)
    if target in BY_DIM:
        return _by_dim(node, named)
    if target in (aten.index.Tensor, aten._unsafe_index.Tensor):
        return _index(node, named, constants)
    return _reshaping(node, named) if rank > 1 else None


def _first(value: Any) -> Any:
    return (value[0] if value else 0) if isinstance(value, list | tuple) else value


def _same_rows(node: Node, compute: Callable[[int, int, Values], Any] | None = None) -> Rule | None:
    """Row i of the result depends on rows i of the arguments, and on all of those that are broadcast."""
    rows = height(node)
    if any(height(arg) not in (1, rows) for arg in node.all_input_nodes):
        return None
    return Rule(lambda a, b: {arg: (a, b) if height(arg) == rows else (0, 1) for arg in node.all_input_nodes},
                compute or (lambda a, b, values: call(node, values)))


def narrow(value: Any, start: int, length: int) -> Any:
    """Rows of a tensor, or of each of several; of less than two dimensions, all."""
    if isinstance(value, tuple | list):
        return [narrow(each, start, length) for each in value]
    return value.narrow(-2, start, length) if isinstance(value, Tensor) and value.ndim > 1 else value


# ------------------------------------------------------------------------------------------- windows

def _window(node: Node, x: Node, window: Callable[[int, int], tuple[int, int, int]], *, heavy: bool = False
            ) -> Rule:
    """`window`: rows of the result -> first and last row of x, and the row of the result that the operation
    on these begins with.  What it takes for borders there lies outside of the rows."""
    def compute(a: int, b: int, values: Values) -> Any:
        return narrow(call(node, values), a - window(a, b)[2], b - a)

    return Rule(lambda a, b: {x: window(a, b)[:2]}, compute, heavy)


def _windowed(node: Node, size: int, stride: int, padding: int, *, heavy: bool = False) -> Rule:
    x: Node = node.args[0]          # type: ignore[assignment]

    def window(a: int, b: int) -> tuple[int, int, int]:
        start = max(0, a - -(-padding // stride))       # Not the first that would see its own padding.
        low = min(start * stride, height(x) - 1)
        return low, max(min(height(x), (b - 1) * stride - padding + size), low + 1), start

    return _window(node, x, window, heavy=heavy)


def _convolution(node: Node, named: Mapping[str, Any]) -> Rule:
    x, stride, padding = named["input"], named["stride"][0], named["padding"][0]
    size = named["dilation"][0] * (shape_of(named["weight"])[2] - 1) + 1
    if not named["transposed"]:
        return _windowed(node, size, stride, padding, heavy=True)
    added = named["output_padding"][0]

    def window(a: int, b: int) -> tuple[int, int, int]:
        low = max(0, min(-(-(a + padding - size + 1) // stride), a // stride))
        high = max((b - 1 + padding) // stride, -(-(b + 2 * padding - size - added) // stride)) + 1
        return low, min(height(x), max(high, low + 1)), low * stride

    return _window(node, x, window, heavy=True)


# ------------------------------------------------------------------------------------------- norms

def uses_statistics(node: Node) -> bool:
    """Whether it is a batch or instance norm that normalizes by its input."""
    return node.target in NORMS and bool(arguments(node)["training"])


def _batch_norm(node: Node, named: Mapping[str, Any]) -> Rule | None:
    """With statistics of its input, these are `values[node]`: mean and variance."""
    x = named["input"]

    def compute(a: int, b: int, values: Values) -> Any:
        weight, bias, mean, var = (None if named[key] is None else values[named[key]] for key in (
            "weight", "bias", "running_mean", "running_var"))
        mean, var = values[node] if named["training"] else (mean, var)
        return (F.batch_norm(values[x], mean, var, weight, bias, eps=named.get("eps", named.get("epsilon"))),)

    return Rule(lambda a, b: {x: (a, b)}, compute) if shape_of(x)[0] == 1 else None


# ------------------------------------------------------------------------------------------- order of rows

def _gather(node: Node, x: Node, rows: Sequence[int], then: Callable[[Tensor], Tensor] | None = None
            ) -> Rule:
    """Row i of the result is row `rows[i]` of x."""
    def compute(a: int, b: int, values: Values) -> Tensor:
        part, low, found = rows[a:b], min(rows[a:b]), values[x]
        if isinstance(part, range):
            found = found[..., ::part.step, :] if part.step > 0 else found.flip(-2)[..., ::-part.step, :]
        else:
            found = found.index_select(-2, torch.tensor([i - low for i in part], device=found.device))
        return then(found) if then else found

    return Rule(lambda a, b: {x: (min(rows[a:b]), max(rows[a:b]) + 1)}, compute)


def _by_dim(node: Node, named: Mapping[str, Any]) -> Rule | None:
    x = node.all_input_nodes[0]
    rank, given = len(shape_of(x)), named.get("dim", named.get("dims"))
    if given is None or given == []:
        return None
    if node.target is aten.unsqueeze.default:
        return _same_rows(node) if given % (rank + 1) <= rank - 2 else None
    dims = {d % rank for d in (given if isinstance(given, list | tuple) else [given])}
    kept = len(shape_of(node)) == rank
    if all(d < rank - 2 or (d == rank - 1 and kept) for d in dims):
        return _same_rows(node)
    if node.target is aten.slice.Tensor:
        return _gather(node, x, range(height(x))[named["start"]:named["end"]:named["step"]])
    if node.target is aten.flip.default:
        columns = [-1] if rank - 1 in dims else []
        return None if dims - {rank - 1, rank - 2} else _gather(
            node, x, range(height(x))[::-1], lambda y: y.flip(columns) if columns else y)
    return _stack_rows(node, named["tensors"]) if node.target is aten.cat.default else None


def _stack_rows(node: Node, parts: Sequence[Node]) -> Rule:
    starts = [sum(map(height, parts[:i])) for i in range(len(parts))]

    def overlaps(a: int, b: int) -> list[tuple[Node, int, int]]:
        return [(part, max(a - start, 0), min(b - start, height(part)))
                for part, start in zip(parts, starts, strict=True) if a < start + height(part) and start < b]

    def needs(a: int, b: int) -> dict[Node, Rows]:
        found: dict[Node, Rows] = {}
        for part, low, high in overlaps(a, b):
            before = found.get(part, (low, high))
            found[part] = min(low, before[0]), max(high, before[1])
        return found

    def compute(a: int, b: int, values: Values) -> Tensor:
        first = {part: rows[0] for part, rows in needs(a, b).items()}
        return torch.cat([narrow(values[part], low - first[part], high - low)
                          for part, low, high in overlaps(a, b)], -2)

    return Rule(needs, compute)


def _index(node: Node, named: Mapping[str, Any], constants: Values) -> Rule | None:
    """Indices that do not depend on the image, of rows, of columns, or (H, 1) and (W) of both."""
    x, rank = named["self"], len(shape_of(named["self"]))
    found = {i: index for i, index in enumerate(named["indices"]) if index is not None}
    if any(index not in constants or constants[index].dtype == torch.bool for index in found.values()):
        return None
    rows, columns = (constants[found[i]] if i in found else None for i in (rank - 2, rank - 1))
    if set(found) - {rank - 2, rank - 1} or (columns is not None and columns.numel() != columns.shape[-1]):
        return None
    if rows is None:
        return _same_rows(node)
    if rows.numel() != rows.shape[0] or (columns is not None and rows.ndim != 2):
        return None
    return _gather(node, x, (rows.flatten() % height(x)).tolist(), lambda y: (
        y if columns is None else y.index_select(-1, columns.flatten().to(y.device) % y.shape[-1])))


# ------------------------------------------------------------------------------------------- shapes

def _reshaping(node: Node, named: Mapping[str, Any]) -> Rule | None:
    target, shape = node.target, shape_of(node)
    x = node.all_input_nodes[0] if node.all_input_nodes else node
    if target in VIEWS and shape_of(x)[-2:] == shape[-2:]:
        return _same_rows(node, lambda a, b, values: values[x].reshape(*shape[:-2], b - a, shape[-1]))
    if target is aten.expand.default:
        return _same_rows(node, lambda a, b, values: values[x].expand(*shape[:-2], b - a, shape[-1]))
    if (target is aten.repeat.default and named["repeats"][-2] == 1) or (
            target is aten.permute.default and named["dims"][-2] % len(shape) == len(shape) - 2):
        return _same_rows(node)
    if target is aten.pixel_shuffle.default:
        factor = named["upscale_factor"]
        return _window(node, x, lambda a, b: (a // factor, -(-b // factor), a // factor * factor))
    if target is aten.constant_pad_nd.default:
        return _constant_pad(node, x, [*named["pad"], 0, 0, 0, 0])
    borders = {aten.reflection_pad2d.default: "reflect", aten.replication_pad2d.default: "replicate"}
    if target in borders:
        left, right, top, bottom = named["padding"]
        index = F.pad(torch.arange(height(x), dtype=torch.float64)[None, None], (top, bottom),
                      borders[target])
        return _gather(node, x, index.flatten().long().tolist(), lambda y: F.pad(
            y, (left, right, 0, 0), borders[target]))
    return None


def _constant_pad(node: Node, x: Node, pad: Sequence[int]) -> Rule | None:
    top, bottom = pad[2], pad[3]
    if top < 0 or bottom < 0:
        return None

    def needs(a: int, b: int) -> dict[Node, Rows]:
        low = max(0, min(a - top, height(x) - 1))
        return {x: (low, max(min(height(x), b - top), low + 1))}

    def compute(a: int, b: int, values: Values) -> Tensor:
        low, high = needs(a, b)[x]
        above, below = top if low == 0 else 0, bottom if high == height(x) else 0
        padded = call(node, values, pad=[*pad[:2], above, below, *pad[4:-4]])
        return narrow(padded, a - (low + top - above), b - a)

    return Rule(needs, compute)
