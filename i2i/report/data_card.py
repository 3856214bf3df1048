"""A synthetic-data card: origin and use of the images of a run, and which tests were made of them.

It is made from the JSON files of `i2i evaluate`, `worth`, `leaks`, `hype score` and `audit`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from i2i.errors import RequestError
from i2i.report.run_contents import Entry, RunContents, number, part
from i2i.report.svg_chart import format_number

OTHERS = ("config.json", "verdict.json", "pairs.json")     # Files of a run that are no results.
QUESTIONS = {
    "evaluation": "Are they like real images?",
    "worth": "Does training on them help?",
    "leaks": "Are they copies of training images?",
    "hype": "Do people take them for real?",
    "audit": "What does the translator hide or change?"}
FROM_NOISE, TRANSLATOR = "from noise", "translator"
# The command that answers each question; DIR is a folder of saved translations or images.
COMMANDS = {
    FROM_NOISE: {
        "evaluation": "i2i evaluate --real DATA --fake DIR --json {run}/evaluation.json",
        "worth": "i2i worth --real DATA --fake {run} --out {run}/worth",
        "leaks": "i2i leaks --train DATA --fake {run} --json {run}/leaks.json",
        "hype": "i2i hype build --real DATA --fake {run}"},
    TRANSLATOR: {
        "evaluation": "i2i evaluate {run} --json {run}/evaluation.json",
        "worth": "i2i worth --real DATA --fake DIR --out {run}/worth",
        "leaks": "i2i leaks --train DATA --fake DIR --json {run}/leaks.json",
        "hype": "i2i hype build --real DATA --fake DIR",
        "audit": "i2i audit {run} --json {run}/audit.json"}}
Row = tuple[str, str]       # What, and its value.


@dataclass
class Finding:
    """The content of one result file for the card."""

    file: str
    sentences: list[str]
    rows: list[Row] = field(default_factory=list)
    good_for: list[str] = field(default_factory=list)
    cautions: list[str] = field(default_factory=list)


@dataclass
class DataCard:
    """Contents of the card."""

    name: str
    kind: str                               # TRANSLATOR or FROM_NOISE.
    made_of: list[Row]
    findings: dict[str, list[Finding]]      # By the keys of QUESTIONS.
    not_tested: dict[str, str]              # Commands of the tests that are missing, by the same keys.

    @property
    def good_for(self) -> list[str]:
        """Uses of the images that a test supports."""
        return [each for finding in self._all() for each in finding.good_for]

    @property
    def cautions(self) -> list[str]:
        """Findings that users of the images need to know."""
        return list(dict.fromkeys(each for finding in self._all() for each in finding.cautions))

    def _all(self) -> Iterator[Finding]:
        return (finding for found in self.findings.values() for finding in found)


def make_card(run: Path, contents: RunContents, more: Sequence[Path] = ()) -> DataCard:
    """The card of a run, from the results in its folder and in further files or folders.

    RequestError if one of these files is no result; what cannot be read in a folder is a problem of
    `contents`.
    """
    findings: dict[str, list[Finding]] = {kind: [] for kind in QUESTIONS}
    own = [path for path in (*sorted(run.glob("*.json")), *sorted(run.glob("*/results.json")))
           if path.name not in OTHERS and path.is_file()]
    given = [path for each in more for path in (sorted(each.glob("*.json")) if each.is_dir() else [each])
             if path.name not in OTHERS or path.parent != run]
    for path in dict.fromkeys([*own, *given]):
        try:
            data = json.loads(path.read_bytes())
            kind = recognize(data)
            if kind:
                findings[kind].append(READERS[kind](_name(path, run), data))
            elif path in more:
                raise RequestError(f"--results {path} is no result of {', '.join(QUESTIONS)} that i2i writes "
                                   "with --json")
        except OSError as error:
            _report(path, error.strerror or "cannot be read", path in more, contents)
        except (ValueError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, RequestError):
                raise
            _report(path, "is damaged", path in more, contents)
    kind = model_kind(contents.config)
    tested = {key: found for key, found in findings.items() if found}
    return DataCard(contents.name, kind, _made_of(contents), tested,
                    {key: COMMANDS[kind][key].format(run=run) for key in COMMANDS[kind] if not findings[key]})


def _name(path: Path, run: Path) -> str:
    return path.relative_to(run).as_posix() if path.is_relative_to(run) else path.name


def _report(path: Path, what: str, given: bool, contents: RunContents) -> None:
    if given:
        raise RequestError(f"--results {path} cannot be used: {what}")
    contents.problems.append(f"{path.name} of the data card cannot be used: {what}")


def recognize(data: Any) -> str:
    """The key of QUESTIONS that a result file answers; empty if it is none."""
    if not isinstance(data, dict):
        return ""
    if data.get("i2i") == "hype score":
        return "hype"
    if isinstance(data.get("answers"), list) and "light" in data:
        return "audit"
    if isinstance(data.get("verdicts"), list) and "sentence" in data:
        return "worth"
    if not isinstance(data.get("results"), dict) or not isinstance(data.get("stamp"), dict):
        return ""
    return "leaks" if "leaks" in part(data["stamp"], "metrics") else "evaluation"


def model_kind(config: Entry) -> str:
    """Whether a run makes images from noise or translates: data for noise are images, not pairs or sides."""
    described = " ".join(map(str, part(part(config, "data"), "fingerprint").values()))
    return TRANSLATOR if "pairs" in described or "+" in described else FROM_NOISE


def _made_of(contents: RunContents) -> list[Row]:
    config = contents.config
    recipe, data = part(config, "recipe"), part(config, "data")
    asked, name = (str(recipe.get(key, "")) for key in ("requested", "name"))
    crop = part(config, "sizes").get("crop")
    size = "x".join(map(str, reversed(crop))) if isinstance(crop, list) else ""
    rows = {"model": asked if asked in ("", name) else f"{asked} ({name})",
            "trained on": str(data.get("where", "")), "size": size and f"{size} pixels",
            **{f"{split} data": str(text).rpartition(",")[0] or str(text)
               for split, text in part(data, "fingerprint").items()},
            "training": f"{format_number(contents.images)} images seen, seed "
                        f"{part(config, 'train').get('seed', '?')}",
            "made with": f"i2i {config.get('i2i', '')}, torch {part(config, 'versions').get('torch', '?')}"}
    rows["model"] = rows["model"] or name
    return [(key, value) for key, value in rows.items() if value]


def interval(entry: Mapping[str, Any], scale: float = 1, unit: str = "") -> str:
    """A value with its interval, if it has one."""
    value, low, high = (None if (found := number(entry.get(key))) is None else format_number(scale * found)
                        for key in ("value", "low", "high"))
    return (value or "–") + unit + ("" if low is None or high is None else f" ({low} to {high})")


def _evaluation(file: str, data: Mapping[str, Any]) -> Finding:
    stamp = data["stamp"]
    rows = [(f"{name}, {entry['better']} is better" if entry.get("better") in ("lower", "higher") else name,
             interval(entry)) for name, entry in data["results"].items()]
    return Finding(file, [f"{stamp['n_fake']:,} images against {stamp['n_real']:,} real ones, by features "
                          f"{stamp['features']}."], rows, cautions=_warnings(data))


def _worth(file: str, data: Mapping[str, Any]) -> Finding:
    sentences = [_sentence(each["sentence"]) for each in data["verdicts"]]
    verdicts = [str(each["verdict"]) for each in data["verdicts"]]
    pairs = list(zip(verdicts, sentences, strict=True))
    fakes = f"{data['n_fake']:,} fakes, {data['n_real']:,} real training and {data['n_test']:,} test images"
    return Finding(file, sentences, [("measured with", fakes)],
                   [f"Training: {text}" for verdict, text in pairs if verdict == "helps"],
                   [text for verdict, text in pairs if verdict == "hurts"] + _warnings(data))


def _leaks(file: str, data: Mapping[str, Any]) -> Finding:
    copies, held_out, n = data["results"]["copies"], part(data, "held_out"), data["stamp"]["n_fake"]
    found = (f"{round(copies['value'] * n):,} of {n:,} are copies of training images, "
             f"{interval(copies, 100, ' %')}; by chance {100 * data['chance']:.2g} %.")
    others = {name: f"; held-out images {interval(entry)}" for name, entry in held_out.items()}
    rows = [(name, interval(entry) + others.get(name, "")) for name, entry in data["results"].items()]
    more = copies["low"] > data["chance"]
    caution = [f"{found} They are named in {file}: leave them out before the images are passed on."]
    return Finding(file, [found], rows, cautions=caution * more + _warnings(data))


def _hype(file: str, data: Mapping[str, Any]) -> Finding:
    sentences, rows = list[str](), list[Row]()
    for each in data["results"]:
        if each["protocol"] == "time":
            what = f"must be seen for {interval(each['score'], 1, ' ms')} to be distinguished from real"
        else:
            what = f"people err on {interval(each['score'], 100, ' %')} of the images; 50 % is chance"
        people, model = f"{each['people']} {'person' if each['people'] == 1 else 'people'}", each["model"]
        sentences.append(f"{model}: {what} ({people}).")
        rows += [(f"{model}, {each['protocol']}: {kind} taken for {other}",
                  interval(each[f"error_{kind}"], 100, " %"))
                 for kind, other in (("fake", "real"), ("real", "fake"))]
    return Finding(file, sentences + [_sentence(each["sentence"]) for each in data["comparisons"]], rows,
                   cautions=_warnings(data))


def _audit(file: str, data: Mapping[str, Any]) -> Finding:
    rows = [(each["question"], f"{each['light']}: {each['finding']}") for each in data["answers"]]
    cautions = [" ".join(filter(None, (_sentence(each["finding"]), each.get("advice", ""))))
                for each in data["answers"] if each["light"] in ("red", "yellow")]
    worst = f"The worst light is {data['light']}, of {len(rows)} questions to {data['n']:,} images."
    return Finding(file, [worst], rows, cautions=cautions + _warnings(data))


def _sentence(text: object) -> str:
    words = str(text).strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")


def _warnings(data: Mapping[str, Any]) -> list[str]:
    found = data.get("warnings")
    return [_sentence(each) for each in found] if isinstance(found, list) else []


READERS: dict[str, Callable[[str, Mapping[str, Any]], Finding]] = {
    "evaluation": _evaluation, "worth": _worth, "leaks": _leaks, "hype": _hype, "audit": _audit}
