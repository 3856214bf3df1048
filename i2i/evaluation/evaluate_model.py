"""Evaluate a translation model on pairs, beside the baseline that copies the input."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from i2i.data.image_set import ImageSet
from i2i.data.paired import PairedDataset, strip_note
from i2i.data.sampler import evenly_spaced
from i2i.data.sharding import shard_blocks
from i2i.data.sources import Folder, Unreadable, convert_or_unreadable
from i2i.data.transforms import resize
from i2i.errors import JobError, printable
from i2i.evaluation.evaluate_sets import evaluate_sets, left_out_warnings
from i2i.evaluation.feature_extraction import set_facts
from i2i.evaluation.request import EvaluationRequest
from i2i.files import temporary_folder
from i2i.images.convert import (
    ConversionLog,
    conversion_notes,
    convert_to,
    make_grid,
    to_array,
    to_rgb,
    to_tensor,
)
from i2i.images.encode import encode
from i2i.images.format import Array, DecodedImage, ImageFormat
from i2i.images.pil import pil_supports
from i2i.inference.model import Model
from i2i.metrics.feature_networks import FeatureExtractor

CHECKED_STRIPS = 8


def evaluate_model(model: Model, pairs: PairedDataset, judges: Sequence[FeatureExtractor],
                   request: EvaluationRequest, *, direction: str = "ab") -> dict[str, dict[str, Any]]:
    """Evaluate a model's translations against the targets, and the inputs against them.

    Translations are written and read back, so what is evaluated is what would be saved: 8-bit levels of the
    target's range.  Targets of another size than their inputs are resized to it, with a warning.

    Returns:
        Results of `evaluate_sets` by `model` and `copy the input`; the latter is absent if the channels of
        the inputs cannot become those of the targets.
    """
    pairs = _in_direction(pairs, direction)
    source_format, target_format = (model.formats[side] for side in model.sides(direction))
    suffix = ".png" if pil_supports(target_format.as_uint8()) else ".npy"
    with temporary_folder() as where:
        folders = {name: where / name for name in ("translations", "targets", "inputs")}
        resized, converted, has_inputs = _write_sets(model, pairs, request, folders, suffix, direction)
        names = tuple(f"{i:08}{suffix}" for i in range(len(pairs)))
        sets = {name: ImageSet(Folder(folder), names) for name, folder in folders.items()}
        for each in sets.values():
            each.source.max_pixels = pairs.source.max_pixels
        targets = ImageSet(pairs.source, pairs.b if pairs.direction == "ab" else pairs.a)
        facts = set_facts(targets, batch_size=request.batch_size, group=request.group)
        # What is decoded from the files depends on all of this.
        content = " ".join([facts.content, pairs.direction, "strips" if pairs.strips else "folders",
                            str(target_format), *resized])
        facts = replace(facts, content=hashlib.sha256(content.encode()).hexdigest())
        compared = {"model": "translations"} | ({"copy the input": "inputs"} if has_inputs else {})
        results = {name: evaluate_sets(sets[which], sets["targets"], judges, request, original=facts)
                   for name, which in compared.items()}
    warnings = results["model"].get("warnings", [])     # Absent except in the main process.
    warnings += left_out_warnings(targets) + _strip_warnings(pairs)
    if not has_inputs:
        warnings.append(f"the inputs, {source_format}, cannot be compared with the targets, {target_format}")
    if resized:
        warnings.append(f"{len(resized)} of {len(pairs)} targets were resized to their inputs, such as "
                        f"{resized[0]}")
    warnings += map(printable, converted.lines("pairs"))
    return results


def _strip_warnings(pairs: PairedDataset) -> list[str]:
    """That photographs are taken for strips, with the first of a few that are."""
    for index in evenly_spaced(len(pairs), CHECKED_STRIPS) if pairs.strips else ():
        image, _ = pairs[index]
        if note := strip_note(2 * image.array.shape[1], image.array.shape[0], pairs.split):
            return [f"{image.name}: {note}"]
    return []


def sample_sheet(model: Model, pairs: PairedDataset, *, direction: str = "ab", count: int = 24,
                 across: int = 4) -> Array:
    """Sheet (H, W, C) uint8 of input, translation and target of evenly spaced pairs of the first's size."""
    chosen = evenly_spaced(len(pairs), count)
    triples = [pair[:3] for pair in _translate(model, _in_direction(pairs, direction), chosen, direction)]
    images = [to_rgb(image) for triple in triples
              if triple[0].shape[:2] == triples[0][0].shape[:2] for image in triple]
    return make_grid([images[i:i + 3 * across] for i in range(0, len(images), 3 * across)])


def _write_sets(model: Model, pairs: PairedDataset, request: EvaluationRequest, folders: Mapping[str, Path],
                suffix: str, direction: str) -> tuple[list[str], ConversionLog, bool]:
    """Write translations, targets and inputs: the main process all, the others those that they will read.

    Returns which targets were resized, what was converted (in the main process), and whether all inputs can
    be compared.
    """
    source_format, target_format = (model.formats[side] for side in model.sides(direction))
    resized, converted, has_inputs, done = list[str](), ConversionLog(), True, 0
    for folder in folders.values():
        folder.mkdir()
    for block in shard_blocks(len(pairs), request.batch_size, request.group):
        own = []
        for index, pair in zip(block, _translate(model, pairs, block, direction), strict=True):
            files = _encode(pair, source_format.alpha, suffix, target_format.as_uint8())
            own.append((index, files, pair.resized, pair.notes))
            request.progress("translations", done + len(own), len(pairs))
        gathered = list(chain.from_iterable(request.group.gather_objects(own)))
        for index, files, *_ in gathered or own:
            for name, data in files.items():
                (folders[name] / f"{index:08}{suffix}").write_bytes(data)
            has_inputs &= "inputs" in files
        resized += [each for _, _, each, _ in gathered if each]
        for index, _, _, notes in gathered:
            for note in notes:
                converted.setdefault(note, set()).add(pairs.name(index))
        done += len(gathered)
    return resized, converted, request.group.broadcast(has_inputs)


def _in_direction(pairs: PairedDataset, direction: str) -> PairedDataset:
    """The pairs with the model's input first."""
    return pairs if direction == "ab" else replace(pairs, direction=pairs.direction[::-1])


class _Pair(NamedTuple):
    """Images (H, W) or (H, W, C) uint8; `resized`: which target was, and how; `notes`: on conversions."""

    source: Array
    translation: Array
    target: Array
    resized: str
    notes: list[str]


def _translate(model: Model, pairs: PairedDataset, indices: Iterable[int], direction: str) -> Iterator[_Pair]:
    source_format, target_format = (model.formats[side] for side in model.sides(direction))
    pairs = pairs.for_evaluation((source_format, target_format))
    for index in indices:
        try:
            stored = list(zip(pairs.decode("ab", index), pairs.formats, strict=True))
            source, target = (convert_or_unreadable(*each) for each in stored)
        except Unreadable as error:
            raise JobError(str(error)) from None
        notes = [f"{side} {note}" for side, each in zip(("input", "target"), stored, strict=True)
                 for note in conversion_notes(*each)]
        resized = ""
        if target.shape[:2] != source.shape[:2]:
            resized = (f"{pairs.name(index)}, {target.shape[1]}x{target.shape[0]} to "
                       f"{source.shape[1]}x{source.shape[0]}")
            target = resize(target, source.shape[:2], target_format.resize)
        a, b = to_tensor(source, source_format), to_tensor(target, target_format)
        try:
            translation = model.in_any_size(a[None], direction=direction)[0]
        except ValueError as error:
            raise JobError(f"{pairs.name(index)}: {error}") from None
        yield _Pair(to_array(a, source_format.as_uint8()), to_array(translation, target_format.as_uint8()),
                    to_array(b, target_format.as_uint8()), resized, notes)


def _encode(pair: _Pair, alpha: bool, suffix: str, image_format: ImageFormat) -> dict[str, bytes]:
    """The files of a pair; the input only if it can be converted to the format of the target."""
    images = {"translations": pair.translation, "targets": pair.target}
    with suppress(ValueError):
        images["inputs"] = convert_to(DecodedImage(pair.source, alpha), image_format)
    return {name: encode(suffix, image, image_format) for name, image in images.items()}
