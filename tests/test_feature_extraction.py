"""From files to features: order, batches, memory."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from i2i.data.image_set import ImageSet, ImageSetFacts, pixel_digest
from i2i.data.sources import Unreadable
from i2i.errors import JobError
from i2i.evaluation.feature_extraction import _value, cache_key, extract_features
from i2i.metrics.feature_networks import FeatureExtractor

WIDTH = 256


class Made:
    """Pictures that exist only when they are read: number i is all of level i."""

    root = "made"
    max_pixels = 64

    def __init__(self, n: int) -> None:
        self.n = n

    def names(self) -> list[str]:
        return [f"{i:05}.png" for i in range(self.n)]

    def path_of(self, name: str) -> str:
        return f"made/{name}"

    def read(self, name: str) -> bytes:
        if name == "00099.png" and self.n == 100:
            raise Unreadable(name, "gone")
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (int(name[:5]) % 256, 0, 0)).save(buffer, "png")
        return buffer.getvalue()


def pictures(n: int) -> ImageSet:
    return ImageSet(Made(n), tuple(Made(n).names()))


def extractor() -> FeatureExtractor:
    """Features: the level of the picture, at WIDTH places."""
    def network(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level = x[:, :1, 0, 0] * 128 + 128
        return level + torch.arange(WIDTH), level.expand(-1, 5)

    return FeatureExtractor("levels", "0" * 64, "clean", 8, WIDTH, network)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_rows_follow_names_whatever_the_batch(batch: int) -> None:
    told: list[int] = []
    judged = extract_features(pictures(30), extractor(), batch_size=batch, progress=told.append)
    assert np.allclose(judged.features, np.arange(30)[:, None] + np.arange(WIDTH))
    assert np.allclose(judged.logits[:, 4], np.arange(30))
    assert judged.colors.n == 30
    assert judged.digests[7] == pixel_digest(judged.read(7))
    assert told[-1] == 30
    assert len(told) == -(-30 // batch)


def peak(n: int) -> int:
    some = pictures(n)
    tracemalloc.start()
    try:
        extract_features(some, extractor(), batch_size=16)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_by_the_features_alone() -> None:
    peak(40)
    few, many = peak(60), peak(1260)
    rows = 1200 * (WIDTH + 5) * 4
    assert many - few < 4 / 3 * rows        # Digests and names grow, too; pictures, or a second copy, would double it.


def facts_of(images: ImageSet) -> ImageSetFacts:
    return ImageSetFacts.of(images.headers(range(len(images))))


def test_a_picture_that_cannot_be_read_ends_the_job() -> None:
    with pytest.raises(JobError, match=r"made/00099\.png: gone"):
        extract_features(pictures(100), extractor())
    with pytest.raises(JobError, match=r"made/00099\.png: gone"):
        facts_of(pictures(100))


def test_a_metric_that_runs_out_of_memory_is_left_out_with_the_size() -> None:
    def greedy(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    a = torch.zeros(1, 3, 20, 30)
    assert _value(greedy, a, a, "x.png") == "x.png and its partner, 30x20 pixels, do not fit in memory"
    with pytest.raises(RuntimeError, match="something else"):
        _value(lambda a, b: (_ for _ in ()).throw(RuntimeError("something else")), a, a, "x.png")


def test_the_key_of_a_reference_is_all_that_decides_it() -> None:
    facts, other = facts_of(pictures(3)), facts_of(pictures(4))
    base = extractor()
    variants = [base, FeatureExtractor(**{**vars(base), "resize": "legacy-tf"}), FeatureExtractor(**{**vars(base), "weights": "1" * 64}),
                FeatureExtractor(**{**vars(base), "size": 9}), FeatureExtractor(**{**vars(base), "mean": (0.5,) * 3, "std": (0.5,) * 3})]
    keys = {cache_key(facts, each) for each in variants} | {cache_key(other, base)}
    assert len(keys) == 6
    assert cache_key(facts_of(pictures(3)), extractor()) == cache_key(facts, base)
