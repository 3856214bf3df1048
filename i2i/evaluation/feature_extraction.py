"""Turn image files into features, colors and digests, and pairs of files into values of metrics.

Processes take blocks of `batch_size` images in turns; the main process joins the results in the order of the
images, the others get nothing.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from i2i.data.image_set import ImageSet, ImageSetFacts, pair_sets, pixel_digest
from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.data.sources.base import error_reason
from i2i.errors import JobError, RequestError
from i2i.evaluation.protocol import STRIP_HINT
from i2i.files import atomic_path, cache_folder, remove_stale
from i2i.images.format import Array
from i2i.inference.memory import is_out_of_memory
from i2i.metrics.color import BINS, LabHistogram
from i2i.metrics.feature_networks import FeatureExtractor, check_finite
from i2i.metrics.paired import PairedMetric
from i2i.metrics.set_metrics import SetFeatures

CACHE_VERSION = 3               # Changes when what is stored, or how it is computed, changes.
MAX_COLOR_PIXELS = 1 << 20      # Larger images lose whole rows and columns before their colors are counted.
SINGLE_PROCESS = SingleProcess()
Progress = Callable[[int], None]
_Prepared = tuple[Tensor, list[Array], str]     # Input of the network, color frequencies, digest.
# Of the images of a batch: features, logits, color frequencies, digests.
_Batch = tuple[Array, Array | None, list[list[Array]], list[str]]


def set_facts(images: ImageSet, *, batch_size: int = 32,
              group: ProcessGroup = SINGLE_PROCESS) -> ImageSetFacts:
    """What the headers of a set's files say, and a hash of all their bytes, in all processes."""
    headers = (header for block in shard_blocks(len(images), batch_size, group)
               for gathered in group.gather_objects(list(images.headers(block))) for header in gathered)
    return group.broadcast(ImageSetFacts.of(headers))


def extract_features(images: ImageSet, extractor: FeatureExtractor, *, batch_size: int = 32,
                     group: ProcessGroup = SINGLE_PROCESS,
                     progress: Progress = lambda done: None) -> SetFeatures | None:
    """Extract the features of a set; None except in the main process.

    JobError if an image cannot be read or a feature is not finite.
    """
    colors, digests, found = LabHistogram(), list[str](), dict[str, Array]()
    for own in _extract_batches(images, extractor, batch_size, group):
        for batch in filter(None, group.gather_objects(own)):
            features, logits, batch_colors, batch_digests = batch
            for name, rows in (("features", features), ("logits", logits)):
                if rows is not None:
                    if name not in found:
                        found[name] = np.empty((len(images), rows.shape[1]), np.float32)
                    found[name][len(digests):len(digests) + len(rows)] = rows
            for frequencies in batch_colors:
                colors.add(frequencies)
            digests += batch_digests
            progress(len(digests))
    return None if group.rank else SetFeatures(found["features"], found.get("logits"), colors, digests,
                                               images.read)


def _extract_batches(images: ImageSet, extractor: FeatureExtractor, batch_size: int,
                     group: ProcessGroup) -> Iterator[_Batch | None]:
    """This process's batches, decoded ahead, one per round of all processes; None without more images."""
    def prepare(index: int) -> _Prepared:
        try:
            return measure(images.read(index))
        except MemoryError as error:
            raise JobError(f"{images.source.path_of(images.names[index])}: {error_reason(error)}") from None

    def measure(image: Array) -> _Prepared:
        step = max(1, round((image.shape[0] * image.shape[1] / MAX_COLOR_PIXELS) ** 0.5))
        return extractor.prepare(image), LabHistogram.of_image(image[::step, ::step]), pixel_digest(image)

    blocks = list(shard_blocks(len(images), batch_size, group))
    upcoming = chain.from_iterable(blocks)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        ahead: deque[Future[_Prepared]] = deque(
            pool.submit(prepare, i) for i in islice(upcoming, 2 * batch_size))
        for block in blocks:
            items = []
            for _ in block:
                items.append(ahead.popleft().result())
                ahead.extend(pool.submit(prepare, i) for i in islice(upcoming, 1))
            if not items:
                yield None
                continue
            inputs, colors, digests = zip(*items, strict=True)
            features, logits = extractor(torch.stack(inputs))
            try:
                check_finite(features, f"{images.source.root} from {images.names[block.start]} on")
            except ValueError as error:
                raise JobError(str(error)) from None
            yield features.numpy(), None if logits is None else logits.numpy(), list(colors), list(digests)


def cache_key(facts: ImageSetFacts, extractor: FeatureExtractor) -> str:
    """The name of a cached set: a hash of its files and of everything that decides its features."""
    parts = [CACHE_VERSION, facts.content, extractor.name, extractor.weights, extractor.resize,
             extractor.size, extractor.mean, extractor.std, *BINS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_features(images: ImageSet, extractor: FeatureExtractor, *, facts: ImageSetFacts,
                    warn: Callable[[str], None], batch_size: int = 32,
                    group: ProcessGroup = SINGLE_PROCESS,
                    progress: Progress = lambda done: None) -> SetFeatures | None:
    """`extract_features`, unless the user's cache has the features of the same files by the same network."""
    kept = cache_folder() / "references" / f"{cache_key(facts, extractor)}.npz"
    cached = None if group.rank else _read_features(kept, images)
    if group.broadcast(cached is not None):
        progress(len(images))
        return cached
    found = extract_features(images, extractor, batch_size=batch_size, group=group, progress=progress)
    if found:
        try:
            _write_features(kept, found)
        except OSError as error:
            warn(f"{kept.parent} could not be written ({error.strerror or error}), so the features are not "
                 "kept; set I2I_CACHE, or --no-cache")
    return found


def _read_features(file: Path, images: ImageSet) -> SetFeatures | None:
    """The features of a set in a file; None if it is absent or damaged."""
    colors = LabHistogram()
    try:
        with np.load(file) as arrays:
            digests = arrays["digests"].astype(str).tolist()
            colors.n, colors.counts = len(images), [arrays[f"colors_{channel}"] for channel in "Lab"]
            features, logits = arrays["features"], arrays.get("logits")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    if not len(features) == len(digests) == len(images):
        return None
    return SetFeatures(features, logits, colors, digests, images.read)


def _write_features(file: Path, found: SetFeatures) -> None:
    arrays: Any = {
        "features": found.features, "digests": np.array(found.digests, "S64"),
        **{f"colors_{channel}": each for channel, each in zip("Lab", found.colors.counts, strict=True)},
        **({} if found.logits is None else {"logits": found.logits})}
    remove_stale(file.parent, ".*.part")
    with atomic_path(file, unique=True) as part, open(part, "wb") as out:
        np.savez(out, **arrays)


def paired_values(fake: ImageSet, real: ImageSet, metrics: Mapping[str, PairedMetric], *,
                  batch_size: int = 32,
                  group: ProcessGroup = SINGLE_PROCESS) -> Iterator[dict[str, float | str]]:
    """The value of each metric for each pair of images of the same name, or the reason why it has none.

    Metrics may be removed from `metrics` meanwhile.  RequestError if a pair differs in size or channels.
    """
    pairs = pair_sets(fake, real)
    for block in shard_blocks(len(pairs), batch_size, group):
        own = []
        for i, j in (pairs[k] for k in block):
            name = fake.source.path_of(fake.names[i])
            try:
                a, b = _to_levels(fake.levels(i)), _to_levels(real.levels(j))
            except MemoryError as error:
                raise JobError(f"{name} or its partner {error_reason(error)}") from None
            if a.shape[1] != b.shape[1]:
                raise RequestError(f"{name} has {a.shape[1]} channels and its partner {b.shape[1]}; "
                                   "metrics of pairs need the same")
            if a.shape != b.shape:
                raise RequestError(f"{name} is {a.shape[3]}x{a.shape[2]} and its partner "
                                   f"{b.shape[3]}x{b.shape[2]}; metrics of pairs need one size" + (
                                       f" ({STRIP_HINT})" if _is_doubled(a, b) else ""))
            own.append({key: _value(metric, a, b, name) for key, metric in metrics.items()})
        yield from chain.from_iterable(group.gather_objects(own))


def _value(metric: PairedMetric, a: Tensor, b: Tensor, name: str) -> float | str:
    try:
        return metric(a, b).item()
    except ValueError as error:
        return str(error)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return f"{name} and its partner, {a.shape[3]}x{a.shape[2]} pixels, do not fit in memory"


def _is_doubled(a: Tensor, b: Tensor) -> bool:
    """Whether one image is twice as wide as the other."""
    return a.shape[2] == b.shape[2] and a.shape[3] in (2 * b.shape[3], b.shape[3] / 2)


def _to_levels(image: Array) -> Tensor:
    """(H, W) or (H, W, C) uint8 -> (1, C, H, W) in [0, 255]"""
    return torch.from_numpy(np.atleast_3d(image).transpose(2, 0, 1).copy())[None].float()
