"""The page of an audit: traffic lights, and for each question a number, an advice and a picture."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from i2i.report.page import make_environment, write_page
from i2i.report.run_contents import EmbeddedImage
from i2i.report.svg_chart import format_number

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
METER = 2.0         # Limits that fit on a meter, unless the value is larger.


def write_audit(path: str | Path, title: str, facts: Sequence[str], answers: Sequence[Mapping[str, Any]],
                pictures: Mapping[str, tuple[bytes, int, int]], warnings: Sequence[str] = ()) -> int:
    """Write the page, or raise RequestError.

    Args:
        facts: what was audited, in a few words each.
        answers: as `Answer`s have them, with the number in words as `number` and the words below a picture as
            `caption`.
        pictures: PNG files with their width and height, by the names of answers.

    Returns:
        The size of the file in bytes.
    """
    environment = make_environment()
    environment.filters["cell"] = format_cell
    shown = [{"caption": "", "advice": "", "number": "", **answer, "meter": _meter(answer),
              "rows": list(answer.get("table", ())),
             "picture": EmbeddedImage.of(*pictures[answer["name"]]) if answer["name"] in pictures else None}
             for answer in answers]
    style = files("i2i.report").joinpath("report.css").read_text(encoding="utf-8")
    return write_page(Path(path), environment.get_template("audit.html").render(
        policy=Markup(POLICY), style=Markup(style), title=title, facts=list(facts), answers=shown,
        warnings=list(warnings)), "--html")


def format_cell(value: object) -> str:
    """A number of three digits, or words."""
    if isinstance(value, float):
        return format_number(float(f"{value:.3g}"))
    return "–" if value is None else str(value)


def _meter(answer: Mapping[str, Any]) -> dict[str, float] | None:
    """Where the limit, the value and its interval lie, in percent of the meter."""
    value, limit = answer.get("value"), answer.get("limit")
    if value is None or not limit:
        return None
    low, high = (value if answer.get(key) is None else answer[key] for key in ("low", "high"))
    most = max(METER * limit, high, value)
    return {key: round(100 * max(0.0, each) / most, 1)
            for key, each in (("limit", limit), ("value", value), ("low", low), ("high", high))}
