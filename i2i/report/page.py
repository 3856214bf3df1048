"""The page: everything a run folder tells, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from i2i.report import groups
from i2i.report.charts import NOISY, Chart, embedded, figure, words
from i2i.report.contents import EmbeddedImage, Entry, ImagePair, RunContents, evenly_spaced, number

MOST_ROWS = 100                 # Of the table of all evaluations.
ROOM = 1088                     # CSS pixels a sample sheet has on a wide screen.
ROOM_PAIR = 520                 # And a strip of three.
SHEETS = {                      # A setting that only such recipes have -> what their sample sheets show.
    "latent": "The same noise every time.",
          "lambda_cycle_a": "The same inputs every time: a, what is made of it, b, what is made of it."}


def page(contents: RunContents) -> str:
    """The whole document; the same run folder gives the same bytes."""
    style, script = (files("i2i.report").joinpath(name).read_text() for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    parts = {"verdict": _verdict(contents), "alarm": _alarm(contents), "settings": _settings(contents.config),
             "losses": _losses(contents), "metrics": _metrics(contents),
             "speed": _speed(contents), "samples": _samples(contents), "pairs": _pairs(contents)}
    body = "".join(f'<section id="{name}" aria-labeledby="{name}-title"><h2 '
                   f'id="{name}-title">{name.capitalize()}</h2>{part}</section>'
                   for name, part in parts.items() if part)
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a>' for name, part in parts.items() if part)
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta '
            f'http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
            'content="light dark">'
            f'<title>{escape(contents.name)} – i2i report</title><link rel="icon" '
            f'href="data:,"><style>{style}</style></head>\n'
            f'<body><header>{_head(contents)}<nav '
            f'aria-label="Sections">{links}</nav></header>\n<main>{body}</main>\n{_problems(contents.problems)}'
            f'<script>{script}</script></body></html>\n')


def _head(contents: RunContents) -> str:
    """The run's name, and what it is in one line."""
    config = contents.config
    facts = [str(groups.part(config, "recipe").get("name", "")),
             str(groups.part(config, "data").get("where", ""))]
    total = number(groups.part(config, "train").get("images"))
    facts.append(f"{words(contents.images)} of {words(max(total, contents.images))} images" if total
                 else f"{words(contents.images)} images")
    times = [unix for entry in contents.speed if (unix := number(entry.get("unix")))]
    if times:
        facts.append(f"last entry {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC")
    return f'<h1>{escape(contents.name)}</h1><p class="facts">{" · ".join(escape(fact) for fact in facts if fact)}</p>'


def _verdict(contents: RunContents) -> str:
    """The plain sentence, then what to be wary of."""
    verdict = contents.verdict
    sentence = str(verdict.get("sentence") or "") or "No verdict" + (" yet." if contents.metrics
                                                                     else ": nothing was evaluated during "
                                                                          "this run.")
    listed = verdict.get("warnings")
    warnings = "".join(f"<li>{escape(str(each))}</li>"
                       for each in (listed if isinstance(listed, list) else []))
    best = groups.part(verdict, "best")
    value, images = number(best.get("value")), number(best.get("images"))
    line = f'<p>Best evaluation: {escape(str(best.get("metric", "")))} {words(value)} at image {words(images)}.</p>' if images is not None else ""
    return (f'<p class="sentence{"" if verdict else " muted"}">{escape(sentence)}</p>{line}'
            + (f'<div class="warnings"><h3>Warnings</h3><ul>{warnings}</ul></div>' if warnings else ""))


def _alarm(contents: RunContents) -> str:
    """What rang, its evidence, what to try, and the readings; readings alone if it never did."""
    if not contents.alarm:
        return ""
    rang, told = contents.rang, ""
    if rang:
        listed = rang.get("remedies")
        tries = "".join(f"<li><code>{escape(str(each.get('command', '')))}</code><br>{escape(str(each.get('why', '')))}</li>"
                        for each in (listed if isinstance(listed, list) else []) if isinstance(each, Mapping))
        told = f'<div class="warnings"><p>{escape(str(rang.get("sentence", "")))}.</p></div>'
        told += f"<h3>To try</h3><ul>{tries}</ul>" if tries else ""
    else:
        told = f'<p class="note">It did not ring in {len(contents.alarm):,} {"look" if len(contents.alarm) == 1 else "looks"}.</p>'
    if contents.alarm_picture:
        picture = _image(contents.alarm_picture, "evidence of collapse", ROOM)
        told += f'<div class="wide" tabindex="0" role="region" aria-label="Evidence">{picture}</div>'
    note = '<p class="note">Readings are shares of what real images have: 1 is as varied as those, 0 is collapse.</p>'
    return told + note + _charts(groups.alarm(contents.alarm, rang))


def _settings(config: Entry) -> str:
    """Recipe, data, training and versions, each a list of terms; whatever else the config holds comes
    last."""
    recipe, data = groups.part(config, "recipe"), groups.part(config, "data")
    tables: dict[str, dict[str, object]] = {
        "Recipe": {"recipe": recipe.get("name", ""), **groups.part(recipe, "settings")},
        "Data": {"data": data.get("where", ""), **groups.part(data, "settings"),
                 **groups.part(data, "fingerprint"),
                 **{key: config[key] for key in ("sizes", "channels", "formats") if key in config}},
        "Training": dict(groups.part(config, "train")),
        "Versions": {"i2i": config.get("i2i", ""), **groups.part(config, "versions")},
        "Other": {key: value for key, value in config.items()
                  if key not in ("recipe", "data", "sizes", "channels", "formats", "train", "versions", "i2i")}}
    out = []
    for title, rows in tables.items():
        shown = "".join(f"<div><dt>{escape(key)}</dt><dd>{escape(text)}</dd></div>" for key,
                        value in rows.items() if (text := _setting(value)))
        if shown:
            out.append(f"<div><h3>{title}</h3><dl>{shown}</dl></div>")
    return f'<div class="settings">{"".join(out)}</div>'


def _setting(value: object) -> str:
    """A setting as one would type it."""
    if isinstance(value, Mapping) and set(value) == {"name", "options"} and isinstance(value["options"],
                                                                                       Mapping):
        return " ".join([str(value["name"]),
                         *(f"{key}={_setting(each)}" for key, each in value["options"].items())])
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_setting(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_setting(each) for each in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:,}" if isinstance(value,
                                      int) and abs(value) >= 10_000 else f"{value:g}" if isinstance(value,
                                                                                                    float) else str(value)


def _charts(charts: Iterable[Chart]) -> str:
    drawn = "".join(figure(chart) for chart in charts)
    return f'<div class="charts">{drawn}</div>' if drawn else ""


def _losses(contents: RunContents) -> str:
    if not contents.log:
        return ""
    marks = groups.skipped(contents.log)
    note = ""
    if marks:
        note = (f'<p class="note"><span class="skip" aria-hidden="true">▲</span> Steps were skipped because '
                'gradients were not finite, '
                f"first at image {words(marks[0][0])} ({escape(marks[0][1])}), last at image "
                f"{words(marks[-1][0])} ({escape(marks[-1][1])}).</p>")
    means = "Means over the images between two log entries"
    if len(contents.log) >= NOISY:
        means += "; strong lines are running means of the faint ones"
    return f'<p class="note">{means}.</p>{note}{_charts(groups.losses(contents.log))}'


def _metrics(contents: RunContents) -> str:
    """Curves with their intervals, the best and the last evaluation as a table, all of them below it."""
    entries = contents.metrics
    if not entries:
        return ""
    best = groups.part(contents.verdict, "best")
    on = dict.fromkeys(f"{entry.get('split', '')} split, {entry['n']:,} pictures" for entry in entries
                       if isinstance(entry.get("n"), int))
    note = f'<p class="note">{escape("; ".join(on))}. Bands are the intervals of the values.</p>' if on else ""
    readings = _charts(groups.readings(entries))
    return (f"{note}{_summary(entries, best)}{_charts(groups.scores(entries, best))}"
            + (f"<h3>Readings</h3>{readings}" if readings else "") + _all_evaluations(entries))


def _summary(entries: Sequence[Entry], best: Mapping[str, Any]) -> str:
    """The figures of the best evaluation beside those of the last."""
    top = next((entry for entry in entries if best and entry["images"] == best.get("images")), None)
    shown = {"best and last": top} if top is entries[-1] else {"best": top, "last": entries[-1]}
    columns = {f"{kind}, image {words(entry['images'])}": entry for kind, entry in shown.items() if entry}
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in columns)
    rows = "".join(f'<tr><th '
                   f'scope="row">{escape(name)}</th>{"".join(_score(entry, name) for entry in columns.values())}</tr>'
                   for name in groups.names_of(list(columns.values()), "scores"))
    return f'<div class="wide"><table id="figures"><thead><tr><th scope="col">metric</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _score(entry: Entry, name: str) -> str:
    point = groups.point(entry, name)
    interval = f' <span class="interval">{words(point.low)} to {words(point.high)}</span>' if None not in (point.low, point.high) else ""
    return f"<td>{words(point.y)}{interval}</td>"


def _all_evaluations(entries: Sequence[Entry]) -> str:
    """Every evaluation as a row."""
    scores, readings = groups.names_of(entries, "scores"), groups.names_of(entries, "readings")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ["image", "split", *scores, *readings])
    rows = "".join(f'<tr><th scope="row">{words(entry["images"])}</th>{_cells(entry, scores, readings)}</tr>'
                   for entry in evenly_spaced(entries, MOST_ROWS))
    title = f"All {len(entries):,} evaluations" if len(entries) <= MOST_ROWS else f"{MOST_ROWS} of {len(entries):,} evaluations, evenly chosen"
    return (f'<details><summary>{title}</summary><div class="wide" tabindex="0" role="region" '
            f'aria-label="{title}">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>")


def _cells(entry: Entry, scores: Sequence[str], readings: Sequence[str]) -> str:
    values = groups.part(entry, "readings")
    return (f"<td>{escape(str(entry.get('split', '')))}</td>"
            + "".join(_score(entry, name) for name in scores)
            + "".join(f"<td>{words(number(values.get(name)))}</td>" for name in readings))


def _speed(contents: RunContents) -> str:
    if not any("images_per_second" in entry for entry in contents.speed):
        return ""
    return _charts([Chart("images per second",
                          [groups.curve("images_per_second", contents.speed, "images/s")],
                          note="Between two log entries; evaluations and samples included.")])


def _samples(contents: RunContents) -> str:
    """The last sheet, a slider over all of them, and their data for the script."""
    if not contents.samples:
        return ""
    images, picture = contents.samples[-1]
    at, last = f"image {words(images)}", len(contents.samples) - 1
    settings = groups.part(groups.part(contents.config, "recipe"), "settings")
    note = next((words for key, words in SHEETS.items() if key in settings),
                "The same inputs every time: source, result, target.")
    if contents.samples_found > len(contents.samples):
        note += f" {len(contents.samples)} of {contents.samples_found:,} sheets are on this page, evenly chosen."
    slider = ('<div class="slider" hidden><label for="when">Training progress</label>'
              f'<input type="range" id="when" min="0" max="{last}" step="1" value="{last}" '
              f'aria-valuetext="{at}"></div>' if last else "")
    data = embedded([{"images": words(seen), "src": each.data, "width": each.width, "height": each.height,
                      "zoom": _zoom(each, ROOM)}
                     for seen, each in contents.samples])
    return (f'<p class="note">{note}</p>{slider}<figure class="samples" id="player">'
            f'<figcaption><output id="shown" for="when">{at}</output></figcaption>'
            f'<div class="wide" tabindex="0" role="region" aria-label="Sample '
            f'sheet">{_image(picture, f"samples at {at}", ROOM)}</div>'
            f"{data}</figure>")


def _zoom(picture: EmbeddedImage, room: int) -> int:
    """Whole screen pixels for each of the picture's, so that it stays crisp."""
    return max(1, room // picture.width)


def _image(picture: EmbeddedImage, alt: str, room: int) -> str:
    zoom = _zoom(picture, room)
    return (f'<img src="{picture.data}" alt="{escape(alt)}" width="{picture.width * zoom}" '
            f'height="{picture.height * zoom}"'
            f'{"" if picture.width > room else " class=crisp"}>')


def _pairs(contents: RunContents) -> str:
    """Strips of input, output and target with their figures."""
    out = []
    for side, pairs in contents.pairs.items():
        if pairs:
            out.append(f'<h3>{side.capitalize()}</h3><div '
                       f'class="pairs">{"".join(_pair(pair, contents.pairs_metric) for pair in pairs)}</div>')
    by = f" by {escape(contents.pairs_metric)}" if contents.pairs_metric else ""
    of = f" of the {escape(contents.pairs_split)} split" if contents.pairs_split else ""
    return f'<p class="note">Input, output, target; best and worst{of}{by}.</p>{"".join(out)}' if out else ""


def _pair(pair: ImagePair, metric: str) -> str:
    value = f" <b>{escape(metric)} {words(pair.value)}</b>" if pair.value is not None else ""
    picture = _image(pair.picture, f"input, output and target of {pair.name}", ROOM_PAIR)
    return f"<figure>{picture}<figcaption>{escape(pair.name)}{value}</figcaption></figure>"


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    return f'<aside aria-label="Left out"><h2>Left out of this report</h2><ul>{"".join(f"<li>{escape(each)}</li>" for each in problems)}</ul></aside>'
