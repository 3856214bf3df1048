"""Images from noise into a folder or a zip: encoding overlaps the network, and every image can be made again
alone."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import i2i
from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.errors import JobError, RequestError, require
from i2i.images.encode import FILE_FORMATS, encode, formats_for
from i2i.images.formats import to_array
from i2i.inference.generated_sets import PLAN, ImageStore, read_plan
from i2i.inference.generation_plan import MOST, GenerationPlan, class_of
from i2i.inference.model import Model, model_file
from i2i.inference.translate import PIXELS, TOGETHER, save_image

Written = list[tuple[int, bytes | OSError]]


@dataclass
class GenerationReport:
    """How many images were made, and how many were there before."""

    done: int = 0
    skipped: int = 0


def plan_generation(path: str | Path, model: Model, *, seed: int = 0, truncation: float = 1.0,
                    classes: str | None = None, batch: int = 0,
             suffix: str = "") -> GenerationPlan:
    """The plan of a set of images by the model in this file.  RequestError where the model cannot make such
    images.

    `classes`: names or numbers that take turns; by default, and as `balanced`, all do.  `batch` 0 fits the
    image size. `suffix`: ".png" where that holds the model's kind of image, and something that does
    elsewhere.
    """
    if model.recipe.sources:
        raise RequestError(f"this {model.header['recipe']['name']} model makes images from images; use "
                           "translate")
    require(seed >= 0, "--seed", seed, "0 or more")
    require(batch >= 0, "--batch", batch, "1 or more; 0 goes by the size of the images")
    kind = model.kinds["b"]
    suffix = suffix or f".{formats_for(kind)[0]}"
    if suffix not in FILE_FORMATS:
        raise RequestError(f"--format {suffix[1:]} is not known; accepted: "
                           f"{', '.join(key[1:] for key in FILE_FORMATS)}")
    if not FILE_FORMATS[suffix].holds(kind):
        raise RequestError(f"--format {suffix[1:]} does not hold {kind}; accepted: "
                           f"{', '.join(formats_for(kind))}")
    model.truncate(truncation)
    height, width = model.header["info"]["size"]
    return GenerationPlan(digest(path), seed, float(truncation), model.classes, class_of(model, classes),
                          batch or max(1, min(32, PIXELS // (height * width))),
                suffix, i2i.__version__)


def check_model(plan: GenerationPlan, path: str | Path) -> None:
    """RequestError if the file is not the model that the plan is of."""
    if (found := digest(path)) != plan.model:
        raise RequestError(f"{path} is not the model that made those images: its sha256 is {found[:12]}…, "
                           f"theirs {plan.model[:12]}…")


def digest(path: str | Path) -> str:
    """The sha256 of a model's file."""
    with open(model_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_number(n: int) -> None:
    """RequestError for a number of images that is none."""
    require(1 <= n <= MOST, "--n", n, f"1 to {MOST:,}")


def generate(model: Model, where: ImageStore, n: int, *, group: ProcessGroup | None = None,
             progress: Callable[[GenerationReport], None] | None = None) -> GenerationReport:
    """Make the first `n` images of the store's plan, but for those that are there.  JobError if one cannot be
    written; what is done stays.

    The processes of a `group` make batches in turns, and the leading one records them in order; its report is
    that of all.
    """
    check_number(n)
    report, tell, group = GenerationReport(), progress or (lambda report: None), group or SingleProcess()
    rounds_ahead = max(2, 16 * TOGETHER // where.plan.batch)
    try:
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            writing: deque[tuple[int, list[Future[Written]]]] = deque()
            for skipped, images in _batches(model, where, n, group):
                writing.append((skipped,
                                [pool.submit(_put, where, model, images[i:i + TOGETHER])
                                 for i in range(0, len(images), TOGETHER)]))
                if len(writing) > rounds_ahead:
                    _record(writing, where, report, group)
                tell(report)
            while writing:
                _record(writing, where, report, group)
                tell(report)
        if not group.rank:
            where.finish()
    except OSError as error:
        raise JobError(f"{where.path} could not be written: {error.strerror or error}; {where.count:,} "
                       "images are done, "
                       "the same command goes on from there") from None
    return report


def _batches(model: Model, where: ImageStore, n: int,
             group: ProcessGroup) -> Iterator[tuple[int, list[tuple[int, Tensor]]]]:
    """How many images of this process's batch are there, and those that are missing, as they go through the
    network together."""
    for block in shard_blocks(n, where.plan.batch, group):
        missing = [index for index in block if not where.has(index)]
        images = join_batches(model, where.plan, block.start) if missing else torch.empty(0)
        yield len(block) - len(missing), [(index, images[index - block.start]) for index in missing]


def join_batches(model: Model, plan: GenerationPlan, first: int) -> Tensor:
    """The whole batch that begins at `first`: an image has the same bits whichever of its neighbors are
    wanted.  -> plan.batch x CHW"""
    places = range(first, first + plan.batch)
    labels = torch.tensor([plan.label(place) for place in places]) if plan.turn else None
    return model.render(places, labels, seed=plan.seed, truncation=plan.truncation)


def encoded(model: Model, plan: GenerationPlan, image: Tensor) -> bytes:
    """An image as a file of the plan's format.  CHW -> bytes"""
    kind = model.kinds["b"]
    return encode(plan.suffix, to_array(image, kind), kind)


def _put(where: ImageStore, model: Model, images: list[tuple[int, Tensor]]) -> Written:
    """Encode a few and bring them to safety, up to the first that the disk refuses."""
    told: Written = []
    for index, image in images:
        try:
            told.append((index, where.put(index, encoded(model, where.plan, image))))
        except OSError as error:
            told.append((index, error))
            break
    return told


def _record(writing: deque[tuple[int, list[Future[Written]]]], where: ImageStore, report: GenerationReport,
            group: ProcessGroup) -> None:
    skipped, futures = writing.popleft()
    written = [each for future in futures for each in future.result()]
    for there, theirs in group.gather_objects((skipped, written)):
        report.skipped += there
        for index, data in theirs:
            try:
                if isinstance(data, OSError):
                    raise data
                where.record(index, data)
            except OSError:
                for _, pending in writing:
                    for future in pending:
                        future.cancel()
                raise
            report.done += 1


def regenerate(model: Model, plan: GenerationPlan, out: Path, only: Sequence[int]) -> list[Path]:
    """Single images of a plan, under the names they have in the whole, with the bits they have there.

    RequestError if one would replace another file than itself.
    """
    for index in only:
        require(0 <= index < MOST, "--only", index, f"0 to {MOST - 1}")
    same = (out / PLAN).exists() and read_plan(out) == plan
    targets = {index: out / plan.file(index) for index in sorted(set(only))}
    for target in targets.values():
        if target.exists() and not same:
            raise RequestError(f"{target} is there already and may be another image; choose another --out")
    made: dict[int, Tensor] = {}
    try:
        for index, target in targets.items():
            first = index - index % plan.batch
            if first not in made:
                made = {first: join_batches(model, plan, first)}
            save_image(target, encoded(model, plan, made[first][index - first]))
    except OSError as error:
        raise JobError(f"{target} could not be written: {error.strerror or error}") from None
    return list(targets.values())


def indices(text: str) -> list[int]:
    """`12,99` as numbers.  RequestError for other words."""
    words = [word.strip() for word in text.split(",")]
    require(all(word.isdecimal() for word in words), "--only", text, "numbers of images, such as 12,99")
    return [int(word) for word in words]
