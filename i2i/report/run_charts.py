"""The charts of a run: which logged names share one."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from i2i.report.run_contents import Entry, number, part
from i2i.report.svg_chart import Chart, Curve, Point

ADVERSARIAL = ("d", "g", "gan", "adversarial")      # Beginnings of the names of adversarial losses.
LOGITS = "logits of the discriminator"
UNITS = {"l1": "levels of 255", "psnr": "dB"}
SUFFIXES = ("_train", "_heldout", "_real", "_fake")     # Endings of readings that are compared in one chart.
NOT_LOSSES = ("images", "skipped_")


def make_curve(name: str, entries: Iterable[Entry], label: str = "") -> Curve:
    """The values of one name; values that are not finite are gaps."""
    points = [Point(entry["images"], number(entry[name])) for entry in entries if name in entry]
    return Curve(label or name, points)


def loss_charts(entries: Sequence[Entry]) -> list[Chart]:
    """Charts of log.jsonl: adversarial losses, other losses, logits, gradient norms."""
    groups: dict[tuple[int, str], list[str]] = {}
    for name in dict.fromkeys(name for entry in entries for name in entry if not name.startswith(NOT_LOSSES)):
        groups.setdefault(_loss_group(name), []).append(name)
    marks = skipped_steps(entries)
    return [Chart(title, [make_curve(name, entries) for name in names], marks=marks)
            for (_, title), names in sorted(groups.items())]


def _loss_group(name: str) -> tuple[int, str]:
    """The position and the title of the chart of a loss."""
    stem = name.split("_")[0]
    if name.startswith("grad_norm_"):
        return 3, "gradient norms"
    if "logits" in name:
        return 2, LOGITS
    return (0, "adversarial losses") if stem in ADVERSARIAL else (1, stem)


def skipped_steps(entries: Sequence[Entry]) -> list[tuple[float, str]]:
    """Image counts at which steps were skipped, with the players whose steps they were."""
    marks = []
    for entry in entries:
        counts = {name[8:]: number(entry[name]) for name in entry if name.startswith("skipped_")}
        if text := ", ".join(f"{player} skipped {count:g} {'step' if count == 1 else 'steps'}"
                             for player, count in counts.items() if count):
            marks.append((float(entry["images"]), text))
    return marks


def score_charts(entries: Sequence[Entry], best: Mapping[str, Any]) -> list[Chart]:
    """A chart for each metric of metrics.jsonl, a curve with intervals for each split."""
    metric = str(best.get("metric", ""))
    charts = []
    for name in names_in(entries, "scores"):
        points: dict[str, list[Point]] = {}
        for entry in entries:
            if name in part(entry, "scores"):
                points.setdefault(str(entry.get("split", "")), []).append(score_point(entry, name))
        charts.append(Chart(f"{name}, {UNITS[name]}" if name in UNITS else name,
                            [Curve(split or name, each) for split, each in points.items()],
                            best=number(best.get("images")),
                            best_name=f"best by {metric}" if metric else "best"))
    return charts


def reading_charts(entries: Sequence[Entry]) -> list[Chart]:
    """Charts of the readings in metrics.jsonl; logits share one, as do names that differ in the suffix."""
    groups: dict[str, dict[str, str]] = {}
    for name in names_in(entries, "readings"):
        if "logits" in name:
            labels = [each for each in name.split("_") if each and each != "logits"]
            groups.setdefault(LOGITS, {})[name] = " ".join(labels)
        else:
            stem = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
            groups.setdefault(stem, {})[name] = name.removeprefix(stem).strip("_")
    rows = [{"images": entry["images"], **part(entry, "readings")} for entry in entries]
    return [Chart(stem, [make_curve(name, rows, label or ("generated" if len(labels) > 1 else name))
                         for name, label in labels.items()])
            for stem, labels in groups.items()]


def collapse_charts(entries: Sequence[Entry], detection: Mapping[str, Any]) -> list[Chart]:
    """A chart for each generated output in collapse.jsonl, and where collapse was detected."""
    outputs = dict.fromkeys(key for entry in entries for key in entry
                            if part(entry, key) and key not in ("confirmed", "detection"))
    charts = []
    for output in outputs:
        rows = [{"images": entry["images"], **part(entry, output)} for entry in entries]
        detected = number(detection.get("images")) if detection.get("output") == output else None
        curves = [make_curve(name, rows) for name in names_in(entries, output)]
        charts.append(Chart(f"variety of {output}", curves, best=detected, best_name="detected"))
    return charts


def score_point(entry: Entry, metric: str) -> Point:
    """A metric's value and interval in one evaluation; a bare number is a value without an interval."""
    found = part(entry, "scores").get(metric)
    score = found if isinstance(found, dict) else {"value": found}
    return Point(entry["images"], *(number(score.get(key)) for key in ("value", "low", "high")))


def names_in(entries: Sequence[Entry], key: str) -> list[str]:
    """Every name that occurs in that table of any entry."""
    return list(dict.fromkeys(name for entry in entries for name in part(entry, key)))
