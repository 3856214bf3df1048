"""A contract over the registry of adversarial losses, and the formula of each."""

import math

import pytest
import torch

from i2i import losses  # noqa: F401 - registers them.
from i2i.spec import Spec, build, names

LOSSES = names("adversarial")


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_any_shape_gives_one_number(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        for shape in ((3,), (3, 1), (2, 1, 5, 7)):
            real, fake = torch.randn(shape), torch.randn(shape)
            assert loss.d(real, fake).shape == loss.g(fake, real).shape == ()

    def test_gradients(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        torch.manual_seed(0)
        real, fake = (torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(loss.d, (real, fake))
        assert torch.autograd.gradcheck(lambda f, r: loss.g(f, r), (fake, real))

    def test_d_wants_real_up_and_fake_down_and_g_wants_fake_up(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
        up, down = torch.autograd.grad(loss.d(real, fake), [real, fake], allow_unused=True)
        assert (up < 0).all()
        assert down is None or (down >= 0).all()
        assert (torch.autograd.grad(loss.g(fake, real), fake)[0] < 0).all()

    def test_extreme_logits_stay_finite(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        big = torch.tensor([1e4, -1e4])
        assert torch.isfinite(loss.d(big, big))
        assert torch.isfinite(loss.g(big, big))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_formulas() -> None:
    r, f = 0.7, -0.3
    real, fake = torch.tensor([r], dtype=torch.float64), torch.tensor([f], dtype=torch.float64)
    expected = {
        "nonsaturating": (-math.log(sigmoid(r)) - math.log(1 - sigmoid(f)), -math.log(sigmoid(f))),
        "lsgan": ((r - 1) ** 2 + f**2, (f - 1) ** 2),
        "hinge": (max(0, 1 - r) + max(0, 1 + f), -f),
        "wasserstein": (f - r, -f)}
    assert set(expected) == set(LOSSES)
    for name, (d, g) in expected.items():
        loss = build("adversarial", Spec(name))
        assert loss.d(real, fake).item() == pytest.approx(d, abs=1e-12)
        assert loss.g(fake, real).item() == pytest.approx(g, abs=1e-12)
