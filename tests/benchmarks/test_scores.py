"""Scores by closed forms; Student's t by its tables; the protocols' numbers."""

import math

import numpy as np
import pytest
import torch

from i2i.benchmarks.mixtures import grid, ring
from i2i.benchmarks.scores import mean_and_interval, nearest_modes, reverse_kl, score_counts

RING, GRID = ring(), grid()


@pytest.mark.parametrize("target", [RING, GRID], ids=["ring", "grid"])
def test_real_points_cover_all_modes(target: object) -> None:
    """Of a normal distribution in the plane 1 - exp(-9/2) = 98.9 % is within three standard deviations."""
    real = next(target.batches(3, 50_000))["b"]
    found, counts = target.score(real)
    assert found.modes == target.modes
    assert found.high_quality == pytest.approx(1 - math.exp(-4.5), abs=2e-3)
    assert found.reverse_kl < 1e-3
    assert sum(counts) == round(found.high_quality * 50_000)


def test_a_single_mode_has_the_largest_reverse_kl() -> None:
    samples = torch.tensor(RING.means[3], dtype=torch.float32).expand(2500, 2)[:, :, None, None]
    found, counts = RING.score(samples)
    assert (found.modes, found.high_quality) == (1, 1.0)
    assert found.reverse_kl == pytest.approx(math.log(8))
    assert counts == [0, 0, 0, 2500, 0, 0, 0, 0]


def test_samples_within_three_standard_deviations_are_of_high_quality() -> None:
    means = np.array([[0.0, 0.0], [2.0, 0.0]])
    points = np.array([[0.0, 0.149], [0.0, 0.151], [2.149, 0.0], [1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
    assert nearest_modes(points, means, 0.05).tolist() == [1, 1]
    assert nearest_modes(np.array([[0.106, 0.106], [0.107, 0.107]]), means, 0.05).tolist() == [1, 0]      # A circle, not a square.


def test_reverse_kl_of_known_histograms() -> None:
    assert reverse_kl(np.array([5, 5, 5, 5])) == 0
    assert reverse_kl(np.array([10, 10, 0, 0])) == pytest.approx(math.log(2))
    assert reverse_kl(np.array([3, 1, 0, 0])) == pytest.approx(0.75 * math.log(3) + 0.25 * math.log(1))
    assert reverse_kl(np.array([0, 0])) is None


def test_nan_samples_cover_no_mode() -> None:
    found, _ = RING.score(torch.full((10, 2, 1, 1), float("nan")))
    assert (found.modes, found.high_quality, found.reverse_kl) == (0, 0.0, None)
    assert score_counts(np.array([1, 2]), None).high_quality is None


def test_the_targets_are_the_papers() -> None:
    """Lin et al. 2018: radius 1 and 0.01; spacing 2 and 0.05."""
    assert np.allclose(np.linalg.norm(RING.means, axis=1), 1)
    distances = np.linalg.norm(RING.means - RING.means[0], axis=1)
    assert np.sort(distances)[1] == pytest.approx(2 * math.sin(math.pi / 8))
    assert (RING.modes, RING.std, GRID.modes, GRID.std) == (8, 0.01, 25, 0.05)
    assert sorted(set(GRID.means[:, 0])) == [-4, -2, 0, 2, 4]


def test_batches_are_a_function_of_the_seed() -> None:
    one, two, other = (next(GRID.batches(seed, 64))["b"] for seed in (1, 1, 2))
    assert one.shape == (64, 2, 1, 1)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("n", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042)])
def test_the_interval_follows_the_printed_table_of_student(n: int, t: float) -> None:
    values = np.arange(n + 1.0)
    assert mean_and_interval(values)[1] == pytest.approx(t * values.std(ddof=1) / math.sqrt(n + 1), rel=3e-4)


def test_interval() -> None:
    """Of 1, 2, 3: mean 2, standard error 1 / sqrt(3), two degrees of freedom."""
    mean, half = mean_and_interval([1, 2, 3])
    assert (mean, half) == (2, pytest.approx(4.303 / math.sqrt(3), abs=1e-3))
    assert mean_and_interval([8, 8, 8]) == (8, 0)
    assert mean_and_interval([5]) == (5, None)
