"""Learning rate schedules by name."""

from collections.abc import Callable
from typing import Annotated

from typing_extensions import Doc

from i2i.errors import require
from i2i.registry import register
from i2i.seeding import Progress

Schedule = Callable[[Progress], float]      # The factor of the base rate, by position in the run.


@register("schedule", "constant")
def constant() -> Schedule:
    """Constant learning rate."""
    return lambda progress: 1.0


@register("schedule", "linear")
def linear(*, start: Annotated[float, Doc("Share of the run after which it decays")] = 0.5) -> Schedule:
    """Constant learning rate, then linear decay to zero at the end of the run (Isola et al. 2017)."""
    require(0 <= start < 1, "schedule.start", start, "0 or more and less than 1")
    return lambda progress: min(1.0, (1.0 - progress.fraction) / (1.0 - start))
