"""Split work among the processes of a job, without knowing about devices and launchers, and among threads."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class ProcessGroup(Protocol):
    """The processes of a job, as one of them sees them.  Every process must make the same calls."""

    @property
    def rank(self) -> int:
        """Number of this process; rank 0 is the main process, which writes shared output."""

    @property
    def world_size(self) -> int:
        """Number of processes."""

    def gather_objects(self, item: Any) -> list[Any]:
        """The items of all processes by rank in the main process, an empty list in the others."""

    def broadcast(self, item: Any) -> Any:
        """The main process's item, in every process."""


class SingleProcess:
    """A group of one process."""

    rank, world_size = 0, 1

    def gather_objects(self, item: Any) -> list[Any]:
        return [item]

    def broadcast(self, item: Any) -> Any:
        return item


def shard_blocks(n: int, size: int, group: ProcessGroup) -> Iterator[range]:
    """Deal blocks of `size` of the numbers 0 to n-1 to the processes in turn.

    Every process gets equally many blocks; those beyond the end are empty.
    """
    for first in range(0, n, size * group.world_size):
        start = min(n, first + group.rank * size)
        yield range(start, min(n, start + size))


def map_in_threads(call: Callable[[S], T], items: Sequence[S], *, threads: int | None = None,
                   chunk: int = 256) -> Iterator[T]:
    """The results of a call for each item in order, made by several threads, a chunk of them at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(items), chunk):
            yield from pool.map(call, items[start:start + chunk])
