"""Where the images of each split lie, and which files are partners."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

import numpy as np

from i2i.data.file_list import FileList, Positions
from i2i.errors import RequestError

SPLITS = ("train", "val", "test")
# What manifests may call a split, and folders may not.
SPLIT_SYNONYMS = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "eval": "val",
                  "testing": "test"}
# Folders of both sides, or of one; those without a split hold training images.
LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("{split}A/", "{split}B/"),
    ("{split}/A/", "{split}/B/"),
    ("A/{split}/", "B/{split}/"),
    ("A/", "B/"),
    ("{split}/",),
    ("",),
)
MAX_PACKED = 1000       # Files in a folder of StyleGAN's dataset tool.
NUMBERED = re.compile(r"\D*(\d{1,18})", re.ASCII)
HEXADECIMAL, HASH = re.compile(r"[0-9a-f]+"), re.compile(r"[0-9a-f]{32,128}")
# Top-level folders that hold one side of two.
SIDE_FOLDERS = {*(split + side for split in SPLITS for side in "AB"), "A", "B"}


def locate_splits(names: FileList, sides: int) -> dict[str, tuple[str, ...]]:
    """The folders of each split with `sides` sides, by the first layout with images in all of them.

    Layouts without splits come last, and count only where their folders hold no splits.
    """
    found: dict[str, tuple[str, ...]] = {}
    for layout in filter(lambda layout: len(layout) == sides, LAYOUTS):
        unsplit = not any("{split}" in folder for folder in layout)
        for split in SPLITS[:1] if unsplit else SPLITS:
            folders = tuple(folder.format(split=split) for folder in layout)
            holds_splits = unsplit and any(inner.startswith(folder) for others in found.values()
                                           for inner, folder in zip(others, folders, strict=True))
            if split not in found and not holds_splits and all(len(names.under(each)) for each in folders):
                found[split] = folders
    return {split: found[split] for split in SPLITS if split in found}


def side_folders(names: FileList) -> list[str]:
    """The top-level folders that hold one side of two."""
    return sorted(SIDE_FOLDERS.intersection(names.folders()))


def only_divide(names: FileList, folders: Sequence[str]) -> bool:
    """Whether folders side by side are no classes, but divide many files, as tools do that pack them.

    Their names then follow from those of the files: numbers of five digits or more, through which the numbers
    of the files run (StyleGAN's 00000/img00000007.png, FFHQ's 01000/01007.png); these modulo 1000 (Danbooru's
    0007/1007.jpg); or the beginnings of hexadecimal hashes.
    """
    width = len(folders[0])
    if any(len(folder) != width or not HEXADECIMAL.fullmatch(folder) for folder in folders):
        return False
    numbered = all(folder.isdecimal() for folder in folders)
    through, modulo, by_hash = numbered and width >= 5, numbered and width >= 3, True
    highest = -1
    for folder in folders:
        files = names.within(f"{folder}/")
        found = [NUMBERED.fullmatch(stem(name)) for name in files]
        numbers = [int(match[1]) for match in found if match]
        by_hash = by_hash and all(name.startswith(folder) and HASH.fullmatch(stem(name)) for name in files)
        complete = len(numbers) == len(files)
        modulo = modulo and complete and all(number % 1000 == int(folder) for number in numbers)
        through = through and complete and len(numbers) <= MAX_PACKED and min(numbers) > highest
        if not (through or modulo or by_hash):
            return False
        highest = max(numbers, default=highest)
    return True


@dataclass(frozen=True)
class Pairing:
    """Positions of partners in two lists of names, in the order of the names."""

    a: Positions
    b: Positions
    unmatched: list[tuple[int, int]]                # Side (0 or 1) and position of names without a partner.
    duplicate: tuple[int, int, int] | None = None   # Side and positions of equal names; ends the search.


def canonical(name: str) -> str:
    """A name in which the separators of Windows and the Unicode form (macOS writes é as two) do not count."""
    return name if name.isascii() and "\\" not in name else normalize("NFC", name.replace("\\", "/"))


def stem(name: str) -> str:
    """The canonical name without its extension."""
    return canonical(name).rsplit(".", 1)[0]


def pair_names(a: FileList, b: FileList) -> Pairing:
    """Pair names that are equal but for their extension and Unicode form."""
    by_stem: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for side, names in enumerate((a, b)):
        for position, name in enumerate(names):
            other = by_stem[side].setdefault(stem(name), position)
            if other != position:
                return Pairing(np.empty(0, np.int64), np.empty(0, np.int64), [], (side, other, position))
    common = sorted(by_stem[0].keys() & by_stem[1].keys())
    unmatched = sorted((side, position) for side, names in enumerate(by_stem)
                       for stem, position in names.items() if stem not in by_stem[1 - side])
    left, right = (np.array([names[each] for each in common], np.int64) for names in by_stem)
    return Pairing(left, right, unmatched)


def pair_all(sides: Sequence[FileList], roots: Sequence[str]) -> tuple[Positions, Positions]:
    """Positions of partners, as pair_names finds them.  RequestError if a name has no partner, or several."""
    pairing = pair_names(*sides)
    if pairing.duplicate:
        side, *positions = pairing.duplicate
        one, other = (sides[side][position] for position in positions)
        form = " and the Unicode form" if not f"{one}{other}".isascii() else ""
        raise RequestError(f"{roots[side]}: {one} and {other} have the same name but for the extension{form}"
                           "; one must go")
    if pairing.unmatched:
        names = sorted(f"{roots[side]}/{sides[side][position]}" for side, position in pairing.unmatched)
        folded: tuple[set[str], set[str]] = set(), set()
        for side, position in pairing.unmatched:
            folded[side].add(stem(sides[side][position]).lower())
        case = "; some differ from one in upper and lower case only" if folded[0] & folded[1] else ""
        raise RequestError(f"{len(names)} of {sum(map(len, sides))} files in {' and '.join(roots)} have no "
                           f"partner of the same name, such as {', '.join(names[:3])}{case}")
    return pairing.a, pairing.b
