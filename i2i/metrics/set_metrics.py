"""Metrics of a set of images against a set, by name.  What stands after the `*` can be set by a person and is
part of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2i.images.formats import Array
from i2i.metrics import diversity, frechet, inception_score, precision_recall
from i2i.metrics import kid as kernel_distance
from i2i.metrics.color import LabHistogram
from i2i.registry import register

Matrix = NDArray[Any]
Z = 1.959963984540054       # Standard errors on each side of a 95 % interval.


@dataclass(frozen=True)
class Figure:
    """One number.  `low` and `high` are its 95 % interval, `spread` what the metric itself calls its
    deviation."""

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    better: str = ""            # lower, higher, or nothing where neither is better by itself.
    note: str = ""

    def within(self, error: float | None, *, least: float | None = None, most: float | None = None) -> Figure:
        """The same with the normal interval of this standard error, cut to what the number can be."""
        if error is None or not np.isfinite(error):
            return self
        low, high = self.value - Z * error, self.value + Z * error
        return replace(self, low=low if least is None else max(low, least),
                       high=high if most is None else min(high, most))


@dataclass(frozen=True)
class ComparedSets:
    """One set as metrics see it: its features (rows may lie in a file), and its pictures by index, HW3
    uint8."""

    features: Matrix
    logits: Matrix | None
    moments: frechet.Moments
    colors: LabHistogram
    pixels: Sequence[str]       # A digest of each picture's pixels.
    read: Callable[[int], Array]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def side(self) -> frechet.FeatureSet:
        """For the Fréchet distance: from the streamed moments, or from the features where they are fewer than
        their dimensions."""
        few = len(self.features) <= self.features.shape[1]
        return frechet.FeatureSet.of_features(self.features) if few else frechet.FeatureSet.of_moments(self.moments)


@dataclass(frozen=True)
class Draw:
    """What random choices follow from, how many bootstrap rounds there are, and which features were taken."""

    features: str
    seed: int = 0
    rounds: int = 20

    def named(self, short: str) -> str:
        """fid and kid belong to the FID Inception alone; others say what they are: fd_efficientnet_lite0."""
        if self.features == "inception":
            return {"fd": "fid", "fd_infinity": "fid_infinity"}.get(short, short)
        plain = "".join(c if c.isalnum() else "_" for c in self.features)
        return f"fd_{plain}_infinity" if short == "fd_infinity" else f"{short}_{plain}"


Figures = Mapping[str, Figure]


@register("metric", "fd")
def fd(fake: ComparedSets, real: ComparedSets, draw: Draw) -> Figures:
    """Fréchet distance of features: FID where the features are the FID Inception's.  Heusel et al. 2017."""
    # Rounding may leave -1e-7 between equal sets.
    value = max(0.0, frechet.frechet_between(fake.side, real.side))
    error = frechet.standard_error(fake.features, real.features, seed=draw.seed,
                                   rounds=draw.rounds) if draw.rounds > 1 else None
    return {draw.named("fd"): Figure(value, better="lower").within(error, least=0)}


@register("metric", "fd_infinity")
def fd_infinity(fake: ComparedSets, real: ComparedSets, draw: Draw, *, points: int = 8,
                smallest: float = 0.5) -> Figures:
    """Fréchet distance extrapolated to infinitely many fakes.  Chong and Forsyth 2020."""
    limit, curve = frechet.frechet_infinity(fake.features, real.side, seed=draw.seed, points=points,
                                            smallest=smallest)
    note = f"from {len(curve)} sizes, {curve[-1][0]:,} to {curve[0][0]:,} fakes"
    return {draw.named("fd_infinity"): Figure(limit, better="lower", note=note)}


@register("metric", "kid")
def kid(fake: ComparedSets, real: ComparedSets, draw: Draw, *, subsets: int = 100,
        size: int = 1000) -> Figures:
    """Kernel distance of features: mean and deviation over subsets; unbiased, so it may be negative.
    Binkowski et al. 2018."""
    used = min(size, len(fake), len(real))
    value, spread = kernel_distance.kid(fake.features, real.features, subsets=subsets, size=used)
    error = kernel_distance.standard_error(fake.features, real.features, seed=draw.seed,
                                           rounds=draw.rounds) if draw.rounds > 1 else None
    note = "" if used == size else f"subsets of {used}, not {size:,}: the smaller set has no more"
    return {draw.named("kid"): Figure(value, spread=spread, better="lower", note=note).within(error)}


@register("metric", "is")
def inception(fake: ComparedSets, real: ComparedSets, draw: Draw, *, splits: int = 10,
              shuffle: bool = True) -> Figures:
    """Inception Score of the fakes: mean and deviation over splits.  Salimans et al. 2016."""
    if fake.logits is None or draw.features != "inception":
        raise ValueError("the Inception Score needs the logits of the FID Inception; --features inception")
    value, spread = inception_score.inception_score(fake.logits, splits=splits, shuffle=shuffle)
    rounds = inception_score.resampled(fake.logits, splits=splits, seed=draw.seed,
                                       rounds=draw.rounds) if draw.rounds > 1 else []
    return {"is": Figure(value, spread=spread, better="higher").within(_error(rounds), least=1)}


def _error(rounds: Sequence[float]) -> float | None:
    return float(np.std(rounds, ddof=1)) if len(rounds) > 1 else None


def _balls(fake: ComparedSets, real: ComparedSets, draw: Draw, k: int, names: Sequence[str]) -> Figures:
    found = precision_recall.neighborhood(fake.features, real.features, k=k)
    rounds = precision_recall.resampled(found, seed=draw.seed, rounds=draw.rounds) if draw.rounds > 1 else {}
    values = found.values()
    return {name: Figure(values[name], better="higher").within(_error(rounds.get(name, [])), least=0,
                                                               most=None if name == "density" else 1)
            for name in names}


@register("metric", "precision_recall")
def precision_and_recall(fake: ComparedSets, real: ComparedSets, draw: Draw, *, k: int = 3) -> Figures:
    """Share of fakes among the reals, share of reals among the fakes, and their F1.  Kynkäänniemi et al.
    2019."""
    return _balls(fake, real, draw, k, ("precision", "recall", "f1"))


@register("metric", "density_coverage")
def density_and_coverage(fake: ComparedSets, real: ComparedSets, draw: Draw, *, k: int = 5) -> Figures:
    """The same two questions, robust to outliers.  Naeem et al. 2020."""
    return _balls(fake, real, draw, k, ("density", "coverage"))


@register("metric", "diversity")
def variety(fake: ComparedSets, real: ComparedSets, draw: Draw, *, pairs: int = 10_000,
            images: int = 100) -> Figures:
    """How much fakes differ: mean distance of their features (and its ratio to that of reals), MS-SSIM
    between them, share of duplicates."""
    ours, theirs = (diversity.pairwise_distance(side.features, pairs=pairs, seed=draw.seed)
                    for side in (fake, real))
    out = {"pairwise_distance": Figure(ours, better="higher"),
           "duplicates": Figure(diversity.duplicate_rate(fake.pixels), better="lower")}
    if theirs:
        out["pairwise_distance_to_real"] = Figure(ours / theirs, note="1: as varied as the reals")
    if diversity.large_enough(fake.read(0)):
        try:
            between = diversity.ms_ssim_between(fake.read, len(fake), pairs=images, seed=draw.seed)
        except ValueError:
            return out          # Of different sizes: there is nothing to compare pixel by pixel.
        out["ms_ssim_between_fakes"] = Figure(between, note="1: all alike")
    return out


@register("metric", "color")
def color_overlap(fake: ComparedSets, real: ComparedSets, draw: Draw) -> Figures:
    """Intersection of the Lab histograms of both sets, 1 where colors are the same.  Isola et al. 2017,
    figure 7."""
    return {f"color_{name}": Figure(value, better="higher") for name,
            value in fake.colors.intersection(real.colors).items()}


def overlap(fake: ComparedSets, real: ComparedSets, *, seed: int, most: int = 2000) -> tuple[int, int]:
    """How many fakes have the pixels of a real, and how many of `most` random ones lie as near to a real as
    no two reals do.

    Near: within a tenth of the median distance between a real and its nearest other real.
    """
    same = set(real.pixels)
    exact = sum(pixels in same for pixels in fake.pixels)
    if len(real) < 3:
        return exact, 0
    draw = np.random.default_rng(seed)
    rows = [np.sort(draw.choice(len(side), min(len(side), most), replace=False)) for side in (fake, real)]
    distance, _ = precision_recall.nearest(fake.features[rows[0]], real.features)
    usual = float(np.median(precision_recall.radii(real.features[rows[1]], 1)))
    return exact, int((distance < usual / 10).sum())
