"""Diversity and color."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2lab

from i2i.metrics.color import LabHistogram, to_lab
from i2i.metrics.diversity import duplicate_rate, ms_ssim_between, pairwise_distance, random_pairs
from tests.metrics.reference import picture


@pytest.mark.parametrize(("n", "count"), [(2, 1), (5, 10), (5, 4), (300, 500), (100_000, 50)])
def test_random_pairs_are_different_and_in_range(n: int, count: int) -> None:
    pairs = random_pairs(n, count, seed=1)
    assert len(pairs) == min(count, n * (n - 1) // 2)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.min() >= 0
    assert pairs.max() < n
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs)


def test_every_pair_can_be_drawn() -> None:
    seen = {tuple(pair) for seed in range(60) for pair in random_pairs(6, 3, seed).tolist()}
    assert len(seen) == 15


def test_pairwise_distance_by_the_double_loop() -> None:
    x = np.random.default_rng(0).standard_normal((40, 7))
    want = np.mean([np.linalg.norm(x[i] - x[j]) for i in range(40) for j in range(i)])
    assert pairwise_distance(x) == pytest.approx(want, rel=1e-12)
    assert pairwise_distance(x, pairs=400, seed=3) == pytest.approx(want, rel=0.05)
    assert pairwise_distance(np.ones((5, 3))) == 0
    with pytest.raises(ValueError, match="at least 2"):
        pairwise_distance(x[:1])


def test_ms_ssim_between_copies_is_one_and_falls_with_variety() -> None:
    cat, cup = picture("02_chelsea_256x256.png"), picture("03_coffee_256x256.png")
    assert ms_ssim_between([cat, cat, cat].__getitem__, 3) == pytest.approx(1)
    assert ms_ssim_between([cat, cup].__getitem__, 2) < 0.5
    with pytest.raises(ValueError, match="different sizes"):
        ms_ssim_between([cat, cup[:200]].__getitem__, 2)


def test_duplicates() -> None:
    assert duplicate_rate(["a", "b", "c"]) == 0
    assert duplicate_rate(["a", "b", "a", "c"]) == 0.5
    assert duplicate_rate(["a"] * 4) == 1


def test_lab_is_scikit_images() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    assert np.abs(to_lab(rgb) - rgb2lab(rgb)).max() < 1e-3
    corners = to_lab(np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], np.uint8))
    assert corners.min() > -110
    assert corners.max() < 101


def histogram(*images: np.ndarray) -> LabHistogram:
    out = LabHistogram()
    for image in images:
        out.add(LabHistogram.of_image(image))
    return out


def test_intersection_of_histograms() -> None:
    cat, cup = picture("02_chelsea_256x256.png"), picture("03_coffee_256x256.png")
    assert histogram(cat).intersection(histogram(cat)) == pytest.approx({"L": 1, "a": 1, "b": 1})
    assert histogram(cat).intersection(histogram(cat[::2, ::2])) == pytest.approx({"L": 1, "a": 1, "b": 1}, abs=0.1)
    assert histogram(cat, cup).intersection(histogram(cup, cat)) == pytest.approx({"L": 1, "a": 1, "b": 1})
    gray = np.repeat(cat.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    drift = histogram(gray).intersection(histogram(cat))
    assert drift["L"] > 0.8
    assert drift["b"] < 0.1
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((9, 9, 3), 255, np.uint8)
    assert histogram(black).intersection(histogram(white)) == pytest.approx({"L": 0, "a": 1, "b": 1}, abs=1e-9)
    assert histogram(black, white).intersection(histogram(white))["L"] == pytest.approx(0.5)       # Images weigh the same.
    with pytest.raises(ValueError, match="no images"):
        histogram().intersection(histogram(cat))
