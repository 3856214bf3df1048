"""Render the report page and write pages.  The same run folder gives the same bytes."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from i2i.errors import JobError, RequestError
from i2i.files import write_atomically
from i2i.report import run_charts, svg_chart
from i2i.report.data_card import QUESTIONS, DataCard
from i2i.report.run_contents import Entry, RunContents, evenly_spaced, number, part
from i2i.report.svg_chart import Chart, draw, format_number

MAX_ROWS = 100                  # Of the table of all evaluations.
# What sample sheets show, by a setting that only such recipes have.
SAMPLE_NOTES = {"latent": "The same noise every time.",
                "lambda_cycle_a": "The same inputs every time: a, what is made of it, b, what is made of it.",
                "": "The same inputs every time: source, result, target."}


def make_environment() -> Environment:
    """The environment of the page's templates."""
    environment = Environment(loader=PackageLoader("i2i.report", ""), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=True)
    environment.filters |= {"number": format_number, "point": svg_chart.format_point,
                            "setting": format_setting, "finite": number,
                            "items_of": lambda value: value if isinstance(value, list) else [],
                            "cell": format_cell}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.globals |= {"chart_size": f"{svg_chart.WIDTH:g} {svg_chart.HEIGHT:g}",
                            "num_colors": svg_chart.NUM_COLORS, "part": part, "questions": QUESTIONS}
    return environment


def assets(name: str) -> dict[str, Markup]:
    """Style and script of a page, and a policy that forbids all other scripts and all loading."""
    style, script = (files("i2i.report").joinpath(f"{name}.{kind}").read_text(encoding="utf-8")
                     for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
              "base-uri 'none'; form-action 'none'")
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}


def check_page(path: Path, option: str) -> None:
    """RequestError unless this can be the name of a page."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise RequestError(f"{option} {path} must end in .html")
    if path.is_dir():
        raise RequestError(f"{option} {path} is a folder; accepted: a file such as {path / 'report.html'}")


def write_page(path: Path, page: str, option: str) -> int:
    """Write a page, and return its size in bytes.  RequestError if that is not possible."""
    check_page(path, option)
    data = page.encode(errors="backslashreplace")       # File names may hold bytes that are no text.
    try:
        write_atomically(path, lambda part: part.write_bytes(data))
    except (JobError, OSError) as error:
        why = str(error) if isinstance(error, JobError) else f"{path} could not be written: {error.strerror}"
        raise RequestError(f"{why}; choose another place with {option} FILE.html") from None
    return len(data)


def render(contents: RunContents) -> str:
    """The whole HTML document."""
    settings = part(part(contents.config, "recipe"), "settings")
    curve = run_charts.make_curve("images_per_second", contents.speed, "images/s")
    speed = Chart("images per second", [curve],
                  note="Between two log entries; evaluations and samples included.")
    return make_environment().get_template("page.html").render(
        **assets("report"), run=contents, facts=_facts(contents), settings=_settings(contents.config),
        metrics=_metrics(contents),
        collapse=draw(run_charts.collapse_charts(contents.collapse, contents.detection)),
        losses=draw(run_charts.loss_charts(contents.log)), skipped=run_charts.skipped_steps(contents.log),
        has_means=len(contents.log) >= svg_chart.MIN_POINTS_FOR_MEAN, speed=draw([speed]),
        sample_note=next(note for key, note in SAMPLE_NOTES.items() if not key or key in settings))


def render_markdown(card: DataCard) -> str:
    """A data card as Markdown, for the page of a data set or model on a hub."""
    return make_environment().get_template("card.md").render(card=card)


def format_cell(text: object) -> Markup:
    """Escape text for the cell of a Markdown table."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|":
        escaped = escaped.replace(sign, "\\" + sign)
    return Markup(" ".join(escaped.split()))


def _facts(contents: RunContents) -> list[str]:
    config, images = contents.config, contents.images
    total = number(part(config, "train").get("images"))
    facts = [str(part(config, "recipe").get("name", "")), str(part(config, "data").get("where", "")),
             " of ".join(map(format_number, [images, max(total, images)] if total else [images])) + " images"]
    times = [unix for entry in contents.speed if (unix := number(entry.get("unix")))]
    if times:
        facts.append(f"last entry {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC")
    return [fact for fact in facts if fact]


def _settings(config: Entry) -> dict[str, dict[str, object]]:
    recipe, data, of_data = part(config, "recipe"), part(config, "data"), ("sizes", "channels", "formats")
    tables: dict[str, dict[str, object]] = {
        "Recipe": {"recipe": recipe.get("name", ""), **part(recipe, "settings")},
        "Data": {"data": data.get("where", ""), **part(data, "settings"), **part(data, "fingerprint"),
                 **{key: config[key] for key in of_data if key in config}},
        "Training": dict(part(config, "train")),
        "Versions": {"i2i": config.get("i2i", ""), **part(config, "versions")},
        "Other": {key: value for key, value in config.items()
                  if key not in ("recipe", "data", *of_data, "train", "versions", "i2i")}}
    return {title: shown for title, rows in tables.items()
            if (shown := {key: value for key, value in rows.items() if format_setting(value)})}


def format_setting(value: object) -> str:
    """A setting as it is typed, with thousands separated."""
    if isinstance(value, Mapping):
        if set(value) == {"name", "options"} and isinstance(value["options"], Mapping):
            options = (f"{key}={format_setting(each)}" for key, each in value["options"].items())
            return " ".join([str(value["name"]), *options])
        return ", ".join(f"{key} {format_setting(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(format_setting, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def _metrics(contents: RunContents) -> dict[str, Any] | None:
    entries, best = contents.metrics, part(contents.verdict, "best")
    if not entries:
        return None
    sets = dict.fromkeys(f"{entry.get('split', '')} split, {entry['n']:,} pictures" for entry in entries
                         if isinstance(entry.get("n"), int))
    top = next((entry for entry in entries if best and entry["images"] == best.get("images")), None)
    chosen = {"best and last": top} if top is entries[-1] else {"best": top, "last": entries[-1]}
    columns = {f"{title}, image {format_number(entry['images'])}": entry
               for title, entry in chosen.items() if entry}
    scores, readings = run_charts.names_in(entries, "scores"), run_charts.names_in(entries, "readings")
    rows = [{"images": entry["images"], "split": str(entry.get("split", "")),
             "scores": [run_charts.score_point(entry, name) for name in scores],
             "readings": [number(part(entry, "readings").get(name)) for name in readings]}
            for entry in evenly_spaced(entries, MAX_ROWS)]
    return {"sets": list(sets), "columns": list(columns), "score_names": scores, "reading_names": readings,
            "rows": rows, "total": len(entries),
            "best_and_last": {name: [run_charts.score_point(entry, name) for entry in columns.values()]
                        for name in run_charts.names_in(list(columns.values()), "scores")},
            "charts": draw(run_charts.score_charts(entries, best)),
            "reading_charts": draw(run_charts.reading_charts(entries))}
