"""Folder jobs: translate a file, a folder tree or a zip, decoding and encoding while the network works."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from i2i.data.paired import STRIP_TOLERANCE, split_strip
from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.data.sources import Source, Unreadable, find_left_out, is_url
from i2i.data.sources.base import decode_bytes, error_reason
from i2i.errors import JobError
from i2i.files import DISK_ERRORS, is_written
from i2i.images.convert import conversion_notes, to_array
from i2i.images.decode import Header, try_header
from i2i.images.encode import carried_alpha, losses
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.memory import MORE_MEMORY
from i2i.inference.image_store import record_networks
from i2i.inference.memory import LARGE_IMAGE, format_bytes, is_out_of_memory
from i2i.inference.model import default_batch_size
from i2i.inference.spread import sample_spread
from i2i.inference.targets import Targets, check_alpha, plan_targets
from i2i.inference.tiled.files import translate_file, translate_tiff, write_result
from i2i.inference.tiled.limits import Limits
from i2i.inference.translation_report import TranslationReport, merge_reports
from i2i.inference.translator import Translator
from i2i.seeding import seed_for_name

# Images dealt to one process at a time.  Batches stay within a block, so that results do not depend on the
# number of processes.
BLOCK_SIZE = 64
LARGE_FILE = 1 << 24    # Bytes of a file that is only read when its turn comes.
READ_AHEAD = 64         # Images decoded ahead of the network.
MAX_PENDING_WRITES = 128
STRIP_NOTE = ("images of the proportions of A|B strips are translated whole; --half left or --half right "
              "translates one half of each")


def translate(model: Translator, source: Source, out: Path, *, direction: str = "ab",
              half: Literal["left", "right"] | None = None, batch_size: int = 0, seed: int | None = None,
              samples: int = 1, spread: Path | None = None, skip_existing: bool = False, suffix: str = "",
              stop: bool = False, carry_alpha: bool = False, limits: Limits | None = None,
              group: ProcessGroup | None = None,
              progress: Callable[[TranslationReport, int], None] | None = None) -> TranslationReport:
    """Write the translation of every image of a source under the same name below a folder.

    Args:
        half: inputs are A|B strips, of which this half is the source.
        batch_size: images per pass through the network; 0 fits the image size.
        seed: samples dropout and noise from (seed, name), one image at a time.
        samples: with `spread`, how many there are of each image; the result is the first, of seed 0 if none.
        spread: folder for the standard deviation of the samples by pixel, under the same names.
        skip_existing: leave out images whose results exist.
        suffix: format of the results (".png"); by default that of each input.
        stop: raise at the first image that cannot be read or written, instead of reporting it.
        carry_alpha: results keep the alpha of their inputs where the model makes none and files hold it.
        limits: when images are computed in parts; by default where they do not fit in memory.
        progress: called with the report so far and the number of images of this process.

    Returns:
        The outcome; in rank 0 that of all processes.
    """
    group, target_format = group or SingleProcess(), model.formats[model.sides(direction)[1]]
    if carry_alpha:
        check_alpha(suffix)
    targets, refused = plan_targets(source, out, suffix, target_format)
    if spread:
        plan_targets(source, spread, suffix, target_format, "--spread")     # Not where the inputs are.
    report = TranslationReport(failed=refused, left_out=find_left_out(source).note())
    blocks = [[targets[i] for i in block] for block in shard_blocks(len(targets), BLOCK_SIZE, group)]
    report = TranslationReport() if group.rank else report
    record_networks(out, {} if group.rank else model.feature_networks)
    total = sum(map(len, blocks)) + len(report.failed)
    if skip_existing:
        blocks = [[target for target in block if not _exists(target[1], out, spread)] for block in blocks]
        report.skipped = total - len(report.failed) - sum(map(len, blocks))
    seed = 0 if spread and seed is None else seed
    job = _FolderJob(model, source, direction, target_format, half, batch_size, seed, stop, report, out,
                     samples, spread, carry_alpha, limits or Limits())
    for _ in job.run(blocks):
        if progress:
            progress(report, total)
    return merge_reports(group.gather_objects(report))


@dataclass(frozen=True)
class _Input:
    name: str
    target: Path
    image: Tensor               # (C, H, W)
    metadata: DecodedImage      # Without its pixels.
    alpha: Array | None         # (H, W), for the result.


@dataclass(frozen=True)
class _LargeInput:
    name: str
    target: Path


@dataclass(frozen=True)
class _FolderJob:
    model: Translator
    source: Source
    direction: str
    target_format: ImageFormat
    half: str | None
    batch_size: int
    seed: int | None
    stop: bool
    report: TranslationReport
    out: Path
    samples: int
    spread: Path | None
    carry_alpha: bool
    limits: Limits

    def run(self, blocks: list[Targets]) -> Iterator[None]:
        """Translate all blocks; yields whenever the report has grown."""
        writing: deque[tuple[str, Future[None]]] = deque()
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            for batch in self.batches(pool, blocks):
                while isinstance(batch, _LargeInput) and writing:   # Results take memory until then.
                    self.finish(writing)
                inputs = self.load(batch) if isinstance(batch, _LargeInput) else batch
                if not inputs:
                    yield
                    continue
                self.report.add_notes((note, item.name) for item in inputs for note in item.metadata.notes)
                seed = seed_for_name(self.seed, inputs[0].name)     # With a seed, a batch is one image.
                images = torch.stack([item.image for item in inputs])
                spreads = images[:0]
                try:
                    if self.spread and seed is not None:
                        results, spreads = sample_spread(partial(self.translate, images), seed, self.samples,
                                                         self.target_format)
                    else:
                        results = self.translate(images, seed)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    results = images[:0]        # None.
                    remedy = "smaller images" if len(inputs) == 1 else f"a --batch below {len(inputs)}"
                    height, width = images.shape[-2:]
                    needed = format_bytes(self.model.memory(height, width, self.direction))
                    for item in inputs:
                        self.fail(f"{item.name}: {width}x{height} pixels, which need about {needed} once "
                                  f"decoded, do not fit in memory; accepted: {remedy}, or more memory")
                for item, result, spread in zip_longest(inputs[:len(results)], results, spreads):
                    writing.append((item.name, pool.submit(self.write, item, result, spread)))
                while len(writing) > MAX_PENDING_WRITES or (writing and writing[0][1].done()):
                    self.finish(writing)
                yield
            while writing:
                self.finish(writing)
                yield

    def translate(self, images: Tensor, seed: int | None) -> Tensor:
        return self.model(images, seed=seed, direction=self.direction).cpu()

    def in_parts(self, header: Header) -> bool:
        size = header.height, header.width // (2 if self.half else 1)
        if self.spread:
            self.model.check_memory(*size, self.direction)
        return not self.spread and self.limits.in_parts(self.model, *size, self.direction)

    def load(self, large: _LargeInput) -> list[_Input]:
        """Read an input, or translate it in parts if it does not fit in memory; report what fails."""
        seed = seed_for_name(self.seed, large.name)
        try:
            notes = None if self.half or self.spread or self.carry_alpha else translate_tiff(
                self.model, self.source, large.name, large.target, self.limits, seed, self.direction)
            if notes is None:
                data = self.source.read(large.name)
                header = try_header(data)
                pixels = header.width * header.height if header else 0      # Too many: decoding refuses it.
                if not header or pixels > self.source.max_pixels or not self.in_parts(header):
                    return [self.decode(large.name, large.target, data)]
                image, alpha = self.open_image(large.name, large.target, data)
                translate_file(self.model, image, alpha, large.target, self.limits, seed, self.direction)
                notes = image.notes
            self.report.add_notes((note, large.name) for note in notes)
            self.report.done += 1
        except Exception as error:
            self.fail_with(large.name, error)
        return []

    def batches(self, pool: ThreadPoolExecutor, blocks: list[Targets]
                ) -> Iterator[list[_Input] | _LargeInput]:
        """Inputs of the same size and block, read ahead; what cannot be read is reported."""
        upcoming = ((number, name, pool.submit(self.read, name, target))
                    for number, block in enumerate(blocks) for name, target in block)
        waiting = deque(islice(upcoming, READ_AHEAD))
        groups: dict[tuple[int, ...], list[_Input]] = {}
        current = 0
        while waiting:
            number, name, future = waiting.popleft()
            waiting.extend(islice(upcoming, 1))
            if number != current:
                yield from groups.values()
                groups, current = {}, number
            try:
                item = future.result()
            except Exception as error:      # Of whatever kind: the other images can still be translated.
                self.fail_with(name, error)
                continue
            if isinstance(item, _LargeInput):
                yield item
                continue
            shape = tuple(item.image.shape)
            groups.setdefault(shape, []).append(item)
            if len(groups[shape]) >= self.max_batch(shape):
                yield groups.pop(shape)
        yield from groups.values()

    def max_batch(self, shape: tuple[int, ...]) -> int:
        height, width = (-(-side // self.model.multiple) * self.model.multiple for side in shape[1:])
        most = self.batch_size or default_batch_size(height, width)
        if self.limits.memory:
            most = min(most, self.limits.memory // self.model.memory(height, width, self.direction))
        return 1 if self.seed is not None else max(1, most)

    def read(self, name: str, target: Path) -> _Input | _LargeInput:
        data = self.source.read(name, None if is_url(self.source.root) else LARGE_FILE)    # One request.
        header = try_header(data)
        large = header and (header.width * header.height > LARGE_IMAGE or self.in_parts(header))
        large = large or len(data) >= LARGE_FILE
        return _LargeInput(name, target) if large else self.decode(name, target, data)

    def decode(self, name: str, target: Path, data: bytes) -> _Input:
        image, alpha = self.open_image(name, target, data)
        return _Input(name, target, self.model.prepare(image, self.direction),
                      replace(image, array=image.array[:0]), alpha)

    def open_image(self, name: str, target: Path, data: bytes) -> tuple[DecodedImage, Array | None]:
        image = decode_bytes(self.source.path_of(name), data, self.source.max_pixels)
        if self.half:
            right = self.half == "right"
            missing = None if image.missing is None else split_strip(image.missing, name)[right]
            image = replace(image, array=split_strip(image.array, name)[right], missing=missing, tags=())
        height, width = image.array.shape[:2]
        strip = not self.half and abs(width / height - 2) <= STRIP_TOLERANCE and width % 2 == 0
        alpha = carried_alpha(target.suffix, self.target_format, image) if self.carry_alpha else None
        notes = (*conversion_notes(image, self.model.formats[self.model.sides(self.direction)[0]]),
                 *losses(target.suffix, self.target_format, image, alpha is not None), *[STRIP_NOTE] * strip)
        return replace(image, notes=notes), alpha

    def write(self, item: _Input, result: Tensor, spread: Tensor | None) -> None:
        images = {item.target: result}
        if spread is not None and self.spread:
            images = {self.spread / item.target.relative_to(self.out): spread, **images}
        for target, image in images.items():        # The result last: it says that all is done.
            write_result(target, to_array(image, self.target_format), self.target_format, item.alpha,
                         item.metadata)

    def finish(self, writing: deque[tuple[str, Future[None]]]) -> None:
        """Wait for the first of the pending writes and report it."""
        name, future = writing.popleft()
        try:
            future.result()
            self.report.done += 1
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                self.fail(f"{name}: could not be written: {error.strerror or error}")
                return
            for _, pending in writing:
                pending.cancel()
            raise JobError(f"{name} could not be written: {error.strerror}; {self.report.done} images are "
                           "done, continue with --skip-existing") from None
        except Exception as error:      # What an encoder refuses, or has no memory for.
            reason = f"its result does not fit in memory; {MORE_MEMORY}" if is_out_of_memory(error) else error
            self.fail(f"{name}: {reason}")

    def fail_with(self, name: str, error: Exception) -> None:
        """Report an input that cannot be read or decoded."""
        if isinstance(error, Unreadable):
            self.fail(f"{self.source.path_of(name)}: {error.reason}")
        else:
            known = isinstance(error, ValueError | JobError | MemoryError)
            self.fail(f"{name}: " + (error_reason(error) if known else f"{type(error).__name__}: {error}"))

    def fail(self, problem: str) -> None:
        if self.stop:
            raise JobError(f"{problem}; stopped, as --on-error stop asks; after repairing or removing it, "
                           "continue with --skip-existing")
        self.report.failed.append(problem)


def _exists(target: Path, out: Path, spread: Path | None) -> bool:
    return is_written(target) and (spread is None or is_written(spread / target.relative_to(out)))
