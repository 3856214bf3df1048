"""Where generated images go: a folder or a zip.  Both know how far they are, and go on from there."""

from __future__ import annotations

import fcntl
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path

from i2i.data.dataset_root import LABELS
from i2i.data.sharding import ProcessGroup, SingleProcess
from i2i.errors import RequestError
from i2i.inference import zip_writer
from i2i.inference.generation_plan import GenerationPlan
from i2i.inference.translate import save_image

# Not manifest.jsonl: a data set's own list of files may be called so.
PLAN, MANIFEST = "generated.json", "generated.jsonl"
# Files beyond the last one in the manifest that an interrupted job may have left, at most, beside a batch.
AHEAD = 2048


class ImageStore(ABC):
    """Images of a plan, of which the first `count` are recorded.  `put` may be called by many threads,
    everything else by one."""

    def __init__(self, path: Path, plan: GenerationPlan) -> None:
        self.path, self.plan, self.count = path, plan, 0
        self._file, self._end = io.FileIO(os.devnull), 0        # What grows at its end, and where that is.

    def _lock(self, file: io.FileIO) -> None:
        """Hold this file until `close`.  A POSIX lock: opening the file elsewhere in this process and closing
        it would give it up."""
        self._file = file
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RequestError(f"another process is generating into {self.path}") from None

    def close(self) -> None:
        """Let others write there."""
        self._file.close()

    @abstractmethod
    def resume(self) -> None:
        """Find out how much is there.  RequestError if it is of another plan, or something else."""

    @abstractmethod
    def has(self, index: int) -> bool:
        """Whether an image is there."""

    @abstractmethod
    def put(self, index: int, data: bytes) -> bytes:
        """Bring an image to safety, if that can be done beside others.  -> what `record` wants to have;
        OSError if the disk refuses"""

    @abstractmethod
    def record(self, index: int, data: bytes) -> None:
        """Count an image that was put, in order.  OSError if the disk refuses; then nothing has changed"""

    @abstractmethod
    def finish(self) -> None:
        """Write what describes the whole.  OSError if the disk refuses"""


def open_store(out: str | Path, plan: GenerationPlan, group: ProcessGroup | None = None) -> ImageStore:
    """A zip if the name says so, else a folder, ready to go on.  RequestError if it cannot be written, or
    holds something else.

    It is the leading process of a `group` that looks it through and locks it; the others are told how far it
    is, and put images only.
    """
    path, group = Path(out), group or SingleProcess()
    made = (ZipStore if path.suffix.lower() == ".zip" and not path.is_dir() else FolderStore)(path, plan)
    try:
        if not group.rank:
            made.resume()
    except OSError as error:
        made.close()
        raise RequestError(f"--out {out} cannot be written: {error.strerror or error}") from None
    made.count = group.broadcast(made.count)
    return made


def read_plan(where: str | Path) -> GenerationPlan:
    """The plan of what lies in a folder or zip.  RequestError if i2i generate did not make it."""
    path = Path(where)
    try:
        if path.is_dir():
            return GenerationPlan.from_json((path / PLAN).read_bytes(), str(path / PLAN))
        with open(path, "rb", buffering=0) as file:
            return _first(file, path)
    except OSError as error:
        raise RequestError(f"{where} holds no {PLAN}, as sets made by i2i generate do ({error.strerror})") from None


def _first(file: io.RawIOBase, path: Path) -> GenerationPlan:
    first = next(zip_writer.members(file, check=True), None)
    if first is None or first.name != PLAN:
        raise RequestError(f"{path} is no zip that i2i generate made: it does not begin with {PLAN}")
    return GenerationPlan.from_json(b"".join(zip_writer.iter_data(file, first.data, first.size)),
                                    f"{path}/{PLAN}")


class FolderStore(ImageStore):
    """Class folders and a manifest with a line for each image, written after the image itself."""

    def resume(self) -> None:
        """Make or look through the folder; cut off half a line, and remove images that no line tells of."""
        if not (self.path / PLAN).exists():
            if self.path.is_dir() and any(not name.startswith(".") for name in os.listdir(self.path)):
                raise RequestError(f"--out {self.path} is not empty and i2i generate did not make it; choose "
                                   "another folder")
            save_image(self.path / PLAN, self.plan.to_json().encode())
        self._lock(io.FileIO(self.path / MANIFEST, "a+"))
        self.plan.check_same(read_plan(self.path), str(self.path))
        self._file.seek(0)
        lines = io.BufferedReader(self._file)
        for line in lines:
            if not _tells_of(line, self.count):
                break
            self.count, self._end = self.count + 1, self._end + len(line)
        lines.detach()      # Closed, it would take the lock along.
        self._file.truncate(self._end)
        for index in range(self.count, self.count + self.plan.batch + AHEAD):
            left = self.path / self.plan.file(index)
            left.unlink(missing_ok=True)
            left.with_name(f".{left.name}.part").unlink(missing_ok=True)

    def has(self, index: int) -> bool:
        """Whether an image is there and recorded."""
        return index < self.count and (self.path / self.plan.file(index)).exists()

    def put(self, index: int, data: bytes) -> bytes:
        """Write the file, whole."""
        save_image(self.path / self.plan.file(index), data)
        return b""

    def record(self, index: int, data: bytes) -> None:
        """Append its line, unless it has one."""
        if index < self.count:
            return
        (self.path / LABELS).unlink(missing_ok=True)        # They tell of fewer.
        line = self.plan.line(index).encode()
        try:
            zip_writer.write(self._file, line)
        except OSError:
            self._file.truncate(self._end)
            raise
        self.count, self._end = self.count + 1, self._end + len(line)

    def finish(self) -> None:
        """The labels, in the form of `dataset.json`, which also holds the names of classes that are no good
        as names of folders."""
        os.fsync(self._file.fileno())
        if not self.plan.turn:
            return
        part = self.path / f".{LABELS}.part"
        try:
            with open(part, "w", encoding="utf-8") as file:
                file.writelines(self.plan.labels(self.count))
            os.replace(part, self.path / LABELS)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _tells_of(line: bytes, index: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["index"] == index
    except (ValueError, KeyError, TypeError):
        return False


class ZipStore(ImageStore):
    """The same as one file: the plan, the images, and when all are there the manifest, the labels and the
    directory.

    Until then it is called `NAME.zip.part`: each member is whole by itself, so what an interrupted job left
    is gone on with.
    """

    def resume(self) -> None:
        """Make the part, or go through it and cut it back to its last whole image.  A zip that is finished is
        only counted."""
        self._part = self.path.with_name(f"{self.path.name}.part")
        if self.path.exists() and self._part.exists():
            raise RequestError(f"--out {self.path} and {self._part.name} are both there; one must go")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._finished, new = self.path.exists(), not self.path.exists() and not self._part.exists()
        self._lock(io.FileIO(self.path if self._finished else self._part, "x+" if new else "r+"))
        if not self._file.seek(0, io.SEEK_END):
            self._append(PLAN, lambda: [self.plan.to_json().encode()])
        self.plan.check_same(_first(self._file, self.path), str(self.path))
        for place, member in enumerate(zip_writer.members(self._file, check=not self._finished)):
            if place and member.name != self.plan.file(place - 1):
                break
            self.count, self._end = place, member.end

    def has(self, index: int) -> bool:
        """Whether an image is there."""
        return index < self.count

    def put(self, index: int, data: bytes) -> bytes:
        """Nothing: members are written one after the other."""
        return data

    def record(self, index: int, data: bytes) -> None:
        """Append it.  A zip that was finished becomes a part again."""
        if self._finished:
            os.replace(self.path, self._part)
            self._finished = False
        self._append(self.plan.file(index), lambda: [data])
        self.count += 1

    def _append(self, name: str, pieces: Callable[[], Iterable[bytes]]) -> None:
        """OSError if the disk refuses; then the file ends where it did."""
        try:
            self._end = zip_writer.append(self._file, self._end, name, pieces)
        except OSError:
            self._file.truncate(self._end)
            raise

    def finish(self) -> None:
        """Manifest, labels, directory; then the zip has its name."""
        if self._finished:
            return
        images = self._end
        self._file.truncate(images)
        try:
            self._append(MANIFEST, lambda: (self.plan.line(index).encode() for index in range(self.count)))
            if self.plan.turn:
                self._append(LABELS, lambda: (piece.encode() for piece in self.plan.labels(self.count)))
            zip_writer.close(self._file, self._end, zip_writer.members(self._file))
            os.fsync(self._file.fileno())
            os.replace(self._part, self.path)
        except OSError:
            self._file.truncate(images)
            self._end = images
            raise
