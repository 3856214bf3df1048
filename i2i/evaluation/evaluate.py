"""How good results are: sets against sets, images against their targets, a model beside the score of doing
nothing."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from i2i.config import parse
from i2i.data.image_set import ImageSet, ImageSetFacts
from i2i.data.paired import PairedDataset
from i2i.data.sampler import evenly_spaced
from i2i.data.sharding import ProcessGroup, SingleProcess, shard_blocks
from i2i.data.sources import Folder, Unreadable
from i2i.data.transforms import resize
from i2i.errors import JobError, RequestError
from i2i.evaluation import protocol
from i2i.evaluation.features import measure_set, pair_values, reference_features
from i2i.evaluation.features import set_facts as facts_of
from i2i.images.encode import encode
from i2i.images.formats import (
    Array,
    DecodedImage,
    ImageFormat,
    convert_to,
    grid,
    pil_supports,
    to_array,
    to_rgb,
    to_tensor,
)
from i2i.inference.model import Model
from i2i.metrics import features as networks
from i2i.metrics import paired_registry as pair_metrics  # noqa: F401 - registers the metrics of pairs.
from i2i.metrics import weights as feature_weights
from i2i.metrics.features import Extractor
from i2i.metrics.paired_registry import BETTER
from i2i.metrics.set_metrics import ComparedSets, Draw, Figure, overlap
from i2i.registry import Spec, build, lookup, names, schema, suggest

ALIASES = {"fid": "fd", "fid_infinity": "fd_infinity"}     # Words that ask for the FID Inception.
SETS = ("fd", "kid", "precision_recall", "density_coverage", "diversity", "color")
MODEL = ("l1", "psnr", "ssim", "ms_ssim", "fd")
Log = Callable[[str, int, int], None]      # What is measured, how many are done, of how many.


@dataclass(frozen=True)
class EvaluationRequest:
    """What to measure and how."""

    metrics: tuple[Spec, ...]
    # By name: a metric that cannot be computed is then an error, not a line among the warnings.
    asked: bool
    seed: int = 0
    bootstrap: int = 20
    batch: int = 32
    cache: bool = True
    weights: Path | None = None
    tell: Log = field(default=lambda what, done, of: None, compare=False)
    # Shares the work; its leading process has the results, the others have {}.
    group: ProcessGroup = field(default_factory=SingleProcess, compare=False)

    def find(self, name: str) -> Path:
        """A weights file of the catalogue; a folder given as --weights is looked into first."""
        inside = self.weights / feature_weights.catalogue_entry(name).file if self.weights and self.weights.is_dir() else None
        return feature_weights.find_weights(name, inside if inside and inside.exists() else None)


# ---------------------------------------------------------------------------------------------- the request

def choose_metrics(words: str | None, options: Sequence[str], default: Sequence[str],
                   features: str) -> tuple[Spec, ...]:
    """Metrics by name, with options such as kid.subsets=50, defaults filled in.  RequestError names what is
    unknown."""
    known = [*names("metric"), *names("paired_metric"), *ALIASES]
    chosen: dict[str, dict[str, Any]] = {}
    for word in words.split(",") if words else default:
        name = word.strip()
        if name not in known:
            raise RequestError(f"--metrics: no metric is called {name!r}; {suggest(name, known)}")
        if name in ALIASES and features != "inception":
            raise RequestError(f"--metrics {name} is of the FID Inception, and the features are {features}: "
                               f"ask for {ALIASES[name]}, "
                               "or --features inception")
        chosen[ALIASES.get(name, name)] = {}
    for word in options:
        key, equals, text = word.partition("=")
        name, _, option = key.partition(".")
        if not equals or name not in chosen:
            raise RequestError(f"--set {word} is not METRIC.OPTION=VALUE of a chosen metric; chosen: "
                               f"{', '.join(chosen)}")
        known_options = schema(_kind(name), name)
        if option not in known_options:
            raise RequestError(f"metric {name!r} has no option {option!r}; {suggest(option, known_options)}")
        chosen[name][option] = parse(key, text, known_options[option].annotation)
    return tuple(Spec(name, {key: given.get(key, p.default) for key, p in schema(_kind(name), name).items()})
                 for name, given in chosen.items())


def _kind(name: str) -> str:
    return "metric" if name in names("metric") else "paired_metric"


def choose_features(name: str | None, weights: Path | None, resize: str, device: str = "cpu") -> Extractor:
    """The feature network: by default the FID Inception where its weights are, else EfficientNet-Lite0.
    RequestError says what is absent."""
    lookup("resize", resize)
    folder = weights if weights is not None and weights.is_dir() else None
    if name is None:
        known = feature_weights.catalogue_entry("inception")
        there = feature_weights.locate_weights("inception") or (folder
                                                                and (folder / known.file).is_file()) or (weights and not folder)
        lite = weights is not None and weights.is_file() and feature_weights.catalogue_entry("efficientnet-lite0").matches(weights)
        name = "inception" if there and not lite else "efficientnet-lite0"
    if name.startswith("timm:"):
        if weights is None or folder:
            raise RequestError(f"--features {name} needs its weights as a local file: --weights FILE")
        return networks.timm_features(name.removeprefix("timm:"), weights, resize=resize, device=device)
    makers = {"inception": networks.inception_features, "efficientnet-lite0": networks.efficientnet_lite0}
    if name not in makers:
        raise RequestError(f"--features {name} is not known; {suggest(name, [*makers, 'timm:NAME'])}")
    given = weights if weights and (not folder
                                    or (folder / feature_weights.catalogue_entry(name).file).is_file()) else None
    return makers[name](feature_weights.find_weights(name, given), resize=resize, device=device)


# ---------------------------------------------------------------------------------------------- sets

def evaluate_sets(fake: ImageSet, real: ImageSet, extractor: Extractor | None, request: EvaluationRequest, *,
                  original: ImageSetFacts | None = None) -> dict[str, Any]:
    """All requested metrics of two sets of pictures, with the protocol they were measured by, as JSON data.

    `original`: the files that `real` are decoded copies of, whose formats and hash then stand for the
    copies'. RequestError or JobError says in one line what is wrong.
    """
    shared: Any = {"batch": request.batch, "group": request.group}
    facts = {"fakes": facts_of(fake, **shared), "reals": facts_of(real, **shared)}
    if original is not None:
        facts["reals"] = replace(facts["reals"], formats=original.formats, content=original.content)
    wanted_sets = [spec for spec in request.metrics if _kind(spec.name) == "metric"]
    figures: dict[str, Figure] = {}
    told = protocol.warnings(facts["fakes"], facts["reals"]) if wanted_sets else []
    pairs = [spec for spec in request.metrics if spec not in wanted_sets]
    if pairs:
        figures |= _pair_figures(fake, real, pairs, request, told)
    if wanted_sets:
        assert extractor is not None
        _check_sizes(facts)
        with tempfile.TemporaryDirectory(prefix="i2i-") as folder:
            ours = measure_set(fake, extractor, Path(folder) / "fakes",
                               tell=_warn(request, "fakes", len(fake)), **shared)
            tell = _warn(request, "reals", len(real))
            theirs = reference_features(real, facts["reals"], extractor, tell=tell,
                                        **shared) if request.cache else \
                measure_set(real, extractor, Path(folder) / "reals", tell=tell, **shared)
            if ours and theirs:
                figures |= _set_figures(ours, theirs, wanted_sets,
                                        Draw(extractor.name, request.seed, request.bootstrap), request, told)
                told += _overlapping(ours, theirs, request.seed)
    if request.group.rank:
        return {}
    if not figures:
        raise RequestError("none of the metrics could be computed: " + "; ".join(told))
    return protocol.result(figures,
                           _stamp(facts["fakes"], facts["reals"], extractor if wanted_sets else None,
                                  request), facts["fakes"], told)


def _warn(request: EvaluationRequest, what: str, of: int) -> Callable[[int], None]:
    return lambda done: request.tell(what, done, of)


def _check_sizes(facts: dict[str, ImageSetFacts]) -> None:
    for name, each in facts.items():
        if each.n < 2:
            raise RequestError(f"there is one image among the {name}; metrics of sets need at least 2")


def _set_figures(ours: ComparedSets, theirs: ComparedSets, wanted: Sequence[Spec], draw: Draw,
                 request: EvaluationRequest, told: list[str]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    for spec in wanted:
        try:
            figures |= build("metric", spec, ours, theirs, draw)
        except ValueError as error:
            _left_out(spec, str(error), request, told)
    return figures


def _left_out(spec: Spec, reason: str, request: EvaluationRequest, told: list[str]) -> None:
    if request.asked:
        raise RequestError(f"{spec.name}: {reason}")
    told.append(f"{spec.name} is left out: {reason}")


def _overlapping(ours: ComparedSets, theirs: ComparedSets, seed: int) -> list[str]:
    exact, near = overlap(ours, theirs, seed=seed)
    told = []
    if exact:
        told.append(f"{exact} of {len(ours)} fakes have exactly the pixels of a real: the sets overlap")
    if near > exact:
        told.append(f"{near} of {min(len(ours), 2000)} fakes looked at lie nearer to a real than a tenth of "
                    "the distance between reals: copies?")
    return told


def _pair_figures(fake: ImageSet, real: ImageSet, wanted: Sequence[Spec], request: EvaluationRequest,
                  told: list[str]) -> dict[str, Figure]:
    made = {spec.name: build("paired_metric", spec, request.find) for spec in wanted}
    values: dict[str, list[float]] = {name: [] for name in made}
    for done, found in enumerate(pair_values(fake, real, made, batch=request.batch, group=request.group)):
        for spec in [spec for spec in wanted if spec.name in made]:
            value = found[spec.name]
            if isinstance(value, str):
                _left_out(spec, value, request, told)
                del made[spec.name], values[spec.name]
            else:
                values[spec.name].append(value)
        request.tell("pairs", done + 1, len(fake))
    return {name: mean_figure(each, BETTER[name]) for name, each in values.items() if each}


def mean_figure(values: Sequence[float], better: str) -> Figure:
    """The mean over images; the bootstrap of a mean has the standard error s/√n, which needs no drawing
    (Efron 1979, section 3)."""
    error = float(np.std(values) / len(values) ** 0.5) if len(values) > 1 else None
    return Figure(float(np.mean(values)), better=better).within(error)


def _stamp(fake: ImageSetFacts, real: ImageSetFacts, extractor: Extractor | None,
           request: EvaluationRequest) -> protocol.Stamp:
    options: dict[str, Any] = {}
    for spec in request.metrics:
        options[spec.name] = dict(spec.options) | ({"size": min(spec.options["size"], fake.n, real.n)}
                                                   if spec.name == "kid" else {})
    return protocol.Stamp(
        features=extractor.name if extractor else "none", weights=extractor.weights if extractor else "none",
        resize=extractor.resize if extractor else "none", quantized=protocol.QUANTIZED,
        channels=protocol.CONVERTED, n_fake=fake.n, n_real=real.n,
        real=real.content, real_formats=tuple(real.formats), fake_formats=tuple(fake.formats),
        metrics=options, seed=request.seed,
        bootstrap=request.bootstrap)


# ---------------------------------------------------------------------------------------------- models

def sample_sheet(model: Model, pairs: PairedDataset, *, direction: str = "ab", count: int = 24,
                 across: int = 4) -> Array:
    """Input, result and target of pairs spread over the split, several pairs in a row; those of another size
    than the first are left out. -> HWC uint8"""
    chosen = evenly_spaced(len(pairs), count)
    triples = [(each.source, each.fake, each.real)
               for each in _translated(model, _direction(pairs, direction), chosen, direction)]
    size = triples[0][0].shape[:2]
    flat = [to_tensor(to_rgb(array)) for triple in triples if triple[0].shape[:2] == size for array in triple]
    return grid([flat[i:i + 3 * across] for i in range(0, len(flat), 3 * across)])


def evaluate_model(model: Model, pairs: PairedDataset, extractor: Extractor | None,
                   request: EvaluationRequest, *,
                   direction: str = "ab") -> dict[str, dict[str, Any]]:
    """`evaluate_sets` of a model's translations against the targets, and of the inputs against them ("copy
    the input").

    The translations are written and read back: what is judged is what would be saved, in 8-bit levels of the
    target side's range.  Inputs whose channels cannot become those of the targets are not compared.  Targets
    of another size than their inputs are resized to it, and a warning says so.  `direction` "ba" judges the
    way back, of models that learned both.
    """
    pairs = _direction(pairs, direction)
    before, after = (model.kinds[side] for side in model.sides(direction))
    level = _level(after)
    suffix = ".png" if pil_supports(level) else ".npy"
    with tempfile.TemporaryDirectory(prefix="i2i-") as where:
        folders = {name: Path(where) / name for name in ("translations", "targets", "inputs")}
        fitted, copied = _write_sets(model, pairs, request, folders, suffix, direction)
        sets = {name: ImageSet(Folder(folder), tuple(f"{i:08}{suffix}" for i in range(len(pairs)))) for name,
                folder in folders.items()}
        targets = ImageSet(pairs.source, pairs.b if pairs.direction == "ab" else pairs.a)
        facts = facts_of(targets, batch=request.batch, group=request.group)
        layout = "strips" if pairs.strips else "folders"
        side = f"{facts.content} {pairs.direction} {layout} {after}"      # What is decoded of them.
        side += "".join(f" {each}" for each in fitted)
        facts = replace(facts, content=hashlib.sha256(side.encode()).hexdigest())
        judged = {"model": evaluate_sets(sets["translations"], sets["targets"], extractor, request,
                                         original=facts)}
        if copied:
            judged["copy the input"] = evaluate_sets(sets["inputs"], sets["targets"], extractor, request,
                                                     original=facts)
        elif not request.group.rank:
            judged["model"]["warnings"].append(f"the inputs, {before}, cannot be held against the targets, "
                                               f"{after}")
    if fitted:
        judged["model"]["warnings"].append(f"{len(fitted)} of {len(pairs)} targets were resized to their "
                                           f"inputs, such as {fitted[0]}")
    return judged


def _write_sets(model: Model, pairs: PairedDataset, request: EvaluationRequest, folders: Mapping[str, Path],
                suffix: str,
                direction: str) -> tuple[list[str], bool]:
    """Write translations, targets and inputs: all in the leading process, in the others those that they will
    judge.

    -> which targets were resized, in the leading process; whether every input can be held against its target
    """
    before, after = (model.kinds[side] for side in model.sides(direction))
    group, fitted, copied, done = request.group, list[str](), True, 0
    for folder in folders.values():
        folder.mkdir()
    for block in shard_blocks(len(pairs), request.batch, group):
        mine = []
        for index, pair in zip(block, _translated(model, pairs, block, direction), strict=True):
            mine.append((index, _encoded(pair, before.alpha, suffix, _level(after)), pair.fitted))
            request.tell("translations", done + len(mine), len(pairs))
        handed = list(chain.from_iterable(group.gather_objects(mine)))
        for index, files, _ in handed or mine:
            for name, data in files.items():
                (folders[name] / f"{index:08}{suffix}").write_bytes(data)
            copied &= "inputs" in files
        fitted += [told for *_, told in handed if told]
        done += len(handed)
    return fitted, group.broadcast(copied)


def _level(kind: ImageFormat) -> ImageFormat:
    """The 8-bit levels of a kind's range; contrast has been equalized before."""
    return replace(kind, dtype="uint8", range=None, clahe=0.0)


def _direction(pairs: PairedDataset, direction: str) -> PairedDataset:
    """The pairs of which a model's direction leads from the first to the second."""
    return pairs if direction == "ab" else replace(pairs, direction=pairs.direction[::-1])


@dataclass(frozen=True)
class _Translated:
    """A pair and the translation of its input in 8-bit levels of their ranges.  uint8, HW or HWC"""

    fake: Array
    real: Array
    source: Array
    # The target, if it was resized to its input, which is the size of its translation; else nothing.
    fitted: str


def _translated(model: Model, pairs: PairedDataset, which: Iterable[int],
                direction: str) -> Iterator[_Translated]:
    before, after = (model.kinds[side] for side in model.sides(direction))
    pairs = pairs.for_evaluation((before, after))
    for index in which:
        try:
            sample = pairs.sample(index)
        except Unreadable as error:
            raise JobError(str(error)) from None
        source, target = sample["a"], sample["b"]
        fitted = ""
        if target.shape[:2] != source.shape[:2]:
            fitted = f"{pairs.name(index)}, {target.shape[1]}x{target.shape[0]} to {source.shape[1]}x{source.shape[0]}"
            target = resize(target, source.shape[:2])
        a, b = to_tensor(source, before), to_tensor(target, after)
        fake = model(a[None], direction=direction)[0].cpu()
        yield _Translated(to_array(fake, _level(after)), to_array(b, _level(after)),
                          to_array(a, _level(before)), fitted)


def _encoded(pair: _Translated, alpha: bool, suffix: str, level: ImageFormat) -> dict[str, bytes]:
    """The files of a pair; its input is among them if it can become a target."""
    images = {"translations": pair.fake, "targets": pair.real}
    with suppress(ValueError):
        images["inputs"] = convert_to(DecodedImage(pair.source, alpha), level)
    return {name: encode(suffix, image, level) for name, image in images.items()}
