"""Denoisers: shapes, what they depend on, and the sizes they refuse."""

import pytest
import torch
from torch import nn

from i2i.errors import RequestError
from i2i.nets.denoiser import Attention, MLPDenoiser, UNetDenoiser


def randomized(network: nn.Module) -> nn.Module:
    """With weights that are nowhere 0."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.double()


def inputs(n: int = 3, channels: int = 3, size: tuple[int, int] = (16, 32)) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, *size, generator=g).double(), torch.rand(n, generator=g).double()


@pytest.mark.parametrize("options", [{}, {"blocks": 2, "depth": 2}, {"patch": 1, "depth": 1}, {"patch": 4, "depth": 0}, {"width": 6}])
def test_a_prediction_has_the_shape_of_the_image_and_each_image_is_seen_alone(options: dict[str, int]) -> None:
    network = randomized(UNetDenoiser(5, 3, (16, 32), **{"width": 8, **options}))
    x, t = inputs(channels=5)
    y = network(x, t)
    assert y.shape == (3, 3, 16, 32)
    torch.testing.assert_close(network(x[1:2], t[1:2]), y[1:2])
    # Other sizes that it can halve.
    assert network(*inputs(1, 5, (2 * network.multiple, network.multiple))).shape[2:] == (2 * network.multiple, network.multiple)


@pytest.mark.parametrize("build", [UNetDenoiser, MLPDenoiser])
def test_it_depends_on_the_image_the_time_the_label_and_starts_at_zero(build: type[nn.Module]) -> None:
    network = build(3, 3, (16, 16), 4, width=8)
    x, t = inputs(2, size=(16, 16))
    c = torch.tensor([0, 3])
    assert not network(x.float(), t.float(), c).any()
    network = randomized(network)
    y = network(x, t, c)
    for other in (network(x + 0.1, t, c), network(x, t + 0.1, c), network(x, t, c.flip(0)), network(x, t, None)):
        assert all((a - b).abs().max() > 1e-6 for a, b in zip(y, other, strict=True))
    torch.testing.assert_close(network(x, t, torch.full((2,), 4)), network(x, t, None))      # "None" is the label after the last.
    y.square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_attention_is_the_same_with_and_without_gradients_and_that_of_the_formula() -> None:
    layer, x = randomized(Attention(64)), torch.randn(2, 64, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(layer(x), found)
    q, k, v = (each.flatten(2) for each in layer.qkv(layer.norm(x)).chunk(3, 1))
    heads = [torch.softmax(q[:, i].transpose(1, 2) @ k[:, i] / 32**0.5, 2) @ v[:, i].transpose(1, 2)
             for i in (slice(0, 32), slice(32, 64))]
    expected = x + layer.last(torch.cat(heads, 2).transpose(1, 2).unflatten(2, (3, 5)))
    torch.testing.assert_close(found, expected)


def test_gradient_checkpointing_changes_no_bit() -> None:
    network, (x, t) = randomized(UNetDenoiser(3, 3, (16, 32), width=8)), inputs()
    gradients = []
    for enabled in (False, True):
        network.gradient_checkpointing = enabled
        network.zero_grad()
        network(x, t).square().mean().backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(("size", "options", "multiple"), [
    ((64, 64), {}, 8), ((28, 28), {}, 4), ((128, 128), {}, 16), ((16, 16), {}, 2), ((8, 8), {}, 2), ((64, 96), {"patch": 1}, 8),
    ((256, 320), {}, 32), ((72, 72), {}, 8), ((36, 36), {}, 4)])
def test_the_size_is_halved_to_about_eight_squares(size: tuple[int, int], options: dict[str, int], multiple: int) -> None:
    with torch.device("meta"):
        assert UNetDenoiser(3, 3, size, **options).multiple == multiple


@pytest.mark.parametrize(("size", "options", "expected"), [
    ((65, 64), {}, "data.size=65x64 cannot be used; accepted: sides divisible by 4 with denoiser=unet denoiser.patch=2"),
    ((250, 250), {}, "sides divisible by 16"), ((64, 64), {"depth": 6}, "denoiser.depth=6 cannot be used; accepted: as often as 64x64 pixels in squares of 2"),
    ((64, 64), {"depth": 99}, "denoiser.depth=99"), ((64, 64), {"patch": 3}, "another patch"), ((64, 64), {"patch": 0}, "denoiser.patch=0"),
    ((64, 64), {"blocks": 0}, "denoiser.blocks=0"), ((64, 64), {"width": 0}, "denoiser.width=0"), ((1, 1), {}, "data.size=1x1")])
def test_what_it_cannot_halve_is_refused(size: tuple[int, int], options: dict[str, int], expected: str) -> None:
    with pytest.raises(RequestError) as error:
        UNetDenoiser(3, 3, size, **options)
    assert expected in str(error.value)
