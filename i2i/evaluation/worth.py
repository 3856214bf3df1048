"""Is synthetic data worth having?  Classifiers trained with and without it, tested on real images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from i2i.config import VERSION
from i2i.errors import RequestError
from i2i.evaluation.worth_trainings import (
    FAKES_ALONE,
    FLIPS,
    REAL,
    SOURCES_ALONE,
    Comparison,
    Condition,
    Sets,
    added,
    asked_fakes,
    lacking,
    main_ratio,
    run_trainings,
)
from i2i.images.format import Array
from i2i.metrics.classification import Gain, class_recall, paired_gain
from i2i.metrics.intervals import mean_interval

INTERVAL = ("95 %, for these real training images and fakes: of gains paired by seed and test image, of "
            "other values Student's t over seeds")
SMALLEST = 0.005        # Smaller gains are not what one would look for; then LOOKED_FOR is.
LOOKED_FOR = 0.01


def measure_worth(sets: Sets, comparison: Comparison, folder: Path, *, task: str = "classify",
                  warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Train all classifiers and compare them; what a folder has already is not trained again.

    Args:
        sets: from `worth_sets`.
        comparison: shares, ratios, seeds and schedule.
        folder: where each finished training is kept.
        task: "classify", or "translate" if the fakes are translations.
        warnings: what a reader of the result has to know about the sets.

    Returns:
        The result as JSON data.
    """
    notes = list(warnings)
    shares = sorted(comparison.shares, reverse=True)
    for share in shares:
        comparison.conditions(sets, share, notes.append)
    if not any(condition.real and condition.ratio for condition in comparison.conditions(sets, shares[-1])):
        raise RequestError("--fake: too few images for any ratio: "
                           + lacking(sets, shares[-1], min(comparison.ratios)))
    if shares[-1] < 100:
        notes.append("at shares below 100 % the fakes are the same: they know of the real images that are "
                     "left out what their model has learned from them")
    entries = run_trainings(sets, comparison, folder)
    rows = [_Row(sets, share, condition, entries) for share in shares
            for condition in comparison.conditions(sets, share)]
    verdicts = [_verdict(rows, share, comparison, task) for share in shares
                if any(row.share == share and row.condition.real and row.condition.ratio for row in rows)]
    outcome = {"sentence": verdicts[0]["sentence"], "verdicts": verdicts,
               "conditions": [_as_data(row, rows, sets.classes) for row in rows],
               "trained_on_real_tested_on_fakes": _on_fakes(entries, sets),
               "interval": INTERVAL, "task": task, "seeds": comparison.seeds,
               "n_real": len(sets.real), "n_test": len(sets.test), "n_fake": len(sets.fakes),
               "updates": comparison.schedule.updates, "classes": list(sets.classes),
               "i2i": VERSION, "warnings": notes}
    return outcome


class _Row:
    """The trainings of a condition at a share."""

    def __init__(self, sets: Sets, share: float, condition: Condition, entries: list[dict[str, Any]]) -> None:
        own = [each for each in entries if each["condition"] == condition.name and each["share"] == share]
        self.share, self.condition, self.labels = share, condition, sets.test.labels
        self.correct: Array = np.array([each["answers"] for each in own]) == self.labels
        self.images = own[0]["images"]
        self.recall: Array = class_recall(self.correct, self.labels)       # (S, C)

    def gain(self, other: "_Row") -> Gain:
        return paired_gain(self.correct, other.correct, self.labels)


def _find(rows: Sequence[_Row], share: float, condition: Condition) -> _Row | None:
    return next((row for row in rows if row.share == share and row.condition == condition), None)


def _as_data(row: _Row, rows: Sequence[_Row], classes: Sequence[str]) -> dict[str, Any]:
    data = {"share": row.share, "condition": row.condition.name, "images": row.images,
            "mean_recall": _with_interval(row.recall.mean(1)),
            "accuracy": _with_interval(row.correct.mean(1)),
            "recall": dict(zip(classes, row.recall.mean(0).tolist(), strict=True))}
    base = _find(rows, row.share, REAL)
    if base and base is not row:
        data["gain"] = _gain_data(row.gain(base))
    return data


def _with_interval(values: Array) -> dict[str, Any]:
    low, high = mean_interval(values.tolist())
    return {"value": float(values.mean()), "low": low, "high": high}


def _gain_data(gain: Gain, comparisons: int = 1) -> dict[str, Any]:
    low, high = gain.interval(comparisons)
    return {"value": gain.value, "low": low, "high": high}


def _on_fakes(entries: Sequence[dict[str, Any]], sets: Sets) -> dict[str, Any] | None:
    """Mean recall of fakes by classifiers of real images (TRTS); None if 100 % is no share."""
    answers = np.array([each["answers_to_fakes"] for each in entries if "answers_to_fakes" in each])
    if not len(answers):
        return None
    labels = sets.fakes.labels[asked_fakes(sets)]
    present = np.unique(labels)
    recall = np.stack([(answers == labels)[:, labels == number].mean(1) for number in present], 1)
    return _with_interval(recall.mean(1))


def _verdict(rows: Sequence[_Row], share: float, comparison: Comparison, task: str) -> dict[str, Any]:
    """The verdict at a share of the real images, as a sentence and as data."""
    ratios = [row.condition.ratio for row in rows if row.share == share and row.condition.ratio
              and row.condition.real and not row.condition.augmented]
    ratio = main_ratio([each for each in ratios if each is not None])
    pairs = {"gain": (added(ratio), REAL), "flips_and_crops": (FLIPS, REAL),
             "over_flips_and_crops": (added(ratio), FLIPS),
             "on_top_of_flips_and_crops": (added(ratio, augmented=True), FLIPS),
             "alone": (FAKES_ALONE, REAL), "alone_over_sources": (FAKES_ALONE, SOURCES_ALONE)}
    gains = {name: ours.gain(theirs) for name, (one, other) in pairs.items()
             if (ours := _find(rows, share, one)) and (theirs := _find(rows, share, other))}
    main = gains["gain"]
    low, high = main.interval()
    verdict = "helps" if low > 0 else "hurts" if high < 0 else "no difference seen"
    data: dict[str, Any] = {"share": share, "ratio": str(ratio), "verdict": verdict}
    data |= {name: _gain_data(gain) for name, gain in gains.items()}
    what = {"classify": "adding synthetic images", "translate": "adding translated images"}[task]
    means = {row.condition: row.recall.mean() for row in rows if row.share == share}
    text = f"{what}{':' * (verdict == 'no difference seen')} {verdict}"
    text += (f": at {share:g} % of the real images, mean recall is {means[added(ratio)]:.1%} with {ratio} "
             f"fake to a real image and {means[REAL]:.1%} without, {points(data['gain'])}; {main.seeds} "
             f"seeds, {main.images:,} test images")
    if verdict == "no difference seen":
        looked_for = abs(main.value) if abs(main.value) >= SMALLEST else LOOKED_FOR
        seeds, images = main.needed(looked_for)
        data["needed"] = {"gain": looked_for, "seeds": seeds, "test_images": images}
        text += (f"; to see a difference of {100 * looked_for:.1f} points, {seeds} seeds and {images:,} test "
                 "images would do")
    data["others"] = _others(rows, share, ratio)
    return data | {"sentence": text}


def _others(rows: Sequence[_Row], share: float, main: Any) -> list[dict[str, Any]]:
    """Gains at the other ratios that are none of chance, although several were looked at."""
    base = _find(rows, share, REAL)
    tried = [row for row in rows if row.share == share and row.condition.real
             and row.condition.ratio not in (None, main) and not row.condition.augmented]
    found = [{"ratio": str(row.condition.ratio), **_gain_data(row.gain(base), len(tried))}
             for row in tried if base]
    return [each for each in found if each["low"] > 0 or each["high"] < 0]


def points(gain: dict[str, Any]) -> str:
    """A gain in percentage points, with its interval."""
    value, low, high = (100 * gain[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} points ({low:+.1f} … {high:+.1f})"


def describe(outcome: dict[str, Any]) -> list[str]:
    """The result in lines: a table, what each share says, and the sentence."""
    lines = []
    width = max(len(row["condition"]) for row in outcome["conditions"])
    for verdict in outcome["verdicts"]:
        share = verdict["share"]
        lines.append(f"{share:g} % of the real images: mean recall, gain over real alone (95 % interval)")
        for row in [each for each in outcome["conditions"] if each["share"] == share]:
            gain = points(row["gain"]) if "gain" in row else ""
            lines.append(f"  {row['condition']:{width}} {row['mean_recall']['value']:6.1%}  {gain}".rstrip())
        for key, text in (("over_flips_and_crops", "fakes rather than flips and crops"),
                          ("on_top_of_flips_and_crops", "fakes on top of flips and crops"),
                          ("alone_over_sources", "translations rather than their sources, alone")):
            if key in verdict:
                lines.append(f"  {text}: {points(verdict[key])}")
        lines += [f"  {each['ratio']} for each real image: {points(each)}, corrected for several ratios"
                  for each in verdict["others"]]
    if tested := outcome["trained_on_real_tested_on_fakes"]:
        lines.append(f"trained on real images, tested on fakes: mean recall {tested['value']:.1%}")
    lines += _recall_lines(outcome)
    return [*lines, *(verdict["sentence"] for verdict in reversed(outcome["verdicts"]))]


def _recall_lines(outcome: dict[str, Any]) -> list[str]:
    """Recall by class, without and with fakes, of the classes that changed most."""
    verdict = outcome["verdicts"][0]
    names = REAL.name, f"{REAL.name} + {verdict['ratio']} fake"
    before, after = (next(row["recall"] for row in outcome["conditions"]
                          if row["condition"] == name and row["share"] == verdict["share"]) for name in names)
    changed = sorted(before, key=lambda name: -abs(after[name] - before[name]))[:10]
    return ["recall by class, real alone -> with fakes: "
            + ", ".join(f"{name} {before[name]:.1%} -> {after[name]:.1%}" for name in changed)]
