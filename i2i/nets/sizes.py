"""Which image sizes a network that doubles or halves its maps can have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from i2i.errors import RequestError

# Shorter side of the smallest map: 4 to 7 pixels, so every size has one way to be reached.
SMALLEST = range(4, 8)


def halvings(size: tuple[int, int], what: str) -> tuple[tuple[int, int], int]:
    """The smallest map and how often it is doubled to reach the size: ((4, 4), 4) for 64x64, ((7, 7), 2) for
    28x28, ((4, 8), 3) for 32x64.

    RequestError with the nearest sizes where there is none; `what` is the network's name.
    """
    count = _count(min(size))
    if count and all(side % 2**count == 0 for side in size):
        return (size[0] >> count, size[1] >> count), count
    raise RequestError(f"{what} cannot work with {size[0]}x{size[1]} images; the nearest sizes it can: "
                       f"{' and '.join(_nearest(size))} "
                       "(data.size: the shorter side 4 to 7 times a power of two, the longer a multiple of "
                       "that power)")


def _count(side: int) -> int:
    """How often this side is halved to come to the smallest map; 0 if it cannot be, or is already that
    small."""
    count = max(0, int(math.log2(max(side, 1) / SMALLEST.start)))
    return count if side % 2**count == 0 else 0


def _nearest(size: tuple[int, int]) -> Iterator[str]:
    short, long = min(size), max(size)
    for step in (-1, 1):
        side = short
        while side >= 2 * SMALLEST.start and not _count(side):
            side += step
        if side < 2 * SMALLEST.start and step < 0:
            continue
        side = max(side, 2 * SMALLEST.start)
        power = 2 ** _count(side)
        other = side if short == long else max(side, round(long / power) * power)
        yield f"{side}x{other}" if size[0] <= size[1] else f"{other}x{side}"
        if side == short:
            return
