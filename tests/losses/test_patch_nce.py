"""PatchNCE: its formula, the recorded values of the reference implementation, and what it does with constants and half precision."""

import math

import numpy as np
import pytest
import torch

from i2i.losses.patch_nce import patch_nce
from i2i.nets.patch_projection import PatchProjection, draw_places, mirror_places, unit_length
from tests.conftest import REFERENCE

RECORDED = dict(np.load(REFERENCE / "cut" / "patch_nce.npz"))
SAMPLED = dict(np.load(REFERENCE / "cut" / "patch_sample.npz"))
LAYERS = range(3)


@pytest.mark.parametrize("negatives", ["image", "batch"])
def test_it_is_the_papers_formula(negatives: str) -> None:
    """Equation 3, every term written out."""
    g = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 3, 4, generator=g, dtype=torch.float64)
    losses = patch_nce(query, key, 0.5, negatives)
    for n in range(2):
        for p in range(3):
            rivals = [key[n, i] for i in range(3) if i != p] + ([key[1 - n, i] for i in range(3)] if negatives == "batch" else [])
            positive = math.exp(query[n, p] @ key[n, p] / 0.5)
            total = positive + sum(math.exp(query[n, p] @ rival / 0.5) for rival in rivals)
            assert losses[n, p].item() == pytest.approx(-math.log(positive / total), abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("layer", LAYERS)
def test_losses_and_gradients_are_those_of_the_reference_implementation(layer: int, dtype: torch.dtype, tolerance: float) -> None:
    suffix = "" if dtype is torch.float32 else "_float64"
    for every, negatives in enumerate(("image", "batch")):
        query, key = (torch.from_numpy(RECORDED[f"{name}{layer}"]).to(dtype).unflatten(0, (2, -1)) for name in "qk")
        query.requires_grad_()
        losses = patch_nce(query, key, 0.07, negatives)
        losses.mean().backward()
        np.testing.assert_allclose(losses.detach().flatten(), RECORDED[f"loss{layer}_allneg{every}{suffix}"], atol=tolerance)
        np.testing.assert_allclose(query.grad.flatten(0, 1), RECORDED[f"grad_q{layer}_allneg{every}{suffix}"], atol=tolerance)


@pytest.mark.parametrize("width", [24, 0])
def test_projected_patches_are_those_of_the_reference_implementation(width: int) -> None:
    F = PatchProjection([3, 16, 32], width)
    if width:
        state = torch.load(REFERENCE / "cut" / "patch_sample_netF.pth", weights_only=True)
        F.load_state_dict({f"heads.{key.removeprefix('mlp_')}": value for key, value in state.items()})
    features, places = ([torch.from_numpy(SAMPLED[f"{name}{i}"]) for i in LAYERS] for name in ("feat", "ids"))
    for i, out in enumerate(F(features, [index.long() for index in places])):
        np.testing.assert_allclose(out.detach().flatten(0, 1), SAMPLED[f"{'mlp_sample' if width else 'sample'}{i}"], atol=1e-6)


def test_keys_are_constants_and_vectors_of_zeros_have_finite_gradients() -> None:
    query, key = torch.randn(2, 1, 5, 4, requires_grad=True)
    patch_nce(query, key, 0.07).sum().backward()
    flat = torch.zeros(1, 3, requires_grad=True)
    unit_length(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()
    key = torch.randn(1, 5, 4, requires_grad=True)
    patch_nce(torch.randn(1, 5, 4, requires_grad=True), key, 0.07).sum().backward()
    assert key.grad is None


def test_under_autocast_similarities_are_in_single_precision() -> None:
    """At a temperature of 0.07 half precision would be off by 0.05."""
    query, key = (unit_length(torch.randn(1, 50, 32)) for _ in range(2))
    whole = patch_nce(query, key, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = patch_nce(query, key, 0.07)
        assert PatchProjection([4], 8)([torch.randn(1, 4, 3, 3)], [torch.arange(9)])[0].dtype == torch.float32
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, whole)


def test_places_are_drawn_once_each_and_all_if_there_are_few() -> None:
    many, few = draw_places([torch.empty(2, 1, 20, 30), torch.empty(2, 1, 3, 4)], 100)
    assert len(many) == len(set(many.tolist())) == 100
    assert many.max() < 600
    assert sorted(few.tolist()) == list(range(12))


def test_mirrored_places_show_the_same_pixels_of_mirrored_maps() -> None:
    features = [torch.randn(2, 3, 4, 5), torch.randn(2, 1, 3, 3)]
    places = draw_places(features, 7)
    F = PatchProjection([3, 1], 0)
    for mirrored in (True, False):
        seen = [x.flip(-1) if mirrored else x for x in features]
        for ours, plain in zip(F(seen, mirror_places(seen, places, torch.tensor(mirrored))), F(features, places), strict=True):
            assert torch.equal(ours, plain)
