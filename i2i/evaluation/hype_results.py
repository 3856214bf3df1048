"""Results of `i2i hype` pages: read, check and merge those of many people."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from i2i.errors import RequestError
from i2i.metrics.hype import difference, holm, modal_exposure, resampled_mean

FEW_PEOPLE, USUAL_PEOPLE = 10, 30
KINDS = ("real", "fake")
FIELDS: dict[str, type | tuple[type, ...]] = {
    "study": str, "session": str, "person": str, "model": str, "real": str, "reals": str, "settings": dict,
    "started": str, "ended": str, "trials": list}
SETTINGS = ("blocks", "images", "qualification", "start", "low", "high", "up", "down", "pass")
ENDINGS = {"stopped": "was stopped before the end", "not qualified": "did not qualify",
           "display": "was ended by a display that was too slow"}


class Session(NamedTuple):
    """What one person did, and the file it came in."""

    file: str
    data: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Protocol and model."""
        return self.data["settings"]["protocol"], self.data["model"]

    def test(self, block: int | None = None) -> list[dict[str, Any]]:
        """The trials that count, of one block or of all."""
        return [trial for trial in self.data["trials"] if trial["phase"] == "test" and trial["answer"] and
                block in (None, trial["block"])]

    def error(self, kind: str | None = None) -> float:
        """The share of wrong answers, for real, fake or all images."""
        answers = [trial["answer"] != trial["kind"] for trial in self.test() if kind in (None, trial["kind"])]
        return sum(answers) / len(answers)

    def score(self) -> float:
        """HYPE: the share of wrong answers, or the mean over blocks of the commonest exposure."""
        if self.key[0] == "infinity":
            return self.error()
        blocks = range(self.data["settings"]["blocks"])
        return sum(modal_exposure([trial["level"] for trial in self.test(block)]) for block in blocks
                   ) / len(blocks)


def read_session(path: Path) -> Session:
    """Read a result.  RequestError in one line if it is none, or damaged."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise RequestError(f"{path} is damaged: it is not JSON") from None
    if not isinstance(data, dict) or data.get("i2i") != "hype" or data.get("format") != 1:
        raise RequestError(f"{path} is not a result of a page of i2i hype build")
    if problem := _find_problem(data):
        raise RequestError(f"{path} is damaged: {problem}")
    return Session(str(path), data)


def _find_problem(data: Mapping[str, Any]) -> str:
    """What is wrong with a result; empty if nothing is."""
    for name, kind in FIELDS.items():
        if not isinstance(data.get(name), kind):
            return f"{name} is missing"
    settings = data["settings"]
    if settings.get("protocol") not in ("time", "infinity") or data["ended"] not in ("complete", *ENDINGS):
        return "protocol or ending is not one of the page's"
    blocks, *numbers = (settings.get(name) for name in SETTINGS)
    if type(blocks) is not int or blocks < 1 or not all(type(value) in (int, float) for value in numbers):
        return "settings are missing"
    for i, trial in enumerate(data["trials"], 1):
        if not isinstance(trial, dict) or trial.get("kind") not in KINDS or "answer" not in trial or \
                trial["answer"] not in (*KINDS, None) or not isinstance(trial.get("image"), str) or \
                trial.get("phase") not in ("practice", "qualification", "test"):
            return f"trial {i} is not one of the page's"
    if data["ended"] == "complete":
        test = [trial for trial in data["trials"] if trial["phase"] == "test"]
        if len(test) != settings["blocks"] * settings["images"]:
            return f"it has {len(test)} trials, not {settings['blocks'] * settings['images']}"
        for block in range(settings["blocks"]):
            trials = [trial for trial in test if trial.get("block") == block]
            if len(trials) != settings["images"] or len({t["kind"] for t in trials if t["answer"]}) < 2:
                return f"block {block + 1} has {len(trials)} trials, not {settings['images']} of both kinds"
            if problem := _check_answers(trials, settings):
                return problem
        qualified = [trial for trial in data["trials"] if trial["phase"] == "qualification"]
        right = {kind: [trial["answer"] == kind for trial in qualified if trial["kind"] == kind]
                 for kind in KINDS}
        if len(qualified) != settings["qualification"] or any(
                sum(answers) < settings["pass"] * len(answers) for answers in right.values()):
            return "its qualification was not passed"
    return ""


def _check_answers(trials: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> str:
    """Whether every image was answered, and every exposure follows from the answers before."""
    level = settings["start"]
    for i, trial in enumerate(trials, 1):
        timed = settings["protocol"] == "time"
        lost = timed and trial.get("valid") is False
        if (trial["answer"] is None) != lost:
            return f"image {i} of a block has no answer"
        if timed and trial.get("level") != level:
            return f"the exposure of image {i} of a block does not follow from the answers before"
        if timed and not lost:
            step = -settings["down"] if trial["answer"] == trial["kind"] else settings["up"]
            level = min(settings["high"], max(settings["low"], level + step))
    return ""


def choose_sessions(sessions: Iterable[Session]) -> tuple[list[Session], list[str]]:
    """The sessions that count, one of each person and model, and why the others do not."""
    counted: dict[object, Session] = {}
    seen, kept, notes = dict[str, Session](), list[Session](), list[str]()
    for session in sorted(sessions, key=lambda each: each.data["started"]):
        data, name = session.data, session.data["person"].casefold()
        if (twin := seen.setdefault(data["session"], session)) is not session:
            notes.append(f"{session.file} is the same session as {twin.file}")
        elif data["ended"] != "complete":
            notes.append(f"{session.file} {ENDINGS[data['ended']]}")
        elif name and (first := counted.setdefault((session.key, name), session)) is not session:
            notes.append(f"{session.file} is a second session of {data['person']} for {data['model']}, after "
                         f"{first.file}")
        else:
            kept.append(session)
    return kept, notes


def merge_sessions(sessions: Sequence[Session], notes: Sequence[str] = ()) -> dict[str, Any]:
    """Scores of models with intervals, and comparisons of models, as JSON data.

    Args:
        sessions: of `choose_sessions`.
        notes: which were left out, and why.
    """
    groups, warnings = defaultdict[tuple[str, str], list[Session]](list), list[str]()
    for session in sessions:
        groups[session.key].append(session)
    results = [{"protocol": protocol, "model": model, "people": len(group),
                **{name: _as_data(values) for name, values in _values(group).items()},
                "images": _count_images(group)} for (protocol, model), group in sorted(groups.items())]
    comparisons = list[dict[str, Any]]()
    for protocol in ("time", "infinity"):
        of = {model: group for (kind, model), group in sorted(groups.items()) if kind == protocol}
        comparisons += _compare(protocol, {model: group for model, group in of.items() if len(group) > 1})
        warnings += _differences(protocol, [session for group in of.values() for session in group])
        warnings += [f"{protocol}: {model} was judged by {len(group)} "
                     f"{'person' if len(group) == 1 else 'people'}, too few for a good interval; "
                     f"{USUAL_PEOPLE} are usual" for model, group in of.items() if len(group) < FEW_PEOPLE]
    return {"i2i": "hype score", "format": 1, "results": results, "comparisons": comparisons,
            "interval": "95 %, by resampling people", "left_out": list(notes), "warnings": warnings}


def _values(group: Sequence[Session]) -> dict[str, list[float]]:
    return {"score": [session.score() for session in group],
            "error_fake": [session.error("fake") for session in group],
            "error_real": [session.error("real") for session in group]}


def _as_data(values: Sequence[float]) -> dict[str, float | None]:
    return dict(zip(("value", "low", "high"), resampled_mean(values), strict=True))


def _count_images(group: Sequence[Session]) -> list[dict[str, Any]]:
    """How often each image was judged and taken for what it is not; the most deceptive first."""
    counts = defaultdict[tuple[str, str], list[int]](lambda: [0, 0])
    for session in group:
        for trial in session.test():
            count = counts[trial["kind"], trial["image"]]
            count[0] += 1
            count[1] += trial["answer"] != trial["kind"]
    rows = [{"image": image, "kind": kind, "judged": judged, "wrong": wrong}
            for (kind, image), (judged, wrong) in counts.items()]
    return sorted(rows, key=lambda row: (-row["wrong"] / row["judged"], row["kind"], row["image"]))


def _compare(protocol: str, groups: Mapping[str, Sequence[Session]]) -> list[dict[str, Any]]:
    """All pairs of models, with p values that are corrected for their number."""
    pairs = list(combinations(groups, 2))
    scores = {model: [session.score() for session in group] for model, group in groups.items()}
    found = [difference(scores[a], scores[b]) for a, b in pairs]
    corrected = holm([p for *_, p in found])
    return [{"protocol": protocol, "a": a, "b": b, "difference": value, "low": low, "high": high, "p": p,
             "p_corrected": adjusted, "sentence": _describe(protocol, a, b, value, low, high, adjusted)}
            for (a, b), (value, low, high, p), adjusted in zip(pairs, found, corrected, strict=True)]


def _describe(protocol: str, a: str, b: str, value: float, low: float, high: float, p: float) -> str:
    scale, unit = (1, "ms") if protocol == "time" else (100, "points")
    if value < 0:
        a, b, value, low, high = b, a, -value, -high, -low
    figures = f"by {scale * value:.3g} {unit} ({scale * low:.3g} … {scale * high:.3g}), p = {p:.2g}"
    if p >= 0.05:
        return f"{protocol}: no difference is seen between {a} and {b}: {a} is ahead {figures}"
    return f"{protocol}: {a} is taken for real more than {b} is, {figures}"


def _differences(protocol: str, sessions: Sequence[Session]) -> list[str]:
    """Warnings where results of one protocol were not obtained in the same way."""
    settings = {json.dumps([session.data["settings"][name] for name in SETTINGS]) for session in sessions}
    reals = {session.data["reals"] for session in sessions}
    return [f"{protocol}: results of different {what} are merged, and scores may differ for that reason"
            for what, found in (("settings", settings), ("real images", reals)) if len(found) > 1]
