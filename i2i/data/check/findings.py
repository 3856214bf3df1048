"""What the check of a dataset finds: rules for files, formats, sides, pairs and layouts."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from i2i.data.check.duplicates import count_groups, near_duplicates
from i2i.data.check.file_facts import THUMBNAIL_SIZE, FileFacts
from i2i.data.check.file_scan import FileScan
from i2i.data.check.layout import Layout, Roles
from i2i.data.format_detection import MAX_CHANNELS
from i2i.data.paired import same_shape
from i2i.images.decode import FIRST_FRAME

MIN_SIZE, SMALL_SIZE = 16, 32   # No recipe trains below the first; few networks do well below the second.
MIN_CLASS_SIZE = 10
MAX_LABEL = 32                  # Images without this value are dark to the eye.
MAX_IMBALANCE = 10.0            # The largest class over the smallest.
LIGHT, DARK = 192.0, 64.0       # Mean level of the border of an image with a light or dark background.
MAJORITY = 0.95                 # Share of the images from which on the others count as exceptions.
MAX_NOTES = 4                   # Notes of the decoder that are listed.
MAX_EXAMPLES = 20

FAULTS = {      # Kind of fault -> text.
    "empty": "without content", "damaged": "truncated or damaged", "no-image": "not containing an image",
    "bomb": "with more pixels than is safe to decode (decompression bomb)",
    "memory": "too large for the memory that is free", "unreadable": "that cannot be read",
    "refused": "of an unsupported type"}
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One kind of problem in a data set."""

    severity: Severity      # "error" would stop or spoil training; "warning" should be looked at.
    kind: str               # A short identifier, such as "too-small".
    count: int              # How many files or pairs it concerns.
    text: str               # One line for people.
    examples: tuple[str, ...] = ()


def finding(severity: Severity, kind: str, examples: Iterable[str], unit: str, text: str, *,
            count: int | None = None) -> list[Finding]:
    """A finding "COUNT UNITS TEXT", or none without examples; `unit` is in the singular."""
    listed = tuple(examples)
    n = len(listed) if count is None else count
    units = unit if n == 1 else unit + ("es" if unit.endswith("s") else "s")
    return [Finding(severity, kind, n, f"{n:,} {units} {text}", listed[:MAX_EXAMPLES])] if n else []


@dataclass(frozen=True)
class Rule:
    """A condition on an image; `detail`, added to examples, is a format of its facts."""

    severity: Severity
    kind: str
    condition: Callable[[FileFacts], bool]
    text: str
    detail: str = ""


IMAGE_RULES = (
    Rule("error", "too-small", lambda image: min(image.width, image.height) < MIN_SIZE,
         f"smaller than {MIN_SIZE} pixels, the minimum for training", ": {0.width} x {0.height}"),
    Rule("warning", "tiny", lambda image: MIN_SIZE <= min(image.width, image.height) < SMALL_SIZE,
         f"smaller than {SMALL_SIZE} pixels", ": {0.width} x {0.height}"),
    Rule("error", "channels", lambda image: image.channels - image.alpha > MAX_CHANNELS,
         f"with more than {MAX_CHANNELS} channels, the maximum for training", ": {0.channels}"),
    Rule("warning", "black", lambda image: image.low == image.high == 0, "completely black"),
    Rule("warning", "constant", lambda image: image.low == image.high != 0,
         "with a single value throughout", ": {0.high:g}"),
    Rule("warning", "float-range",
         lambda image: image.dtype == "float32" and (image.low < -1 or image.high > 1),
         "of floats with values outside -1 … 1",
         ": {0.low:g} … {0.high:g}; data.a_range and data.b_range can set the values of black and white"),
    Rule("warning", "distant-value", lambda image: image.distant is not None,
         "of floats with a value far from all others: missing data that are not declared?",
         ": {0.distant:g}; gdal_edit.py -a_nodata {0.distant:g} FILE declares it"),
    Rule("note", "few-bits", lambda image: image.dtype == "uint16" and image.depth < 16,
         "of 16 bits with values of fewer bits", ": {0.depth} bits, the highest value is {0.high:g}"),
    Rule("warning", "dark-labels", lambda image: image.dtype != "float32" and 0 < image.high < MAX_LABEL,
         f"with no value of {MAX_LABEL} or more, nearly black: masks of 0 and 1, or numbers of labels?",
         ": the highest value is {0.high:g}; data.a_range=0,{0.high:g} (of B: data.b_range) makes it white"),
    Rule("note", "binary", lambda image: image.binary, "in gray with almost only black and white"),
    Rule("note", "turned", lambda image: image.turned, "rotated by an EXIF orientation, which is applied"),
    Rule("note", "animated", lambda image: FIRST_FRAME in image.notes,
         "with animation, of which only the first frame is used"),
    Rule("note", "alpha", lambda image: image.alpha,
         "with alpha, composited over white unless data.alpha=keep"))
NOT_A_STRIP = Rule(
    "error", "no-strip", lambda image: image.width % 2 == 1 or image.width <= image.height,
    "that cannot be an A|B strip: not wider than high, or of odd width", ": {0.width} x {0.height}")


def apply_rule(scan: FileScan, rule: Rule) -> list[Finding]:
    """The images that meet the condition of a rule."""
    examples = [name + rule.detail.format(scan.images[name]) for name in scan.where(rule.condition)]
    return finding(rule.severity, rule.kind, examples, "image", rule.text)


def check_files(scan: FileScan) -> list[Finding]:
    """Files that cannot be read, and problems of single images."""
    found = [each for kind, text in FAULTS.items() for each in finding(
        "error", kind, (f"{name}: {fault.reason}" for name, fault in scan.faults.items()
                        if fault.kind == kind), "file", text)]
    found += [each for rule in IMAGE_RULES for each in apply_rule(scan, rule)]
    mislabeled = (f"{name} should end in {image.expected_extension}" for name, image in scan.images.items()
                  if image.expected_extension)
    found += finding("warning", "mislabeled", mislabeled, "file", "whose format is not that of the extension")
    # What decoding changes, in one finding; animations have their own.
    notes: dict[str, list[str]] = defaultdict(list)
    for name, image in scan.images.items():
        for note in image.notes:
            if note != FIRST_FRAME:
                notes[note].append(name)
    details = [f"{note} ({len(names):,})" for note, names in notes.items()]
    if len(details) > MAX_NOTES:
        details[MAX_NOTES:] = [f"{len(notes) - MAX_NOTES} more"]
    return found + finding(
        "note", "read-as", (f"{name}: {note}" for note, names in notes.items() for name in names), "image",
        "converted on reading" + (": " + "; ".join(details) if len(notes) > 1 else ""),
        count=len(set().union(*notes.values())))


def check_sides(scan: FileScan, roles: Roles) -> list[Finding]:
    """Images of a side that differ from the rest in format or background."""
    found: list[Finding] = []
    for names, side in zip(roles.sides, "AB", strict=True):
        images = {name: scan.images[name] for name in names}
        of_side = f" of {side}" if roles.sides[1] else ""
        found += _check_formats(images, of_side) + _check_backgrounds(images, of_side)
    return found


def _check_formats(images: Mapping[str, FileFacts], of_side: str) -> list[Finding]:
    members: dict[str, list[str]] = defaultdict(list)
    for name, image in images.items():
        members[image.kind].append(name)
    if len(members) < 2:
        return []
    dtypes = {image.dtype for image in images.values()}
    colors = {kind.split(",")[0].removesuffix(" + alpha") for kind in members}
    alpha = any(image.alpha for image in images.values())
    usual = max(members, key=lambda kind: len(members[kind]))
    examples = [f"{names[0]} is {kind} (as {len(names):,}), {len(members[usual]):,} are {usual}"
                for kind, names in members.items() if kind != usual]
    severity: Severity = "note" if len(dtypes) == 1 and not alpha else "warning"
    conversions = [text for applies, text in (
        (len(colors) > 1, "gray becomes color"), (len(dtypes) > 1, "8 bits become 16"),
        (alpha, "alpha is composited over white, or added")) if applies]
    text = f"besides the most common one{of_side}: {', '.join(conversions)}"
    if ("float32" in dtypes and len(dtypes) > 1) or (len(colors) > 1 and colors != {"gray", "color"}):
        severity, text = "error", f"that cannot be converted to the most common one{of_side}"
    return finding(severity, "mixed-kinds", examples, "image format", text)


def _check_backgrounds(images: Mapping[str, FileFacts], of_side: str) -> list[Finding]:
    light = [name for name, image in images.items() if image.border >= LIGHT]
    dark = [name for name, image in images.items() if image.border <= DARK]
    for name, other, usual, odd in (("light", "dark", light, dark), ("dark", "light", dark, light)):
        if images and len(usual) >= MAJORITY * len(images):
            return finding("warning", "inverted", odd, f"image{of_side}",
                           f"with a {other} background where nearly all are {name}: inverted?")
    return []


def check_pairs(layout: Layout, scan: FileScan, roles: Roles) -> list[Finding]:
    """Partners of different sizes, and identical partners."""
    shapes, sizes = list[str](), list[str]()
    twins = scan.where(lambda image: image.twins) if layout.strips else []
    for left, right in roles.pairs:
        a, b = scan.images[left], scan.images[right]
        if a.digest == b.digest:
            twins.append(left)
        if (a.width, a.height) != (b.width, b.height):
            same = same_shape((a.height, a.width), (b.height, b.width))
            (sizes if same else shapes).append(
                f"{left} is {a.width} x {a.height}, {right} is {b.width} x {b.height}")
    return [*finding("error", "pair-shapes", shapes, "pair", "of images with different aspect ratios"),
            *finding("note", "pair-sizes", sizes, "pair",
                     "of images with different sizes, which are resized"),
            *finding("warning", "identical-pair", twins, "pair", "in which A and B are identical")]


def check_duplicates(scan: FileScan, roles: Roles) -> list[Finding]:
    """Identical and similar images, except constant ones and partners; in two splits they are leaks."""
    images, splits, partners = scan.images, roles.splits, set(map(frozenset, roles.pairs))
    names = scan.where(lambda image: not image.flat)
    equal: dict[int, list[str]] = defaultdict(list)
    for name in names:
        equal[images[name].digest].append(name)
    leaks, duplicates = list[str](), list[str]()
    for group in equal.values():
        if len(group) > 1 and frozenset(group) not in partners:
            text = " = ".join(group[:3]) + (f" = {len(group) - 3} more" if len(group) > 3 else "")
            leak = len({splits[name] for name in group if name in splits}) > 1
            (leaks if leak else duplicates).append(text)
    thumbnails = np.array([images[name].thumbnail for name in names], np.uint8).reshape(-1, THUMBNAIL_SIZE)
    aspects = np.array([images[name].width / images[name].height for name in names])
    near_leaks, near, near_pairs = list[str](), list[str](), list[tuple[int, int]]()
    pairs, distances = near_duplicates(thumbnails, aspects)
    for (i, j), distance in zip(pairs.tolist(), distances, strict=True):
        one, other = names[i], names[j]
        if frozenset((one, other)) in partners or images[one].digest == images[other].digest:
            continue
        leak = one in splits and other in splits and splits[one] != splits[other]
        (near_leaks if leak else near).append(f"{one} ~ {other} ({distance:.1f} of 255 levels apart)")
        near_pairs += [(i, j)] * (not leak)
    return [
        *finding("error", "leak", leaks, "image", "in more than one split: the test set is trained on"),
        *finding("warning", "near-leak", near_leaks, "pair", "of similar images in two splits"),
        *finding("warning", "duplicate", duplicates, "image", "stored more than once"),
        *finding("note", "near-duplicate", near, "group", "of similar images",
                 count=count_groups(near_pairs))]


def check_layout(layout: Layout, scan: FileScan, roles: Roles) -> list[Finding]:
    """Problems of the layout: splits, partners, classes, unused images."""
    found = [Finding("error", "layout", 1, text) for text in layout.problems]
    found += finding("error", "unpaired", layout.unmatched, "file", "without a partner of the same name")
    if layout.splits and "train" not in layout.splits:
        found.append(Finding("error", "no-train", 1,
                             f"there are no training images, only {' and '.join(layout.splits)}"))
    if layout.kind == "paired" and layout.splits and not set(layout.splits) & {"val", "test"}:
        found.append(Finding("note", "nothing-held-out", 1, "nothing is held out: a val/ (or valA/, valB/) "
                             "would be evaluated during training"))
    if layout.strips:
        found += apply_rule(scan, NOT_A_STRIP)
    unused = [name for name in scan.images if name not in roles.splits] if layout.splits else ()
    found += finding("note", "unused", unused, "image", "not used, because in no split")
    by_size = sorted(layout.classes().items(), key=lambda item: item[1])
    small = (f"{name}: {count:,}" for name, count in by_size if count < MIN_CLASS_SIZE)
    found += finding("warning", "small-class", small, "class", f"with fewer than {MIN_CLASS_SIZE} images")
    filled = [item for item in by_size if item[1]]
    if filled and filled[-1][1] > MAX_IMBALANCE * filled[0][1]:
        (least, few), (most, many) = filled[0], filled[-1]
        found.append(Finding("warning", "imbalance", 1, "the classes have very different sizes",
                             (f"{most} has {many:,} images, {least} {few:,}",)))
    return found
