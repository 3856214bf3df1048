"""Copies of training images are found however they were changed, and other images are not taken for copies."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from i2i.metrics import copies
from i2i.metrics.copies import MAX_DIFFERENCE, CopyFinder, copy_threshold, thumbnail
from i2i.metrics.planted_faults import jpeg, noise

RNG = np.random.default_rng(0)


def shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
    return padded[2 - down:66 - down, 2 - right:66 - right]


def scenes(count: int) -> np.ndarray:
    """Smooth pictures of eight blots each."""
    y, x = np.mgrid[:64, :64]
    pictures = []
    for _ in range(count):
        picture = np.full((64, 64, 3), 230.0)
        for _ in range(8):
            cy, cx, width = RNG.uniform(5, 59), RNG.uniform(5, 59), RNG.uniform(3, 12)
            blot = np.exp(-((y - cy)**2 + (x - cx)**2) / (2 * width**2))[..., None]
            picture = picture * (1 - blot) + RNG.uniform(0, 255, 3) * blot
        pictures.append(picture.round().astype(np.uint8))
    return np.stack(pictures)


TRAIN, OTHERS = scenes(120), scenes(120)
FINDER = CopyFinder(TRAIN)
USUAL = np.array([match.distance for match in FINDER.find(OTHERS)])
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact": lambda image: image, "mirrored": lambda image: image[:, ::-1],
    "down and right": lambda image: shift(image, 2, 2), "up and left": lambda image: shift(image, -2, -2),
    "JPEG 50": lambda image: jpeg(image, 50, RNG), "noise": lambda image: noise(image, 4, RNG),
    "5 % darker": lambda image: (image * 0.95).round().astype(np.uint8),
    "25 % darker": lambda image: (image * 0.75).round().astype(np.uint8),
    "tinted": lambda image: (image * [1, 0.9, 0.8]).round().astype(np.uint8),
    "all of it": lambda image: jpeg(np.ascontiguousarray(shift(image, 1, -2)[:, ::-1] * 0.95).astype(np.uint8), 50, RNG)}


@pytest.mark.parametrize("change", CHANGES)
def test_every_planted_copy_is_found_and_hardly_any_other_image(change: str) -> None:
    threshold, share = copy_threshold(USUAL, MAX_DIFFERENCE)
    assert share <= 0.01
    assert sum(distance < threshold for distance in USUAL) <= 0.01 * len(USUAL)
    found = FINDER.find(np.stack([CHANGES[change](image) for image in TRAIN[:20]]))
    assert [match.index for match in found] == list(range(20))
    assert all(match.distance < threshold for match in found)


def test_a_copy_says_how_it_was_changed() -> None:
    image = TRAIN[3]
    images = [image, shift(image, 2, -1), np.ascontiguousarray(image[:, ::-1]), shift(image[:, ::-1], -1, 2)]
    assert [str(match) for match in FINDER.find(np.stack(images))] == [
        "in place", "shifted by -1, 2 of 64 pixels", "mirrored", "mirrored, shifted by 2, -1 of 64 pixels"]
    assert [match.distance for match in FINDER.find(np.stack(images))] == pytest.approx([0] * 4, abs=1e-9)


def test_one_small_part_that_differs_makes_another_image() -> None:
    image = TRAIN[3].copy()
    image[20:26, 20:26] = 255 - image[20:26, 20:26]
    assert FINDER.find(image[None])[0].distance > 30


def test_an_image_is_not_its_own_copy() -> None:
    assert all(match.distance > 1 and match.index != i
               for i, match in enumerate(FINDER.find(TRAIN[:20], exclude=np.arange(20))))


def test_matches_do_not_depend_on_how_many_spectra_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(3, 9)
    expected = FINDER.find(OTHERS[:6]), FINDER.find(TRAIN[rows], exclude=rows)
    monkeypatch.setattr(copies, "MAX_COMPARED", 2 * len(TRAIN))
    assert (FINDER.find(OTHERS[:6]), FINDER.find(TRAIN[rows], exclude=rows)) == expected


def test_faint_images_are_not_copies_of_the_faintest_training_image() -> None:
    faint = (128 + 0.05 * (OTHERS[:20].astype(float) - 128)).astype(np.uint8)
    finder = CopyFinder(np.concatenate([TRAIN[:20], (128 + 0.1 * (TRAIN[20:22].astype(float) - 128)).astype(np.uint8)]))
    assert min(match.distance for match in finder.find(faint)) == 255


def test_blank_images_and_few_training_images_do_no_harm() -> None:
    blank = np.full((1, 64, 64, 3), 255, np.uint8)
    assert CopyFinder(TRAIN[:1]).find(blank)[0].distance > 5
    assert CopyFinder(blank).find(blank)[0].distance == 0


def test_the_threshold_lets_one_in_a_hundred_pass() -> None:
    assert copy_threshold(np.arange(1, 100.0)) == (1.0, 0.01)
    assert copy_threshold(np.arange(1, 200.0)) == (2.0, 0.01)
    assert copy_threshold(np.arange(1, 20.0)) == (1.0, 0.05)
    assert copy_threshold(np.arange(1, 400.0), limit=1.5) == (1.5, 0.005)
    assert copy_threshold(np.arange(1, 400.0), limit=0.5) == (0.5, 0.0025)
    rng = np.random.default_rng(1)
    passed = [(rng.normal(size=500) < copy_threshold(rng.normal(size=300))[0]).mean() for _ in range(200)]
    assert np.mean(passed) == pytest.approx(3 / 301, abs=0.0015)


@pytest.mark.parametrize("size", [(64, 64), (200, 100), (100, 200), (32, 32), (65, 64)])
def test_thumbnails_show_the_middle_square(size: tuple[int, int]) -> None:
    width, height = size
    image = np.asarray(Image.fromarray(TRAIN[5]).resize((min(size),) * 2, Image.Resampling.BICUBIC))
    padded = np.pad(image, (((height - min(size)) // 2, (height - min(size) + 1) // 2),
                            ((width - min(size)) // 2, (width - min(size) + 1) // 2), (0, 0)))
    found = thumbnail(padded)
    assert found.shape == (64, 64, 3)
    assert FINDER.find(found[None])[0].index == 5
    assert FINDER.find(found[None])[0].distance < 12
