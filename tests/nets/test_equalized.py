"""Equalized learning rates, the resampling filter and the minibatch standard deviation, by the statements of their papers."""

import math

import pytest
import torch
from torch.nn import functional as F

from i2i.nets.equalized import EqualizedConv2d, EqualizedLinear, PixelNorm, leaky_relu
from i2i.nets.minibatch_discrimination import MinibatchStdDev
from i2i.nets.resampling import blur, downsample, upsample


def image(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_outputs_keep_their_variance_whatever_the_width() -> None:
    torch.manual_seed(0)
    for inner in (8, 512):
        assert EqualizedLinear(inner, 4000, lr_multiplier=0.01)(torch.randn(4, inner)).std().item() == pytest.approx(1, rel=0.1)
        assert EqualizedConv2d(inner, 300, 3)(torch.randn(2, inner, 9, 9))[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.1)
    x = torch.randn(100_000)
    assert leaky_relu(x).square().mean().item() == pytest.approx(1 + 0.2**2, rel=0.02)


def test_all_weights_learn_equally_fast_and_the_multiplier_slows_them() -> None:
    """One step of Adam changes the scaled weight by lr times its scale, whatever the gradient."""
    for multiplier in (1.0, 0.01):
        layer = EqualizedLinear(100, 3, gain=2.0, lr_multiplier=multiplier)
        x = torch.randn(7, 100)
        before, w = layer(x), layer.weight.detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
        before.square().sum().backward()
        optimizer.step()
        moved = (layer.weight - w).abs()
        assert moved.mean().item() == pytest.approx(1e-3, rel=0.01)
        effect = F.linear(x, layer.weight - w) * 2 * multiplier / 10 + layer.bias * multiplier
        torch.testing.assert_close(layer(x) - before, effect, atol=1e-4, rtol=1e-2)


def test_the_bias_has_its_initial_value_and_a_one_hot_input_selects_a_column() -> None:
    layer = EqualizedLinear(5, 3, bias=1.0, lr_multiplier=0.1)
    torch.testing.assert_close(layer(torch.zeros(1, 5)), torch.ones(1, 3))
    index = torch.tensor([4, 0, 4])
    torch.testing.assert_close(layer.one_hot(index), layer(F.one_hot(index, 5).float()))
    bare = EqualizedLinear(5, 3, bias=None)
    torch.testing.assert_close(bare.one_hot(index), bare(F.one_hot(index, 5).float()))


def test_the_filter_is_binomial_and_upsampling_is_bilinear_away_from_the_border() -> None:
    dot = torch.zeros(1, 2, 9, 9)
    dot[0, :, 4, 4] = 64
    line = torch.tensor([1.0, 3, 3, 1])
    torch.testing.assert_close(blur(dot, 2)[0, 0, 3:7, 3:7], torch.outer(line, line))
    x = image(2, 3, 6, 8)
    torch.testing.assert_close(upsample(x)[..., 1:-1, 1:-1], F.interpolate(x, scale_factor=2, mode="bilinear")[..., 1:-1, 1:-1])
    torch.testing.assert_close(downsample(x), blur(x, 1)[..., ::2, ::2])
    assert downsample(x).shape == (2, 3, 3, 4)
    assert (upsample(x).shape, blur(x, 2).shape) == ((2, 3, 12, 16), (2, 3, 7, 9))


@pytest.mark.parametrize("function", [lambda x: blur(x, 1), lambda x: blur(x, 2), downsample, upsample, PixelNorm(), MinibatchStdDev(2), leaky_relu])
def test_each_layer_is_twice_differentiable(function) -> None:
    x = image(4, 2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(lambda x: function(x).square(), (x,))


def test_resampling_preserves_the_dtype_under_autocast() -> None:
    x = image(1, 2, 4, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for function in (downsample, upsample, lambda x: blur(x, 1)):
            torch.testing.assert_close(function(x), function(x.double()).float())
            assert function(x.bfloat16()).dtype == torch.bfloat16


def test_pixel_norm_scales_the_channels_to_a_mean_square_of_one() -> None:
    for shape in ((3, 8, 4, 5), (3, 8)):
        torch.testing.assert_close(PixelNorm()(image(*shape) * 7).square().mean(1), torch.ones(3, *shape[2:], dtype=torch.float64), atol=1e-6, rtol=1e-6)


def test_the_minibatch_standard_deviation_is_that_of_the_groups() -> None:
    """Karras et al. 2018, section 3, written naively."""
    x = image(8, 3, 4, 5)
    out = MinibatchStdDev(4)(x)
    assert torch.equal(out[:, :3], x)
    for i in range(8):
        group = x[i % 2::2]
        torch.testing.assert_close(out[i, 3], group.var(0, unbiased=False).sqrt().mean().expand(4, 5), atol=1e-6, rtol=1e-6)
    alike = MinibatchStdDev()(x[:1].expand(4, -1, -1, -1))
    assert alike[:, 3].max() < 1e-3


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 2), (7, 1), (8, 2), (9, 3), (10, 5)])
def test_the_number_of_groups_divides_any_batch(batch: int, groups: int) -> None:
    values = MinibatchStdDev(4)(image(batch, 3, 4, 4))[:, 3, 0, 0]
    assert len(values.unique()) == groups
    assert batch == 1 or values.min() > 0.1       # A group of one image would have a deviation of 0.


def test_the_layers_run_on_meta_tensors() -> None:
    with torch.device("meta"):
        layers = torch.nn.Sequential(EqualizedConv2d(3, 4, 3, gain=math.sqrt(2)), PixelNorm(), MinibatchStdDev())
        assert layers(downsample(upsample(torch.empty(2, 3, 8, 8)))).shape == (2, 5, 8, 8)
