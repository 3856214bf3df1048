"""The Fréchet distance: closed forms, other people's numbers, and what must not matter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2i.metrics import frechet
from i2i.metrics.frechet import (
    Gaussian,
    frechet_distance,
    frechet_from_features,
    frechet_infinity,
)
from tests.metrics.reference import REFERENCE

SETS = np.load(REFERENCE / "metrics" / "features.npz")
EXPECTED = json.loads((REFERENCE / "metrics" / "expected.json").read_text())


def covariance(gaussian: Gaussian) -> np.ndarray:
    return gaussian.root.T @ gaussian.root


def whitened(n: int, d: int, seed: int) -> np.ndarray:
    """Rows whose mean is exactly 0 and covariance exactly I, or a projection of rank n - 1."""
    x = np.random.default_rng(seed).standard_normal((n, d))
    x -= x.mean(0)
    u, _, v = np.linalg.svd(x, full_matrices=False)
    rank = min(n - 1, d)
    return u[:, :rank] @ v[:rank] * np.sqrt(n - 1)


def test_pytorch_fid_and_torch_fidelity_agree() -> None:
    want = EXPECTED["fid"]["pytorch_fid"]
    assert frechet_from_features(SETS["fake"], SETS["real"]) == pytest.approx(want, rel=1e-6)


def test_fewer_samples_than_dimensions() -> None:
    fake, real = SETS["lowrank_fake"], SETS["lowrank_real"]
    assert frechet_from_features(fake, real) == pytest.approx(EXPECTED["fid_lowrank"]["pytorch_fid"], abs=1e-3)
    assert frechet_from_features(fake, real) == pytest.approx(EXPECTED["fid_lowrank"]["exact_nuclear_norm_formula"], rel=1e-9)


@pytest.mark.parametrize("name", ["real", "lowrank_real"])
def test_a_set_is_at_no_distance_from_itself(name: str) -> None:
    assert abs(frechet_from_features(SETS[name], SETS[name])) < 1e-8 * float(SETS[name].var(0).sum())


@pytest.mark.parametrize("n", [20, 200])        # Fewer and more rows than the 32 dimensions.
def test_gaussians_of_one_covariance_scaled_and_moved(n: int) -> None:
    """Dowson and Landau 1982: N(0, I) and N(m, s²I) are ‖m‖² + d(1 - s)² apart; a projection of rank r has r for d."""
    d, s = 32, 1.7
    x = whitened(n, d, 0)
    m = np.linspace(-1, 1, d)
    assert frechet_from_features(s * x + m, x) == pytest.approx(m @ m + min(n - 1, d) * (1 - s) ** 2, rel=1e-9)


def test_commuting_covariances() -> None:
    x, y = whitened(300, 8, 1), whitened(400, 8, 2)
    a, b = np.linspace(0.1, 2, 8), np.linspace(3, 0.5, 8)
    assert frechet_from_features(x * a, y * b) == pytest.approx(((a - b) ** 2).sum(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 40), m=st.integers(2, 40), d=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_it_is_a_metric_whatever_the_sizes(n: int, m: int, d: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    x, y = g.standard_normal((n, d)), g.standard_normal((m, d)) * 2 + 1
    there, back = frechet_from_features(x, y), frechet_from_features(y, x)
    turn = np.linalg.qr(g.standard_normal((d, d)))[0]
    assert there >= -1e-9
    assert there == pytest.approx(back, rel=1e-7, abs=1e-7)
    assert frechet_from_features(x @ turn, y @ turn) == pytest.approx(there, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("block", [1, 7, 650, 4096])
def test_moments_are_those_of_numpy_whatever_the_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "BLOCK", block)
    x = SETS["real"].astype(np.float32) + 1000         # Far from zero, where sums of squares would lose digits.
    fitted, want = Gaussian.from_features(x), np.cov(x.astype(np.float64), rowvar=False)
    assert fitted.n == 1500
    assert fitted.trace == pytest.approx(np.trace(want), rel=1e-9)
    assert np.allclose(covariance(fitted), want, rtol=1e-9, atol=1e-12)
    assert np.allclose(fitted.mean, x.astype(np.float64).mean(0), rtol=1e-12)


def test_a_singular_covariance_of_many_rows() -> None:
    """Streamed rows that span few dimensions: Cholesky fails, eigenvalues serve."""
    x = SETS["real"][:, :5] @ np.random.default_rng(2).standard_normal((5, 40))
    want = np.cov(x, rowvar=False)
    assert np.allclose(covariance(Gaussian.from_features(x)), want, atol=1e-9 * np.abs(want).max())


def test_sides_of_different_rank_meet() -> None:
    few, many = SETS["real"][:30], SETS["real"]         # 30 rows of 64 numbers against a full-rank factor.
    a, b = Gaussian.from_features(few), Gaussian.from_features(many)
    product = np.cov(few.astype(float), rowvar=False) @ np.cov(many.astype(float), rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(product).real.clip(0)).sum()
    step = few.astype(float).mean(0) - many.astype(float).mean(0)
    assert frechet_distance(a, b) == pytest.approx(step @ step + a.trace + b.trace - 2 * roots, rel=1e-6)


def test_infinity_removes_the_bias_of_few_samples() -> None:
    """Distance of 1,000 samples of N(0, I) to N(0, I) itself, 64-dimensional: 0 but for the bias, which the line takes away."""
    g = np.random.default_rng(3)
    real = Gaussian(10**9, np.zeros(64), 64.0, np.eye(64))
    fake = g.standard_normal((2000, 64))
    plain = frechet_distance(Gaussian.from_features(fake), real)
    limit, curve = frechet_infinity(fake, real, seed=0)
    assert 0.5 < plain < 2
    assert abs(limit) < 0.15 * plain
    assert (curve[0][0], curve[-1][0]) == (2000, 1000)
    assert curve[0][1] == pytest.approx(plain)


@pytest.mark.parametrize("rows", [0, 1])
def test_one_image_has_no_covariance(rows: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 images, these are {rows}"):
        frechet_from_features(SETS["fake"][:rows], SETS["real"])


def test_not_a_number_is_refused() -> None:
    bad = SETS["fake"].copy()
    bad[7, 3] = np.nan
    for rows in (20, 1200):     # Held whole, and streamed.
        with pytest.raises(ValueError, match="1 feature vectors are not finite"):
            frechet_from_features(bad[:rows], SETS["real"])
