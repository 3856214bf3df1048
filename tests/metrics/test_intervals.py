"""95 % intervals: how often those of fresh sets hold the mean of the metric over such sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from i2i.metrics.color import LabHistogram
from i2i.metrics.intervals import margins, mean_interval, proportion_interval
from i2i.metrics.set_metrics import MetricContext, Score, SetFeatures, manifold_scores
from i2i.registry import Spec, build, names

DIM = 8
SPREAD_OPTIONS = {"kid": {"subsets": 1}}        # More of them change the value, not its interval, and take long.
WITHOUT_INTERVAL = {"fd_infinity", "diversity", "color"}
HEAD = np.random.default_rng(1).standard_normal((DIM, 10)) / DIM**0.5       # Features to logits.
CENTERS = 2 * np.random.default_rng(5).standard_normal((8, DIM))


def drawn(kind: str, n: int, seed: int) -> tuple[SetFeatures, SetFeatures]:
    """Fakes and reals that differ: moved and narrower, and without two of eight clusters."""
    g = np.random.default_rng([seed, n])
    fake, real = g.normal(0.3, 0.9, (n, DIM)), g.standard_normal((n, DIM))
    if kind == "clustered":
        fake, real = fake + CENTERS[g.integers(0, 6, n)], real + CENTERS[g.integers(0, 8, n)]
    made = [SetFeatures(features, features @ HEAD, LabHistogram(), [], lambda index: np.zeros(0)) for features in (fake, real)]
    return made[0], made[1]


def coverage(kind: str, n: int, repetitions: int, metrics: tuple[str, ...]) -> dict[str, float]:
    """The fraction of intervals, by score, that hold the mean of the score over all repetitions."""
    found: dict[str, list[Score]] = {}
    for seed in range(repetitions):
        fake, real = drawn(kind, n, seed)
        for metric in metrics:
            spec = Spec(metric, SPREAD_OPTIONS.get(metric, {}))
            for name, score in build("metric", spec, fake, real, MetricContext("inception", seed)).items():
                found.setdefault(name, []).append(score)
    means = {name: np.mean([score.value for score in scores]) for name, scores in found.items()}
    return {name: float(np.mean([score.low <= means[name] <= score.high for score in scores])) for name, scores in found.items()}   # type: ignore[operator]


METRICS = tuple(name for name in names("metric") if name not in WITHOUT_INTERVAL)
SCORES = {"fid", "kid", "is", "precision", "recall", "f1", "density", "coverage"}


@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
def test_intervals_of_all_set_metrics_hold_the_expected_value(kind: str) -> None:
    """Within the chance of 60 repetitions: of intervals that hold in 70 % of all sets, only 42 would."""
    found = coverage(kind, 100, 60, METRICS)
    assert found.keys() == SCORES
    assert all(held >= 52 / 60 for held in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("n", [150, 400, 1000])
@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
def test_intervals_are_95_percent_intervals(kind: str, n: int) -> None:
    """From 90 to 98 % within the chance of 200 repetitions."""
    found = coverage(kind, n, 200, METRICS)
    assert found.keys() == SCORES
    assert all(0.9 <= held <= 0.99 for held in found.values()), found


@pytest.mark.parametrize("n", [2, 5, 30])
def test_means_of_pairs_have_students_interval(n: int) -> None:
    g = np.random.default_rng(0)
    held = [low <= 3 <= high for low, high in (mean_interval(g.normal(3, 2, n).tolist()) for _ in range(4000))]     # type: ignore[operator]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (0, 150), (3, 20), (75, 150), (150, 150)])
def test_proportions_have_wilsons_interval(k: int, n: int) -> None:
    want = stats.binomtest(k, n).proportion_ci(method="wilson")
    assert proportion_interval(k / n, n) == pytest.approx((want.low, want.high), abs=1e-9)


def test_no_successes_leave_room_above_and_all_leave_room_below() -> None:
    g = np.random.default_rng(2)
    fake, real = g.standard_normal((60, DIM)) + 100, g.standard_normal((50, DIM))
    every = ("precision", "recall", "f1", "density", "coverage")
    apart = manifold_scores(fake, real, MetricContext("inception"), 3, every)
    for name, n in (("precision", 60), ("recall", 50), ("coverage", 50), ("f1", 50)):
        assert apart[name].value == apart[name].low == 0
        assert 1 / n < apart[name].high < 5 / n      # type: ignore[operator]
    assert (apart["density"].low, apart["density"].high) == (None, None)        # Nothing is known of its spread.
    same = manifold_scores(real, real, MetricContext("inception"), 3, every)
    for name in ("precision", "recall", "coverage"):
        assert same[name].value == 1
        assert same[name].low < 0.95 <= same[name].high == 1         # type: ignore[operator]


def test_a_margin_is_never_narrower_than_of_independent_images() -> None:
    low, high = proportion_interval(0.3, 100)
    assert proportion_interval(0.3, 100, 0.001) == (low, high)
    wider = proportion_interval(0.3, 100, 0.2)
    assert wider[0] < low < high < wider[1]
    assert wider[1] - wider[0] == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("limit", [5000, 200])
def test_margins_of_a_mean_are_those_of_theory(overlapping: bool, limit: int) -> None:
    """Also from parts of at most 200 of 800 rows."""
    g = np.random.default_rng(3)
    x, y = g.normal(0, 1, (800, 1)), g.normal(0, 2, (800, 1))
    found = margins(lambda a, b: {"difference": float(a.mean() - b.mean())}, x, y, seed=0, rounds=4000, limit=limit, overlapping=overlapping)
    assert found["difference"] == pytest.approx(1.96 * math.sqrt((x.var() + y.var()) / 800), rel=0.06)


def test_margins_where_there_are_none() -> None:
    def picky(rows: np.ndarray) -> dict[str, float]:
        if len(rows) < 10:
            raise ValueError("too few")
        return {"mean": float(rows.mean())}

    x = np.arange(30.0)[:, None]
    assert margins(picky, x, seed=0, rounds=20).keys() == {"mean"}
    assert margins(picky, x, seed=0, rounds=20) == margins(picky, x, seed=0, rounds=20) != margins(picky, x, seed=1, rounds=20)
    for rows, rounds in ((x, 0), (x, 1), (x[:19], 20), (x[:3], 20)):
        assert margins(picky, rows, seed=0, rounds=rounds) == {}
