"""The methods that the benchmarks compare: each is a row of settings that may follow `i2i train RECIPE`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2i.config import parse, parse_assignments
from i2i.errors import RequestError
from i2i.registry import suggest

BASELINE = "gan"


@dataclass(frozen=True)
class Method:
    """Settings that a method adds to those of a benchmark, and the paper they come from.

    Values may refer to the benchmark's settings: `*0.25` multiplies its value, `//3` rounds it down to a
    multiple of three, and the name of a setting stands for that setting's value.  Of another `recipe` than
    `gan`, whose networks are for points, the settings are all there are.
    """

    name: str
    settings: tuple[str, ...]
    source: str
    recipe: str = "gan"

    @property
    def d_steps(self) -> int:
        """Training steps for each update of G."""
        return int(dict(parse_assignments(self.settings)).get("d_steps", 1))

    @property
    def has_gradient_penalty(self) -> bool:
        """Whether it differentiates with respect to images, so that D must not have batch norm."""
        return dict(parse_assignments(self.settings)).get("penalty", "clip") != "clip"

    def combine(self, common: Sequence[str], batch_size: int) -> tuple[str, ...]:
        """All settings of a run.  A component that the method replaces loses its options in `common`, the
        settings of benchmark and user.  `batch_size` is used if they do not set it."""
        base = {"train.batch_size": str(batch_size)} | dict(parse_assignments(common))

        def resolve(key: str, value: str) -> str:
            if value.startswith("*"):
                return f"{parse(key, base[key], float) * float(value[1:]):g}"
            if value.startswith("//"):
                whole = parse(key, base[key], int)
                return str(whole - whole % int(value[2:]))
            return base.get(value, value)

        own = {key: resolve(key, value) for key, value in parse_assignments(self.settings)}
        rest = {key: value for key, value in parse_assignments(common) if key.split(".")[0] not in own}
        return tuple(f"{key}={value}" for key, value in (rest | own).items())


with open(Path(__file__).with_name("methods.csv"), encoding="utf-8", newline="") as _file:
    METHODS = {row["name"]: Method(row["name"], tuple(row["settings"].split()), row["source"],
                                   row["recipe"] or "gan") for row in csv.DictReader(_file)}


def select_methods(only: str | None) -> list[Method]:
    """The methods named in NAME,NAME with the baseline, or all.  RequestError for unknown names."""
    names = list(METHODS) if only is None else [BASELINE, *filter(None, map(str.strip, only.split(",")))]
    for name in names:
        if name not in METHODS:
            raise RequestError(f"--only {only}: no method is called {name!r}; {suggest(name, METHODS)}")
    return [METHODS[name] for name in dict.fromkeys(names)]
