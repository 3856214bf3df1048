"""Recall, and the interval of a gain that is paired by seed and test image."""

import numpy as np
import pytest
from scipy import stats

from i2i.metrics.classification import class_recall, paired_gain

LABELS = np.repeat([0, 1, 2, 3], 30)


def answers(draw: np.random.Generator, shift: float, hardness: np.ndarray, seeds: int = 5) -> np.ndarray:
    """Right and wrong answers of trainings: images differ in hardness, for all and for these, and seeds in luck."""
    luck, own = draw.normal(0, 0.3, (seeds, 1)), draw.normal(0, 0.5, len(hardness))
    return hardness + shift + luck + own + draw.normal(0, 0.5, (seeds, len(hardness))) > -0.8


def test_recall_is_the_share_of_each_class() -> None:
    correct = np.array([[True, False, True, True], [False, False, True, False]])
    assert class_recall(correct, np.array([0, 0, 1, 1])).tolist() == [[0.5, 1.0], [0.0, 0.5]]


def test_the_interval_holds_no_difference_in_95_of_100_cases() -> None:
    draw, held = np.random.default_rng(0), 0
    for _ in range(400):
        hardness = draw.normal(0, 1, len(LABELS))
        low, high = paired_gain(answers(draw, 0, hardness), answers(draw, 0, hardness), LABELS).interval()
        held += low <= 0 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_with_two_classes_of_one_seed_effect_it_is_students_t_of_the_seeds() -> None:
    """Where all images of a seed change alike, only seeds vary."""
    labels = np.repeat([0, 1], 10)
    ours, theirs = np.repeat([[1], [1], [1], [0]], 20, 1), np.zeros((4, 20))
    gain = paired_gain(ours, theirs, labels)
    assert gain.value == 0.75
    assert gain.interval() == pytest.approx(stats.t.interval(0.95, 3, 0.75, 0.25))


def test_of_equal_answers_the_gain_is_zero_without_doubt() -> None:
    same = np.ones((3, 20), bool)
    assert paired_gain(same, same, np.repeat([0, 1], 10)).interval() == (0, 0)


def test_classes_weigh_the_same_and_more_comparisons_widen_it() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    ours = np.tile(labels == 1, (3, 1))
    assert paired_gain(ours, np.zeros((3, 100)), labels).value == 0.5
    draw = np.random.default_rng(1)
    hardness = draw.normal(0, 1, len(LABELS))
    gain = paired_gain(answers(draw, 0.5, hardness), answers(draw, 0, hardness), LABELS)
    (low, high), (wider_low, wider_high) = gain.interval(), gain.interval(5)
    assert wider_low < low < gain.value < high < wider_high


def test_what_is_needed_grows_with_the_square_of_a_smaller_difference_and_is_enough() -> None:
    draw = np.random.default_rng(2)
    hardness = draw.normal(0, 1, len(LABELS))
    gain = paired_gain(answers(draw, 0, hardness), answers(draw, 0, hardness), LABELS)
    seeds, images = gain.needed(0.01)
    finer_seeds, finer_images = gain.needed(0.005)
    assert images > len(LABELS)
    assert 3.5 < finer_images / images < 4.5
    assert 3.5 < finer_seeds / seeds < 4.5
    assert gain.needed(0.9) == (5, len(LABELS))
    of_seeds, of_images = max(0, gain.by_seed - gain.by_both), max(0, gain.by_image - gain.by_both)
    share_s, share_n = gain.seeds / seeds, len(LABELS) / images
    variance = of_seeds * share_s + of_images * share_n + gain.by_both * share_s * share_n
    assert 2.8 * variance**0.5 == pytest.approx(0.01, rel=0.02)
