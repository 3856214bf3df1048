"""Self-attention, the residual networks around it, and the network Q of InfoGAN."""

import math

import pytest
import torch
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.nets.sagan import DownBlock, SelfAttention, UpBlock
from i2i.nets.trunk_discriminator import QHead
from i2i.registry import Spec, build


@torch.no_grad()
def test_attention_is_equations_1_to_3() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(16).double()
    layer.gamma.fill_(0.7)
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    for image, out in zip(x, layer(x), strict=True):
        places = image.flatten(1).t()               # N_places x C
        f, g, h = (places @ one.weight[:, :, 0, 0].t() + one.bias for one in (layer.f, layer.g, layer.h))
        assert f.shape == (15, 2)                   # C / 8
        for j in range(15):
            s = [math.exp(float(f[i] @ g[j])) for i in range(15)]
            mixed = sum(s[i] / sum(s) * h[i] for i in range(15))
            o = layer.v.weight[:, :, 0, 0] @ mixed + layer.v.bias
            torch.testing.assert_close(out.flatten(1)[:, j], 0.7 * o + places[j])


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(SelfAttention(8)(x), x)


@pytest.mark.parametrize(("size", "sides"), [((128, 128), (32, 32)), ((64, 64), (32, 32)), ((32, 32), (16, 16)), ((28, 28), (14, 14)), ((96, 192), (24, 48))])
def test_attention_has_the_papers_resolution_or_the_largest_below_it(size: tuple[int, int], sides: tuple[int, int]) -> None:
    networks = build("noise_generator", Spec("sagan", {"width": 2, "z_dim": 4}), 3, size, 0), build("discriminator", Spec("sagan", {"width": 2}), 3, size, 0)
    seen = []
    for network in networks:
        network.attention.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape[2:])))
    networks[1](networks[0](torch.randn(1, 4)))
    assert seen == [sides, sides]


@pytest.mark.parametrize("kind", ["noise_generator", "discriminator"])
def test_a_size_without_a_map_is_refused_with_the_sizes_of_the_maps(kind: str) -> None:
    with pytest.raises(RequestError, match=r"attention=20 .* 16, 8, 4 "):
        build(kind, Spec("sagan", {"attention": 20}), 3, (32, 32), 0)


@pytest.mark.parametrize("kind", ["noise_generator", "discriminator"])
def test_without_attention_it_is_sngan(kind: str) -> None:
    network = build(kind, Spec("sagan", {"width": 2, "attention": 0}), 3, (32, 32), 0)
    assert not any(isinstance(module, SelfAttention) for module in network.modules())


def test_the_cheaper_order_of_the_shortcut_gives_the_papers_result() -> None:
    x = torch.randn(2, 3, 8, 8)
    up, down = UpBlock(3, 5, "none", 0), DownBlock(3, 5, first=True)
    torch.testing.assert_close(up(x, None), up.conv2(F.relu(up.conv1(F.interpolate(F.relu(x), scale_factor=2)))) + up.shortcut(F.interpolate(x, scale_factor=2)))
    torch.testing.assert_close(down(x), F.avg_pool2d(down.conv2(F.relu(down.conv1(x))) + down.shortcut(x), 2))


def test_the_papers_widths_at_128() -> None:
    with torch.device("meta"):
        G, D = build("noise_generator", Spec("sagan"), 3, (128, 128), 0), build("discriminator", Spec("sagan"), 3, (128, 128), 0)
    assert [block.conv2.out_channels for block in G.blocks] == [1024, 512, 256, 128, 64]
    assert [block.conv2.out_channels for block in D.blocks] == [64, 128, 256, 512, 1024, 1024]
    assert D.feature_shape == (1024, 4, 4)


@pytest.mark.parametrize("name", ["dcgan", "sagan", "progressive"])
def test_q_shares_the_trunk(name: str) -> None:
    D = build("discriminator", Spec(name, {"width": 4}), 3, (28, 28), 0)
    Q = QHead(D.feature_shape, (10, 3), 2, width=8)
    h = D.trunk(torch.randn(4, 3, 28, 28))
    codes = Q(h)
    assert [logits.shape for logits in codes.logits] == [(4, 10), (4, 3)]
    assert codes.mean.shape == codes.log_variance.shape == (4, 2)
    (sum(logits.sin().sum() for logits in codes.logits) + codes.mean.sin().sum() + codes.log_variance.sin().sum()).backward()
    assert all(p.grad.any() for p in Q.parameters())
    trunk = [p for p in D.parameters() if p.grad is not None and p.grad.any()]
    assert 0 < len(trunk) < len(list(D.parameters()))       # The trunk, not the head.


def test_q_can_have_codes_of_one_kind_alone() -> None:
    h = torch.randn(2, 4, 4, 4)
    assert QHead((4, 4, 4), (5,), 0)(h).mean.shape == (2, 0)
    assert QHead((4, 4, 4), (), 3)(h).logits == ()
    with pytest.raises(RequestError, match="at least one"):
        QHead((4, 4, 4), (), 0)
