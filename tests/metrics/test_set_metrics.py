"""KID, Inception Score, precision and recall, density and coverage: other people's numbers and closed forms."""

from __future__ import annotations

import json

import numpy as np
import pytest

from i2i.metrics import inception_score as scores
from i2i.metrics import kid as kids
from i2i.metrics import precision_recall as balls
from tests.metrics.reference import REFERENCE

SETS = np.load(REFERENCE / "metrics" / "features.npz")
EXPECTED = json.loads((REFERENCE / "metrics" / "expected.json").read_text())
FAKE, REAL = SETS["fake"], SETS["real"]


def test_kid_is_torch_fidelitys() -> None:
    mean, std = kids.kid(FAKE, REAL)
    want = EXPECTED["kid"]["torch_fidelity_defaults_float64"]
    assert mean == pytest.approx(want["mean"], abs=1e-9)
    assert std == pytest.approx(want["std"], abs=1e-9)


def test_kid_of_whole_sets() -> None:
    assert kids.mmd2(FAKE, REAL[:1200]) == pytest.approx(EXPECTED["kid"]["torch_fidelity_full_equal_1200_float64"], abs=1e-9)
    assert kids.mmd2(FAKE, REAL) == pytest.approx(EXPECTED["kid"]["full_set_unbiased_formula_1500_vs_1200"], abs=1e-9)


def test_kid_is_unbiased_at_any_size_and_may_be_negative() -> None:
    g = np.random.default_rng(0)
    values = [kids.mmd2(g.standard_normal((10, 5)), g.standard_normal((10, 5))) for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0 < max(values)


def test_kid_by_the_double_sum() -> None:
    g = np.random.default_rng(1)
    x, y = g.standard_normal((6, 3)), g.standard_normal((4, 3))
    k = lambda a, b: (a @ b / 3 + 1) ** 3      # noqa: E731
    within = lambda z: np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])     # noqa: E731
    want = within(x) + within(y) - 2 * np.mean([[k(a, b) for b in y] for a in x])
    assert kids.mmd2(x, y) == pytest.approx(want, rel=1e-12)
    with pytest.raises(ValueError, match="at least 2 images of each set, these are 6 and 1"):
        kids.mmd2(x, y[:1])


def test_kid_refuses_subsets_larger_than_a_set() -> None:
    with pytest.raises(ValueError, match="subsets of 1000 cannot be drawn from 999 and 1500"):
        kids.kid(FAKE[:999], REAL)


@pytest.mark.parametrize(("n", "shuffle"), [(1000, False), (1000, True), (997, False), (997, True)])
def test_inception_score_is_torch_fidelitys(n: int, shuffle: bool) -> None:
    want = EXPECTED["inception_score"][f"n{n}_splits10_shuffle_{shuffle}"]
    mean, std = scores.inception_score(SETS["logits"][:n], shuffle=shuffle)
    assert mean == pytest.approx(want["mean"], abs=1e-6)
    assert std == pytest.approx(want["std"], abs=1e-6)


def test_inception_score_closed_forms() -> None:
    sure = 1e4 * np.eye(7)[np.arange(70) % 7]
    assert scores.inception_score(sure, splits=1) == pytest.approx((7, 0))       # Certain, and all seven classes equally often.
    assert scores.inception_score(np.zeros((70, 7)), splits=1)[0] == pytest.approx(1)
    assert scores.inception_score(SETS["logits"], splits=1)[0] == pytest.approx(EXPECTED["inception_score"]["n1000_splits1"]["mean"], abs=1e-6)
    with pytest.raises(ValueError, match="5 images cannot be cut into 10"):
        scores.inception_score(SETS["logits"][:5])


@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall_density_coverage_are_those_of_prdc(k: int) -> None:
    got = balls.manifold_scores(FAKE, REAL, k=k)
    for key, want in EXPECTED[f"prdc_k{k}"].items():
        assert got[key] == pytest.approx(want, abs=1e-9), key
    if k == 3:
        assert got["f1"] == pytest.approx(EXPECTED["precision_recall_k3_torch_fidelity"]["float64"]["f_score"], abs=1e-6)


def test_precision_of_reals_is_one_and_of_unrelated_images_zero() -> None:
    same = balls.manifold_scores(REAL[:300], REAL[:300], k=3)
    assert same["precision"] == same["recall"] == same["f1"] == same["coverage"] == 1
    far = balls.manifold_scores(REAL[:300] + 1000, REAL[:300], k=3)
    assert far == dict.fromkeys(far, 0)


def test_dropping_modes_costs_recall_and_not_precision() -> None:
    g = np.random.default_rng(2)
    centers = 50 * np.eye(4)
    real = (centers[:, None] + g.standard_normal((4, 50, 4))).reshape(200, 4)
    fake = centers[0] + g.standard_normal((200, 4))
    got = balls.manifold_scores(fake, real, k=3)
    assert got["precision"] > 0.8
    assert got["recall"] < 0.3
    assert got["coverage"] < 0.3
    swapped = balls.manifold_scores(real, fake, k=3)
    assert swapped["recall"] == pytest.approx(got["precision"])
    assert swapped["precision"] == pytest.approx(got["recall"])


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = balls.manifold_scores(FAKE[:90], REAL[:110], k=3)
    score = kids.mmd2(FAKE[:90], REAL[:110])
    monkeypatch.setattr(balls, "BLOCK", 7)
    monkeypatch.setattr(kids, "BLOCK", 7)
    assert balls.manifold_scores(FAKE[:90], REAL[:110], k=3) == whole
    assert kids.mmd2(FAKE[:90], REAL[:110]) == pytest.approx(score, rel=1e-12)
    distance, index = balls.nearest_neighbors(FAKE[:90], REAL[:110])
    all_distances = np.linalg.norm(FAKE[:90, None].astype(float) - REAL[None, :110].astype(float), axis=2)
    assert np.array_equal(index, all_distances.argmin(1))
    assert np.allclose(distance, all_distances.min(1))


def test_too_few_for_k() -> None:
    with pytest.raises(ValueError, match="k=3 neighbors cannot be found among 3"):
        balls.manifold_scores(FAKE[:3], REAL, k=3)
