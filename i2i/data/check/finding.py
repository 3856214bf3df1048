"""A finding of the data set check: what, how often and where."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_EXAMPLES = 20


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a data set.

    Attributes:
        severity: "error" would stop or spoil training, "warning" should be looked at, "note" is good to know.
        kind: a short identifier, such as "too-small".
        count: how many files or pairs it concerns.
        text: one line for people.
        examples: up to 20 of them.
    """

    severity: Severity
    kind: str
    count: int
    text: str
    examples: tuple[str, ...] = ()


def finding(severity: Severity, kind: str, examples: Iterable[str], unit: str, text: str, *,
            count: int | None = None) -> list[Finding]:
    """A finding "COUNT UNITS TEXT", or none without examples; `unit` is in the singular."""
    listed = tuple(examples)
    n = len(listed) if count is None else count
    if not n:
        return []
    units = unit if n == 1 else unit + ("es" if unit.endswith("s") else "s")
    return [Finding(severity, kind, n, f"{n:,} {units} {text}", listed[:MAX_EXAMPLES])]
