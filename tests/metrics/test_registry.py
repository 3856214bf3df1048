"""What every registered metric must keep to."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from i2i.metrics import paired, set_metrics
from i2i.metrics.color import LabHistogram
from i2i.registry import Spec, build, lookup, names, schema

STEADY = {"is": {"splits": 1}}      # Options under which the order of images cannot matter.
LITE = [name for name in names("paired_metric") if name != "lpips"]      # Which has tests of its own, with weights.


def set_features(seed: int, order: np.ndarray | None = None, n: int = 30) -> set_metrics.SetFeatures:
    g = np.random.default_rng(seed)
    rows = np.arange(n) if order is None else order
    features, logits = g.standard_normal((n, 12)).astype(np.float32)[rows], 3 * g.standard_normal((n, 7)).astype(np.float32)[rows]
    images = g.integers(0, 256, (n, 20, 20, 3), dtype=np.uint8)[rows]
    colors = LabHistogram()
    for image in images:
        colors.add(LabHistogram.of_image(image))
    return set_metrics.SetFeatures(features, logits, colors, [str(i) for i in rows], images.__getitem__)


def scores(name: str, fake: set_metrics.SetFeatures, real: set_metrics.SetFeatures, rounds: int = 0, seed: int = 0) -> dict[str, set_metrics.Score]:
    return dict(build("metric", Spec(name, STEADY.get(name, {})), fake, real, set_metrics.MetricContext("inception", seed, rounds)))


@pytest.mark.parametrize("name", names("metric"))
def test_figures_are_finite_named_and_have_an_interval_around_them(name: str) -> None:
    found = scores(name, set_features(0), set_features(1), rounds=8)
    assert found
    for figure in found.values():
        assert math.isfinite(figure.value)
        assert figure.better in ("lower", "higher", "")
        if figure.low is not None:
            assert figure.low <= figure.value <= figure.high
    assert inspect.getdoc(lookup("metric", name))
    assert all(p.default is not inspect.Parameter.empty for p in schema("metric", name).values())


@pytest.mark.parametrize("name", [name for name in names("metric") if name != "fd_infinity"])      # It draws its subsets.
def test_the_order_of_images_does_not_matter(name: str) -> None:
    turned = np.random.default_rng(9).permutation(30)
    straight, shuffled = scores(name, set_features(0), set_features(1)), scores(name, set_features(0, turned), set_features(1, turned))
    for key, figure in straight.items():
        assert shuffled[key].value == pytest.approx(figure.value, rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("name", names("metric"))
def test_a_seed_decides_everything(name: str) -> None:
    assert scores(name, set_features(0), set_features(1), rounds=4, seed=3) == scores(name, set_features(0), set_features(1), rounds=4, seed=3)


def test_a_set_against_itself_is_never_below_zero() -> None:
    assert 0 <= scores("fd", set_features(0), set_features(0), rounds=4)["fid"].low <= scores("fd", set_features(0), set_features(0))["fid"].value < 1e-5


def test_no_two_metrics_give_the_same_name() -> None:
    every = [key for name in names("metric") for key in scores(name, set_features(0), set_features(1))] + names("paired_metric")
    assert len(every) == len(set(every))
    assert {"fid", "fid_infinity", "kid", "is"} <= set(every)
    other = set_metrics.MetricContext("timm:resnet10t", 0, 0)
    assert [other.qualified(short) for short in ("fd", "fd_infinity", "kid")] == ["fd_timm_resnet10t", "fd_timm_resnet10t_infinity", "kid_timm_resnet10t"]


@pytest.mark.parametrize("name", LITE)
def test_pair_metrics_are_best_for_the_same_image_and_keep_images_apart(name: str) -> None:
    metric = build("paired_metric", Spec(name), None)
    torch.manual_seed(0)
    a, b = torch.randint(0, 256, (2, 3, 3, 176, 180)).float()
    same, other = metric(a, a), metric(a, b)
    assert same.shape == other.shape == (3,)
    assert ((same < other) if paired.BETTER[name] == "lower" else (same > other)).all()
    assert torch.allclose(other, torch.cat([metric(a[i:i + 1], b[i:i + 1]) for i in range(3)]))
    assert torch.allclose(metric(b, a), other)
