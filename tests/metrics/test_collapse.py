"""Measures of collapse against known answers."""

import math

import numpy as np
import pytest

from i2i.metrics import collapse


def cloud(n: int, d: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_distances_are_those_of_the_definition() -> None:
    x = cloud(5)
    every = [np.linalg.norm(x[i] - x[j]) for i in range(5) for j in range(i)]
    assert collapse.mean_distance(x) == pytest.approx(np.mean(every))
    assert collapse.mean_distance(x[:1]) == 0
    near = [min(np.linalg.norm(x[i] - x[j]) for j in range(5) if j != i) for i in range(5)]
    assert collapse.median_nearest_distance(x) == pytest.approx(np.median(near))


def test_near_duplicates_are_listed_nearest_first() -> None:
    x = np.array([[0.0], [10.0], [0.1], [10.05], [30.0]])
    pairs = collapse.near_duplicates(x, 1.0)
    assert pairs.tolist() == [[1, 3], [0, 2]]
    assert collapse.distinct_fraction(pairs, 5) == pytest.approx(1 / 5)
    assert collapse.distinct_fraction(collapse.near_duplicates(x, 0.01), 5) == 1


def test_rows_in_several_versions_are_as_near_as_any_version_of_one_to_the_other() -> None:
    x = np.random.default_rng(3).normal(size=(6, 5, 4))
    near = collapse.distance_table(x)
    for i in range(6):
        for j in range(6):
            expected = min(np.linalg.norm(one[v] - other[2]) for one, other in ((x[i], x[j]), (x[j], x[i])) for v in range(5)) if i != j else math.inf
            assert near[i, j] == pytest.approx(expected)
    assert np.array_equal(collapse.distance_table(x[:, 2:3]), collapse.distance_table(x[:, 2]))       # One version is none.


@pytest.mark.parametrize("support", [8, 40, 400])
def test_the_birthday_test_finds_the_support(support: int) -> None:
    """Its interval holds the true number in 93 to 97 of 100 draws, or more where a draw holds a handful of pairs."""
    g, n, num_inside, found = np.random.default_rng(support), 128, 0, []
    for _ in range(400):
        counts = np.bincount(g.integers(0, support, n))
        pairs = int((counts * (counts - 1) // 2).sum())
        middle, low, high = collapse.support_size(n, pairs)
        num_inside += low <= support <= high
        found.append(middle)
    assert num_inside / 400 > 0.92
    assert np.median(found) == pytest.approx(support, rel=0.08)
    assert collapse.support_size(128, 0)[0] == math.inf


def test_within_and_between_are_separated_without_bias() -> None:
    g = np.random.default_rng(0)
    centers = g.normal(size=(4, 32)) * 2
    true = math.sqrt(np.mean([np.sum((centers[i] - centers[j]) ** 2) for i in range(4) for j in range(i)]))
    labels = np.repeat(np.arange(4), 5)
    between = [collapse.class_spread(centers[labels] + g.normal(size=(20, 32)), labels)[1] ** 2 for _ in range(300)]
    assert np.mean(between) == pytest.approx(true**2, rel=0.03)            # Five pictures a class add 2 * 32 / 5 to the plain estimate.
    none = [collapse.class_spread(g.normal(size=(20, 32)), labels)[1] for _ in range(50)]
    assert np.mean(none) < 0.25 * true
    assert collapse.class_spread(cloud(4), np.array([0, 0, 1, 2])) is None      # Only one class has two.


def test_ratios_are_relative_to_real_images() -> None:
    labels = np.repeat(np.arange(4), 16)
    centers = cloud(4, 24, 9) * 3
    real, healthy = centers[labels] + cloud(64, 24, 1), centers[labels] + cloud(64, 24, 2)
    ratios = collapse.collapse_ratios(healthy, real, labels, labels)
    assert all(value == pytest.approx(1, abs=0.1) for value in ratios.values())
    intra = collapse.collapse_ratios(centers[labels] + 0.01 * cloud(64, 24, 3), real, labels, labels)
    assert intra["within"] < 0.05
    assert intra["between"] > 0.9
    assert intra["distinct"] == 0
    inter = collapse.collapse_ratios(cloud(64, 24, 4), real, labels, labels)
    assert inter["within"] > 0.9
    assert inter["between"] < 0.3
    assert inter["distinct"] == 1
    assert set(collapse.collapse_ratios(healthy, real)) == {"diversity", "distinct"}
    assert collapse.collapse_ratios(cloud(8), np.ones((8, 16))) == {"diversity": 1.0, "distinct": 1.0}        # Identical real images give no ratio.
