"""From pictures to features, once: streamed through the network into a file, with moments, colours and digests on the way.

Memory does not grow with the number of pictures: features lie in a file that is mapped, not read.  A reference set is kept in the
user's cache under the hash of its files and of all that decides the features.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from i2i import pretrained
from i2i.data.pictures import Facts, PictureSet, pixel_digest
from i2i.errors import JobError
from i2i.images import Array
from i2i.metrics.colour import BINS, LabHistogram
from i2i.metrics.features import Extractor, check_finite
from i2i.metrics.frechet import Moments
from i2i.metrics.sets import Judged

FORMAT = 1              # Of a cached set; changes when what is stored or how it is computed changes.
PIXELS = 1 << 20        # Of each picture for the colour histogram; larger ones are thinned by whole rows and columns.
Tell = Callable[[int], None]


def key(facts: Facts, extractor: Extractor) -> str:
    """What a cached set is found by: its files and everything that decides its features."""
    parts = [FORMAT, facts.content, extractor.name, extractor.weights, extractor.resize, extractor.size, extractor.mean, extractor.std, *BINS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measure(pictures: PictureSet, extractor: Extractor, folder: Path, *, batch: int = 32, tell: Tell = lambda done: None) -> Judged:
    """Features, moments, colours and digests of a set, written to `folder`.  JobError if a picture cannot be read or a feature is not finite."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(pictures)
    features = open_memmap(folder / "features.npy", "w+", np.float32, (n, extractor.width))
    logits: Any = None
    moments, colours, digests = Moments(extractor.width), LabHistogram(), []
    done = 0
    for prepared, thinned, digest in _batches(pictures, extractor, batch):
        found, scores = extractor(prepared)
        try:
            check_finite(found, f"{pictures.source.root} from {pictures.names[done]} on")
        except ValueError as error:
            raise JobError(str(error)) from None
        rows = slice(done, done + len(found))
        features[rows] = found.numpy()
        if scores is not None:
            if logits is None:
                logits = open_memmap(folder / "logits.npy", "w+", np.float32, (n, scores.shape[1]))
            logits[rows] = scores.numpy()
        moments.update(found.numpy())
        for image in thinned:
            colours.update(image)
        digests += digest
        done += len(found)
        tell(done)
    light, a, b = colours.counts
    np.savez(folder / "moments.npz", n=moments.n, mean=moments.mean, scatter=moments.scatter, L=light, a=a, b=b)
    (folder / "pixels.json").write_text(json.dumps(digests))
    features.flush()
    if logits is not None:
        logits.flush()
    return _open(folder, pictures)


def _batches(pictures: PictureSet, extractor: Extractor, batch: int) -> Iterator[tuple[Tensor, list[Array], list[str]]]:
    """Pictures decoded and resized ahead of the network, in order."""
    def prepare(index: int) -> tuple[Tensor, Array, str]:
        image = pictures.read(index)
        step = max(1, round((image.shape[0] * image.shape[1] / PIXELS) ** 0.5))
        return extractor.prepare(image), image[::step, ::step].copy(), pixel_digest(image)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        ahead: deque[Future[tuple[Tensor, Array, str]]] = deque(pool.submit(prepare, i) for i in range(min(2 * batch, len(pictures))))
        upcoming = len(ahead)
        while ahead:
            items: list[tuple[Tensor, Array, str]] = []
            while ahead and len(items) < batch:
                items.append(ahead.popleft().result())
                if upcoming < len(pictures):
                    ahead.append(pool.submit(prepare, upcoming))
                    upcoming += 1
            yield torch.stack([item[0] for item in items]), [item[1] for item in items], [item[2] for item in items]


def _open(folder: Path, pictures: PictureSet) -> Judged:
    with np.load(folder / "moments.npz") as file:
        moments, colours = Moments(len(file["mean"])), LabHistogram()
        moments.n, moments.mean, moments.scatter = int(file["n"]), file["mean"], file["scatter"]
        colours.n, colours.counts = moments.n, [file[name] for name in "Lab"]
    logits = folder / "logits.npy"
    digests = json.loads((folder / "pixels.json").read_text())
    features = np.load(folder / "features.npy", mmap_mode="r")
    if not len(features) == len(digests) == moments.n == len(pictures):
        raise ValueError("counts differ")
    return Judged(features, np.load(logits, mmap_mode="r") if logits.exists() else None, moments, colours, digests, pictures.read)


def reference(pictures: PictureSet, facts: Facts, extractor: Extractor, *, batch: int = 32, tell: Tell = lambda done: None) -> Judged:
    """Like `measure`, from the user's cache if the same files were measured by the same network before."""
    folder = pretrained.cache() / "references" / key(facts, extractor)
    try:
        judged = _open(folder, pictures)
        tell(len(pictures))
        return judged
    except (OSError, ValueError, KeyError, EOFError):
        pass                # Absent or damaged: measured anew.
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    except OSError as error:
        raise JobError(f"{folder.parent} could not be written ({error.strerror}); set I2I_CACHE, or --no-cache") from None
    try:
        measure(pictures, extractor, part, batch=batch, tell=tell)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _open(folder, pictures)
