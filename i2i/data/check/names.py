"""Problems of file names, and images that are skipped because of theirs."""

from collections.abc import Iterator, Sequence

from i2i.data.check.findings import Finding, finding
from i2i.data.layouts import SPLIT_SYNONYMS, SPLITS
from i2i.data.manifest import MANIFESTS
from i2i.data.sources import Source, find_left_out
from i2i.errors import printable


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
        side = folder[-1] if folder[-1] in "AB" and folder.lower() not in SPLIT_SYNONYMS else ""
        name = folder.removesuffix(side)
        split = SPLIT_SYNONYMS.get(name.lower(), name.lower())
        if split in SPLITS and split != name:
            yield f"{folder}/, which would be {split}{side}/"


def _ignored(source: Source) -> list[Finding]:
    found = find_left_out(source)
    misnamed = (f"{name} ({format})" for name, format in found.misnamed)
    return [*finding("error", "closed-folder", found.closed, "folder",
                     "that cannot be listed, so files are missing"),
            *finding("warning", "ending", misnamed, "file",
                     "containing an image, but skipped because of the extension"),
            *finding("note", "hidden", found.hidden, "hidden file", "containing an image, and skipped"),
            *finding("note", "archive", found.archives, "archive", "not opened; it can be checked by itself"),
            *finding("note", "manifest", found.manifests, "file",
                     f"named like a manifest, and not read; accepted: {', '.join(MANIFESTS)}")]
