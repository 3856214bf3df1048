"""Image sizes that networks which double or halve their resolution support."""

import math
from collections.abc import Iterator

from i2i.errors import RequestError

# The shorter side of the lowest resolution is 4 to 7 pixels, which makes it unique for every image size.
MIN_SIDE = 4
SIDES = [k << n for n in range(1, 32) for k in range(MIN_SIDE, 2 * MIN_SIDE)]      # Supported, ascending.


def base_resolution(size: tuple[int, int], network: str) -> tuple[tuple[int, int], int]:
    """Lowest resolution and number of doublings up to the image size.

    Examples: ((4, 4), 4) for 64x64, ((7, 7), 2) for 28x28, ((4, 8), 3) for 32x64.  RequestError naming the
    `network` and the nearest supported sizes if a size is not.
    """
    levels = _levels(min(size))
    if levels and all(side % 2**levels == 0 for side in size):
        return (size[0] >> levels, size[1] >> levels), levels
    raise RequestError(f"{network} does not support {size[0]}x{size[1]} images; the nearest supported sizes: "
                       f"{' and '.join(_nearest(size))} (data.size: the shorter side 4 to 7 times a power of "
                       "two, the longer a multiple of that power)")


def _levels(side: int) -> int:
    """How often a side is halved down to 4 to 7 pixels; 0 if it cannot be."""
    levels = max(0, int(math.log2(max(side, 1) / MIN_SIDE)))
    return levels if side % 2**levels == 0 else 0


def _nearest(size: tuple[int, int]) -> Iterator[str]:
    """The next smaller and the next larger supported size."""
    short, long = min(size), max(size)
    smaller, larger = [s for s in SIDES if s <= short][-1:], [s for s in SIDES if s >= short][:1]
    for side in sorted({*smaller, *larger}):
        power = 2 ** _levels(side)
        other = side if short == long else max(side, round(long / power) * power)
        yield f"{side}x{other}" if size[0] <= size[1] else f"{other}x{side}"
