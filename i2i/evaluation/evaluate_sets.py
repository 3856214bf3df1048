"""Evaluate a set of images against a reference set, and pairs of images of the same name."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from i2i.data.image_set import ImageSet, ImageSetFacts
from i2i.data.sources import find_left_out
from i2i.errors import RequestError
from i2i.evaluation import protocol
from i2i.evaluation.feature_extraction import cached_features, extract_features, paired_values, set_facts
from i2i.evaluation.request import EvaluationRequest, metric_kind
from i2i.evaluation.stored_statistics import StoredStatistics, write_statistics
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.paired import BETTER
from i2i.metrics.set_metrics import (
    MetricContext,
    Score,
    SetFeatures,
    count_copies,
    mean_score,
    slug,
)
from i2i.registry import Spec, build

OF_IMAGES = {"color", "is"}     # Metrics that are the same whatever the judge, or of one judge only,
SCORES_OF_IMAGES = {"duplicates", "ms_ssim_between_fakes"}      # and such scores of others.


def evaluate_sets(fake: ImageSet, real: ImageSet | StoredStatistics, judges: Sequence[FeatureExtractor],
                  request: EvaluationRequest, *, original: ImageSetFacts | None = None) -> dict[str, Any]:
    """Compute all requested metrics of two sets of images.

    Args:
        fake, real: the generated images and the reference set, or what is stored of it.
        judges: the feature networks, if a metric needs one; scores of the second and further ones carry
            their names.
        original: facts of the files that `real` are decoded copies of, for the stamp.

    Returns:
        Scores, stamp, facts of the fakes, versions and warnings as JSON data; {} except in the main process.
    """
    batches: Any = {"batch_size": request.batch_size, "group": request.group}
    fake_facts = set_facts(fake, **batches)
    real_facts = real.facts if isinstance(real, StoredStatistics) else set_facts(real, **batches)
    if original is not None:
        real_facts = replace(real_facts, formats=original.formats, content=original.content,
                             colors=original.colors)
    set_specs = [spec for spec in request.metrics if metric_kind(spec.name) == "metric"]
    paired_specs = [spec for spec in request.metrics if spec not in set_specs]
    warnings = [*protocol.warnings(fake_facts, real_facts, {spec.name for spec in set_specs}),
                *request.warnings]
    scores: dict[str, Score] = {}
    if paired_specs:
        scores |= _paired_scores(fake, real, paired_specs, request, warnings)
    if set_specs:
        for name, facts in (("fakes", fake_facts), ("reals", real_facts)):
            if facts.n == 1:
                raise RequestError(f"there is one image among the {name}; metrics of sets need at least 2")
        for i, judge in enumerate(judges):
            specs = [spec for spec in set_specs if not i or spec.name not in OF_IMAGES]
            if not specs:
                continue
            found = _set_scores(fake, real, judge, specs, request, real_facts, warnings, is_first=not i)
            scores |= found if not i else {_with_judge(name, judge): score for name, score in found.items()
                                           if name not in SCORES_OF_IMAGES}
    if request.group.rank:
        return {}
    if not scores:
        raise RequestError("none of the metrics could be computed: " + "; ".join(warnings))
    warnings += protocol.color_warnings(fake_facts, real_facts) + left_out_warnings(fake, real)
    options = {spec.name: dict(spec.options) for spec in request.metrics}
    if "kid" in options:
        options["kid"]["size"] = min(options["kid"]["size"], fake_facts.n, real_facts.n)
    stamp = make_stamp(fake_facts, real_facts, judges if set_specs else (), options, request.seed,
                       request.bootstrap)
    return protocol.result(scores, stamp, fake_facts, warnings)


def _set_scores(fake: ImageSet, real: ImageSet | StoredStatistics, judge: FeatureExtractor,
                specs: Sequence[Spec], request: EvaluationRequest, real_facts: ImageSetFacts,
                warnings: list[str], *, is_first: bool) -> dict[str, Score]:
    """The scores of one judge, to which warnings are added; {} except in the main process."""
    scores: dict[str, Score] = {}
    prefix = "" if is_first else f"{judge.name}: "
    fakes = request_features(fake, judge, request, f"{prefix}fakes")
    if isinstance(real, StoredStatistics):
        reals: SetFeatures | None = real.features_of(judge)
    else:
        reals = request_features(real, judge, request, f"{prefix}reals", real_facts, warnings.append)
    if fakes is not None and reals is not None:
        context = MetricContext(judge.name, request.seed, request.bootstrap)
        for spec in specs:
            try:
                scores |= build("metric", spec, fakes, reals, context)
            except ValueError as error:
                _skip(spec, str(error), request, warnings)
        if is_first and isinstance(real, ImageSet):
            warnings += _copy_warnings(fakes, reals, request.seed)
    return scores


def request_features(images: ImageSet, judge: FeatureExtractor, request: EvaluationRequest, stage: str,
                     facts: ImageSetFacts | None = None,
                     warn: Callable[[str], None] = lambda line: None) -> SetFeatures | None:
    """The features of a set; those of sets with facts are kept for the next time, if that is wanted."""
    options: Any = {"batch_size": request.batch_size, "group": request.group,
                    "progress": lambda done: request.progress(stage, done, len(images))}
    if facts and request.cache:
        return cached_features(images, judge, facts=facts, warn=warn, **options)
    return extract_features(images, judge, **options)


def write_set_statistics(file: Path, real: ImageSet, judges: Sequence[FeatureExtractor],
                         request: EvaluationRequest) -> None:
    """Write mean and covariance of the first judge's features of a set to a file (.npz)."""
    if file.suffix.lower() != ".npz" or not judges:
        raise RequestError(f"--save-statistics {file}: " + (
            "the metrics need no features" if not judges else "accepted: a file FILE.npz"))
    facts = set_facts(real, batch_size=request.batch_size, group=request.group)
    if facts.n < 2:
        raise RequestError("--save-statistics needs at least 2 images")
    warn = partial(print, file=sys.stderr)
    found = request_features(real, judges[0], request, "reals", facts, warn)
    if found is not None:
        write_statistics(file, found, facts, judges[0])


def _with_judge(name: str, judge: FeatureExtractor) -> str:
    """The name of a score with that of the judge."""
    suffix = slug(judge.name)
    return name if suffix in name else f"{name}_{suffix}"


def left_out_warnings(*sets: ImageSet | StoredStatistics) -> list[str]:
    """Which files hold images and are not evaluated."""
    sources = {each.source.root: each.source for each in sets if isinstance(each, ImageSet)}
    return [f"{root}: {note}" for root, source in sources.items() if (note := find_left_out(source).note())]


def _paired_scores(fake: ImageSet, real: ImageSet | StoredStatistics, specs: Sequence[Spec],
                   request: EvaluationRequest, warnings: list[str]) -> dict[str, Score]:
    if isinstance(real, StoredStatistics):
        raise RequestError(f"--metrics {specs[0].name} compares images of the same name, and {real.where} "
                           "holds none")
    metrics = {spec.name: build("paired_metric", spec, request.find_weights) for spec in specs}
    values: dict[str, list[float]] = {name: [] for name in metrics}
    pairs = paired_values(fake, real, metrics, batch_size=request.batch_size, group=request.group)
    for done, found in enumerate(pairs, 1):
        for spec in specs:
            value = found.get(spec.name)
            if spec.name in metrics and isinstance(value, str):
                _skip(spec, value, request, warnings)
                del metrics[spec.name], values[spec.name]
            elif spec.name in metrics and value is not None:
                values[spec.name].append(float(value))
        request.progress("pairs", done, len(fake))
    return {name: mean_score(each, BETTER.get(name, "")) for name, each in values.items() if each}


def _skip(spec: Spec, reason: str, request: EvaluationRequest, warnings: list[str]) -> None:
    """Leave out a metric: an error if the user named it, else a warning."""
    if request.explicit:
        raise RequestError(f"{spec.name}: {reason}")
    if (line := f"{spec.name} is left out: {reason}") not in warnings:      # For another judge.
        warnings.append(line)


def _copy_warnings(fake: SetFeatures, real: SetFeatures, seed: int) -> list[str]:
    exact, near = count_copies(fake, real, seed=seed)
    warnings = []
    if exact:
        warnings.append(f"{exact} of {len(fake)} fakes have exactly the pixels of a real: the sets overlap")
    if near > exact:
        warnings.append(f"{near} of {min(len(fake), 2000)} fakes lie nearer to a real than a tenth of the "
                        "distance between reals: copies?")
    return warnings


def make_stamp(fake: ImageSetFacts, real: ImageSetFacts, judges: Sequence[FeatureExtractor],
               metrics: Mapping[str, Any], seed: int, bootstrap: int) -> protocol.Stamp:
    """The stamp of values that depend on two sets, on feature networks and on the options of metrics."""
    name, weights, resize = (judges[0].name, judges[0].weights, judges[0].resize) if judges else ["none"] * 3
    return protocol.Stamp(name, weights, {judge.name: judge.weights for judge in judges[1:]}, resize,
                          protocol.QUANTIZATION, protocol.CHANNELS, fake.n, real.n, real.content,
                          tuple(real.formats), tuple(fake.formats), metrics, seed, bootstrap)
