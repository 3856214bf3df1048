"""Whether the players' losses converge, from log.jsonl at the end of a run.

At equilibrium D finds real and generated images equally likely to be real, and each loss has a known value:
log 2 for G and 2 log 2 for D with cross entropy (Goodfellow et al. 2014, theorem 1), 1/4 and 1/2 with least
squares (Mao et al. 2017), 0 and 2 with the hinge (Lim and Ye 2017), log 2 for both with paired logits
(Jolicoeur-Martineau 2019).  The constant of a Wasserstein critic is free, so there its estimate of the
distance, E D(real) - E D(fake), should not grow (Arjovsky et al. 2017, figure 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from i2i.recipes.base import Recipe
from i2i.registry import Spec, build

BLOCKS = 8              # Parts of the second half of a run; the first half is learning.
LINES_PER_BLOCK = 3
MIN_TAU = 0.6           # Kendall's tau of eight means that rise: 3 in 100 by chance (Kendall 1938).
MIN_GROWTH = 1.5        # Of the last mean over the first,
MIN_CHANGE = 0.5        # and in units of what one logit changes at equilibrium.
MAX_DISTANCE = 4.0      # In these units: D is certain of all generated images.
# Variance around the trend, last quarter over the third: above the 99th percentile of F with 6 lines or more.
MAX_VARIANCE_RATIO = 4.0


@dataclass(frozen=True)
class Balance:
    """The equilibrium of an adversarial loss.

    Args:
        gan: G's loss there, None if there is no such value.
        unit: how much it changes when the logits of generated images fall by one.
    """

    gan: float | None
    unit: float

    @classmethod
    def of(cls, adversarial: Spec) -> Balance:
        """From the loss itself, so that label smoothing and new losses need no table."""
        loss = build("adversarial", adversarial)
        if loss.decision_boundary is None and not loss.relativistic:
            return cls(None, 1.0)
        logits = torch.full((2,), float(loss.decision_boundary or 0.0))   # Two: some use means.
        gan = float(loss.g(logits, logits)) + 0.0                   # Not -0.
        return cls(gan, abs(float(loss.g(logits - 1, logits)) - gan))


def distance_from_balance(entries: Sequence[Mapping[str, Any]], key: str, balance: Balance) -> list[float]:
    """The signed distance of a loss of G from its equilibrium in each line, or the critic's distance."""
    if balance.gan is None:
        side = key.removeprefix("gan")
        return [float(entry["real_logits" + side]) - float(entry["fake_logits" + side]) for entry in entries
                if "fake_logits" + side in entry]
    return [float(entry[key]) - balance.gan for entry in entries if key in entry]


def trend(means: Sequence[float]) -> float:
    """Kendall's tau with time, -1 to 1; 0 where all are equal.  Kendall 1938."""
    return float(np.nan_to_num(stats.kendalltau(range(len(means)), means, variant="b").statistic))


def deviations(values: Sequence[float]) -> tuple[float, float]:
    """Standard deviations around a linear trend, in the third and the last quarter of the values."""
    third, last = np.array_split(np.asarray(values[len(values) // 2:]), 2)

    def deviation(part: np.ndarray[Any, Any]) -> float:
        time = np.arange(len(part))
        return float(np.std(part - np.polyval(np.polyfit(time, part, 1), time), ddof=2))

    return deviation(third), deviation(last)


def loss_warnings(entries: Sequence[Mapping[str, Any]], recipe: Recipe) -> tuple[dict[str, Any], list[str]]:
    """Check every loss of G for convergence.

    Args:
        entries: the lines of log.jsonl.

    Returns:
        Figures for verdict.json by loss, and warnings.
    """
    spec = getattr(recipe, "adversarial", None)
    if not isinstance(spec, Spec):
        return {}, []
    balance, figures, warnings = Balance.of(spec), dict[str, Any](), list[str]()
    keys = dict.fromkeys(key for entry in entries for key in entry)
    for key in (key for key in keys if key == "gan" or key.startswith("gan_")):
        values = distance_from_balance(entries, key, balance)
        if len(values) < 2 * BLOCKS * LINES_PER_BLOCK or not np.isfinite(values).all():
            continue
        blocks = np.array_split(np.asarray(values[len(values) // 2:]), BLOCKS)
        means = [abs(float(part.mean())) for part in blocks]
        swings = deviations(values)
        figures[key] = {"balance": balance.gan, "away": [round(means[0], 4), round(means[-1], 4)],
                        "rising": round(trend(means), 2), "swings": [round(each, 4) for each in swings]}
        if problem := _problem(key, spec.name, balance, means, swings):
            warnings.append(f"the losses do not converge: {problem}{_discriminator_side(entries[-1], key)}; "
                            "try a lower d_optimizer.lr, or a penalty")
    return figures, warnings


def _problem(key: str, loss: str, balance: Balance, means: Sequence[float],
             swings: tuple[float, float]) -> str:
    first, last = means[0], means[-1]
    has_balance = balance.gan is not None
    value = f"{balance.gan:.2f}, its value where {loss} players balance" if has_balance else ""
    subject = f"G's loss ({key})" if has_balance else "the critic's distance (real less fake logits)"
    unit = balance.unit if has_balance else max(first, 1e-9)
    if trend(means) >= MIN_TAU and last >= MIN_GROWTH * first and last - first >= MIN_CHANGE * unit:
        return (f"over the second half of the run {subject} went from {first:.3g} to {last:.3g}"
                + (f" away from {value}" if has_balance else ""))
    if has_balance and min(means) >= MAX_DISTANCE * unit:
        return (f"{subject} stayed {min(means):.3g} to {max(means):.3g} away from {value}, so D is certain "
                "of all generated images")
    before, after = swings
    if before > 0 and (after / before) ** 2 > MAX_VARIANCE_RATIO and after > MIN_CHANGE * unit:
        return f"the swings of {subject} grew from {before:.3g} to {after:.3g} in the last quarter of the run"
    return ""


def _discriminator_side(entry: Mapping[str, Any], key: str) -> str:
    """D's loss and logits in the last line of the log."""
    side = key.removeprefix("gan")
    values = [f"{name} {float(entry[name + side]):.3g}" for name in ("d", "real_logits", "fake_logits")
              if name + side in entry]
    return f" (at the end {', '.join(values)})" if values else ""
