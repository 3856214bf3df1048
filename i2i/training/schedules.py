"""Learning rate schedules: factors of the base rate, by position in the run."""

from __future__ import annotations

from collections.abc import Callable

from i2i.errors import require
from i2i.registry import register
from i2i.seeding import Progress

Schedule = Callable[[Progress], float]


@register("schedule", "constant")
def constant() -> Schedule:
    """Constant learning rate."""
    return lambda progress: 1.0


@register("schedule", "linear")
def linear(*, start: float = 0.5) -> Schedule:
    """Constant until `start` (a share of the run), then linear decay to zero (Isola et al. 2017)."""
    require(0 <= start < 1, "schedule.start", start, "0 or more and less than 1")
    return lambda progress: min(1.0, (1.0 - progress.fraction) / (1.0 - start))
