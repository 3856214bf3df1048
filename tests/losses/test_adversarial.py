"""A contract over the registry of adversarial losses, and the formula of each."""

import math

import pytest
import torch

from i2i import losses  # noqa: F401 - registers them.
from i2i.errors import RequestError
from i2i.registry import Spec, build, names, schema

LOSSES = names("adversarial")


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_logits_of_any_shape_give_a_scalar(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        for shape in ((3,), (3, 1), (2, 1, 5, 7)):
            real, fake = torch.randn(shape), torch.randn(shape)
            assert loss.d(real, fake).shape == loss.g(fake, real).shape == ()

    def test_gradients_are_exact(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        torch.manual_seed(0)
        real, fake = (torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        assert torch.autograd.gradcheck(loss.d, (real, fake))
        assert torch.autograd.gradcheck(lambda f, r: loss.g(f, r), (fake, real))

    def test_d_raises_real_logits_and_lowers_fake_ones_and_g_raises_fake_ones(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        real, fake = (torch.zeros(4, requires_grad=True) for _ in range(2))
        up, down = torch.autograd.grad(loss.d(real, fake), [real, fake], allow_unused=True)
        assert (up < 0).all()
        assert down is None or (down >= 0).all()
        assert (torch.autograd.grad(loss.g(fake, real), fake)[0] < 0).all()

    def test_a_step_along_the_gradient_moves_the_logits_the_right_way(self, name: str) -> None:
        """From random logits: the difference of the means grows with D's step and shrinks with G's."""
        loss = build("adversarial", Spec(name))
        real, fake = (torch.randn(6, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).mul(0.3).requires_grad_() for seed in (0, 1))
        steps = torch.autograd.grad(loss.d(real, fake), [real, fake])
        assert (real - steps[0]).mean() > real.mean()
        assert (fake - steps[1]).mean() < fake.mean() or name == "lsgan"        # Whose fakes below 0 go up, to 0.
        up = torch.autograd.grad(loss.g(fake, real), fake)[0]
        assert (fake - up).mean() > fake.mean()
        assert loss.g(fake - 1e-3 * up, real) < loss.g(fake, real)

    def test_extreme_logits_stay_finite(self, name: str) -> None:
        loss = build("adversarial", Spec(name))
        big = torch.tensor([1e4, -1e4])
        assert torch.isfinite(loss.d(big, big))
        assert torch.isfinite(loss.g(big, big))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_each_loss_is_its_formula() -> None:
    r, f = 0.7, -0.3
    real, fake = torch.tensor([r], dtype=torch.float64), torch.tensor([f], dtype=torch.float64)
    expected = {
        "nonsaturating": (-math.log(sigmoid(r)) - math.log(1 - sigmoid(f)), -math.log(sigmoid(f))),
        "lsgan": ((r - 1) ** 2 + f**2, (f - 1) ** 2),
        "hinge": (max(0, 1 - r) + max(0, 1 + f), -f),
        "wasserstein": (f - r, -f),
        "minimax": (-math.log(sigmoid(r)) - math.log(1 - sigmoid(f)), math.log(1 - sigmoid(f))),
        "rpgan": (-math.log(sigmoid(r - f)), -math.log(sigmoid(f - r))),
        "ragan": (-math.log(sigmoid(r - f)) - math.log(1 - sigmoid(f - r)), -math.log(sigmoid(f - r)) - math.log(1 - sigmoid(r - f))),
        "ralsgan": ((r - f - 1) ** 2 + (f - r + 1) ** 2, (f - r - 1) ** 2 + (r - f + 1) ** 2)}
    assert set(expected) == set(LOSSES)
    for name, (d, g) in expected.items():
        loss = build("adversarial", Spec(name))
        assert loss.d(real, fake).item() == pytest.approx(d, abs=1e-12)
        assert loss.g(fake, real).item() == pytest.approx(g, abs=1e-12)
        if not loss.relativistic:
            assert loss.g(fake).item() == pytest.approx(g, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_at_the_decision_boundary_the_gradient_of_d_is_zero(name: str) -> None:
    """For an image that is as often real as generated.  Without a boundary, adding a constant to all logits changes nothing."""
    loss = build("adversarial", Spec(name))
    if loss.decision_boundary is None:
        real, fake = (torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        torch.testing.assert_close(loss.d(real + 7, fake + 7), loss.d(real, fake))
        torch.testing.assert_close(loss.d(real, fake) + loss.g(fake, real), loss.d(real + 7, fake + 7) + loss.g(fake + 7, real + 7) + (7 if name == "wasserstein" else 0))
    else:
        logit = torch.tensor([loss.decision_boundary], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.grad(loss.d(logit, logit), logit)[0].item() == pytest.approx(0, abs=1e-12)


def test_relativistic_losses_compare_by_position_or_with_the_mean() -> None:
    """The mean is over all logits of the other kind, patches included."""
    real, fake = (torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    r, f = real.flatten().tolist(), fake.flatten().tolist()
    mean_r, mean_f, n = sum(r) / len(r), sum(f) / len(f), len(r)
    pairs = sum(-math.log(sigmoid(x - y)) for x, y in zip(r, f, strict=True)) / n
    averages = sum(-math.log(sigmoid(x - mean_f)) - math.log(1 - sigmoid(y - mean_r)) for x, y in zip(r, f, strict=True)) / n
    squares = sum((x - mean_f - 1) ** 2 + (y - mean_r + 1) ** 2 for x, y in zip(r, f, strict=True)) / n
    for name, value in (("rpgan", pairs), ("ragan", averages), ("ralsgan", squares)):
        loss = build("adversarial", Spec(name))
        assert loss.relativistic
        assert loss.d(real, fake).item() == pytest.approx(value, abs=1e-12), name
        assert loss.g(real, fake).item() == pytest.approx(value, abs=1e-12), name     # The other way round.
        with pytest.raises(AssertionError):
            loss.g(fake)


def test_minimax_saturates_while_d_rejects_the_images() -> None:
    """Goodfellow et al. 2014, section 3: the reason for the non-saturating loss."""
    fake = torch.tensor([-8.0], requires_grad=True)
    slopes = [torch.autograd.grad(build("adversarial", Spec(name)).g(fake), fake)[0].item() for name in ("minimax", "nonsaturating")]
    assert slopes == pytest.approx([-sigmoid(-8.0), -sigmoid(8.0)])


SMOOTH = [name for name in LOSSES if "smooth" in schema("adversarial", name)]


def test_label_smoothing_is_one_sided() -> None:
    """D's optimum for real images has the probability 1 - smooth; for generated ones it is unchanged.  Salimans et al. 2016, section 3.4"""
    assert SMOOTH == ["lsgan", "minimax", "nonsaturating"]
    for name in SMOOTH:
        plain, smooth = build("adversarial", Spec(name)), build("adversarial", Spec(name, {"smooth": 0.1}))
        content = 0.9 if name == "lsgan" else math.log(0.9 / 0.1)
        real, fake = torch.tensor([content], dtype=torch.float64, requires_grad=True), torch.tensor([-0.4], dtype=torch.float64, requires_grad=True)
        on_real, on_fake = torch.autograd.grad(smooth.d(real, fake), [real, fake])
        assert on_real.item() == pytest.approx(0, abs=1e-12), name
        assert on_fake == torch.autograd.grad(plain.d(real, fake), fake)[0], name
        assert torch.autograd.gradcheck(smooth.d, (real, fake))
        for value in (-0.1, 0.5):
            with pytest.raises(RequestError, match="smooth"):
                build("adversarial", Spec(name, {"smooth": value}))
    binary = build("adversarial", Spec("nonsaturating", {"smooth": 0.2}))
    r = 0.7
    expected = -0.8 * math.log(sigmoid(r)) - 0.2 * math.log(1 - sigmoid(r)) + math.log(2)
    assert binary.d(torch.tensor([r], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-12)
    least = build("adversarial", Spec("lsgan", {"smooth": 0.2}))
    assert least.g(torch.tensor([0.8])).item() == pytest.approx(0)
    assert least.decision_boundary == pytest.approx(0.4)
