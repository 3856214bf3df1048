"""Annotations of images: files that name images (COCO, VOC, lists, manifests), files of one image each (YOLO,
VOC), and folders of masks."""

import codecs
import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from html import unescape

from i2i.data.layouts import canonical, stem
from i2i.data.sources import is_image

# Folders of masks and of other annotations, by the names they have in common data sets (VOC, YOLO, ADE20K,
# Cityscapes, Carvana, Supervisely), perhaps after that of a split.
LABEL_FOLDER = re.compile(
    r"(?:(train|val|valid|test)[ _-]?)?(?:masks?|labels?|label[ _-]?maps?|annotations?|anns?|trimaps?"
    r"|seg|seg[ _-]?maps?|segmentations?|segmentation[ _-]?(?:class|object)(?:aug|raw)?|gt|gt[ _-]?fine"
    r"|gt[ _-]?coarse|ground[ _-]?truths?)",
    re.IGNORECASE)
IMAGE_FOLDER = re.compile(r"(jpeg)?images?|imgs?|photos?", re.IGNORECASE)
MASK_NAME = re.compile(r"(.+)[ _-](masks?|labels?|seg|segmentation|gt)", re.IGNORECASE | re.DOTALL)
LISTS = (".csv", ".tsv", ".txt", ".lst")
NAMING = (".json", ".jsonl", ".xml", *LISTS)        # Files that may name images.
OF_ONE_IMAGE = (".txt", ".xml", ".json")            # Files that may be the annotation of one image.
JSON_STRING = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
VOC_FILENAME = re.compile(r"<filename>\s*([^<]*?)\s*</filename>")
CELL, WORD = re.compile(r'[^;|\t\r\n"]+'), re.compile(r"[^\s,]+")
MAX_WORDS = 8       # Of a name: blanks and commas divide columns, or belong to names.


def is_label_folder(name: str, folders: tuple[str, ...] = ()) -> bool:
    """Whether a folder of this name holds annotations: one of `folders`, or by default what is usual."""
    return name in folders if folders else LABEL_FOLDER.fullmatch(name) is not None


def split_masks(names: Iterable[str], folders: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """Images and masks: what lies in folders of annotations, and `x_mask.png` beside an image `x`."""
    listed = list(names)
    stems = set(map(stem, listed))
    images, masks = list[str](), list[str]()
    for name in listed:
        beside = MASK_NAME.fullmatch(stem(name))
        inside = any(is_label_folder(folder, folders) for folder in name.split("/")[:-1])
        (masks if inside or (beside and beside[1] in stems) else images).append(name)
    return images, masks


def image_key(name: str) -> str:
    """What an image, its mask and its annotation have in common: the path without extension and without
    folders such as images/ and labels/."""
    *folders, file = canonical(name).split("/")
    kept = []
    for folder in folders:
        if match := LABEL_FOLDER.fullmatch(folder):
            kept += [match[1].lower()] if match[1] else []
        elif not IMAGE_FOLDER.fullmatch(folder):
            kept.append(folder)
    return "/".join([*kept, stem(file)])


def match_annotations(images: Iterable[str], candidates: Iterable[str]) -> tuple[list[str], list[str]]:
    """Annotations of images that are not there, and images without one.

    A folder holds annotations of one image each if most of its candidates have an image of their key.
    """
    keys = {image_key(name): name for name in images}
    folders: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in candidates:
        key = image_key(name)
        masked = MASK_NAME.fullmatch(key)
        # `x.jpg.json` is another usual name, and `x_mask.png`.
        of = next((each for each in (key, stem(key), masked[1] if masked else "") if each in keys), "")
        folders[posixpath.dirname(name) + "*" + posixpath.splitext(name)[1]].append((name, of))
    orphans, found = list[str](), set[str]()
    for members in folders.values():
        known = {of for _, of in members if of}
        if 2 * sum(bool(of) for _, of in members) > len(members):
            orphans += [name for name, of in members if not of]
            found |= known
    return orphans, [name for key, name in keys.items() if key not in found] if found else []


class ImageIndex:
    """Finds the image that an annotation means: by its path from the root or from the annotation's folder, or
    by the end of its path, as COCO and VOC name files."""

    def __init__(self, images: Iterable[str], others: Iterable[str]) -> None:
        self._paths: dict[str, list[str]] = defaultdict(list)       # By the name of the file.
        for name in (*images, *others):     # Where both end alike, images are meant.
            self._paths[posixpath.basename(canonical(name))].append(name)

    def find(self, reference: str, folder: str) -> str | None:
        """The name of an image, or None."""
        path = posixpath.normpath(canonical(reference))
        named = self._paths.get(posixpath.basename(path), ())
        exact = (posixpath.normpath(posixpath.join(folder, path)), path)
        tail = "/" + re.sub(r"^(\.\./)+", "", path)
        return next((name for name in named if canonical(name) in exact), None) or next(
            (name for name in named if f"/{canonical(name)}".endswith(tail)), None)


def references(name: str, text: str, exists: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """The images that an annotation names: where each name ends in its text, and the name.

    Absolute paths and URLs mean files elsewhere, and are left out.
    """
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in LISTS:
        found = _listed(text, exists)
    else:
        pattern = VOC_FILENAME if suffix == ".xml" else JSON_STRING
        found = ((match.end(1), match[1]) for match in pattern.finditer(text))
    for end, reference in found:
        reference = unescape(reference) if suffix == ".xml" else reference
        if not is_image(reference) or "://" in reference or re.match(r"/|[A-Za-z]:[\\/]", reference):
            continue
        if "\\" in reference and suffix != ".xml" and suffix not in LISTS:
            reference = json.loads(f'"{reference}"', strict=False)
        yield end, reference


def _listed(text: str, exists: Callable[[str], bool]) -> Iterator[tuple[int, str]]:
    """Names in the cells of a table or the lines of a list: the most words that name an image, or one."""
    for cell in CELL.finditer(text):
        words = list(WORD.finditer(cell[0])) if "." in cell[0] else []
        for last, word in enumerate(words):
            if is_image(word[0]):
                firsts = words[max(0, last - MAX_WORDS):last + 1]
                names = (cell[0][first.start():word.end()] for first in firsts)
                yield cell.start() + word.end(), next(filter(exists, names), word[0])


def decode(data: bytes) -> tuple[str, str]:
    """A text and its encoding, by which it becomes the same bytes again."""
    encoding = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}.get(data[:2], "utf-8")
    return data.decode(encoding, "surrogateescape" if encoding == "utf-8" else "surrogatepass"), encoding


def json_error(name: str, text: str) -> str:
    """What is wrong with a JSON or JSON-lines file; "" if nothing is."""
    lines = text.split("\n") if name.lower().endswith(".jsonl") else [text]
    for number, line in enumerate(lines, 1):
        try:
            if line.strip() or len(lines) == 1:
                json.loads(line.removeprefix("\ufeff"))
        except (ValueError, RecursionError) as error:
            return f"line {number}: {error}" if len(lines) > 1 else str(error)
    return ""
