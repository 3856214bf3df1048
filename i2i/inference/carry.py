"""Labels that travel: beside the translated images of a data set, copies of what describes them, as
translation keeps geometry."""

import csv
import io
import posixpath
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from i2i.data.annotations import (
    NAMING,
    OF_ONE_IMAGE,
    ImageIndex,
    decode,
    image_key,
    json_error,
    match_annotations,
    references,
)
from i2i.data.file_list import FileList
from i2i.data.sharding import map_in_threads
from i2i.data.sources import Source, Unreadable
from i2i.errors import JobError, RequestError
from i2i.files import DISK_ERRORS, atomic_path, is_written, write_atomically

PROVENANCE = "provenance.csv"
COLUMNS = ("file", "kind", "source", "model", "seed")


@dataclass
class CarryReport:
    """What was copied, beside the images that were translated."""

    copied: int = 0
    changed: int = 0                                        # Of them: annotations with new names of images.
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)         # "name: reason"


@dataclass(frozen=True)
class LabeledDataset:
    """A data set: images to translate, and what is copied with them."""

    source: Source
    out: Path
    suffix: str                     # Of translated images; "" for their own.
    images: FileList                # That are translated.
    real: list[str]                 # Images that are copied: by --mix, or because they are of the other side.
    masks: list[str]
    files: list[str]                # That are no images.
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @cached_property
    def _index(self) -> ImageIndex:
        return ImageIndex((*self.images, *self.real), self.masks)

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """The new names of images whose format changes."""
        names = ((name, str(PurePosixPath(name).with_suffix(self.suffix))) for name in self.images)
        return {name: new for name, new in names if new != name} if self.suffix else {}

    @cached_property
    def _renamed_keys(self) -> dict[str, str]:
        return {image_key(name) + posixpath.splitext(name)[1]: name for name in self._renamed}

    def new_name(self, name: str) -> str:
        """The name of a file in the result: annotations called `x.jpg.json` go with `x.jpg`."""
        inner, ending = posixpath.splitext(name)
        image = name
        if ending.lower() in OF_ONE_IMAGE and (suffix := posixpath.splitext(inner)[1]):
            image = self._renamed_keys.get(image_key(inner) + suffix, name)
        if image not in self._renamed:
            return name
        return self._renamed[name] if image == name else (
            str(PurePosixPath(inner).with_suffix(self.suffix)) + ending)

    def check_names(self) -> None:
        """RequestError if two files would have the same name in the result."""
        taken: dict[str, str] = {}
        for name in (*self.images, *self.real, *self.masks, *self.files):
            if (other := taken.setdefault(self.new_name(name), name)) != name:
                raise RequestError(f"{other} and {name} would both become {self.new_name(name)}; keep their "
                                   "formats or rename one")

    def copy(self, progress: Callable[[int, int], None] | None = None) -> CarryReport:
        """Copy everything but the images that are translated, with the new names of these in annotations.

        JobError if the disk is full.
        """
        report = CarryReport(notes=list(self.notes), failed=list(self.problems))
        names = [*self.masks, *self.real, *self.files]
        missing, first, _ = 0, "", self._index      # Made here, not by each of the threads.
        for done, (name, outcome) in enumerate(map_in_threads(self._carry, names), 1):
            report.copied += outcome.copied
            report.changed += outcome.changed
            report.failed += [f"{name}: {outcome.problem}"] if outcome.problem else []
            missing += len(outcome.missing)
            first = first or next((f"{each} in {name}" for each in outcome.missing), "")
            if progress:
                progress(done, len(names))
        candidates = [*self.masks, *(name for name in self.files if name.lower().endswith(OF_ONE_IMAGE))]
        orphans, bare = match_annotations((*self.images, *self.real), candidates)
        report.notes += [f"{text}: {count:,}, such as {example}" for text, count, example in (
            ("images that annotations name and that are not there", missing, first),
            ("annotations of images that are not there", len(orphans), next(iter(orphans), "")),
            ("images without an annotation", len(bare), next(iter(bare), ""))) if count]
        return report

    def _carry(self, name: str) -> "tuple[str, _Outcome]":
        outcome = _Outcome()
        if name.startswith("/") or ".." in name.split("/"):
            return name, replace(outcome, problem="its name leads out of the output folder")
        try:
            data = None
            if name.lower().endswith(NAMING):
                data, outcome = self._rewrite(name, self.source.read(name))
            with atomic_path(self.out / self.new_name(name)) as part:
                if data is not None or not self.source.local:
                    part.write_bytes(self.source.read(name) if data is None else data)
                else:
                    shutil.copyfile(self.source.local / name, part)
        except Unreadable as error:
            return name, _Outcome(problem=error.reason)
        except (OSError, ValueError) as error:      # ValueError: a zero byte in the name.
            if getattr(error, "errno", None) in DISK_ERRORS:
                raise JobError(f"{name} could not be written: {error}; continue with "
                               "--skip-existing") from None
            return name, _Outcome(problem=getattr(error, "strerror", None) or str(error))
        return name, replace(outcome, copied=True)

    def _rewrite(self, name: str, data: bytes) -> "tuple[bytes, _Outcome]":
        """An annotation with the new names of images; all else stays as it is."""
        (text, encoding), folder = decode(data), posixpath.dirname(name)
        if name.lower().endswith((".json", ".jsonl")) and (error := json_error(name, text)):
            return data, _Outcome(problem=f"is no JSON ({error}), copied as it is")
        parts, start, missing, found = list[str](), 0, list[str](), 0
        for end, reference in references(name, text, lambda each: self._index.find(each, folder) is not None):
            image = self._index.find(reference, folder)
            found += image is not None
            if image is None:
                missing.append(reference)
            elif image in self._renamed:
                parts += [text[start:end - len(posixpath.splitext(image)[1])], self.suffix]
                start = end
        if not found and name.lower().endswith((".txt", ".lst")):
            missing = []        # It is some other text.
        text = "".join([*parts, text[start:]])
        rest = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
        return text.encode(encoding, rest) if parts else data, _Outcome(changed=bool(parts), missing=missing)

    def write_provenance(self, model: str, seed: int) -> None:
        """Write which images are real and which are translated, to PROVENANCE in the result."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(COLUMNS)
        made = set(self.images)
        for name in sorted((*made, *self.real)):
            new = self.new_name(name)
            if is_written(self.out / new):
                rows.writerow((new, "translated", name, model, seed) if name in made else
                              (new, "real", name, "", ""))
        write_atomically(self.out / PROVENANCE, lambda part: part.write_bytes(
            text.getvalue().encode("utf-8", "surrogateescape")))


@dataclass(frozen=True)
class _Outcome:
    """What became of a file."""

    copied: bool = False
    changed: bool = False
    missing: list[str] = field(default_factory=list)        # Images that it names, and are not there.
    problem: str = ""
