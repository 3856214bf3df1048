"""Evaluate a set of images against a reference set, and pairs of images of the same name."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from i2i.data.image_set import ImageSet, ImageSetFacts
from i2i.data.sources import find_left_out
from i2i.errors import RequestError
from i2i.evaluation import protocol
from i2i.evaluation.feature_extraction import cached_features, extract_features, paired_values, set_facts
from i2i.evaluation.request import EvaluationRequest, metric_kind
from i2i.files import temporary_folder
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.paired import BETTER
from i2i.metrics.set_metrics import MetricContext, Score, SetFeatures, count_copies, mean_score
from i2i.registry import Spec, build


def evaluate_sets(fake: ImageSet, real: ImageSet, extractor: FeatureExtractor | None,
                  request: EvaluationRequest, *, original: ImageSetFacts | None = None) -> dict[str, Any]:
    """Compute all requested metrics of two sets of images.

    Args:
        fake, real: the generated images and the reference set.
        extractor: the feature network, if a metric needs one.
        original: facts of the files that `real` are decoded copies of, for the stamp.

    Returns:
        Scores, stamp, facts of the fakes, versions and warnings as JSON data; {} except in the main process.
    """
    batches: Any = {"batch_size": request.batch_size, "group": request.group}
    fake_facts, real_facts = set_facts(fake, **batches), set_facts(real, **batches)
    if original is not None:
        real_facts = replace(real_facts, formats=original.formats, content=original.content,
                             colors=original.colors)
    set_specs = [spec for spec in request.metrics if metric_kind(spec.name) == "metric"]
    paired_specs = [spec for spec in request.metrics if spec not in set_specs]
    warnings = protocol.warnings(fake_facts, real_facts, {spec.name for spec in set_specs})
    scores: dict[str, Score] = {}
    if paired_specs:
        scores |= _paired_scores(fake, real, paired_specs, request, warnings)
    if set_specs:
        assert extractor is not None
        for name, facts in (("fakes", fake_facts), ("reals", real_facts)):
            if facts.n < 2:
                raise RequestError(f"there is one image among the {name}; metrics of sets need at least 2")
        with temporary_folder() as folder:
            fakes = extract_features(fake, extractor, folder / "fakes", **batches,
                                     progress=lambda done: request.progress("fakes", done, len(fake)))
            extract = partial(cached_features, facts=real_facts, warn=warnings.append) \
                if request.cache else extract_features
            reals = extract(real, extractor, folder / "reals", **batches,
                            progress=lambda done: request.progress("reals", done, len(real)))
            if fakes and reals:
                context = MetricContext(extractor.name, request.seed, request.bootstrap)
                for spec in set_specs:
                    try:
                        scores |= build("metric", spec, fakes, reals, context)
                    except ValueError as error:
                        _skip(spec, str(error), request, warnings)
                warnings += _copy_warnings(fakes, reals, request.seed)
    if request.group.rank:
        return {}
    if not scores:
        raise RequestError("none of the metrics could be computed: " + "; ".join(warnings))
    warnings += protocol.color_warnings(fake_facts, real_facts) + left_out_warnings(fake, real)
    stamp = _stamp(fake_facts, real_facts, extractor if set_specs else None, request)
    return protocol.result(scores, stamp, fake_facts, warnings)


def left_out_warnings(*sets: ImageSet) -> list[str]:
    """Which files hold images and are not evaluated."""
    return [f"{each.source.root}: {note}" for each in sets if (note := find_left_out(each.source).note())]


def _paired_scores(fake: ImageSet, real: ImageSet, specs: Sequence[Spec], request: EvaluationRequest,
                   warnings: list[str]) -> dict[str, Score]:
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
    warnings.append(f"{spec.name} is left out: {reason}")


def _copy_warnings(fake: SetFeatures, real: SetFeatures, seed: int) -> list[str]:
    exact, near = count_copies(fake, real, seed=seed)
    warnings = []
    if exact:
        warnings.append(f"{exact} of {len(fake)} fakes have exactly the pixels of a real: the sets overlap")
    if near > exact:
        warnings.append(f"{near} of {min(len(fake), 2000)} fakes lie nearer to a real than a tenth of the "
                        "distance between reals: copies?")
    return warnings


def _stamp(fake: ImageSetFacts, real: ImageSetFacts, extractor: FeatureExtractor | None,
           request: EvaluationRequest) -> protocol.Stamp:
    options = {spec.name: dict(spec.options) for spec in request.metrics}
    if "kid" in options:
        options["kid"]["size"] = min(options["kid"]["size"], fake.n, real.n)
    network = {key: getattr(extractor, attribute, "none") for key, attribute in
               (("features", "name"), ("weights", "weights"), ("resize", "resize"))}
    return protocol.Stamp(**network, quantized=protocol.QUANTIZATION, channels=protocol.CHANNELS,
                          n_fake=fake.n, n_real=real.n, real=real.content,
                          real_formats=tuple(real.formats), fake_formats=tuple(fake.formats), metrics=options,
                          seed=request.seed, bootstrap=request.bootstrap)
