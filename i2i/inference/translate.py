"""Translate a file, a folder tree or a zip: decoding and encoding overlap the network."""

from __future__ import annotations

import errno
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from torch import Tensor

from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.data.sources import EXTENSIONS, Source, Unreadable, load_image
from i2i.data.two_sided import split_strip
from i2i.errors import JobError, RequestError
from i2i.images.encode import FILE_FORMATS, encode, formats_for
from i2i.images.formats import DecodedImage, ImageFormat, to_array
from i2i.inference.model import Translator

# Names that one process takes at a time.  No batch reaches beyond: results do not depend on the number of
# processes.
BLOCK = 64
AHEAD = 64                  # Images read ahead of the network.
PIXELS = 8 * 256 * 256      # In one batch unless the user says otherwise.
TOGETHER = 8                # Images encoded by one task: handing over costs as much as encoding a small one.
NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EDQUOT)


@dataclass
class TranslationReport:
    """What became of each input."""

    done: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)     # "name: reason"
    # What of an input is not in its result -> the first such input.
    notes: dict[str, str] = field(default_factory=dict)

    def note(self, notes: Iterable[tuple[str, str]]) -> None:
        """More notes, each with an input."""
        for note, name in notes:
            self.notes[note] = min(name, self.notes.get(note, name))

    def add(self, other: TranslationReport) -> None:
        """What became of others' inputs."""
        self.done, self.skipped, self.failed = self.done + other.done, self.skipped + other.skipped, self.failed + other.failed
        self.note(other.notes.items())


@dataclass(frozen=True)
class _Item:
    name: str
    target: Path
    image: Tensor
    picture: DecodedImage        # Without its pixels.


def translate(model: Translator, source: Source, out: Path, *, direction: str = "ab",
              half: Literal["left", "right"] | None = None, batch: int = 0,
              seed: int | None = None, skip_existing: bool = False, suffix: str = "", stop: bool = False,
              group: ProcessGroup | None = None,
              progress: Callable[[TranslationReport, int], None] | None = None) -> TranslationReport:
    """Write the translation of every image under the same name below `out`.

    `direction` "ba": from b to a.  `half`: inputs are A|B strips of which this half is the source.  `batch` 0
    fits the image size.  With a `seed`, dropout is drawn from (seed, name), one image at a time.  `suffix`
    (".png") changes the format.  What cannot be read or written is in the report, or with `stop` ends the job
    as a JobError, as does what lets nothing more be written.  The results are of the kind of the model's
    target side; RequestError, before anything is written, if a format cannot hold it.  The processes of a
    `group` share the images; the leading one's report is that of all.
    """
    group, (_, target_side) = group or SingleProcess(), model.sides(direction)
    jobs, report = _targets(source, out, suffix)
    _check_formats(jobs, model.kinds[target_side])
    blocks = [[jobs[i] for i in block] for block in shard_blocks(len(jobs), BLOCK, group)]
    report = TranslationReport() if group.rank else report
    total = sum(map(len, blocks)) + len(report.failed)
    tell = progress or (lambda report, total: None)
    if skip_existing:
        blocks = [[job for job in block if not job[1].exists()] for block in blocks]
        report.skipped = total - len(report.failed) - sum(map(len, blocks))

    def read(job: tuple[str, Path]) -> _Item:
        picture = load_image(source, job[0])
        if half:
            picture = replace(picture, array=split_strip(picture.array, job[0])[half == "right"])
        return _Item(*job, model.prepare(picture, direction), replace(picture, array=picture.array[:0]))

    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        writing: deque[Future[list[tuple[str, OSError | None]]]] = deque()
        for items in _batches(pool, read, blocks, report, batch, model.multiple, single=seed is not None,
                              stop=stop):
            images = torch.stack([item.image for item in items])
            report.note((note, item.name) for item in items for note in item.picture.notes)
            results = model(images, seed=None if seed is None else _seed_for(seed, items[0].name),
                            direction=direction).cpu()
            for first in range(0, len(items), TOGETHER):
                writing.append(pool.submit(_write, items[first:first + TOGETHER],
                                           results[first:first + TOGETHER], model.kinds[target_side]))
            while len(writing) > 16 or (writing and writing[0].done()):
                _finish(writing, report, stop=stop)
                tell(report, total)
        while writing:
            _finish(writing, report, stop=stop)
            tell(report, total)
    merged = TranslationReport()
    for each in group.gather_objects(report):
        merged.add(each)
    merged.failed.sort()
    return merged


def _targets(source: Source, out: Path, suffix: str) -> tuple[list[tuple[str, Path]], TranslationReport]:
    """What is to be written where, and a report of the names for which that must not be."""
    names, report = source.names(), TranslationReport()
    if not len(names):
        raise RequestError(f"{source.root} holds no images ({', '.join(EXTENSIONS)})")
    jobs, taken = [], dict[Path, str]()
    base = source.local
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            report.failed.append(f"{name}: its name leads out of the output folder")
            continue
        target = out / (path.with_suffix(suffix) if suffix else path)
        if target in taken:
            raise RequestError(f"{taken[target]} and {name} would both be written to {target}; keep their "
                               "formats or translate them apart")
        if base and os.path.exists(base / name) and _real(target) == _real(base / name):
            raise RequestError(f"--out {out} would overwrite the inputs, such as {name}; choose another "
                               "folder")
        taken[target] = name
        jobs.append((name, target))
    inside = _real(out)
    return [(name, target) for name,
            target in jobs if not base or inside not in _real(base / name).parents], report


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))     # Path.resolve() raises where links lead to themselves.


def _check_formats(jobs: list[tuple[str, Path]], kind: ImageFormat) -> None:
    """RequestError names the first result whose format does not hold what the model makes."""
    for name, target in jobs:
        if target.suffix.lower() not in FILE_FORMATS or not FILE_FORMATS[target.suffix.lower()].holds(kind):
            raise RequestError(f"the results have {kind}, which {target.suffix} files such as {name} would "
                               "not hold; "
                               f"accepted: {' or '.join(f'--format {word}' for word in formats_for(kind))}")


def _batches(pool: ThreadPoolExecutor, read: Callable[[tuple[str, Path]], _Item],
             blocks: list[list[tuple[str, Path]]], report: TranslationReport,
             batch: int, multiple: int, *, single: bool, stop: bool) -> Iterator[list[_Item]]:
    """Images of one size in one block together, read ahead of the network; what cannot be read goes to the
    report."""
    upcoming = ((number, job) for number, block in enumerate(blocks) for job in block)
    waiting = deque((number, job[0], pool.submit(read, job)) for number, job in islice(upcoming, AHEAD))
    groups: dict[tuple[int, ...], list[_Item]] = {}
    current = 0
    while waiting:
        number, name, future = waiting.popleft()
        waiting.extend((number, job[0], pool.submit(read, job)) for number, job in islice(upcoming, 1))
        if number != current:
            yield from groups.values()
            groups, current = {}, number
        try:
            item = future.result()
        except Exception as error:      # Of whatever kind: the others can still be translated.
            cause = str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
            _fail(str(error) if isinstance(error, Unreadable) else f"{name}: {cause}", report, stop=stop)
            continue
        shape = tuple(item.image.shape)
        group = groups.setdefault(shape, [])
        group.append(item)
        pixels = (shape[1] + -shape[1] % multiple) * (shape[2] + -shape[2] % multiple)
        if len(group) >= (1 if single else batch or max(1, min(32, PIXELS // pixels))):
            yield groups.pop(shape)
        elif len(groups) > 8:       # Many sizes: do not hold them all.
            yield groups.pop(max(groups, key=lambda key: len(groups[key])))
    yield from groups.values()


def _seed_for(seed: int, name: str) -> int:
    return seed * 2**32 + zlib.crc32(name.encode("utf-8", "surrogateescape"))


def _write(items: list[_Item], images: Tensor, kind: ImageFormat) -> list[tuple[str, OSError | None]]:
    """Save a few results; what went wrong with which."""
    told: list[tuple[str, OSError | None]] = []
    for item, image in zip(items, images, strict=True):
        try:
            save_image(item.target, encode(item.target.suffix, to_array(image, kind), kind, item.picture))
            told.append((item.name, None))
        except OSError as error:
            told.append((item.name, error))
    return told


def save_image(target: Path, data: bytes) -> None:
    """Put the whole file in place at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:200]}.part")
    try:
        part.write_bytes(data)
        os.replace(part, target)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _fail(problem: str, report: TranslationReport, *, stop: bool) -> None:
    if stop:
        raise JobError(f"{problem}; stopped there, as --on-error stop asks: once it is repaired or removed, "
                       "--skip-existing goes on")
    report.failed.append(problem)


def _finish(writing: deque[Future[list[tuple[str, OSError | None]]]], report: TranslationReport, *,
            stop: bool) -> None:
    for name, error in writing.popleft().result():
        if error is None:
            report.done += 1
        elif error.errno in NO_ROOM:    # The others would fail alike.
            for pending in writing:
                pending.cancel()
            raise JobError(f"{name} could not be written: {error.strerror}; {report.done} images are done, "
                           "continue with --skip-existing")
        else:
            _fail(f"{name}: could not be written: {error.strerror or error}", report, stop=stop)
