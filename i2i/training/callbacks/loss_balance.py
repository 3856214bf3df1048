"""Do the players' losses converge?  Read from log.jsonl at the end of a run.

Where neither player can gain, D takes every image for real as much as for generated, and each loss has a
known value there: log 2 for G and 2 log 2 for D with cross entropy (Goodfellow et al. 2014, theorem 1), 1/4
and 1/2 with least squares (Mao et al. 2017), 0 and 2 with the hinge (Lim and Ye 2017), log 2 for both where
logits are paired (Jolicoeur-Martineau 2019).  A critic's constant is free in the Wasserstein losses, so there
it is its estimate of the distance, E D(real) - E D(fake), that should not grow (Arjovsky et al. 2017, figure
3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from i2i.recipes.base import Recipe
from i2i.registry import Spec, build

BLOCKS = 8          # Parts of the second half of a run; what is before them is learning.
EACH = 3            # Log lines in a part, at least.
# Kendall's tau of eight means, above which they rise: by chance 3 times in 100 (Kendall 1938).
ORDERED = 0.6
GROWTH = 1.5         # The last of them over the first, at least,
STEP = 0.5          # and in units of what one logit changes at balance.
ONE_SIDED = 4.0           # In the same units: so far from balance, D is sure of all that is generated.
# Variance around the trend, last quarter over the one before: above the 99th percentile of F with 6 lines
# of each and more.
SWINGS = 4.0


@dataclass(frozen=True)
class Balance:
    """G's loss at D's decision boundary, and how much it changes there when logits of generated images fall by
    one; None without such a point."""

    gan: float | None
    unit: float

    @classmethod
    def of(cls, adversarial: Spec) -> Balance:
        """From the loss itself, so that smoothing and new losses need no table."""
        loss = build("adversarial", adversarial)
        if loss.decision_boundary is None and not loss.relativistic:
            return cls(None, 1.0)
        # Two, since some losses compare with the mean.
        at = torch.full((2,), float(loss.decision_boundary or 0.0))
        gan = float(loss.g(at, at)) + 0.0                           # Not -0.
        return cls(gan, abs(float(loss.g(at - 1, at)) - gan))


def distance_from_balance(entries: Sequence[Mapping[str, Any]], key: str, balance: Balance) -> list[float]:
    """How far from balance a loss is, and on which side, line by line: G's own, or the critic's distance."""
    if balance.gan is None:
        side = key.removeprefix("gan")
        return [float(entry["real_logits" + side]) - float(entry["fake_logits" + side]) for entry in entries
                if "fake_logits" + side in entry]
    return [float(entry[key]) - balance.gan for entry in entries if key in entry]


def is_rising(means: Sequence[float]) -> float:
    """Kendall's tau with time, -1 … 1.  Kendall 1938"""
    signs = [np.sign(later - earlier) for earlier, later in combinations(means, 2)]
    return float(np.mean(signs))


def count_swings(values: Sequence[float]) -> tuple[float, float]:
    """Standard deviation around their trend, of the third and the last quarter of a run's values."""
    half = np.asarray(values[len(values) // 2:])
    parts = np.array_split(half, 2)
    early, late = (float(np.std(part - np.polyval(np.polyfit(np.arange(len(part)), part, 1),
                                                  np.arange(len(part))), ddof=2)) for part in parts)
    return early, late


def loss_warnings(entries: Sequence[Mapping[str, Any]], recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Figures of every loss of G, and what is wrong with them in words.  -> for verdict.json, warnings"""
    spec = getattr(recipe, "adversarial", None)
    if not isinstance(spec, Spec):
        return {}, []
    balance, figures, told = Balance.of(spec), dict[str, Any](), list[str]()
    for key in dict.fromkeys(key for entry in entries for key in entry if key == "gan"
                             or key.startswith("gan_")):
        values = distance_from_balance(entries, key, balance)
        if len(values) < 2 * BLOCKS * EACH or not np.isfinite(values).all():
            continue
        means = [abs(float(part.mean()))
                 for part in np.array_split(np.asarray(values[len(values) // 2:]), BLOCKS)]
        early, late = count_swings(values)
        figures[key] = {"balance": balance.gan, "away": [round(means[0], 4), round(means[-1], 4)],
                        "rising": round(is_rising(means), 2),
                        "swings": [round(early, 4), round(late, 4)]}
        if problem := _problem(key, spec.name, balance, means, (early, late)):
            told.append(problem + _players(entries, key))
    return figures, told


def _problem(key: str, name: str, balance: Balance, means: Sequence[float],
             swing: tuple[float, float]) -> str:
    first, last = means[0], means[-1]
    where = f"{balance.gan:.2f}, its value where {name} players balance" if balance.gan is not None else ""
    unit = balance.unit if balance.gan is not None else max(first, 1e-9)
    what = f"G's loss ({key})" if where else "the critic's distance (real less fake logits)"
    if is_rising(means) >= ORDERED and last >= GROWTH * first and last - first >= STEP * unit:
        from_where = f" away from {where}" if where else ""
        return f"the losses do not converge: over the second half of the run {what} went from {first:.3g} to {last:.3g}{from_where}"
    if where and min(means) >= ONE_SIDED * unit:
        return (f"the losses do not converge: {what} stayed {min(means):.3g} to {max(means):.3g} away from "
                f"{where}, "
                "so D is sure of all that is generated")
    if swing[0] > 0 and (swing[1] / swing[0]) ** 2 > SWINGS and swing[1] > STEP * unit:
        return f"the losses do not converge: the swings of {what} grew from {swing[0]:.3g} to {swing[1]:.3g} in the last quarter of the run"
    return ""


def _players(entries: Sequence[Mapping[str, Any]], key: str) -> str:
    """D's side of it at the last log line, and what usually helps."""
    side, last = key.removeprefix("gan"), entries[-1]
    logits = [f"{name} {float(last[name + side]):.3g}" for name in ("d", "real_logits", "fake_logits")
              if name + side in last]
    return f" (at the end {', '.join(logits)}); try a lower d_optimizer.lr, or a penalty" if logits else "; try a lower d_optimizer.lr, or a penalty"
