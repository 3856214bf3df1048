"""Generate a set of images into a folder or a zip, encoding while the network works."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.errors import JobError, RequestError, require
from i2i.files import is_written, location_of, write_atomically
from i2i.images.convert import to_array
from i2i.images.encode import encode
from i2i.inference.generation_plan import MAX_IMAGES, GenerationPlan
from i2i.inference.image_store import PLAN, FolderStore, read_plan
from i2i.inference.model import Model
from i2i.inference.shard_store import SHARD_SIZE, open_store

PENDING_WRITES = 128        # Images that are encoded while the network makes the next ones.


@dataclass
class GenerationReport:
    """How many images were generated, and how many were there already."""

    done: int = 0
    skipped: int = 0


def check_number(n: int) -> None:
    """RequestError for an impossible number of images."""
    require(1 <= n <= MAX_IMAGES, "--n", n, f"1 to {MAX_IMAGES:,}")


def generate(model: Model, store: FolderStore, n: int, *, group: ProcessGroup | None = None,
             progress: Callable[[GenerationReport], None] | None = None) -> GenerationReport:
    """Generate those of the first `n` images of a store's plan that it does not have yet.

    The processes of a `group` generate batches in turn, and rank 0 records them in order and reports on all.
    `progress` is called with the report so far.  JobError if an image cannot be written; the same call
    continues from there.
    """
    check_number(n)
    report, plan, processes = GenerationReport(), store.plan, group or SingleProcess()
    # How many images of a batch were there already, and the others while they are saved.
    rounds: deque[tuple[int, list[tuple[int, Future[None]]]]] = deque()

    def save(index: int, image: Tensor) -> None:
        store.put(index, _encode(model, plan, image))

    def record() -> None:
        skipped, saving = rounds.popleft()
        outcome = skipped, [(index, future.exception()) for index, future in saving]
        for their_skipped, their_errors in processes.gather_objects(outcome):
            report.skipped += their_skipped
            for index, error in their_errors:
                if error:
                    raise error
                store.record(index)
                report.done += 1
        if progress:
            progress(report)

    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1))
    try:
        for block in shard_blocks(n, plan.batch_size, processes):
            missing = [index for index in block if not store.has(index)]
            images = generate_batch(model, plan, block.start) if missing else torch.empty(0)
            saving = [(index, pool.submit(save, index, images[index - block.start])) for index in missing]
            rounds.append((len(block) - len(missing), saving))
            if len(rounds) > max(2, PENDING_WRITES // plan.batch_size):
                record()
        while rounds:
            record()
        if not processes.rank:
            store.finish()
    except OSError as error:
        raise JobError(f"{store.out} could not be written: {error.strerror or error}; {store.count:,} images "
                       "are done, the same command continues from there") from None
    finally:
        pool.shutdown(cancel_futures=True)
    return report


def generate_set(model: Model, plan: GenerationPlan, out: str | Path, n: int, *,
                 group: ProcessGroup | None = None, shard_size: int = SHARD_SIZE,
                 progress: Callable[[GenerationReport], None] | None = None) -> GenerationReport:
    """`generate` into a folder or zip, or shards; continues one that an interrupted job left."""
    check_number(n)
    store = open_store(out, plan, n, group, shard_size)
    try:
        return generate(model, store, n, group=group, progress=progress)
    finally:
        store.close()


def generate_batch(model: Model, plan: GenerationPlan, first: int) -> Tensor:
    """The batch from image `first` on, (batch_size, C, H, W): always whole, so that bits are equal."""
    indices = range(first, first + plan.batch_size)
    labels = torch.tensor([plan.label(index) for index in indices]) if plan.turn else None
    return model.render(indices, labels, seed=plan.seed, truncation=plan.truncation, steps=plan.steps,
                        guidance=plan.guidance)


def _encode(model: Model, plan: GenerationPlan, image: Tensor) -> bytes:
    image_format = model.formats["b"]
    return encode(plan.suffix, to_array(image, image_format), image_format)


def regenerate(model: Model, plan: GenerationPlan, out: Path, indices: Sequence[int]) -> list[Path]:
    """Generate single images of a plan, with the names and the bits they have in the set."""
    for index in indices:
        require(0 <= index < MAX_IMAGES, "--only", index, f"0 to {MAX_IMAGES - 1}")
    same_set = (out / PLAN).exists() and read_plan(out) == plan
    targets = {index: out / plan.file(index) for index in sorted(set(indices))}
    for target in targets.values():
        if is_written(target) and not same_set:
            raise RequestError(f"{location_of(target)} is there already and may be another image; choose "
                               "another --out")
    for first, group in groupby(targets, lambda index: index - index % plan.batch_size):
        batch = generate_batch(model, plan, first)
        for index in group:
            data = _encode(model, plan, batch[index - first])
            write_atomically(targets[index], partial(Path.write_bytes, data=data))
    return list(targets.values())


def parse_indices(text: str) -> list[int]:
    """`12,99` as numbers; RequestError for anything else."""
    numbers = [number.strip() for number in text.split(",")]
    require(all(map(str.isdecimal, numbers)), "--only", text, "numbers of images, such as 12,99")
    return list(map(int, numbers))
