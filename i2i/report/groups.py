"""Which logged names share a chart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from i2i.report.charts import Chart, Curve, Point
from i2i.report.contents import Entry, number

ADVERSARIAL = ("d", "g", "gan", "adversarial")      # Stems of what players minimize against each other.
LOGITS = "logits of the discriminator"
# Of the metrics; names that are not here have none or tell it.
UNITS = {"l1": "levels of 255", "psnr": "dB"}
SIDES = ("_train", "_heldout", "_real", "_fake")    # Endings that set one reading beside another.
NOT_CURVES = ("images", "skipped_")


def curve(name: str, entries: Iterable[Entry], label: str = "") -> Curve:
    """Values of one name; entries that lack it are passed over, values that are not finite are gaps."""
    return Curve(label or name,
                 [Point(entry["images"], number(entry[name])) for entry in entries if name in entry])


def losses(entries: Sequence[Entry]) -> list[Chart]:
    """Charts of everything the recipe logged: the game first, the other losses, logits, gradients last."""
    found: dict[tuple[int, str], list[str]] = {}
    for name in dict.fromkeys(name for entry in entries for name in entry if not name.startswith(NOT_CURVES)):
        found.setdefault(_group(name), []).append(name)
    marks = skipped(entries)
    return [Chart(title, [curve(name, entries) for name in names], marks=marks) for (_, title),
            names in sorted(found.items())]


def skipped(entries: Sequence[Entry]) -> list[tuple[float, str]]:
    """Where steps were skipped, whose and how many."""
    out = []
    for entry in entries:
        counts = {name.removeprefix("skipped_"): number(value) for name,
                  value in entry.items() if name.startswith("skipped_")}
        text = ", ".join(f"{player} skipped {count:g} {'step' if count == 1 else 'steps'}" for player,
                         count in counts.items() if count)
        if text:
            out.append((float(entry["images"]), text))
    return out


def scores(entries: Sequence[Entry], best: Mapping[str, Any]) -> list[Chart]:
    """A chart for each metric, a curve with intervals for each split."""
    at, by = number(best.get("images")), str(best.get("metric", ""))
    splits = dict.fromkeys(str(entry.get("split", "")) for entry in entries)
    charts = []
    for name in names_of(entries, "scores"):
        curves = []
        for split in splits:
            points = [point(entry, name) for entry in entries if str(entry.get("split", "")) == split
                      and name in part(entry, "scores")]
            if points:
                curves.append(Curve(split or name, points))
        charts.append(Chart(f"{name}, {UNITS[name]}" if name in UNITS else name, curves, best=at,
                            best_name=f"best by {by}" if by else "best"))
    return charts


def readings(entries: Sequence[Entry]) -> list[Chart]:
    """Logits share a chart, and readings that differ only in their ending do."""
    found: dict[str, dict[str, str]] = {}
    for name in names_of(entries, "readings"):
        stem = next((name.removesuffix(side) for side in SIDES if name.endswith(side)), name)
        if "logits" in name:
            found.setdefault(LOGITS, {})[name] = name.replace("logits", "").replace("__",
                                                                                    "_").strip("_").replace("_", " ")
        else:
            found.setdefault(stem, {})[name] = name.removeprefix(stem).strip("_")
    flat = [{"images": entry["images"], **part(entry, "readings")} for entry in entries]
    return [Chart(stem,
                  [curve(name, flat, label or ("generated" if len(labels) > 1 else name)) for name,
                   label in labels.items()])
            for stem, labels in found.items()]


def alarm(entries: Sequence[Entry], rang: Mapping[str, Any]) -> list[Chart]:
    """A chart for each thing that is generated, a curve for each reading, and where the alarm rang."""
    keys = dict.fromkeys(key for entry in entries for key,
                         value in entry.items() if isinstance(value, dict)
                         and key not in ("confirmed", "rang"))
    at = number(rang.get("images"))
    charts = []
    for key in keys:
        flat = [{"images": entry["images"], **part(entry, key)} for entry in entries]
        names = dict.fromkeys(name for entry in entries for name in part(entry, key))
        charts.append(Chart(f"variety of {key}", [curve(name, flat) for name in names],
                            best=at if rang.get("of") == key else None, best_name="rang"))
    return charts


def point(entry: Entry, metric: str) -> Point:
    """A metric's value and interval in one evaluation; a bare number is a value without an interval."""
    found = part(entry, "scores").get(metric)
    score = found if isinstance(found, dict) else {"value": found}
    return Point(entry["images"], *(number(score.get(key)) for key in ("value", "low", "high")))


def part(entry: Entry, key: str) -> Mapping[str, Any]:
    """A table within an entry, empty if it is absent or no table."""
    found = entry.get(key)
    return found if isinstance(found, dict) else {}


def names_of(entries: Sequence[Entry], key: str) -> list[str]:
    """Every name that occurs in that table of any entry."""
    return list(dict.fromkeys(name for entry in entries for name in part(entry, key)))


def _group(name: str) -> tuple[int, str]:
    stem = name.split("_")[0]
    if name.startswith("grad_norm_"):
        return 3, "gradient norms"
    if "logits" in name:
        return 2, LOGITS
    if stem in ADVERSARIAL:
        return 0, "adversarial losses"
    return 1, stem
