"""Problems of file names, and images that are skipped because of theirs."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice

from i2i.data.check.rules import Finding, finding
from i2i.data.dataset_root import LABELS
from i2i.data.layouts import SPLITS
from i2i.data.manifest import MANIFESTS
from i2i.data.sources import Source, Unreadable, is_hidden
from i2i.errors import printable

MAX_OTHER_FILES = 20_000    # Files without an image's extension whose first bytes are checked.
START = 32                  # Bytes that identify a format.
METADATA = (LABELS, *MANIFESTS)
MAGIC = ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"GIF8"), (8, b"WEBP"),
         (0, b"II*\0"), (0, b"MM\0*"), (0, b"\x93NUMPY"), (4, b"ftypavif"), (4, b"ftypheic"),
         (4, b"ftypmif1"), (0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL "), (0, b"\0\0\0\x0cjP  "))
SPLIT_LIKE = {"training": "train", "validation": "val", "valid": "val", "dev": "val", "eval": "val",
              "testing": "test"}


def inspect_names(source: Source, names: Sequence[str]) -> list[Finding]:
    """Check the names of the images, and the files beside them."""
    unprintable = (printable(name) for name in names if not name.isprintable())
    first: dict[str, str] = {}
    clashes = (f"{first[name.casefold()]} and {name}" for name in names
               if first.setdefault(name.casefold(), name) != name)
    return [*finding("warning", "case", clashes, "name",
                     "differing from another only by case, which is one file on many disks"),
            *finding("warning", "control-characters", unprintable, "name", "with unprintable characters"),
            *finding("warning", "split-name", _nearly_splits(names), "folder",
                     "not recognized as a split, despite a similar name"),
            *_ignored(source)]


def _nearly_splits(names: Sequence[str]) -> Iterator[str]:
    # An absolute path, in a manifest, has none.
    for folder in sorted({name.split("/")[0] for name in names if "/" in name} - {""}):
        side = folder[-1] if folder[-1] in "AB" and folder.lower() not in SPLIT_LIKE else ""
        name = folder.removesuffix(side)
        split = SPLIT_LIKE.get(name.lower(), name.lower())
        if split in SPLITS and split != name:
            yield f"{folder}/, which would be {split}{side}/"


def _ignored(source: Source) -> list[Finding]:
    closed, hidden, misnamed = list[str](), list[str](), list[str]()
    names = (name for name in source.other_files(closed.append) if name not in METADATA)
    for name in islice(names, MAX_OTHER_FILES):
        with suppress(Unreadable):
            data = source.read(name, START)
            if any(data[offset:].startswith(magic) for offset, magic in MAGIC):
                (hidden if any(map(is_hidden, name.split("/"))) else misnamed).append(name)
    return [*finding("error", "closed-folder", closed, "folder",
                     "that cannot be listed, so files are missing"),
            *finding("warning", "ending", misnamed, "file",
                     "containing an image, but skipped because of the extension"),
            *finding("note", "hidden", hidden, "hidden file", "containing an image, and skipped")]
