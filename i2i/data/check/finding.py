"""One thing that was found, with how often and where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 20          # Examples that are kept of a kind of finding.


@dataclass(frozen=True)
class Finding:
    """`error`: would stop or spoil a training; `warning`: worth a look; `note`: good to know.  The first
    example stands for all."""

    severity: Severity
    kind: str
    count: int
    text: str
    examples: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {"severity": self.severity, "kind": self.kind, "count": self.count, "text": self.text,
                "examples": list(self.examples)}


def finding(severity: Severity, kind: str, examples: Iterable[str], one: str, many: str, *,
            count: int | None = None) -> list[Finding]:
    """A finding, or none where there is no example.  `{n}` in the words for many is how many there are."""
    listed = list(examples) if count is None else list(islice(examples, SHOWN))
    n = len(listed) if count is None else count
    return [Finding(severity, kind, n, one if n == 1 else many.format(n=f"{n:,}"),
                    tuple(listed[:SHOWN]))] if n else []


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first, and of one severity what there is most of."""
    return sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), -each.count, each.kind))
