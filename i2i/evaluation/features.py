"""From pictures to numbers, once: to features, streamed into a file, with moments, colors and digests on the
way; pairs to their metrics.

Memory does not grow with the number of pictures: features lie in a file that is mapped, not read.  A
reference set is kept in the user's cache under the hash of its files and of all that decides the features.

The processes of a group take blocks of `batch` pictures in turns.  The leading one puts together what they
found in the order of the pictures, so that not a bit depends on how many there are; the others get nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from i2i.data.image_set import ImageSet, ImageSetFacts, pair_sets, pixel_digest
from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.errors import JobError, RequestError
from i2i.images.formats import Array
from i2i.metrics import weights as feature_weights
from i2i.metrics.color import BINS, LabHistogram
from i2i.metrics.features import Extractor, check_finite
from i2i.metrics.frechet import Moments
from i2i.metrics.paired_registry import PairMetric
from i2i.metrics.set_metrics import ComparedSets

FORMAT = 1              # Of a cached set; changes when what is stored or how it is computed changes.
# Of each picture for the color histogram; larger ones are thinned by whole rows and columns.
PIXELS = 1 << 20
Tell = Callable[[int], None]


def cache_key(facts: ImageSetFacts, extractor: Extractor) -> str:
    """What a cached set is found by: its files and everything that decides its features."""
    parts = [FORMAT, facts.content, extractor.name, extractor.weights, extractor.resize, extractor.size,
             extractor.mean, extractor.std, *BINS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class _CachedFeatures:
    """What a batch of pictures comes to: features and logits, one row for each; the colors and a digest of
    each."""

    features: Array
    logits: Array | None
    colors: list[list[Array]]
    digests: list[str]


def measure_set(pictures: ImageSet, extractor: Extractor, folder: Path, *, batch: int = 32,
                group: ProcessGroup | None = None,
            tell: Tell = lambda done: None) -> ComparedSets | None:
    """Features, moments, colors and digests of a set, written to `folder`.  JobError if a picture cannot be
    read or a feature is not finite."""
    moments, colors, digests = Moments(extractor.width), LabHistogram(), list[str]()
    if not group or not group.rank:
        folder.mkdir(parents=True, exist_ok=True)
        features = open_memmap(folder / "features.npy", "w+", np.float32, (len(pictures), extractor.width))
    logits: Any = None
    group = group or SingleProcess()
    for found in _cached(pictures, extractor, batch, group):
        for each in filter(None, group.gather_objects(found)):
            rows = slice(len(digests), len(digests) + len(each.digests))
            features[rows] = each.features
            if each.logits is not None:
                if logits is None:
                    logits = open_memmap(folder / "logits.npy", "w+", np.float32,
                                         (len(pictures), each.logits.shape[1]))
                logits[rows] = each.logits
            moments.update(each.features)
            for shares in each.colors:
                colors.add(shares)
            digests += each.digests
            tell(len(digests))
    if group.rank:
        return None
    light, a, b = colors.counts
    np.savez(folder / "moments.npz", n=moments.n, mean=moments.mean, scatter=moments.scatter, L=light, a=a,
             b=b)
    (folder / "pixels.json").write_text(json.dumps(digests))
    features.flush()
    if logits is not None:
        logits.flush()
    return _open(folder, pictures)


def _cached(pictures: ImageSet, extractor: Extractor, batch: int,
            group: ProcessGroup) -> Iterator[_CachedFeatures | None]:
    """This process's batches in order, one for each round of the group; None where there are no more."""
    for block, items in _batches(pictures, extractor, list(shard_blocks(len(pictures), batch, group))):
        if not items:
            yield None
            continue
        found, scores = extractor(torch.stack([item[0] for item in items]))
        try:
            check_finite(found, f"{pictures.source.root} from {pictures.names[block.start]} on")
        except ValueError as error:
            raise JobError(str(error)) from None
        yield _CachedFeatures(found.numpy(), None if scores is None else scores.numpy(),
                              [item[1] for item in items], [item[2] for item in items])


def _batches(pictures: ImageSet, extractor: Extractor,
             blocks: list[range]) -> Iterator[tuple[range, list[tuple[Tensor, list[Array], str]]]]:
    """The pictures of each block, decoded and resized ahead of the network."""
    def prepare(index: int) -> tuple[Tensor, list[Array], str]:
        image = pictures.read(index)
        step = max(1, round((image.shape[0] * image.shape[1] / PIXELS) ** 0.5))
        return extractor.prepare(image), LabHistogram.of(image[::step, ::step]), pixel_digest(image)

    upcoming = chain.from_iterable(blocks)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        ahead: deque[Future[tuple[Tensor, list[Array], str]]] = deque(pool.submit(prepare, i)
                                                                      for i in islice(upcoming,
                                                                                      2 * len(blocks[0])))
        for block in blocks:
            items = []
            for _ in block:
                items.append(ahead.popleft().result())
                ahead.extend(pool.submit(prepare, i) for i in islice(upcoming, 1))
            yield block, items


def _open(folder: Path, pictures: ImageSet) -> ComparedSets:
    with np.load(folder / "moments.npz") as file:
        moments, colors = Moments(len(file["mean"])), LabHistogram()
        moments.n, moments.mean, moments.scatter = int(file["n"]), file["mean"], file["scatter"]
        colors.n, colors.counts = moments.n, [file[name] for name in "Lab"]
    logits = folder / "logits.npy"
    digests = json.loads((folder / "pixels.json").read_text())
    features = np.load(folder / "features.npy", mmap_mode="r")
    if not len(features) == len(digests) == moments.n == len(pictures):
        raise ValueError("counts differ")
    return ComparedSets(features, np.load(logits, mmap_mode="r") if logits.exists() else None, moments,
                        colors, digests, pictures.read)


def reference_features(pictures: ImageSet, facts: ImageSetFacts, extractor: Extractor, *, batch: int = 32,
                       group: ProcessGroup | None = None,
              tell: Tell = lambda done: None) -> ComparedSets | None:
    """Like `measure`, from the user's cache if the same files were measured by the same network before."""
    group, folder, judged = group or SingleProcess(), feature_weights.cache_folder() / "references" / cache_key(facts, extractor), None
    if not group.rank:
        try:
            judged = _open(folder, pictures)
            tell(len(pictures))
        except (OSError, ValueError, KeyError, EOFError):
            pass                # Absent or damaged: measured anew.
    if group.broadcast(judged is not None):
        return judged
    if group.rank:
        return measure_set(pictures, extractor, folder, batch=batch, group=group)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    except OSError as error:
        raise JobError(f"{folder.parent} could not be written ({error.strerror}); set I2I_CACHE, or "
                       "--no-cache") from None
    try:
        measure_set(pictures, extractor, part, batch=batch, group=group, tell=tell)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return _open(folder, pictures)


def set_facts(pictures: ImageSet, *, batch: int = 32, group: ProcessGroup | None = None) -> ImageSetFacts:
    """What the headers of a set's files say, and a hash of all their bytes, in all processes."""
    group = group or SingleProcess()
    return group.broadcast(ImageSetFacts.of(each for block in shard_blocks(len(pictures), batch, group)
                              for theirs in group.gather_objects(list(pictures.headers(block)))
                                           for each in theirs))


def pair_values(fake: ImageSet, real: ImageSet, metrics: Mapping[str, PairMetric], *, batch: int = 32,
                group: ProcessGroup | None = None) -> Iterator[dict[str, float | str]]:
    """The value of each metric for each pair of pictures of the same name, or why it has none; metrics that
    are taken out are not asked again.

    RequestError names a pair of two sizes or numbers of channels.
    """
    group, partners = group or SingleProcess(), pair_sets(fake, real)
    for block in shard_blocks(len(partners), batch, group):
        mine = []
        for i, j in (partners[k] for k in block):
            a, b = _levels(fake.levels(i)), _levels(real.levels(j))
            if a.shape[1] != b.shape[1]:
                raise RequestError(f"{fake.source.root}/{fake.names[i]} has {a.shape[1]} channels and its "
                                   f"partner {b.shape[1]}; "
                                   "metrics of pairs need the same")
            if a.shape != b.shape:
                raise RequestError(f"{fake.source.root}/{fake.names[i]} is {a.shape[3]}x{a.shape[2]} and its "
                                   f"partner {b.shape[3]}x{b.shape[2]}; "
                                   "metrics of pairs need one size")
            mine.append({name: _value(metric, a, b) for name, metric in metrics.items()})
        yield from chain.from_iterable(group.gather_objects(mine))


def _value(metric: PairMetric, a: Tensor, b: Tensor) -> float | str:
    try:
        return metric(a, b).item()
    except ValueError as error:
        return str(error)


def _levels(array: Array) -> Tensor:
    """Gray levels 0 … 255.  HW or HWC -> 1CHW"""
    whole = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(whole.transpose(2, 0, 1).copy())[None].float()
