"""Several updates of one player for each update of the other.  Goodfellow et al. 2014, algorithm 1 (k)."""

from __future__ import annotations

from i2i.seeding import Progress


def updated_players(progress: Progress, d_steps: int, g_steps: int) -> tuple[bool, bool]:
    """Whether D and G are updated in this step."""
    return progress.every(g_steps), progress.every(d_steps)
