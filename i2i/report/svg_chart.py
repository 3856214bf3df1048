"""Line charts as inline SVG, complete without scripts and on paper; the page's script only moves a cursor."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

MAX_POINTS = 1000               # Of a curve; more than a chart has pixels.
MAX_DOTS = 60                   # Up to so many points each is drawn as a dot.
MIN_POINTS_FOR_MEAN = 200       # From so many points on a running mean is drawn over them.
NUM_COLORS = 6                  # --c1 … --c6 of the style sheet.
MIN_RATIO_FOR_LOG = 10.0        # Of the largest and smallest value, for a logarithmic axis to be offered.
WIDTH, HEIGHT = 360.0, 196.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 350.0, 10.0, 170.0       # Of the plot area.


@dataclass(frozen=True)
class Point:
    """A value at an image count, with an optional interval; y is None if the value was not finite."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points in the order of their image counts."""

    name: str
    points: Sequence[Point]

    @property
    def finite(self) -> list[tuple[float, float]]:
        """The points that have a value."""
        return [(p.x, p.y) for p in self.points if p.y is not None]

    @property
    def newest(self) -> Point:
        """The last point that has a value."""
        return next((p for p in reversed(self.points) if p.y is not None), self.points[-1])


@dataclass(frozen=True)
class Chart:
    """Curves on shared axes; `marks` are events, `best` an image count that is emphasized."""

    title: str
    curves: Sequence[Curve]
    marks: Sequence[tuple[float, str]] = ()
    best: float | None = None
    best_name: str = "best"
    note: str = ""


@dataclass(frozen=True)
class Axis:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = (math.log(max(each, 1e-300)) for each in (low, high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Round values within the range."""
        if not self.log:
            raw = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [round(k * step, max(0, 1 - math.floor(math.log10(step)))) for k in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        every, multiples = max(1, len(powers) // 5), (1, 2, 5) if len(powers) <= 3 else (1,)
        ticks = [m * 10.0**p for p in powers if p % every == 0 for m in multiples]
        return [value for value in ticks if self.low <= value <= self.high]


def thin(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Keep at most `most` points: the ends, and the extremes and one gap of each stretch between them."""
    if len(points) <= most:
        return list(points)
    stretches, inner, chosen = (most - 2) // 3, range(1, len(points) - 1), {0, len(points) - 1}
    for k in range(stretches):
        stretch = inner[k * len(inner) // stretches:(k + 1) * len(inner) // stretches]
        finite = [(y, i) for i in stretch if (y := points[i].y) is not None]
        chosen |= {min(finite)[1], max(finite)[1]} if finite else set()
        chosen |= set([i for i in stretch if points[i].y is None][:1])
    return [points[i] for i in sorted(chosen)]


def running_mean(points: Sequence[Point], steps: int = 50) -> list[Point]:
    """Means over windows of 1/steps of the points, twice per window; empty if there are too few."""
    finite = Curve("", points).finite
    half = max(1, len(finite) // (2 * steps))
    means = []
    for i in range(0, len(finite), half):
        window = [y for _, y in finite[max(0, i - half):i + half + 1]]
        means.append(Point(finite[i][0], sum(window) / len(window)))
    return means if len(means) > 1 else []


def format_number(value: float | None) -> str:
    """Four digits, thousands separated, a true minus."""
    if value is None:
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}").replace("-", "−")


def format_point(point: Point) -> str:
    """A value with its interval."""
    interval = "" if point.low is None or point.high is None else \
        f" ({format_number(point.low)} to {format_number(point.high)})"
    return format_number(point.y) + interval


def _format_tick(value: float) -> str:
    units = (("G", 1e9), ("M", 1e6), ("k", 1e3))
    letter, size = next(((letter, size) for letter, size in units if abs(value) >= max(size, 1e4)), ("", 1.0))
    return f"{value / size:g}{letter}".replace("-", "−")


class Drawing:
    """A chart with at least one finite value, as SVG."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.curves = [Curve(curve.name, thin(curve.points)) for curve in chart.curves]
        self._means = [running_mean(curve.points) if len(curve.points) >= MIN_POINTS_FOR_MEAN else []
                       for curve in chart.curves]
        xs = [p.x for curve in self.curves for p in curve.points]
        self.last = max(xs)
        self._across = Axis(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, LEFT, RIGHT)
        values = [value for curve in self.curves for p in curve.points for value in (p.y, p.low, p.high)
                  if value is not None]
        low, high = min(values), max(values)
        bottom = 0.0 if 0 < low < 0.4 * high else low       # Zero is shown if it is close enough.
        margin = 0.05 * (high - bottom) or 0.05 * abs(high) or 1.0
        self.views = {"linear": Axis(bottom - margin * (bottom != 0), high + margin, BOTTOM, TOP)}
        if low > 0 and high / low >= MIN_RATIO_FOR_LOG:
            self.views["log"] = Axis(low / 1.1, high * 1.1, BOTTOM, TOP, log=True)

    def svg(self) -> Markup:
        """The picture without the cursor."""
        views = (f'<g class="{name}">{self._view(up)}</g>' for name, up in self.views.items())
        return Markup(self._x_axis() + "".join(views) + self._marks())

    def summary(self) -> str:
        """A description for screen readers."""
        parts = []
        for curve in self.curves:
            if finite := curve.finite:
                (x0, y0), (x1, y1), ys = finite[0], finite[-1], [y for _, y in finite]
                parts.append(f"{curve.name} goes from {format_number(y0)} at image {format_number(x0)} to "
                             f"{format_number(y1)} at image {format_number(x1)}, between "
                             f"{format_number(min(ys))} and {format_number(max(ys))}")
        skipped = f"; {len(self.chart.marks)} marks of skipped steps" if self.chart.marks else ""
        return f"{self.chart.title}: {'; '.join(parts)}{skipped}"

    def data(self) -> dict[str, Any]:
        """Data of the cursor, for the page's script."""
        def digits(value: float | None) -> float | None:
            return None if value is None else float(f"{value:.5g}")

        curves: list[dict[str, Any]] = []
        for curve in self.curves:
            columns = ("y", "low", "high") if any(p.low is not None for p in curve.points) else ("y",)
            curves.append({"name": curve.name, "x": [p.x for p in curve.points], **{
                column: [digits(getattr(p, column)) for p in curve.points] for column in columns}})
        return {"box": [LEFT, TOP, RIGHT, BOTTOM], "x": [self._across.low, self._across.high],
                "views": {name: [axis.low, axis.high] for name, axis in self.views.items()},
                "marks": [list(mark) for mark in self.chart.marks[:MAX_POINTS]], "curves": curves}

    def _x_axis(self) -> str:
        out = [f'<path class="axis" d="M{LEFT:g} {BOTTOM:g}H{RIGHT:g}"/>']
        for value in self._across.ticks():
            if value == round(value):
                x = self._across(value)
                at, anchor = (RIGHT + 6, "end") if x > RIGHT - 8 else (x, "middle")     # Not cut off.
                out.append(f'<path class="axis" d="M{x:g} {BOTTOM:g}v4"/><text x="{at:g}" '
                           f'y="{BOTTOM + 17:g}" text-anchor="{anchor}">{_format_tick(value)}</text>')
        return "".join(out)

    def _view(self, up: Axis) -> str:
        across, out = self._across, []
        for value in up.ticks():
            y = up(value)
            out.append(f'<path class="grid" d="M{LEFT:g} {y:g}H{RIGHT:g}"/><text x="{LEFT - 6:g}" '
                       f'y="{y + 4:g}" text-anchor="end">{_format_tick(value)}</text>')
        for i, (curve, mean) in enumerate(zip(self.curves, self._means, strict=True)):
            color, finite = f"c{i % NUM_COLORS + 1}", curve.finite
            out += [f'<path class="band {color}" d="{d}"/>' for d in _bands(curve, across, up)]
            lines = "".join(_line(run, across, up) for run in _runs(curve.points, lambda p: p.y is not None))
            out.append(f'<path class="{"faint " if mean else ""}line {color}" d="{lines}"/>')
            if len(curve.points) <= MAX_DOTS:
                out += [f'<circle class="dot {color}" cx="{across(x):g}" cy="{up(y):g}" r="2"/>'
                        for x, y in finite]
            out += [f'<circle class="ring" cx="{across(x):g}" cy="{up(y):g}" r="5"/>' for x, y in finite
                    if x == self.chart.best]
        out += [f'<path class="line c{i % NUM_COLORS + 1}" d="{_line(mean, across, up)}"/>'
                for i, mean in enumerate(self._means) if mean]
        return "".join(out)

    def _marks(self) -> str:
        out = [f'<path class="skip" d="M{self._across(x):g} {BOTTOM - 7:g}l3.5 7h-7z">'
               f"<title>{escape(text)}</title></path>" for x, text in self.chart.marks[:MAX_POINTS]]
        best = self.chart.best
        if best is not None and self._across.low <= best <= self._across.high:
            x = self._across(best)
            shift, anchor = (-4, "end") if x > (LEFT + RIGHT) / 2 else (4, "start")
            out.append(f'<path class="best" d="M{x:g} {TOP - 4:g}V{BOTTOM:g}"/>'
                       f'<text class="best" x="{x + shift:g}" y="{TOP + 5:g}" text-anchor="{anchor}">'
                       f"{escape(self.chart.best_name)}</text>")
        return "".join(out)


def draw(charts: Iterable[Chart]) -> list[Drawing]:
    """Draw the charts that have a finite value."""
    return [Drawing(chart) for chart in charts if any(curve.finite for curve in chart.curves)]


def _runs(points: Sequence[Point], good: Callable[[Point], bool]) -> Iterator[list[Point]]:
    """Stretches of points without a gap."""
    for is_good, run in itertools.groupby(points, good):
        if is_good:
            yield list(run)


def _line(run: Sequence[Point], across: Axis, up: Axis) -> str:
    """A path through points; a single one is a dot, by its round ends."""
    path = "L".join(f"{across(p.x):g} {up(p.y):g}" for p in run if p.y is not None)
    return f"M{path}" + ("h0" if len(run) == 1 else "")


def _bands(curve: Curve, across: Axis, up: Axis) -> Iterator[str]:
    """Outlines of the intervals; a single one is a thin bar."""
    for run in _runs(curve.points, lambda p: p.low is not None and p.high is not None):
        corners = [(across(p.x), up(p.low), up(p.high)) for p in run
                   if p.low is not None and p.high is not None]
        if len(corners) == 1:
            (x, low, high), = corners
            corners = [(x - 1.5, low, high), (x + 1.5, low, high)]
        above = [f"{x:g} {high:g}" for x, _, high in corners]
        below = [f"{x:g} {low:g}" for x, low, _ in reversed(corners)]
        yield "M" + "L".join(above + below) + "Z"
