"""Memorization measures against recorded numbers of fld and dgm-eval (tests/reference/leaks), and on what is known."""

import json

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from i2i.metrics import memorization
from i2i.metrics.detection import auroc
from i2i.metrics.precision_recall import nearest_neighbors
from tests.conftest import REFERENCE

EXPECTED = json.loads((REFERENCE / "leaks/expected.json").read_text())
ARRAYS = np.load(REFERENCE / "leaks/features.npz")
cases = pytest.mark.parametrize("case", EXPECTED)


def sets(case: str) -> list[np.ndarray]:
    return [ARRAYS[f"{case}_{name}"].astype(float) for name in ("train", "test", "gen")]


@cases
def test_authenticity_is_that_of_dgm_eval(case: str) -> None:
    train, _, fake = sets(case)
    found = memorization.authentic(*nearest_neighbors(fake, train), train)
    assert 100 * found.mean() == pytest.approx(EXPECTED[case]["authpct_own_float64"], abs=1e-9)


@cases
def test_the_copying_score_is_that_of_dgm_eval_in_the_same_cells(case: str) -> None:
    train, held_out, fake = sets(case)
    train_cells, held_out_cells, fake_cells = (ARRAYS[f"{case}_cell_{name}"] for name in ("train", "test", "gen"))
    distances = [memorization.nearest_in_cells(x, cells, train, train_cells)
                 for x, cells in ((fake, fake_cells), (held_out, held_out_cells))]
    score, deviation = memorization.copying_score(*distances, fake_cells, held_out_cells)
    assert score == pytest.approx(EXPECTED[case]["ct"], abs=1e-9)
    assert 1 / 3**0.5 - 1e-12 < deviation < 1
    whole = memorization.mann_whitney_z(*(nearest_neighbors(x, train)[0] for x in (fake, held_out)))
    assert whole == pytest.approx(EXPECTED[case]["zu_global"], abs=1e-9)


@cases
def test_likelihoods_are_those_of_fld_with_exact_distances(case: str) -> None:
    train, held_out, fake = sets(case)
    expected = EXPECTED[case]["fld_float64_exact_distances"]
    of_train, of_held_out = memorization.feature_likelihoods(train, held_out, fake)
    assert of_train.mean() == pytest.approx(expected["train_nll"], rel=1e-12)
    assert 100 * (of_train.mean() - of_held_out.mean()) == pytest.approx(expected["gap"], rel=1e-10)
    np.testing.assert_allclose(of_held_out, ARRAYS[f"{case}_test_nll_each_float64"], rtol=1e-10)


@cases
def test_the_fit_is_that_of_fld(case: str) -> None:
    train, held_out, fake = sets(case)
    mean, deviation = held_out.mean(0), held_out.std(0, ddof=1)
    train, fake = (train - mean) / deviation, (fake - mean) / deviation
    squared = np.c_[cdist(train, fake, "sqeuclidean"), 0.81 * cdist(train, train.mean(0)[None], "sqeuclidean")]
    log_variances, losses = memorization.fit_variances(squared, 16)
    assert len(losses) == EXPECTED[case]["own_numpy_float64"]["epochs"]
    assert log_variances[-1] == pytest.approx(EXPECTED[case]["fld_float64_exact_distances"]["origin_log_sigma"], abs=1e-10)
    np.testing.assert_allclose(log_variances[:-1], ARRAYS[f"{case}_log_sigmas_float64"], atol=1e-9)
    np.testing.assert_allclose(losses, ARRAYS[f"{case}_fit_losses_float64"], atol=1e-12)


def test_float32_features_and_features_without_variance_change_little() -> None:
    train, held_out, fake = sets("clean")
    exact = memorization.feature_likelihoods(train, held_out, fake)[1]
    dead = [np.c_[each, np.full(len(each), 7.0)].astype(np.float32) for each in (train, held_out, fake)]
    np.testing.assert_allclose(memorization.feature_likelihoods(*dead)[1], exact, atol=1e-4)


def test_nearness_to_fakes_tells_members_from_others() -> None:
    area, low, high = auroc(np.array([1., 2, 3, 6]), np.array([4., 5, 7]))
    assert area == pytest.approx(10 / 12)       # The pairs in which the training image is nearer.
    assert low < area < high
    assert auroc(np.ones(50), np.ones(50))[0] == 0.5
    assert auroc(np.zeros(50), np.ones(50))[1:] == pytest.approx((0.963, 1), abs=1e-3)


def test_the_interval_of_the_area_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = 0.7602          # P(x < y) of normal distributions one deviation apart.
    found = [auroc(rng.normal(0, 1, 80), rng.normal(1, 1, 60)) for _ in range(300)]
    assert 0.91 < np.mean([low <= truth <= high for _, low, high in found]) < 0.985


def test_cells_are_found_again() -> None:
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [9, 0], [0, 9]])
    rows = centers[np.arange(90) % 3] + rng.normal(0, 0.5, (90, 2))
    found = memorization.find_cells(rows, 3, seed=0)
    assert cdist(centers, found).min(1).max() < 0.5


@pytest.mark.parametrize(("rows", "message"), [(np.ones((9, 2)), "1 different training images"), (np.eye(2), "2 different")])
def test_too_few_images_make_no_cells(rows: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memorization.find_cells(rows, 3, seed=0)


def test_too_few_fakes_are_said_with_the_number_that_would_do() -> None:
    cells = np.arange(40) % 3
    with pytest.raises(ValueError, match="more than 20 fakes; 120 in all would do"):
        memorization.copying_score(np.ones(40), np.ones(40), cells, cells)


def test_distances_between_equal_rows_are_zero_and_a_row_can_be_left_out() -> None:
    x = np.random.default_rng(0).normal(100, 1, (1500, 64)).astype(np.float32)
    distance, index = nearest_neighbors(x, x)
    assert not distance.any()
    assert (index == np.arange(1500)).all()
    distance, index = nearest_neighbors(x[1400:], x, exclude=np.arange(1400, 1500))
    full = cdist(x[1400:].astype(float), x.astype(float))
    full[np.arange(100), np.arange(1400, 1500)] = np.inf
    np.testing.assert_allclose(distance, full.min(1), rtol=1e-12)
    assert (index == full.argmin(1)).all()
