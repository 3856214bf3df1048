"""Fully connected networks, and minibatch discrimination."""

import pytest
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.nets.minibatch_discrimination import MinibatchDiscrimination, MinibatchStdDev, minibatch_layers
from i2i.registry import Spec, build

POINTS = (2, (1, 1), 0)


def make(kind: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return build(kind, Spec("mlp", {"width": 16, **options}), *POINTS)


@pytest.mark.parametrize("activation", ["relu", "leaky", "tanh", "maxout"])
def test_points_are_images_of_one_pixel(activation: str) -> None:
    G, D = make("noise_generator", activation=activation, z_dim=2, output="linear"), make("discriminator", activation=activation)
    points = G(torch.randn(64, 2))
    assert points.shape == (64, 2, 1, 1)
    assert D(points).shape == (64, 1)
    assert [h.shape[1:] for h in D.features(points)] == [D.feature_shape] * 3


def test_the_output_is_bounded_with_tanh_alone() -> None:
    z = torch.randn(256, 8) * 50
    assert make("noise_generator", z_dim=8, norm="none")(z).abs().max() <= 1
    assert make("noise_generator", z_dim=8, norm="none", output="linear")(z).abs().max() > 10


def test_the_defaults_are_those_of_pacgan() -> None:
    """Lin et al. 2018, authors' code of the grid: 4 hidden layers of 400 with batch norm; 3 of 200 with five pieces."""
    G, D = build("noise_generator", Spec("mlp", {"z_dim": 2, "std": 0.02}), *POINTS), build("discriminator", Spec("mlp", {"std": 0.02}), *POINTS)
    assert sum(p.numel() for p in G.parameters()) == 2 * 400 + 3 * 400 * 400 + 4 * 2 * 400 + 400 * 2 + 2
    assert sum(p.numel() for p in D.parameters()) == 5 * (2 * 200 + 200) + 2 * 5 * (200 * 200 + 200) + 200 + 1
    assert G.layers[1].linear.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_maxout_is_the_maximum_of_its_pieces() -> None:
    layer, x = make("discriminator", activation="maxout").layers[0], torch.randn(3, 2)
    assert torch.equal(layer(x)[:, 7], layer.linear(x)[:, 35:40].max(1).values)


def test_the_default_initialization_preserves_the_mean_square() -> None:
    """He et al. 2015, equation 10: E[y^2] is that of the input in each ReLU layer."""
    torch.manual_seed(0)
    G = build("noise_generator", Spec("mlp", {"width": 512, "norm": "none", "z_dim": 512}), *POINTS)
    for layer in G.layers:
        assert layer.linear.weight.std().item() == pytest.approx((2 / layer.linear.in_features) ** 0.5, rel=0.02)
    assert G.layers(torch.randn(200, 512)).square().mean().item() == pytest.approx(1, rel=0.3)


@pytest.mark.parametrize(("options", "message"), [({"norm": "instance"}, "a unit has a single value"), ({"layers": 0}, "layers=0"), ({"width": 0}, "width=0"), ({"std": -1.0}, "std=-1")])
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    for kind in ("noise_generator", "discriminator"):
        with pytest.raises(RequestError, match=message):
            make(kind, **options)


def test_batch_norm_over_single_values_needs_two_images() -> None:
    G = make("noise_generator", z_dim=2)
    with pytest.raises(RequestError, match=r"train\.batch_size=1"):
        G(torch.randn(1, 2))
    assert G.eval()(torch.randn(1, 2)).shape == (1, 2, 1, 1)


# ---------------------------------------------------------------------------------------------- minibatch discrimination

def closeness(layer: MinibatchDiscrimination, h: Tensor) -> Tensor:
    return layer(h)[:, h.shape[1]:, 0, 0]


def test_minibatch_discrimination_is_the_papers_formula() -> None:
    """Salimans et al. 2016, section 3.2, written naively: o_b(x_i) = sum_j exp(-|M_ib - M_jb|), less the 1 of j = i."""
    layer, h = MinibatchDiscrimination((3, 2, 2), 4, 5), torch.randn(6, 3, 2, 2)
    M = (h.flatten(1) @ layer.T.weight.t()).reshape(6, 4, 5)
    for i in range(6):
        for b in range(4):
            o = sum(torch.exp(-(M[i, b] - M[j, b]).abs().sum()) for j in range(6) if j != i)
            torch.testing.assert_close(closeness(layer, h)[i, b], o)
    assert torch.equal(layer(h)[:, :3], h)


def test_identical_images_are_as_close_as_possible_and_distant_ones_are_not() -> None:
    layer = MinibatchDiscrimination((3, 2, 2), 4, 5)
    same, other = torch.randn(1, 3, 2, 2).expand(6, -1, -1, -1), torch.randn(6, 3, 2, 2) * 100
    torch.testing.assert_close(closeness(layer, same), torch.full((6, 4), 5.0))
    assert closeness(layer, other).max() < 0.1
    order = torch.randperm(6)
    h = torch.randn(6, 3, 2, 2)
    torch.testing.assert_close(closeness(layer, h)[order], closeness(layer, h[order]))


@pytest.mark.parametrize("name", ["mlp", "dcgan"])
def test_minibatch_layers_compare_images_also_under_bfloat16_autocast(name: str) -> None:
    torch.manual_seed(0)
    D = build("discriminator", Spec(name, {"width": 8, "kernels": 4, "group": 2, "norm": "none"}), 2, (8, 8), 0)
    assert any(isinstance(layer, MinibatchStdDev) for layer in D.minibatch)
    x = torch.randn(8, 2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        D(x).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in D.parameters())
    alone = torch.cat([D(image[None]) for image in x])
    assert not torch.allclose(D(x), alone, atol=1e-4)
    assert minibatch_layers((3, 2, 2), 0, 0, 5)[1] == 3
    with pytest.raises(RequestError, match="kernel_dims=0"):
        minibatch_layers((3, 2, 2), 0, 1, 0)
