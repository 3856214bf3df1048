"""The measurements of a set of images as files of a folder, or in memory once these cannot be written."""

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from i2i.data.image_set import ImageSet
from i2i.images.format import Array
from i2i.metrics.color import LabHistogram
from i2i.metrics.set_metrics import SetFeatures


class FeatureStore:
    """Takes the features of images batch by batch.

    Rows are written, not mapped: where the disk is full, writing to mapped memory would kill the process.

    Args:
        folder: for the files.
        images: how many rows there will be.
        on_error: called with the first error, from which on rows are kept in memory.
    """

    def __init__(self, folder: Path, images: ImageSet, on_error: Callable[[OSError], None]) -> None:
        self.folder, self.images, self.on_error = folder, images, on_error
        self.failed = False
        self._rows: dict[str, _Rows] = {}
        self._attempt(lambda: folder.mkdir(parents=True, exist_ok=True))

    def add(self, features: Array, logits: Array | None) -> None:
        """Append the rows of a batch."""
        for name, rows in (("features", features), ("logits", logits)):
            if rows is not None:
                if name not in self._rows:
                    self._rows[name] = _Rows(self.folder / f"{name}.npy", len(self.images), rows.shape[1])
                self._attempt(partial(self._rows[name].add, rows, in_file=not self.failed))

    def finish(self, colors: LabHistogram, digests: Sequence[str]) -> SetFeatures:
        """All that was measured."""
        for rows in self._rows.values():
            self._attempt(rows.close)
        self._attempt(lambda: np.savez(self.folder / "colors.npz", *colors.counts))
        self._attempt(lambda: (self.folder / "pixels.json").write_text(json.dumps(digests)))
        if not self.failed:
            return open_features(self.folder, self.images)
        arrays = {name: rows.in_memory() for name, rows in self._rows.items()}
        return SetFeatures(arrays["features"], arrays.get("logits"), colors, digests, self.images.read)

    def _attempt(self, write: Callable[[], Any]) -> None:
        """Write, unless that failed before."""
        try:
            write()
        except OSError as error:
            if not self.failed:
                self.failed = True
                self.on_error(error)


class _Rows:
    """An .npy file of float32 that is written row by row; those that it does not take are in memory."""

    def __init__(self, path: Path, n: int, columns: int) -> None:
        self.path, self.shape, self.written, self.kept = path, (n, columns), 0, list[Array]()
        self._file: Any = None
        self._start = 0

    def add(self, rows: Array, *, in_file: bool) -> None:
        """Append rows.  OSError if the file does not take them, which are then kept."""
        if not in_file:
            self.kept.append(rows)
            return
        try:
            if self._file is None:
                self._file = open(self.path, "wb")  # noqa: SIM115 - closed in `close`.
                np.lib.format.write_array_header_1_0(self._file, {
                    "descr": "<f4", "fortran_order": False, "shape": self.shape})
                self._start = self._file.tell()
            self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())
            self._file.flush()
            self.written += len(rows)
        except OSError:
            self.kept.append(rows)
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def in_memory(self) -> Array:
        """All rows written so far, `(N, D)` float32; the file is closed and no longer used."""
        with contextlib.suppress(OSError):
            self.close()
        count = self.written * self.shape[1]
        before = [np.fromfile(self.path, "<f4", count, offset=self._start)] if count else []
        return np.concatenate([*(each.reshape(-1, self.shape[1]) for each in before), *self.kept])


def open_features(folder: Path, images: ImageSet) -> SetFeatures:
    """The files of a finished store.  ValueError if they are of another number of images."""
    colors = LabHistogram()
    with np.load(folder / "colors.npz") as file:
        colors.n, colors.counts = len(images), [file[name] for name in file.files]
    digests = json.loads((folder / "pixels.json").read_bytes())
    features, logits = np.load(folder / "features.npy", mmap_mode="r"), folder / "logits.npy"
    if not len(features) == len(digests) == len(images):
        raise ValueError("counts differ")
    return SetFeatures(features, np.load(logits, mmap_mode="r") if logits.exists() else None, colors, digests,
                       images.read)
