"""Write the table and the picture of docs/architecture.md from docs/layout.toml: `python docs/layout.py`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

DOCS = Path(__file__).parent
BEGIN, END = "<!-- layout: written by docs/layout.py -->", "<!-- end of layout -->"


def read() -> dict[str, dict[str, object]]:
    """The table: package -> what it holds, imports and external packages, from low to high."""
    return tomllib.loads((DOCS / "layout.toml").read_text())


def direct(layout: dict[str, dict[str, object]]) -> list[tuple[str, str]]:
    """The arrows of the picture: imports that do not follow from others.  errors and registry are left
    out."""
    def below(package: str) -> set[str]:
        mine = set(layout[package]["imports"])
        return mine.union(*map(below, mine))

    arrows = []
    for package in layout:
        mine = set(layout[package]["imports"]) - {"errors", "registry"}
        arrows += [(package, other) for other in sorted(mine)
                   if not any(other in below(one) for one in mine - {other})]
    return [(a, b) for a, b in arrows if a not in ("errors", "registry")]


def section() -> str:
    """The generated part of the page: a mermaid picture and a table."""
    layout = read()
    picture = ["```mermaid", "flowchart BT", *(f"  {a} --> {b}" for a, b in direct(layout)), "```"]
    rows = ["| package | holds | imports | third-party |", "|---|---|---|---|"]
    for name, row in layout.items():
        rows.append(f"| `{name}` | {row['holds']} | {', '.join(row['imports']) or '–'} | "
                    f"{', '.join(row['external']) or '–'} |")
    return "\n".join([BEGIN, "", *picture, "", *rows, "", END])


def write() -> str:
    """The whole page with its generated part renewed."""
    page = (DOCS / "architecture.md").read_text()
    return re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section(), page, flags=re.S)


if __name__ == "__main__":
    (DOCS / "architecture.md").write_text(write())
