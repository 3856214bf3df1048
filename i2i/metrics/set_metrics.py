"""Metrics of a set of images against a reference set; parameters after the `*` are part of the protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Annotated, NoReturn

import numpy as np
from typing_extensions import Doc

from i2i.images.format import Array
from i2i.metrics import diversity, frechet, inception_score, kid, precision_recall
from i2i.metrics.color import LabHistogram
from i2i.metrics.intervals import Statistics, margins, mean_interval, proportion_interval
from i2i.metrics.paired import MS_SSIM_MIN_SIZE
from i2i.registry import register

Neighbors = Annotated[int, Doc("Number of nearest neighbors in the ball around an image")]

@dataclass(frozen=True)
class Score:
    """The value of a metric with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None     # The metric's own standard deviation, over subsets or splits.
    better: str = ""                # lower, higher, or empty if neither is better by itself.
    note: str = ""                  # What else a reader has to know.

    def with_margin(self, margin: float | None, *, at_least: float = -np.inf) -> "Score":
        """This score with a symmetric interval, cut at the least possible value; none for None or 0."""
        if not margin or not np.isfinite(margin):
            return self
        return replace(self, low=max(self.value - margin, at_least), high=self.value + margin)


def mean_score(values: Sequence[float], better: str = "") -> Score:
    """The mean of per-image values with Student's t interval."""
    low, high = mean_interval(values)
    return Score(float(np.mean(values)), low, high, better=better)


@dataclass(frozen=True)
class SetFeatures:
    """What the metrics need of one set of images."""

    features: Array                 # (N, D)
    logits: Array | None            # (N, K), None if the network has none.
    colors: LabHistogram
    digests: Sequence[str]          # A hash of each image's pixels.
    read: Callable[[int], Array]    # Image i as (H, W, 3) uint8.

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def gaussian(self) -> frechet.Gaussian:
        """The fitted normal distribution."""
        return frechet.Gaussian.from_features(self.features)


class StoredFeatures(SetFeatures):
    """Of a set, the fitted normal distribution alone; ValueError for whatever else a metric asks for."""

    def __init__(self, gaussian: frechet.Gaussian, where: str) -> None:
        vars(self).update(gaussian=gaussian, where=where)

    def __len__(self) -> int:
        return self.gaussian.n

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError(f"it needs the images, and {self.where} holds the mean and covariance of their "
                         "features only")


def slug(features: str) -> str:
    """The name of a feature network within that of a score: efficientnet_lite0."""
    return "".join(c if c.isalnum() else "_" for c in features)


@dataclass(frozen=True)
class MetricContext:
    """The name of the features, the seed of random choices, and how often intervals have metrics computed."""

    features: str
    seed: int = 0
    rounds: int = 20

    def qualified(self, metric: str) -> str:
        """`fid` and `kid` with the FID Inception; others carry the network's name: fd_efficientnet_lite0."""
        if self.features == "inception":
            return {"fd": "fid", "fd_infinity": "fid_infinity"}.get(metric, metric)
        name = slug(self.features)
        return f"fd_{name}_infinity" if metric == "fd_infinity" else f"{metric}_{name}"

    def margins(self, statistics: Statistics, *sets: Array, overlapping: bool = False) -> dict[str, float]:
        """Half the widths of the 95 % intervals of statistics of these sets, by name."""
        return margins(statistics, *sets, seed=self.seed, rounds=self.rounds, overlapping=overlapping)


Scores = Mapping[str, Score]


@register("metric", "fd")
def fd(fake: SetFeatures, real: SetFeatures, context: MetricContext) -> Scores:
    """Fréchet distance of features; FID with the FID Inception.  Heusel et al. 2017."""
    distance = frechet.frechet_distance(fake.gaussian, real.gaussian)
    if isinstance(real, StoredFeatures):
        score = Score(max(0.0, distance), better="lower", note="no interval without the real images")
    else:
        score = frechet_score(fake.features, real.features, context, distance)
    return {context.qualified("fd"): score}


def frechet_score(fake: Array, real: Array, context: MetricContext, distance: float | None = None) -> Score:
    """The Fréchet distance of features (N, D) and (M, D), if it is not known, with its interval."""
    value = frechet.frechet_from_features(fake, real) if distance is None else distance
    margin = context.margins(lambda a, b: {"fd": frechet.frechet_from_features(a, b)}, fake, real).get("fd")
    return Score(max(0.0, value), better="lower").with_margin(margin, at_least=0)  # Rounding may leave -1e-7.


@register("metric", "fd_infinity")
def fd_infinity(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
                points: Annotated[int, Doc("Number of sample sizes the line is fitted to, 2 or more")] = 8,
                smallest: Annotated[float, Doc("Smallest sample size as a fraction of the images, "
                                               "between 0 and 1")] = 0.5) -> Scores:
    """Fréchet distance extrapolated to infinitely many generated images.  Chong and Forsyth 2020."""
    limit, curve = frechet.frechet_infinity(fake.features, real.gaussian, seed=context.seed, points=points,
                                            smallest=smallest)
    note = f"from {len(curve)} sizes, {curve[-1][0]:,} to {curve[0][0]:,} fakes"
    return {context.qualified("fd_infinity"): Score(limit, better="lower", note=note)}


@register("metric", "kid")
def kernel_inception_distance(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
                              subsets: Annotated[int, Doc("Number of random subsets")] = 100,
                              size: Annotated[int, Doc("Images per subset, 2 or more; at most the "
                                                       "size of the smaller set")] = 1000) -> Scores:
    """Unbiased kernel distance of features, mean and deviation over subsets.  Binkowski et al. 2018."""
    used = min(size, len(fake), len(real))
    value, spread = kid.kid(fake.features, real.features, subsets=subsets, size=used)
    note = "" if used == size else f"subsets of {used}, not {size:,}: the smaller set has no more"
    score = Score(value, spread=spread, better="lower", note=note)
    margin = context.margins(lambda a, b: {"kid": kid.mmd2(a, b)}, fake.features, real.features).get("kid")
    return {context.qualified("kid"): score.with_margin(margin)}


@register("metric", "is")
def inception(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
              splits: Annotated[int, Doc("Number of splits that are scored separately")] = 10,
              shuffle: Annotated[bool, Doc("Shuffle the images before they are split")] = True) -> Scores:
    """Inception Score of the fakes, mean and deviation over splits.  Salimans et al. 2016."""
    if fake.logits is None or context.features != "inception":
        raise ValueError("the Inception Score needs the logits of the FID Inception; --features inception")
    value, spread = inception_score.inception_score(fake.logits, splits=splits, shuffle=shuffle)
    # In splits of the same size, and therefore with the same bias.
    margin = context.margins(lambda logits: {"is": inception_score.inception_score(
        logits, splits=max(1, splits // 2), shuffle=False)[0]}, fake.logits).get("is")
    return {"is": Score(value, spread=spread, better="higher").with_margin(margin, at_least=1)}


def manifold_scores(fake: Array, real: Array, context: MetricContext, k: int,
                    names: Sequence[str]) -> dict[str, Score]:
    """Those of precision, recall, F1, density and coverage of features (N, D) and (M, D), with intervals."""
    statistics = partial(precision_recall.manifold_scores, k=k)
    values, n, m = statistics(fake, real), len(fake), len(real)
    scores = {name: Score(values[name], better="higher") for name in names}
    if context.rounds < 2:
        return scores
    widths = context.margins(statistics, fake, real)
    for name, images in {"precision": n, "recall": m, "coverage": m, "f1": n + m}.items():
        low, high = proportion_interval(values[name], images, widths.get(name, 0.0))
        if name == "f1" and not values["f1"]:       # Precision or recall is 0, and the other may be anything.
            high = precision_recall.f1(*(proportion_interval(values[other], size)[1]
                                         for other, size in (("precision", n), ("recall", m))))
        if name in scores:
            scores[name] = replace(scores[name], low=low, high=high)
    if "density" in scores:     # Its variance falls slowly where few images are the neighbors of many.
        width = context.margins(statistics, fake, real, overlapping=True).get("density")
        scores["density"] = scores["density"].with_margin(width, at_least=0)
    return scores


@register("metric", "precision_recall")
def precision_and_recall(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
                         k: Neighbors = 3) -> Scores:
    """Fraction of fakes among reals, of reals among fakes, and their F1.  Kynkäänniemi et al. 2019."""
    return manifold_scores(fake.features, real.features, context, k, ("precision", "recall", "f1"))


@register("metric", "density_coverage")
def density_and_coverage(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
                         k: Neighbors = 5) -> Scores:
    """As precision and recall, but robust to outliers.  Naeem et al. 2020."""
    return manifold_scores(fake.features, real.features, context, k, ("density", "coverage"))


@register("metric", "diversity")
def diversity_scores(fake: SetFeatures, real: SetFeatures, context: MetricContext, *,
                     pairs: Annotated[int, Doc("Random pairs whose features are compared")] = 10_000,
                     images: Annotated[int, Doc("Random pairs compared by MS-SSIM")] = 100) -> Scores:
    """Mean feature distance between fakes, its ratio to that of reals, MS-SSIM, fraction of duplicates."""
    fake_distance, real_distance = (diversity.pairwise_distance(each.features, pairs=pairs, seed=context.seed)
                                    for each in (fake, real))
    scores = {"pairwise_distance": Score(fake_distance, better="higher"),
              "duplicates": Score(diversity.duplicate_rate(fake.digests), better="lower")}
    if real_distance:
        scores["pairwise_distance_to_real"] = Score(fake_distance / real_distance,
                                                    note="1: as varied as the reals")
    if min(fake.read(0).shape[:2]) >= MS_SSIM_MIN_SIZE:
        try:
            between = diversity.ms_ssim_between(fake.read, len(fake), pairs=images, seed=context.seed)
        except ValueError:
            return scores       # The images differ in size.
        scores["ms_ssim_between_fakes"] = Score(between, note="1: all alike")
    return scores


@register("metric", "color")
def color_overlap(fake: SetFeatures, real: SetFeatures, context: MetricContext) -> Scores:
    """Intersection of the Lab histograms; 1 if colors are the same.  Isola et al. 2017, figure 7."""
    return {f"color_{channel}": Score(value, better="higher")
            for channel, value in fake.colors.intersection(real.colors).items()}


def count_copies(fake: SetFeatures, real: SetFeatures, *, seed: int,
                 max_images: int = 2000) -> tuple[int, int]:
    """How many fakes equal a real pixel by pixel, and how many of `max_images` random ones nearly do.

    Nearly: closer than a tenth of the median distance between the features of nearest reals.
    """
    pixels = set(real.digests)
    exact = sum(digest in pixels for digest in fake.digests)
    if len(real) < 3:
        return exact, 0
    generator = np.random.default_rng(seed)
    fakes, reals = (np.sort(generator.choice(len(each), min(len(each), max_images), replace=False))
                    for each in (fake, real))
    distance, _ = precision_recall.nearest_neighbors(fake.features[fakes], real.features)
    usual = float(np.median(precision_recall.neighbor_radii(real.features[reals], 1)))
    return exact, int((distance < usual / 10).sum())
