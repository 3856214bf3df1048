"""What the columns of a survey give away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from i2i.data.check.duplicates import connected_groups, exact_duplicates, near_duplicates
from i2i.data.check.finding import Finding, Severity, finding
from i2i.data.check.layout import Layout, Roles
from i2i.data.check.survey import Survey
from i2i.data.format_detection import MAX_CHANNELS
from i2i.data.paired import same_shape
from i2i.images.decode import FIRST_FRAME
from i2i.images.format import Array

T = TypeVar("T")
# Sides: no recipe takes less than the first, and few networks make much of less than the second.
SMALLEST, SMALL = 16, 32
FEW = 10                        # Pictures of a class: fewer teach nothing.
IMBALANCE = 10.0                # The largest class over the smallest.
LIGHT, DARK = 192.0, 64.0       # Levels of a border that is a light or a dark background.
SORTS = 4                       # Ways in which pictures are read that are listed.
MOSTLY = 0.95                   # Share of the pictures that make a rule of which the others are exceptions.

FAULTS: dict[str, tuple[str, str]] = {      # Kind -> words for one and for many.
    "empty": ("a file has no bytes", "{n} files have no bytes"),
    "damaged": ("a file is truncated or damaged", "{n} files are truncated or damaged"),
    "no-image": ("a file is no image", "{n} files are no images"),
    "bomb": ("a file would unpack to more pixels than is safe (decompression bomb)",
             "{n} files would unpack to more pixels than is safe"),
    "unreadable": ("a file cannot be read", "{n} files cannot be read"),
    "refused": ("a file is of a kind that is not supported", "{n} files are of a kind that is not supported")}


@dataclass(frozen=True)
class Rule:
    """What makes a picture worth telling, by the columns of its survey; `why` is said of an example and may
    name columns in braces."""

    severity: Severity
    kind: str
    chosen: Callable[[Survey], Array]
    one: str
    many: str
    why: str = ""


def _shorter(survey: Survey) -> Array:
    return np.minimum(survey.column("width"), survey.column("height"))


def _of_type(survey: Survey, dtype: str) -> Array:
    words = survey.words["dtype"]
    return np.asarray(words.codes) == words.known.get(dtype, -1)


def _constant(survey: Survey) -> Array:
    return survey.column("low") == survey.column("high")


ALONE = (
    Rule("error", "too-small", lambda survey: _shorter(survey) < SMALLEST,
         f"a picture is smaller than {SMALLEST} pixels, the least that can be trained on",
         f"{{n}} pictures are smaller than {SMALLEST} pixels, the least that can be trained on",
         "{width} x {height}"),
    Rule("warning", "tiny", lambda survey: (_shorter(survey) >= SMALLEST) & (_shorter(survey) < SMALL),
         f"a picture is smaller than {SMALL} pixels", f"{{n}} pictures are smaller than {SMALL} pixels",
         "{width} x {height}"),
    Rule("error", "channels",
         lambda survey: survey.column("channels") - survey.column("alpha") > MAX_CHANNELS,
         f"a picture has more than {MAX_CHANNELS} channels, the most that can be trained on",
         f"{{n}} pictures have more than {MAX_CHANNELS} channels, the most that can be trained on",
         "{channels}"),
    Rule("warning", "black", lambda survey: _constant(survey) & (survey.column("high") == 0),
         "a picture is black throughout", "{n} pictures are black throughout"),
    Rule("warning", "constant", lambda survey: _constant(survey) & (survey.column("high") != 0),
         "a picture has one value throughout", "{n} pictures have one value throughout", "{high}"),
    Rule("warning", "float-range",
         lambda survey: _of_type(survey,
                                 "float32") & ((survey.column("low") < -1) | (survey.column("high") > 1)),
         "a picture of floats has values outside -1 … 1", "{n} pictures of floats have values outside -1 … 1",
         "{low} … {high}; data.a_range and data.b_range may say what is black and white"),
    Rule("note", "few-bits", lambda survey: _of_type(survey, "uint16") & (survey.column("depth") < 16),
         "a 16-bit picture has values of fewer bits", "{n} 16-bit pictures have values of fewer bits",
         "{depth} bits, its highest value is {high}"),
    Rule("note", "binary", lambda survey: survey.column("binary"),
         "a gray picture is nearly black and white only",
         "{n} gray pictures are nearly black and white only"),
    Rule("note", "turned", lambda survey: survey.column("turned"),
         "a picture is turned by its EXIF orientation, which is applied",
         "{n} pictures are turned by their EXIF orientation, which is applied"),
    Rule("note", "animated", lambda survey: survey.column("animated"),
         "a picture is animated; its first frame is taken",
         "{n} pictures are animated; their first frames are taken"),
    Rule("note", "alpha", lambda survey: survey.column("alpha"),
         "a picture has alpha, which is laid over white unless data.alpha=keep",
         "{n} pictures have alpha, which is laid over white unless data.alpha=keep"))
NO_STRIP = Rule(
    "error", "no-strip",
    lambda survey: (survey.column("width") % 2 == 1) | (survey.column("width") <= survey.column("height")),
    "a picture is no A|B strip: those are wider than high, of even width",
    "{n} pictures are no A|B strips: those are wider than high, of even width",
    "{width} x {height}")


def faults(survey: Survey) -> list[Finding]:
    """What cannot be read at all."""
    found: list[Finding] = []
    for kind, words in FAULTS.items():
        told = (f"{survey.names[place]}: {fault.reason}" for place,
                fault in survey.faults.items() if fault.kind == kind)
        found += finding("error", kind, told, *words)
    return found


def broken(survey: Survey, rule: Rule) -> list[Finding]:
    """The pictures that a rule chooses."""
    rows = np.flatnonzero(rule.chosen(survey)).tolist()

    def told(row: int) -> str:
        return rule.why and ": " + rule.why.format(**{key: f"{column[row]:g}" for key,
                                                      column in survey.numbers.items()})

    return finding(rule.severity, rule.kind, (survey.name(row) + told(row) for row in rows), rule.one,
                   rule.many, count=len(rows))


def alone(survey: Survey) -> list[Finding]:
    """What each picture gives away by itself."""
    return [each for rule in ALONE for each in broken(survey, rule)] + _mislabeled(survey) + _notes(survey)


def _mislabeled(survey: Survey) -> list[Finding]:
    rows = [(row, word) for word in survey.words["labeled"].known if word
            for row in survey.words["labeled"].rows(word).tolist()]
    return finding("warning", "mislabeled",
                   (f"{survey.name(row)} should end in {word}" for row, word in rows),
                   "a file is of another format than its name says",
                   "{n} files are of other formats than their names say")


def _notes(survey: Survey) -> list[Finding]:
    """What is read in another way than it is stored, under one headline that tells the ways; animated
    pictures have their own."""
    ways = {note: rows for note, rows in survey.notes.items() if note != FIRST_FRAME}
    listed = [f"{note} ({len(rows):,})" for note, rows in ways.items()]
    told = (": " + "; ".join(listed[:SORTS]) if len(ways) > 1
            else "") + (f"; and {len(ways) - SORTS} ways more" if len(ways) > SORTS else "")
    return finding("note", "read-as",
                   (f"{survey.name(row)}: {note}" for note, rows in ways.items() for row in rows),
                   f"a picture is not read quite as it is stored{told}",
                   f"{{n}} pictures are not read quite as they are stored{told}",
                   count=len({row for rows in ways.values() for row in rows}))


# ---------------------------------------------------------------------------------------------- one side
# beside itself

def mixed(survey: Survey, roles: Roles) -> list[Finding]:
    """Pictures of one side that are not of one kind, and those whose background is not that of the others."""
    found: list[Finding] = []
    for side, name in ((0, "A"), (1, "B")):
        rows = np.flatnonzero(roles.side == side)
        if len(rows):
            of = f" of {name}" if (roles.side == 1).any() else ""
            found += _kinds(survey, rows, of) + _backgrounds(survey, rows, of)
    return found


def _kinds(survey: Survey, rows: Array, of: str) -> list[Finding]:
    words = survey.words["kind"]
    codes = np.asarray(words.codes)[rows]
    first = {word: int(rows[np.argmax(codes == code)]) for word,
             code in words.known.items() if (codes == code).any()}
    if len(first) < 2:
        return []
    types, colors = {word.rsplit(", ", 1)[1] for word in first}, {word.split(",")[0].removesuffix(" + alpha")
                                                                  for word in first}
    counts = {word: int((codes == words.known[word]).sum()) for word in first}
    usual = max(counts, key=lambda word: counts[word])
    others = [f"{survey.name(row)} is {word} (as {counts[word]:,}), {counts[usual]:,} are {usual}" for word,
              row in first.items() if word != usual]
    apart = ("float32" in types and len(types) > 1) or (len(colors) > 1 and colors != {"gray", "color"})
    see_through = any("alpha" in word for word in first)
    becomes = ((len(colors) > 1, "gray becomes color"), (len(types) > 1, "8 bits become 16"),
               (see_through, "alpha is laid over white, or added"))
    told = " that cannot be brought together" if apart else ": " + ", ".join(words for true,
                                                                             words in becomes if true)
    lossless = len(types) == 1 and not see_through
    return finding("error" if apart else "note" if lossless else "warning", "mixed-kinds", others,
                   f"pictures{of} are of two kinds" + told,
                   f"pictures{of} are of {{n}} kinds beside the usual one" + told, count=len(others))


def _backgrounds(survey: Survey, rows: Array, of: str) -> list[Finding]:
    border = survey.column("border")[rows]
    for usual, odd, word in ((border >= LIGHT, border <= DARK, "light"),
                             (border <= DARK, border >= LIGHT, "dark")):
        if usual.mean() >= MOSTLY:
            return finding("warning", "inverted", (survey.name(row) for row in rows[odd].tolist()),
                           f"nearly all pictures{of} have a {word} background and one has the opposite: "
                           "inverted?",
                           f"nearly all pictures{of} have a {word} background and {{n}} have the opposite: "
                           "inverted?")
    return []


# ---------------------------------------------------------------------------------------------- pictures
# beside pictures

def pairs(layout: Layout, survey: Survey, roles: Roles) -> list[Finding]:
    """Partners of different size, and pairs that teach nothing."""
    left, right = roles.pairs.T
    width, height, digest = survey.column("width"), survey.column("height"), survey.column("digest")
    other = [(i, j) for i, j in roles.pairs.tolist() if width[i] != width[j] or height[i] != height[j]]
    one_shape = [same_shape((height[i], width[i]), (height[j], width[j])) for i, j in other]
    twins = np.flatnonzero(survey.column("twins")) if layout.strips else left[digest[left] == digest[right]]
    apart, scaled = ([f"{_sized(survey, i)}, {_sized(survey, j)}" for i,
                      j in _where(other, one_shape, wanted)] for wanted in (False, True))
    return [*finding("error", "pair-shapes", apart, "two partners have different proportions",
                     "the partners of {n} pairs have different proportions"),
            *finding("note", "pair-sizes", scaled,
                     "two partners have different sizes, and are brought to one",
                     "the partners of {n} pairs have different sizes, and are brought to one"),
            *finding("warning", "identical-pair", (survey.name(int(row)) for row in twins),
                     "A and B of a pair are equal", "A and B of {n} pairs are equal")]


def _sized(survey: Survey, row: int) -> str:
    return f"{survey.name(row)} is {survey.numbers['width'][row]:g} x {survey.numbers['height'][row]:g}"


def duplicates(survey: Survey, roles: Roles) -> list[Finding]:
    """The same picture twice, and pictures that look the same; in two splits that is a leak.  Empty pictures
    count for nothing, nor do partners."""
    rows, digest, split = np.flatnonzero(~survey.column("flat")), survey.column("digest"), roles.split
    partners = {(min(i, j), max(i, j)) for i, j in roles.pairs.tolist()}
    exact = [group
             for group in ([int(rows[i]) for i in each] for each in exact_duplicates(digest[rows].tolist()))
             if tuple(group) not in partners]
    aspects = survey.column("width")[rows] / survey.column("height")[rows]
    pairs, levels = near_duplicates(survey.small()[rows], aspects)
    close = [(i, j, level) for (i, j), level in zip(rows[pairs].tolist(), levels.tolist(), strict=True)
             if (i, j) not in partners and digest[i] != digest[j]]
    leaks = [len({int(split[row]) for row in group} - {-1}) > 1 for group in exact]
    crossing = [min(split[i], split[j]) >= 0 and split[i] != split[j] for i, j, _ in close]
    apart, within = (_where(close, crossing, wanted) for wanted in (True, False))
    return [
        *finding("error", "leak", (_message(survey, group) for group in _where(exact, leaks, True)),
                 "a picture is in two splits: what is tested was trained on",
                 "{n} pictures are in two splits: what is tested was trained on"),
        *finding("warning", "near-leak", _describe_sizes(survey, apart),
                 "a picture looks like one of another split",
                 "{n} times a picture looks like one of another split"),
        *finding("warning", "duplicate", (_message(survey, group) for group in _where(exact, leaks, False)),
                 "a picture is there more than once", "{n} pictures are there more than once"),
        *finding("note", "near-duplicate", _describe_sizes(survey, within), "two pictures look the same",
                 "{n} groups of pictures look the same",
                 count=len(connected_groups((i, j) for i, j, _ in within)))]


def _where(items: Sequence[T], truths: Sequence[bool], wanted: bool) -> list[T]:
    return [item for item, truth in zip(items, truths, strict=True) if truth == wanted]


def _message(survey: Survey, group: list[int]) -> str:
    return " = ".join(survey.name(row) for row in group[:3]) + (f" = {len(group) - 3} more" if len(group) > 3
                                                                else "")


def _describe_sizes(survey: Survey, close: Iterable[tuple[int, int, float]]) -> Iterator[str]:
    return (f"{survey.name(i)} ~ {survey.name(j)} ({levels:.1f} of 255 levels apart)" for i, j,
            levels in close)


# ---------------------------------------------------------------------------------------------- the layout

def laid_out(layout: Layout, survey: Survey) -> list[Finding]:
    """What is wrong with how the files lie, with classes, and with what is held out."""
    found = [Finding("error", "layout", 1, text, ()) for text in layout.broken]
    found += finding("error", "unpaired", layout.alone, "a file has no partner of its name",
                     "{n} files have no partner of their name")
    if layout.splits and "train" not in layout.splits:
        found.append(Finding("error", "no-train", 1,
                             f"there is nothing to train on, only {' and '.join(layout.splits)}", ()))
    if layout.kind == "paired" and layout.splits and not set(layout.splits) & {"val", "test"}:
        found.append(Finding("note", "nothing-held-out", 1,
                             "nothing is held out: a val/ (or valA/, valB/) would be judged while training",
                             ()))
    if layout.strips:
        found += broken(survey, NO_STRIP)
    return found + _classes(layout.classes())


def unused(layout: Layout, survey: Survey, roles: Roles) -> list[Finding]:
    """Pictures that lie where the layout has none, or that no manifest names."""
    rows = np.flatnonzero(roles.split < 0).tolist() if layout.splits else []
    return finding("note", "unused", map(survey.name, rows), "a picture belongs to no split and is not used",
                   "{n} pictures belong to no split and are not used", count=len(rows))


def _classes(counts: Mapping[str, int]) -> list[Finding]:
    told = sorted(counts.items(), key=lambda item: item[1])
    found = finding("warning", "small-class", (f"{name}: {count:,}" for name, count in told if count < FEW),
                    f"a class has fewer than {FEW} pictures",
                    f"{{n}} classes have fewer than {FEW} pictures")
    filled = [item for item in told if item[1]]
    if filled and filled[-1][1] > IMBALANCE * filled[0][1]:
        found += finding("warning", "imbalance",
                         [f"{filled[-1][0]} has {filled[-1][1]:,} pictures, {filled[0][0]} {filled[0][1]:,}"],
                         "classes are of very different size", "")
    return found

