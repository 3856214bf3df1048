"""Compute a planned network band by band, with tensors in memory or in temporary files."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node

from i2i.errors import JobError, RequestError
from i2i.inference.memory import format_bytes
from i2i.inference.tiled.plan import BAND_BYTES, Program, Step, layer_of, size_of
from i2i.inference.tiled.rules import Values, call, height, narrow, shape_of

Read = Callable[[int, int], Tensor]
Bands = Iterator[tuple[int, Tensor]]        # The first row of each, and its rows.


class Rows(Protocol):
    """A tensor that is read by rows."""

    def read(self, low: int, high: int) -> Any: ...
    def close(self) -> None: ...


class Store(Rows, Protocol):
    """One that is written by rows, too."""

    def write(self, first: int, band: Tensor) -> None: ...


class _InMemory:
    """A value, or a tensor that is written by bands."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def read(self, low: int, high: int) -> Any:
        return narrow(self.value, low, high - low)

    def write(self, first: int, band: Tensor) -> None:
        self.value[..., first:first + band.shape[-2], :] = band

    def close(self) -> None:
        self.value = None


class _OnDisk:
    """A tensor in a file without a name, which the system removes with the process; rows come first."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        *self.outer, _, self.columns = shape
        self.dtype, self.row_bytes = dtype, prod(self.outer) * self.columns * dtype.itemsize
        self.file = tempfile.TemporaryFile(prefix="i2i-", buffering=0)      # noqa: SIM115

    def read(self, low: int, high: int) -> Tensor:
        rows = torch.empty((high - low, *self.outer, self.columns), dtype=self.dtype)
        view = memoryview(rows.view(torch.uint8).reshape(-1).numpy())      # type: ignore[arg-type]
        self.file.seek(low * self.row_bytes)
        while view:
            view = view[self.file.readinto(view) or len(view):]       # type: ignore[attr-defined]
        return rows.movedim(0, -2)

    def write(self, first: int, band: Tensor) -> None:
        flat = band.movedim(-2, 0).contiguous().view(torch.uint8).reshape(-1)
        view = memoryview(flat.numpy())     # type: ignore[arg-type]
        self.file.seek(first * self.row_bytes)
        while view:
            view = view[self.file.write(view):]

    def close(self) -> None:
        self.file.close()


def make_store(shape: tuple[int, ...], dtype: torch.dtype, in_memory: bool) -> Store:
    """An empty store in memory or in a temporary file."""
    return _InMemory(torch.empty(shape, dtype=dtype)) if in_memory else _OnDisk(shape, dtype)


class _Input:
    def __init__(self, read: Read) -> None:
        self.read = read

    def close(self) -> None:
        pass


@dataclass
class _Sums:
    """Sums over rows in double precision: for a sum or mean, or of the input of a norm and its squares."""

    node: Node
    total: Any = 0.0
    squares: Any = 0.0

    def add(self, band: Tensor, values: Values) -> None:
        if self.is_norm:
            self.total = self.total + band.sum((0, 2, 3), dtype=torch.float64)
            norms = torch.linalg.vector_norm(band, 2, (0, 2, 3), dtype=torch.float64)
            self.squares = self.squares + norms**2
        else:
            of_band = call(self.node, {**values, self.node.all_input_nodes[0]: band}, dtype=torch.float64)
            self.total = self.total + of_band * (band.shape[-2] if "mean" in str(self.node.target) else 1)

    @property
    def is_norm(self) -> bool:
        return isinstance(self.node.meta["val"], tuple | list)

    def result(self) -> Any:
        x = self.node.all_input_nodes[0]
        if not self.is_norm:
            total = self.total / height(x) if "mean" in str(self.node.target) else self.total
            return total.to(self.node.meta["val"].dtype)
        count = prod(shape_of(x)) / shape_of(x)[1]
        mean = self.total / count
        return mean.float(), (self.squares / count - mean**2).clamp(min=0).float()


class Execution:
    """One run of a program.

    Args:
        read: rows of the input, (1, C, rows, W).
        limit: bytes of working memory.
        tile: rows of the image that are computed at once; 0: as many as fit.

    Raises:
        RequestError: if the limit is too small, or an operation takes the whole image.
        JobError: if temporary files do not fit on their disk.
    """

    def __init__(self, program: Program, read: Read, limit: int, tile: int, device: torch.device) -> None:
        self.program, self.device = program, device
        self.values: dict[Node, Any] = dict(program.constants)
        self.kept: dict[Node, Rows] = {program.input: _Input(read)}
        self._plan(limit, tile)

    def _plan(self, limit: int, tile: int) -> None:
        """Choose the rows of each band, and which tensors are on disk."""
        program, budget, needs = self.program, min(BAND_BYTES, limit // 2), list[tuple[int, Step]]()
        for step in program.steps:
            rows = height(step.target)
            if not step.nodes and step.target is not program.steps[-1].target:      # Whole.
                needs.append((2 * sum(size_of(node) for node in {step.target, *step.kept}), step))
                continue
            step.rows = min(rows, max(1, tile * rows // height(program.input)) if tile else rows)
            low = step.rows if tile else 1
            while low < step.rows:      # The most that fit, by bisection.
                middle = (low + step.rows + 1) // 2
                fits = program.band_bytes(step, middle) <= budget
                low, step.rows = (middle, step.rows) if fits else (low, middle - 1)
            needs.append((program.band_bytes(step, step.rows), step))
        largest, step = max(needs, key=lambda need: need[0])
        least = format_bytes(max(2 * largest, 10**6))
        if 2 * largest > limit and not step.nodes:
            raise RequestError(f"{layer_of(step.target)} takes the whole image, not parts of it; accepted: "
                               f"--memory of at least {least}, or a smaller image")
        if 2 * largest > limit:
            one = f"--tile {tile}" if tile else "one row"
            raise RequestError(f"{one} of this image needs more than half of {format_bytes(limit)} of "
                               f"memory; accepted: --memory of at least {least}"
                               + ", or smaller tiles" * (tile > 1))
        self._place(limit - largest)

    def _place(self, available: int) -> None:
        memory = disk = most = 0
        placed: dict[Node, Step] = {}
        for step in self.program.steps[:-1]:
            if step.target is not self.program.input:
                size = size_of(step.target)
                plain = isinstance(step.target.meta["val"], Tensor) and len(shape_of(step.target)) > 1
                step.on_disk = plain and memory + size > available
                placed[step.target] = step
                memory, disk = memory + size * (not step.on_disk), disk + size * step.on_disk
                most = max(most, disk)
            for node in step.last & placed.keys():
                size = size_of(node)
                memory, disk = memory - size * (not placed[node].on_disk), disk - size * placed[node].on_disk
        folder = tempfile.gettempdir()
        if most > (free := shutil.disk_usage(folder).free):
            raise JobError(f"temporary files of {format_bytes(most)} are needed in {folder}, where "
                           f"{format_bytes(free)} are free; accepted: a higher --memory, or TMPDIR=DIR on "
                           "another disk")
        self.disk_bytes = most

    def run(self) -> Bands:
        """Compute everything; yields the bands of the result from the top to the bottom."""
        try:
            for step in self.program.steps[:-1]:
                self._run(step)
            yield from self._bands(self.program.steps[-1])
        except OSError as error:
            raise JobError(f"temporary files in {tempfile.gettempdir()} could not be written "
                           f"({error.strerror or error}); TMPDIR=DIR names another folder") from None
        finally:
            for each in self.kept.values():
                each.close()

    def _run(self, step: Step) -> None:
        """Compute the target of a step and what is reduced of it, and keep these."""
        sums = [_Sums(node) for node in step.reductions]
        is_input, value = step.target is self.program.input, step.target.meta["val"]
        if step.nodes:
            self.kept[step.target] = store = make_store(value.shape, value.dtype, not step.on_disk)
        elif not is_input:
            self.kept[step.target] = _InMemory(self._compute_whole(step))
        if step.nodes or sums:
            for first, band in self._bands(step):
                if step.nodes:
                    store.write(first, band.cpu())
                for each in sums:
                    each.add(band, self.values)
        for each in sums:
            if each.is_norm:
                self.values[each.node] = each.result()
            else:
                self.kept[each.node] = _InMemory(each.result().cpu())
        for node in step.last:
            self.kept.pop(node).close()

    @torch.inference_mode()
    def _compute_whole(self, step: Step) -> Any:
        args = {node: self._fetch(node, 0, height(node)) for node in step.kept}
        args = {node: arg.contiguous() if isinstance(arg, Tensor) else arg for node, arg in args.items()}
        result = call(step.target, {**self.values, **args})
        if isinstance(result, tuple | list):
            return [each.cpu() if isinstance(each, Tensor) else each for each in result]
        return result.cpu()

    def _fetch(self, node: Node, low: int, high: int) -> Any:
        value = self.kept[node].read(low, high)
        return value.to(self.device) if isinstance(value, Tensor) else value

    def _bands(self, step: Step) -> Bands:
        with torch.inference_mode():
            rows = height(step.target)
            for first in range(0, rows, step.rows or rows):
                last = min(first + (step.rows or rows), rows)
                yield first, (self._compute(step, first, last) if step.nodes else
                              self._fetch(step.target, first, last))

    def _compute(self, step: Step, first: int, last: int) -> Tensor:
        """Rows of the target of a step."""
        found: dict[Node, Any] = {}
        ranges = self.program.ranges(step, first, last)
        users = {node: sum(node in each.all_input_nodes for each in step.nodes) for node in ranges}
        for node in step.nodes:
            if node not in ranges:
                continue
            values, (a, b) = dict(self.values), ranges[node]
            for arg, (low, high) in self.program.rules[node].needs(a, b).items():
                if arg in self.program.constants:
                    values[arg] = _InMemory(self.values[arg]).read(low, high)
                    continue
                if arg not in found:
                    found[arg] = self._fetch(arg, *ranges[arg])
                start = ranges[arg][0]
                values[arg] = narrow(found[arg], low - start, high - low)
            found[node] = self.program.rules[node].compute(a, b, values)
            del values
            for arg in node.all_input_nodes:
                if arg in users:
                    users[arg] -= 1
                    if not users[arg]:
                        found.pop(arg, None)
        result: Tensor = found[step.target]
        return result
