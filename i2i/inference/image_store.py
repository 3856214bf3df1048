"""Where generated images are written: a folder or a zip, which an interrupted job can continue."""

import contextlib
import io
import json
import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from filelock import FileLock

from i2i.data.dataset_root import LABELS
from i2i.errors import RequestError
from i2i.files import atomic_path, part_path, try_lock
from i2i.inference.coco import ANNOTATIONS, coco_annotations
from i2i.inference.generation_plan import GenerationPlan

# Not manifest.jsonl, which may be the file list of a dataset.
PLAN, MANIFEST = "generated.json", "generated.jsonl"
TRANSLATED = "translated.json"      # Beside translated images; only what their model was trained with.
# Files, besides a batch, that an interrupted job may have written beyond the last one in the manifest.
MAX_UNRECORDED = 2048


class FolderStore:
    """Class folders, and a manifest that gets a line for each image after the image is written.

    `put` may be called by many threads and processes, everything else by rank 0.  What raises OSError leaves
    the store as it was.  `count` images are recorded.
    """

    def __init__(self, out: Path, plan: GenerationPlan) -> None:
        self.out = self.folder = out
        self.plan, self.count = plan, 0
        self._manifest, self._end = io.FileIO(os.devnull), 0        # `_end`: where its last whole line ends.
        self._lock: FileLock | None = None

    def resume(self, n: int) -> None:
        """Create the store, or count its images and delete what was not recorded."""
        if not (self.folder / PLAN).exists():
            if self.folder.is_dir() and any(not name.startswith(".") for name in os.listdir(self.folder)):
                raise RequestError(f"--out {self.folder} is not empty and i2i generate did not make it; "
                                   "choose another folder")
            with atomic_path(self.folder / PLAN) as part:
                part.write_text(self.plan.to_json())
        self._lock = try_lock(self.folder / ".lock")
        if not self._lock:
            raise RequestError(f"another process is generating into {self.out}")
        self.plan.check_same(read_plan(self.folder), str(self.out))
        self._manifest = io.FileIO(self.folder / MANIFEST, "a+")
        with open(self.folder / MANIFEST, "rb") as lines:
            for line in lines:
                try:
                    if not line.endswith(b"\n") or json.loads(line)["index"] != self.count:
                        break
                except (ValueError, KeyError, TypeError):
                    break
                self.count, self._end = self.count + 1, self._end + len(line)
        self._manifest.truncate(self._end)
        for index in range(self.count, self.count + self.plan.batch_size + MAX_UNRECORDED):
            unrecorded = self.folder / self.plan.file(index)
            unrecorded.unlink(missing_ok=True)
            part_path(unrecorded).unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes write here."""
        self._manifest.close()
        if self._lock:
            with contextlib.suppress(OSError):      # Windows does not delete open files.
                os.unlink(self._lock.lock_file)
            self._lock.release()
            self._lock = None

    def has(self, index: int) -> bool:
        """Whether an image is there and recorded."""
        return index < self.count and (self.folder / self.plan.file(index)).exists()

    def put(self, index: int, data: bytes) -> None:
        """Write an encoded image."""
        with atomic_path(self.folder / self.plan.file(index)) as part:
            part.write_bytes(data)

    def record(self, index: int) -> None:
        """Add an image that was put to the manifest; to be called in the order of the indices."""
        if index < self.count:      # It was recorded and missing.
            return
        for name in (LABELS, ANNOTATIONS):
            (self.folder / name).unlink(missing_ok=True)
        rest = memoryview(line := self.plan.line(index).encode())
        try:
            while rest:
                rest = rest[self._manifest.write(rest):]
        except OSError:
            self._manifest.truncate(self._end)
            raise
        self.count, self._end = self.count + 1, self._end + len(line)

    def finish(self) -> None:
        """Write what describes the whole set."""
        os.fsync(self._manifest.fileno())
        if self.plan.turn:
            self._describe(LABELS, self.plan.labels(self.count))
        if self.plan.layout == "coco":
            self._describe(ANNOTATIONS, coco_annotations(self.plan, self.folder, self.count))

    def _describe(self, name: str, text: Iterable[str]) -> None:
        with atomic_path(self.folder / name) as part, open(part, "w", encoding="utf-8") as file:
            file.writelines(text)

    def read(self, index: int) -> bytes:
        """The encoded image that was put."""
        return (self.folder / self.plan.file(index)).read_bytes()


class PackedStore(FolderStore, ABC):
    """What is written as a folder `NAME.part` and packed at the end."""

    def __init__(self, out: Path, plan: GenerationPlan) -> None:
        super().__init__(out, plan)
        self.folder = out.with_name(f"{out.name}.part")
        self.complete = False       # Whether it already has all requested images.

    def has(self, index: int) -> bool:
        return self.complete or super().has(index)

    @abstractmethod
    def pack(self) -> None:
        """Write what readers see, all at once."""

    def finish(self) -> None:
        if self.complete:
            return
        super().finish()
        self.pack()
        self.close()
        shutil.rmtree(self.folder)


class ZipStore(PackedStore):
    """A zip, unpacked to get more images."""

    def resume(self, n: int) -> None:
        if self.out.exists():
            self.plan.check_same(read_plan(self.out), str(self.out))
            with zipfile.ZipFile(self.out) as archive, archive.open(MANIFEST) as manifest:
                self.count = sum(1 for _ in manifest)
                self.complete = n <= self.count
                if self.complete:
                    return
                if not self.folder.exists():
                    unpacked = part_path(self.out, ".unpacked")
                    archive.extractall(unpacked)
                    os.replace(unpacked, self.folder)
            self.count = 0
        super().resume(n)

    def pack(self) -> None:
        images = (self.plan.file(index) for index in range(self.count))
        described = filter(lambda name: (self.folder / name).exists(), (LABELS, ANNOTATIONS))
        with atomic_path(self.out, sync=True) as part, zipfile.ZipFile(part, "w") as archive:
            for name in chain([PLAN], images, [MANIFEST], described):
                # Uncompressed and with a fixed date, so that equal sets make equal zips.
                member, path = zipfile.ZipInfo(name), self.folder / name
                member.create_system, member.external_attr = 3, 0o100644 << 16      # Unix, all may read.
                member.file_size = path.stat().st_size
                with open(path, "rb") as source, archive.open(member, "w") as target:
                    shutil.copyfileobj(source, target)


def trained_with(path: str | Path) -> Mapping[str, str]:
    """The feature networks that the model of a made set was trained with; {} for other images."""
    try:
        return read_plan(path).feature_networks
    except (RequestError, OSError):
        pass
    try:
        networks = json.loads((Path(path) / TRANSLATED).read_bytes())["feature_networks"]
        return {str(name): str(sha256) for name, sha256 in networks.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def record_networks(folder: Path, networks: Mapping[str, str]) -> None:
    """Write with translated images what their model was trained with, for `trained_with`."""
    if networks:
        known = {**trained_with(folder), **networks}
        with atomic_path(folder / TRANSLATED) as path:
            path.write_text(json.dumps({"feature_networks": known}))


def read_plan(path: str | Path) -> GenerationPlan:
    """The plan of a folder or zip made by `i2i generate`; RequestError for anything else."""
    path = Path(path)
    try:
        if path.is_dir():
            return GenerationPlan.from_json((path / PLAN).read_bytes(), str(path / PLAN))
        with zipfile.ZipFile(path) as archive:
            return GenerationPlan.from_json(archive.read(PLAN), f"{path}/{PLAN}")
    except OSError as error:
        raise RequestError(f"{path} holds no {PLAN}, as sets made by i2i generate do "
                           f"({error.strerror})") from None
    except (KeyError, zipfile.BadZipFile):
        raise RequestError(f"{path} is no zip that i2i generate made: it holds no {PLAN}") from None
