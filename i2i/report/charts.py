"""Curves as inline SVG.  The page's script only moves a cursor over them; they are whole without it, and on
paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

MOST_POINTS = 1000              # Of one curve; more than a chart has pixels.
MOST_DOTS = 60                  # Up to here every point is drawn as one.
NOISY = 200                     # From here on a running mean is drawn over the points.
COLORS = 6                     # --c1 … --c6 of the style sheet.
LOG_HELPS = 10.0                # Largest over smallest value from which a logarithmic axis is offered.
WIDTH, HEIGHT = 360.0, 196.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 350.0, 10.0, 170.0       # Of the plot.


@dataclass(frozen=True)
class Point:
    """A value at an image count, with its interval if it has one; None is a value that was not finite."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points in the order of their image counts."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Chart:
    """Curves that share an axis; `marks` are events on the image axis, `best` is the image count of the best
    evaluation."""

    title: str
    curves: Sequence[Curve]
    marks: Sequence[tuple[float, str]] = ()
    best: float | None = None
    best_name: str = "best"
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` along pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (math.log(max(v, 1e-300))
                            for v in (self.low, self.high, value)) if self.log else (self.low, self.high,
                                                                                     value)
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values within."""
        return _decades(self.low, self.high) if self.log else _rounds(self.low, self.high)


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many points: first, last, and of each stretch between the lowest, the highest and a gap, so
    that no extreme is lost."""
    if len(points) <= most:
        return list(points)
    stretches = (most - 2) // 3
    inner = range(1, len(points) - 1)
    kept = {0, len(points) - 1}
    for k in range(stretches):
        stretch = inner[k * len(inner) // stretches:(k + 1) * len(inner) // stretches]
        finite = [(y, i) for i in stretch if (y := points[i].y) is not None]
        gaps = [i for i in stretch if points[i].y is None]
        kept |= {min(finite)[1], max(finite)[1]} if finite else set()
        kept |= set(gaps[:1])
    return [points[i] for i in sorted(kept)]


def running_mean(points: Sequence[Point], steps: int = 50) -> list[Point]:
    """Means of finite values over one part in `steps` of the points around, twice for each such part; empty
    if there are too few."""
    finite = [(p.x, p.y) for p in points if p.y is not None]
    half = max(1, len(finite) // (2 * steps))
    out = []
    for i in range(0, len(finite), half):
        around = finite[max(0, i - half):i + half + 1]
        out.append(Point(finite[i][0], sum(y for _, y in around) / len(around)))
    return out if len(out) > 1 else []


def words(value: float | None) -> str:
    """A number for a person: four digits, thousands separated, a true minus."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def figure(chart: Chart) -> str:
    """A chart with its title, legend, axes and, for the cursor, its data."""
    curves = [Curve(curve.name, thin(curve.points)) for curve in chart.curves]
    means = [running_mean(curve.points) if len(curve.points) >= NOISY else [] for curve in chart.curves]
    values = [v for curve in curves for p in curve.points for v in (p.y, p.low, p.high) if v is not None]
    if not values:
        return ""
    xs = [p.x for curve in curves for p in curve.points]
    across = Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, RIGHT)
    views = {"linear": _linear(values)}
    if min(values) > 0 and max(values) / min(values) >= LOG_HELPS:
        views["log"] = Axis(min(values) / 1.1, max(values) * 1.1, BOTTOM, TOP, log=True)
    drawn = "".join(f'<g class="{name}">{_view(curves, means, across, up, chart.best)}</g>' for name,
                    up in views.items())
    button = '<button type="button" class="scale" aria-pressed="false" hidden>log scale</button>' if "log" in views else ""
    note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
    return (f'<figure class="chart" '
            f'data-view="linear"><figcaption><h3>{escape(chart.title)}</h3>{button}</figcaption>{_legend(curves)}'
            f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
            f'aria-label="{escape(_summary(chart, curves))}">'
            f'{_x_axis(across)}{drawn}{_marks(chart, across)}<g class="cursor"></g></svg>'
            f'<p class="at">image {words(max(xs))}</p>{note}{_data(curves, across, views, chart)}</figure>')


def _linear(values: Sequence[float]) -> Axis:
    low, high = min(values), max(values)
    if 0 < low < 0.4 * high:
        low = 0.0               # Close enough to zero to show it.
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Axis(low - margin * (low != 0), high + margin, BOTTOM, TOP)


def _rounds(low: float, high: float, about: int = 5) -> list[float]:
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(k * step, digits)
            for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    few = len(powers) <= 3
    every = max(1, len(powers) // 5)
    candidates = [m * 10.0 ** p for p in powers if p % every == 0 for m in ((1, 2, 5) if few else (1,))]
    return [value for value in candidates if low <= value <= high]


def _short(value: float) -> str:
    letter, size = next(((k, v) for k,
                         v in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= max(v, 1e4)), ("", 1.0))
    return f"{value / size:g}{letter}".replace("-", "−")


def _x_axis(across: Axis) -> str:
    """A line, and image counts at whole numbers."""
    out = [f'<path class="axis" d="M{LEFT:g} {BOTTOM:g}H{RIGHT:g}"/>']
    for value in across.ticks():
        if value == round(value):
            x = across(value)
            # The last one would be cut off.
            at, anchor = (RIGHT + 6, "end") if x > RIGHT - 8 else (x, "middle")
            out.append(f'<path class="axis" d="M{x:g} {BOTTOM:g}v4"/>'
                       f'<text x="{at:g}" y="{BOTTOM + 17:g}" text-anchor="{anchor}">{_short(value)}</text>')
    return "".join(out)


def _view(curves: Sequence[Curve], means: Sequence[Sequence[Point]], across: Axis, up: Axis,
          best: float | None) -> str:
    """Grid, bands, lines and dots on one of the two vertical axes."""
    out = []
    for value in up.ticks():
        y = up(value)
        out.append(f'<path class="grid" d="M{LEFT:g} {y:g}H{RIGHT:g}"/><text x="{LEFT - 6:g}" y="{y + 4:g}" '
                   f'text-anchor="end">{_short(value)}</text>')
    for i, curve in enumerate(curves):
        color = f"c{i % COLORS + 1}"
        out += [f'<path class="band {color}" d="{d}"/>' for d in _bands(curve, across, up)]
        lines = "".join(_line(run, across, up) for run in _runs(curve.points, lambda p: p.y is not None))
        out.append(f'<path class="{"faint " if means[i] else ""}line {color}" d="{lines}"/>')
        dots = curve.points if len(curve.points) <= MOST_DOTS else ()
        out += [f'<circle class="dot {color}" cx="{across(p.x):g}" cy="{up(p.y):g}" r="2"/>' for p in dots
                if p.y is not None]
        out += [f'<circle class="ring" cx="{across(p.x):g}" cy="{up(p.y):g}" r="5"/>' for p in curve.points
                if p.x == best and p.y is not None]
    out += [f'<path class="line c{i % COLORS + 1}" d="{_line(mean, across, up)}"/>' for i,
            mean in enumerate(means) if mean]
    return "".join(out)


def _runs(points: Sequence[Point], good: Callable[[Point], bool]) -> Iterator[list[Point]]:
    """Stretches of points without a gap."""
    run: list[Point] = []
    for point in points:
        if good(point):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _line(run: Sequence[Point], across: Axis, up: Axis) -> str:
    """A path through points; one alone is a dot, by its round ends."""
    path = "L".join(f"{across(p.x):g} {up(p.y):g}" for p in run if p.y is not None)
    return f"M{path}" + ("h0" if len(run) == 1 else "")


def _bands(curve: Curve, across: Axis, up: Axis) -> Iterator[str]:
    """Outlines of the intervals; one alone is a thin bar."""
    for run in _runs(curve.points, lambda p: p.low is not None and p.high is not None):
        corners = [(across(p.x), up(p.low), up(p.high)) for p in run if p.low is not None
                   and p.high is not None]
        if len(corners) == 1:
            (x, low, high), = corners
            corners = [(x - 1.5, low, high), (x + 1.5, low, high)]
        above = [f"{x:g} {high:g}" for x, _, high in corners]
        below = [f"{x:g} {low:g}" for x, low, _ in reversed(corners)]
        yield "M" + "L".join(above + below) + "Z"


def _marks(chart: Chart, across: Axis) -> str:
    out = []
    for x, text in chart.marks[:MOST_POINTS]:
        out.append(f'<path class="skip" d="M{across(x):g} {BOTTOM - 7:g}l3.5 '
                   f'7h-7z"><title>{escape(text)}</title></path>')
    if chart.best is not None and across.low <= chart.best <= across.high:
        x = across(chart.best)
        left = x > (LEFT + RIGHT) / 2
        out.append(f'<path class="best" d="M{x:g} {TOP - 4:g}V{BOTTOM:g}"/><text class="best" '
                   f'x="{x - 4 if left else x + 4:g}" y="{TOP + 5:g}" '
                   f'text-anchor="{"end" if left else "start"}">{escape(chart.best_name)}</text>')
    return "".join(out)


def _legend(curves: Sequence[Curve]) -> str:
    """Names with their last values; the cursor shows others there."""
    items = "".join(f'<li class="c{i % COLORS + 1}"><i></i>{escape(curve.name)} '
                    f'<b>{_value(_newest(curve))}</b></li>'
                    for i, curve in enumerate(curves))
    return f'<ul class="legend">{items}</ul>'


def _newest(curve: Curve) -> Point:
    return next((p for p in reversed(curve.points) if p.y is not None), curve.points[-1])


def _value(point: Point) -> str:
    return words(point.y) + (f" ({words(point.low)} to {words(point.high)})" if point.low is not None
                             and point.high is not None else "")


def _summary(chart: Chart, curves: Sequence[Curve]) -> str:
    """What the chart shows, for who does not see it."""
    parts = []
    for curve in curves:
        finite = [p for p in curve.points if p.y is not None]
        if finite:
            ys = [p.y for p in finite if p.y is not None]
            parts.append(f"{curve.name} goes from {words(finite[0].y)} at image {words(finite[0].x)} to "
                         f"{words(finite[-1].y)} at image "
                         f"{words(finite[-1].x)}, between {words(min(ys))} and {words(max(ys))}")
    return f"{chart.title}: {'; '.join(parts)}" + (f"; {len(chart.marks)} marks of skipped steps"
                                                   if chart.marks else "")


def embedded(data: object) -> str:
    """Data for the script, as JSON that no text in it can end early."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json">{text}</script>'


def _data(curves: Sequence[Curve], across: Axis, views: dict[str, Axis], chart: Chart) -> str:
    def five(value: float | None) -> float | None:
        return None if value is None else float(f"{value:.5g}")

    return embedded({
        "box": [LEFT, TOP, RIGHT, BOTTOM], "x": [across.low, across.high],
        "views": {name: [axis.low, axis.high] for name, axis in views.items()},
        "marks": [[x, text] for x, text in chart.marks[:MOST_POINTS]],
        "curves": [{"name": curve.name, "x": [p.x for p in curve.points],
                    "y": [five(p.y) for p in curve.points],
                    **({"low": [five(p.low) for p in curve.points],
                        "high": [five(p.high) for p in curve.points]}
                       if any(p.low is not None for p in curve.points) else {})} for curve in curves]})
