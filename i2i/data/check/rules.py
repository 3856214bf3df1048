"""The rules of the data set check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from i2i.data.check.duplicates import count_groups, exact_duplicates, near_duplicates
from i2i.data.check.finding import Finding, Severity, finding
from i2i.data.check.layout import Layout, Roles
from i2i.data.check.survey import Survey
from i2i.data.format_detection import MAX_CHANNELS
from i2i.data.paired import same_shape
from i2i.images.decode import FIRST_FRAME
from i2i.images.format import Array

MIN_SIZE, SMALL_SIZE = 16, 32   # No recipe trains below the first; few networks do well below the second.
MIN_CLASS_SIZE = 10
MAX_IMBALANCE = 10.0            # The largest class over the smallest.
LIGHT, DARK = 192.0, 64.0       # Mean level of the border of an image with a light or dark background.
MAJORITY = 0.95                 # Share of the images from which on the others count as exceptions.
MAX_NOTES = 4                   # Notes of the decoder that are listed.

FAULTS = {      # Kind of fault -> text.
    "empty": "without content", "damaged": "truncated or damaged", "no-image": "not containing an image",
    "bomb": "with more pixels than is safe to decode (decompression bomb)",
    "unreadable": "that cannot be read", "refused": "of an unsupported type"}


@dataclass(frozen=True)
class Rule:
    """A condition on the columns of a survey; `detail`, added to examples, may name columns in braces."""

    severity: Severity
    kind: str
    condition: Callable[[Survey], Array]
    text: str
    detail: str = ""


def _shorter_side(survey: Survey) -> Array:
    return np.minimum(survey.column("width"), survey.column("height"))


def _has_dtype(survey: Survey, dtype: str) -> Array:
    column = survey.labels["dtype"]
    return np.asarray(column.codes) == column.known.get(dtype, -1)


def _constant(survey: Survey) -> Array:
    return survey.column("low") == survey.column("high")


def _outside_unit_range(survey: Survey) -> Array:
    return _has_dtype(survey, "float32") & ((survey.column("low") < -1) | (survey.column("high") > 1))


IMAGE_RULES = (
    Rule("error", "too-small", lambda survey: _shorter_side(survey) < MIN_SIZE,
         f"smaller than {MIN_SIZE} pixels, the minimum for training", "{width} x {height}"),
    Rule("warning", "tiny",
         lambda survey: (_shorter_side(survey) >= MIN_SIZE) & (_shorter_side(survey) < SMALL_SIZE),
         f"smaller than {SMALL_SIZE} pixels", "{width} x {height}"),
    Rule("error", "channels",
         lambda survey: survey.column("channels") - survey.column("alpha") > MAX_CHANNELS,
         f"with more than {MAX_CHANNELS} channels, the maximum for training", "{channels}"),
    Rule("warning", "black", lambda survey: _constant(survey) & (survey.column("high") == 0),
         "completely black"),
    Rule("warning", "constant", lambda survey: _constant(survey) & (survey.column("high") != 0),
         "with a single value throughout", "{high}"),
    Rule("warning", "float-range", _outside_unit_range, "of floats with values outside -1 … 1",
         "{low} … {high}; data.a_range and data.b_range can set the values of black and white"),
    Rule("note", "few-bits", lambda survey: _has_dtype(survey, "uint16") & (survey.column("depth") < 16),
         "of 16 bits with values of fewer bits", "{depth} bits, the highest value is {high}"),
    Rule("note", "binary", lambda survey: survey.column("binary"),
         "in gray with almost only black and white"),
    Rule("note", "turned", lambda survey: survey.column("turned"),
         "rotated by an EXIF orientation, which is applied"),
    Rule("note", "animated", lambda survey: survey.column("animated"),
         "with animation, of which only the first frame is used"),
    Rule("note", "alpha", lambda survey: survey.column("alpha"),
         "with alpha, composited over white unless data.alpha=keep"))
NOT_A_STRIP = Rule(
    "error", "no-strip",
    lambda survey: (survey.column("width") % 2 == 1) | (survey.column("width") <= survey.column("height")),
    "that cannot be an A|B strip: not wider than high, or of odd width", "{width} x {height}")


def check_faults(survey: Survey) -> list[Finding]:
    """Files that cannot be read."""
    found: list[Finding] = []
    for kind, text in FAULTS.items():
        examples = (f"{survey.names[position]}: {fault.reason}" for position, fault in survey.faults.items()
                    if fault.kind == kind)
        found += finding("error", kind, examples, "file", text)
    return found


def apply_rule(survey: Survey, rule: Rule) -> list[Finding]:
    """The images that meet the condition of a rule."""
    rows = np.flatnonzero(rule.condition(survey)).tolist()

    def example(row: int) -> str:
        values = {key: f"{column[row]:g}" for key, column in survey.numbers.items()}
        return survey.name(row) + (": " + rule.detail.format(**values) if rule.detail else "")

    return finding(rule.severity, rule.kind, map(example, rows), "image", rule.text, count=len(rows))


def check_images(survey: Survey) -> list[Finding]:
    """Problems of single images."""
    found = [each for rule in IMAGE_RULES for each in apply_rule(survey, rule)]
    extensions = survey.labels["expected_extension"]
    mislabeled = [f"{survey.name(row)} should end in {extension}"
                  for extension in extensions.known if extension
                  for row in extensions.rows(extension).tolist()]
    found += finding("warning", "mislabeled", mislabeled, "file",
                     "whose format is not that of the extension")
    return found + _check_notes(survey)


def _check_notes(survey: Survey) -> list[Finding]:
    """Images that decoding changes, in one finding; animations have their own."""
    notes = {note: rows for note, rows in survey.notes.items() if note != FIRST_FRAME}
    details = [f"{note} ({len(rows):,})" for note, rows in notes.items()]
    if len(details) > MAX_NOTES:
        details[MAX_NOTES:] = [f"{len(notes) - MAX_NOTES} more"]
    examples = (f"{survey.name(row)}: {note}" for note, rows in notes.items() for row in rows)
    return finding("note", "read-as", examples, "image",
                   "converted on reading" + (": " + "; ".join(details) if len(notes) > 1 else ""),
                   count=len({row for rows in notes.values() for row in rows}))


# ------------------------------------------------------------------------------------------- within a side

def check_sides(survey: Survey, roles: Roles) -> list[Finding]:
    """Images of a side that differ from the rest in format or background."""
    found: list[Finding] = []
    for side, name in ((0, "A"), (1, "B")):
        rows = np.flatnonzero(roles.side == side)
        if len(rows):
            of_side = f" of {name}" if (roles.side == 1).any() else ""
            found += _check_formats(survey, rows, of_side) + _check_backgrounds(survey, rows, of_side)
    return found


def _check_formats(survey: Survey, rows: Array, of_side: str) -> list[Finding]:
    column = survey.labels["kind"]
    codes = np.asarray(column.codes)[rows]
    members = {kind: rows[codes == code] for kind, code in column.known.items() if (codes == code).any()}
    if len(members) < 2:
        return []
    dtypes = {kind.rsplit(", ", 1)[1] for kind in members}
    colors = {kind.split(",")[0].removesuffix(" + alpha") for kind in members}
    alpha = any("alpha" in kind for kind in members)
    usual = max(members, key=lambda kind: len(members[kind]))
    most = f"{len(members[usual]):,} are {usual}"
    examples = [f"{survey.name(int(each[0]))} is {kind} (as {len(each):,}), {most}"
                for kind, each in members.items() if kind != usual]
    severity: Severity = "note" if len(dtypes) == 1 and not alpha else "warning"
    conversions = [text for applies, text in (
        (len(colors) > 1, "gray becomes color"), (len(dtypes) > 1, "8 bits become 16"),
        (alpha, "alpha is composited over white, or added")) if applies]
    text = "besides the most common one: " + ", ".join(conversions)
    if ("float32" in dtypes and len(dtypes) > 1) or (len(colors) > 1 and colors != {"gray", "color"}):
        severity, text = "error", "that cannot be converted to the most common one"
    return finding(severity, "mixed-kinds", examples, "image format", text.replace("one", "one" + of_side, 1))


def _check_backgrounds(survey: Survey, rows: Array, of_side: str) -> list[Finding]:
    border = survey.column("border")[rows]
    for name, other, usual, odd in (("light", "dark", border >= LIGHT, border <= DARK),
                                    ("dark", "light", border <= DARK, border >= LIGHT)):
        if usual.mean() >= MAJORITY:
            return finding("warning", "inverted", map(survey.name, rows[odd].tolist()), f"image{of_side}",
                           f"with a {other} background where nearly all are {name}: inverted?")
    return []


# ------------------------------------------------------------------------------------------- between images

def check_pairs(layout: Layout, survey: Survey, roles: Roles) -> list[Finding]:
    """Partners of different sizes, and identical partners."""
    left, right = roles.pairs.T
    width, height, digest = survey.column("width"), survey.column("height"), survey.column("digest")
    shapes, sizes = list[str](), list[str]()
    for i, j in roles.pairs.tolist():
        if (width[i], height[i]) != (width[j], height[j]):
            same = same_shape((height[i], width[i]), (height[j], width[j]))
            (sizes if same else shapes).append(
                f"{survey.name(i)} is {width[i]} x {height[i]}, "
                f"{survey.name(j)} is {width[j]} x {height[j]}")
    twins = np.flatnonzero(survey.column("twins")) if layout.strips else left[digest[left] == digest[right]]
    return [*finding("error", "pair-shapes", shapes, "pair", "of images with different aspect ratios"),
            *finding("note", "pair-sizes", sizes, "pair",
                     "of images with different sizes, which are resized"),
            *finding("warning", "identical-pair", map(survey.name, twins.tolist()), "pair",
                     "in which A and B are identical")]


def check_duplicates(survey: Survey, roles: Roles) -> list[Finding]:
    """Identical and similar images, except constant ones and partners; in two splits they are leaks."""
    rows, digest, split = np.flatnonzero(~survey.column("flat")), survey.column("digest"), roles.split
    partners = {(min(i, j), max(i, j)) for i, j in roles.pairs.tolist()}
    leaks, duplicates = list[list[int]](), list[list[int]]()
    for group in exact_duplicates(digest[rows].tolist()):
        members = rows[group].tolist()
        if tuple(members) not in partners:
            (leaks if len({int(split[row]) for row in members} - {-1}) > 1 else duplicates).append(members)
    aspects = survey.column("width")[rows] / survey.column("height")[rows]
    pairs, distances = near_duplicates(survey.thumbnails()[rows], aspects)
    near_leaks, near = list[tuple[int, int, float]](), list[tuple[int, int, float]]()
    for (i, j), distance in zip(rows[pairs].tolist(), distances.tolist(), strict=True):
        if (i, j) not in partners and digest[i] != digest[j]:
            leak = min(split[i], split[j]) >= 0 and split[i] != split[j]
            (near_leaks if leak else near).append((i, j, distance))
    return [
        *finding("error", "leak", (_equal(survey, group) for group in leaks), "image",
                 "in more than one split: the test set is trained on"),
        *finding("warning", "near-leak", _similar(survey, near_leaks), "pair",
                 "of similar images in two splits"),
        *finding("warning", "duplicate", (_equal(survey, group) for group in duplicates), "image",
                 "stored more than once"),
        *finding("note", "near-duplicate", _similar(survey, near), "group", "of similar images",
                 count=count_groups([(i, j) for i, j, _ in near]))]


def _equal(survey: Survey, group: list[int]) -> str:
    more = f" = {len(group) - 3} more" if len(group) > 3 else ""
    return " = ".join(survey.name(row) for row in group[:3]) + more


def _similar(survey: Survey, pairs: Iterable[tuple[int, int, float]]) -> Iterator[str]:
    return (f"{survey.name(i)} ~ {survey.name(j)} ({distance:.1f} of 255 levels apart)"
            for i, j, distance in pairs)


# ------------------------------------------------------------------------------------------- the layout

def check_layout(layout: Layout, survey: Survey, roles: Roles) -> list[Finding]:
    """Problems of the layout: splits, partners, classes, unused images."""
    found = [Finding("error", "layout", 1, text, ()) for text in layout.problems]
    found += finding("error", "unpaired", layout.unmatched, "file", "without a partner of the same name")
    if layout.splits and "train" not in layout.splits:
        text = f"there are no training images, only {' and '.join(layout.splits)}"
        found.append(Finding("error", "no-train", 1, text, ()))
    if layout.kind == "paired" and layout.splits and not set(layout.splits) & {"val", "test"}:
        text = "nothing is held out: a val/ (or valA/, valB/) would be evaluated during training"
        found.append(Finding("note", "nothing-held-out", 1, text, ()))
    if layout.strips:
        found += apply_rule(survey, NOT_A_STRIP)
    unused = np.flatnonzero(roles.split < 0).tolist() if layout.splits else []
    found += finding("note", "unused", map(survey.name, unused), "image", "not used, because in no split",
                     count=len(unused))
    return found + _check_classes(layout.classes())


def _check_classes(counts: Mapping[str, int]) -> list[Finding]:
    by_size = sorted(counts.items(), key=lambda item: item[1])
    small = (f"{name}: {count:,}" for name, count in by_size if count < MIN_CLASS_SIZE)
    found = finding("warning", "small-class", small, "class", f"with fewer than {MIN_CLASS_SIZE} images")
    filled = [item for item in by_size if item[1]]
    if filled and filled[-1][1] > MAX_IMBALANCE * filled[0][1]:
        (least, few), (most, many) = filled[0], filled[-1]
        found.append(Finding("warning", "imbalance", 1, "the classes have very different sizes",
                             (f"{most} has {many:,} images, {least} {few:,}",)))
    return found
