"""How work is divided among the processes of a job, for rooms that know nothing of devices and launchers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol


class ProcessGroup(Protocol):
    """The processes of a job, seen from one of them.  All have to ask for what they ask together."""

    @property
    def rank(self) -> int:
        """Which one this is; 0 leads: it writes what there is one of."""
        ...

    @property
    def world_size(self) -> int:
        """How many there are."""
        ...

    def gather_objects(self, item: Any) -> list[Any]:
        """Every process's item, by rank, in the leading process; nothing in the others."""
        ...

    def broadcast(self, item: Any) -> Any:
        """The leading process's item, in all."""
        ...


class SingleProcess:
    """One process, which is the whole team."""

    rank, world_size = 0, 1

    def gather_objects(self, item: Any) -> list[Any]:
        """Its own."""
        return [item]

    def broadcast(self, item: Any) -> Any:
        """Its own."""
        return item


def shard_blocks(n: int, size: int, team: ProcessGroup) -> Iterator[range]:
    """Blocks of `size` of n things, dealt in turns: in each round this process's block, empty where there are
    no more.  As many rounds for all."""
    for first in range(0, n, size * team.world_size):
        mine = min(n, first + team.rank * size)
        yield range(mine, min(n, mine + size))
