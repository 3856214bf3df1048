"""The answers of an audit: a traffic light, the number behind it, its limit, and what to do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from i2i.images.format import Array
from i2i.metrics.intervals import mean_interval

GREEN, YELLOW, RED, NOT_TESTED = LIGHTS = ("green", "yellow", "red", "not tested")


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    Attributes:
        light: one of LIGHTS.
        value, low, high: the number behind it, larger is worse, with its 95 % interval where it has one.
        limit: above which it is red.
        unit: of the number: "share", or words.
        finding: one sentence that says what was found.
        advice: one sentence that says what to do.
        table: more numbers, as rows of equal keys.
        picture: a sheet (H, W, 3) uint8, and what it shows.
    """

    name: str
    question: str
    light: str
    finding: str
    advice: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    unit: str = "share"
    table: Sequence[Mapping[str, Any]] = ()
    picture: Array | None = field(default=None, compare=False)
    caption: str = ""

    def number(self) -> str:
        """The value with its interval, and the limit."""
        if self.value is None or self.limit is None:
            return ""
        scale = 100 if self.unit == "share" else 1
        value, low, high, limit = (None if each is None else f"{scale * each:.3g}"
                                   for each in (self.value, self.low, self.high, self.limit))
        unit = "%" if self.unit == "share" else self.unit
        interval = "" if low is None or high is None else f" ({low} … {high})"
        return f"{value}{interval} {unit}, limit {limit}"


def not_tested(name: str, question: str, why: str, advice: str = "") -> Answer:
    """The answer where there is none."""
    return Answer(name, question, NOT_TESTED, why, advice)


def answer(name: str, question: str, number: tuple[float, float | None, float | None], limit: float, n: int,
           *, finding: str, red: str, green: str = "Nothing to do.", worst: str = RED, **more: Any) -> Answer:
    """Green if the interval lies below the limit, red if above; yellow if it holds it.

    Args:
        number: the value and its interval.
        n: how many images it is of.
        finding: what was found, which the light does not change.
        red, green: what to do.
        worst: YELLOW where only people can judge whether this is wrong.
    """
    value, low, high = number
    least, most = (value if end is None else end for end in (low, high))
    light = GREEN if most <= limit else RED if least > limit else YELLOW
    advice = {GREEN: green, RED: red}.get(light, "")
    if light == YELLOW:
        enough = math.ceil(n * ((most - least) / 2 / max(abs(value - limit), 1e-9))**2)
        more_images = f"; about {enough:,} would decide" if n < enough < 100_000 else ""
        advice = f"Undecided with {n} images{more_images}.  If it is so: {red[0].lower()}{red[1:]}"
    return Answer(name, question, worst if light == RED else light, finding, advice, value, low, high, limit,
                  table=more.pop("table", ()), **more)


def ratio_with_interval(numerators: Sequence[float] | Array,
                        denominators: Sequence[float] | Array) -> tuple[float, float | None, float | None]:
    """A ratio of two means over the same images, at least 0, with its 95 % interval by linearization."""
    ratio = float(np.sum(numerators) / np.sum(denominators))
    residuals = (np.asarray(numerators) - ratio * np.asarray(denominators)) / np.mean(denominators)
    low, high = mean_interval(list(residuals))
    if low is None or high is None:
        return max(0.0, ratio), None, None
    return max(0.0, ratio), max(0.0, ratio + low), max(0.0, ratio + high)


def worst_light(answers: Sequence[Answer]) -> str:
    """The worst light of those that were tested."""
    found = {each.light for each in answers}
    return next((light for light in (RED, YELLOW, GREEN) if light in found), NOT_TESTED)
