"""Blurs and bilinear upsampling against torch's own."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.nets.resampling import BilinearUpsample, BlurPool


def blurred(x: torch.Tensor) -> torch.Tensor:
    """The filter [1, 2, 1] in both directions with stride 2, borders reflected."""
    line = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


@pytest.mark.parametrize("size", [(8, 6), (7, 8), (9, 5), (2, 3), (2, 2)])
@pytest.mark.parametrize(("ours", "theirs"), [(BlurPool(), blurred), (BilinearUpsample(), nn.Upsample(scale_factor=2, mode="bilinear"))])
def test_values_and_gradients_are_those_of_torch(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad((each * weight).sum(), x)[0] for each in (out, expected)))
    assert torch.autograd.gradgradcheck(ours, x)


@pytest.mark.parametrize("layer", [BlurPool(), BilinearUpsample()])
def test_half_precision_stays_half_precision(layer: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 2, 4, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
