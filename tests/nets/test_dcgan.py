"""DCGAN: supported sizes, layers, and the ways a label enters."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.nets import norms
from i2i.nets.base_resolution import base_resolution
from i2i.nets.class_conditioning import ClassEmbedding, ClassProjection, ConditionalNorm, LabelChannel
from i2i.registry import Spec, build


@pytest.mark.parametrize(("size", "smallest", "count"), [
    ((28, 28), (7, 7), 2), ((32, 32), (4, 4), 3), ((64, 64), (4, 4), 4), ((512, 512), (4, 4), 7), ((32, 64), (4, 8), 3), ((48, 96), (6, 12), 3), ((8, 8), (4, 4), 1)])
def test_each_supported_size_has_one_base_resolution(size: tuple[int, int], smallest: tuple[int, int], count: int) -> None:
    assert base_resolution(size, "dcgan") == (smallest, count)


@pytest.mark.parametrize(("size", "nearest"), [((100, 100), "96x96 and 112x112"), ((50, 60), "48x64 and 56x64"), ((33, 64), "32x64 and 40x64"), ((4, 4), "8x8 "), ((66, 64), "64x64 ")])
def test_other_sizes_are_refused_with_the_nearest_supported_ones(size: tuple[int, int], nearest: str) -> None:
    for kind in ("noise_generator", "discriminator"):
        for name in ("dcgan", "sagan", "progressive"):
            with pytest.raises(RequestError, match=f"{name} does not support {size[0]}x{size[1]} images; the nearest supported sizes: {nearest}"):
                build(kind, Spec(name), 3, size, 0)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.integers(1, 300))
def test_every_proposed_size_is_supported(height: int, width: int) -> None:
    try:
        smallest, count = base_resolution((height, width), "dcgan")
        assert tuple(side << count for side in smallest) == (height, width)
    except RequestError as error:
        proposed = str(error).split("sizes: ")[1].split(" (")[0].split(" and ")
        for size in proposed:
            base_resolution(tuple(map(int, size.split("x"))), "dcgan")


def test_at_64_pixels_the_networks_are_the_widely_used_ones() -> None:
    G, D = build("noise_generator", Spec("dcgan"), 3, (64, 64), 0), build("discriminator", Spec("dcgan"), 3, (64, 64), 0)
    # Known from the widely used PyTorch implementation, which has no biases; here the layers without a norm have them: 3; 64 and 1.
    assert sum(p.numel() for p in G.parameters()) == 3_576_704 + 3
    assert sum(p.numel() for p in D.parameters()) == 2_765_568 + 64 + 1
    assert not any(isinstance(module, nn.Linear) for network in (G, D) for module in network.modules())
    with torch.no_grad():
        assert G(torch.randn(1, 100)).abs().max() <= 1


@pytest.mark.parametrize("up", ["transposed", "resize"])
def test_both_upsamplings_reach_the_size_of_the_image(up: str) -> None:
    assert build("noise_generator", Spec("dcgan", {"width": 4, "up": up}), 3, (32, 32), 0)(torch.randn(2, 100)).shape == (2, 3, 32, 32)


def test_the_discriminator_can_do_without_batch_norm() -> None:
    assert norms.uses_batch_statistics(build("discriminator", Spec("dcgan", {"width": 4}), 3, (32, 32), 0))
    for norm in ("none", "instance"):
        assert not norms.uses_batch_statistics(build("discriminator", Spec("dcgan", {"width": 4, "norm": norm}), 3, (32, 32), 0))
    assert norms.uses_batch_statistics(build("noise_generator", Spec("dcgan", {"width": 4, "condition": "batchnorm"}), 3, (32, 32), 3))


@pytest.mark.parametrize("name", ["batch", "instance"])
def test_a_conditional_norm_has_gain_and_bias_for_each_class(name: str) -> None:
    layer = ConditionalNorm(name, 4, 3)
    nn.init.normal_(layer.gain.weight)
    nn.init.normal_(layer.bias.weight)
    x, c = torch.randn(5, 4, 6, 6) * 3 + 1, torch.tensor([0, 1, 2, 1, 0])
    plain = F.batch_norm(x, None, None, training=True) if name == "batch" else F.instance_norm(x)
    expected = torch.stack([layer.gain.weight[k][:, None, None] * image + layer.bias.weight[k][:, None, None] for image, k in zip(plain, c, strict=True)])
    torch.testing.assert_close(layer(x, c), expected)
    assert len(list(layer.parameters())) == 2


@pytest.mark.parametrize("condition", ["batchnorm", "concat"])
def test_spectral_norm_applies_to_the_projection_and_not_to_embeddings(condition: str) -> None:
    torch.manual_seed(0)
    G = build("noise_generator", Spec("sagan", {"width": 4, "condition": condition}), 3, (32, 32), 3)
    D = build("discriminator", Spec("sagan", {"width": 4}), 3, (32, 32), 3)
    before = [p.clone() for m in G.modules() if isinstance(m, ClassEmbedding) for p in m.parameters()]
    for network in (G, D):
        build("weight_norm", Spec("spectral"), network)
    x = G(torch.randn(2, G.z_dim), torch.tensor([0, 2]))
    D(x, torch.tensor([0, 2])).sum().backward()
    assert all(torch.equal(p, old) for p, old in zip((p for m in G.modules() if isinstance(m, ClassEmbedding) for p in m.parameters()), before, strict=True))
    assert before
    torch.testing.assert_close(torch.linalg.matrix_norm(D.projection.vectors.weight, 2), torch.ones(()), atol=0.05, rtol=0)
    assert all(p.grad is not None for p in G.parameters())


def test_conditioning_by_the_norms_is_refused_without_norms() -> None:
    with pytest.raises(RequestError, match=r"norm=none .* generator\.condition=concat"):
        build("noise_generator", Spec("dcgan", {"norm": "none", "condition": "batchnorm"}), 3, (32, 32), 3)


def test_projection_is_an_inner_product() -> None:
    layer = ClassProjection(3, 5)
    h, c = torch.randn(2, 5, 4, 4), torch.tensor([2, 0])
    vectors = layer.vectors.weight.t()
    torch.testing.assert_close(layer(h, c)[:, 0], torch.einsum("nchw,nc->nhw", h, vectors[c]))


def test_the_logit_of_a_patch_projects_the_features_that_it_sees() -> None:
    D = build("discriminator", Spec("patch", {"width": 4, "norm": "none"}), 3, (32, 32), 3)
    x = torch.randn(1, 3, 32, 32)
    a, b = D(x, torch.tensor([0])), D(x, torch.tensor([1]))
    h, v = D.layers[:-1](x), D.projection.vectors.weight
    window = F.pad(h, (1, 1, 1, 1))[:, :, 1:5, 1:5].sum((2, 3))[0]      # Of the logit at (1, 1).
    torch.testing.assert_close((a - b)[0, 0, 1, 1], window @ (v[:, 0] - v[:, 1]), atol=1e-5, rtol=1e-5)


def test_a_label_is_one_more_image_channel() -> None:
    layer = LabelChannel(3, (4, 6))
    out = layer(torch.tensor([1, 1, 2]))
    assert out.shape == (3, 1, 4, 6)
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[1], out[2])
