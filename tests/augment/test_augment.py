"""A contract over all augmentations, and the formulas of DiffAugment."""

import pytest
import torch

from i2i import augment  # noqa: F401 - registers them.
from i2i.augment import diffaugment
from i2i.augment.base import Augment
from i2i.errors import RequestError
from i2i.registry import Spec, build, names, schema

NAMES = names("augment")
CHANGING = [name for name in NAMES if name != "none"]


def make(name: str, **options: object) -> Augment:
    """Build it at a strength that changes nearly every image."""
    return build("augment", Spec(name, {"p": 0.9, **options} if name == "ada" else options))


def pictures(n: int = 4, channels: int = 3, size: tuple[int, int] = (12, 16), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(n + channels)) * 2 - 1


def grid_sample_has_second_derivative() -> bool:
    """torch 2.6 has none; kornia moves images by it."""
    x, grid = torch.rand(1, 1, 3, 3, requires_grad=True), torch.zeros(1, 2, 2, 2, requires_grad=True)
    out = torch.nn.functional.grid_sample(x, grid, align_corners=True)
    gradient, = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    try:
        torch.autograd.grad(gradient.square().sum(), x)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
class TestEach:
    def test_shapes_and_dtypes_are_preserved(self, name: str) -> None:
        T = make(name)
        for channels in (1, 2, 3, 4):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                x = pictures(channels=channels, dtype=dtype)
                (out,) = T(x)
                assert out.shape == x.shape
                assert out.dtype == dtype
                assert torch.isfinite(out).all()

    def test_a_pair_moves_together(self, name: str) -> None:
        """Equal images stay equal, and the transform does not depend on what the images show."""
        T, x = make(name), pictures()
        torch.manual_seed(0)
        one, other = T(x, x.clone())
        assert torch.equal(one, other)
        torch.manual_seed(0)
        (alone,) = T(x)
        torch.manual_seed(0)
        assert torch.equal(T(x, -x)[0], alone), "the transform of an image depends on its partner"

    def test_the_same_seed_gives_the_same_result(self, name: str) -> None:
        T, x = make(name), pictures()
        torch.manual_seed(1)
        (one,) = T(x)
        torch.manual_seed(1)
        assert torch.equal(T(x)[0], one)

    def test_images_of_a_batch_are_independent(self, name: str) -> None:
        """The gradient of one image with respect to the others is 0."""
        T, x = make(name), pictures().requires_grad_()
        (out,) = T(x)
        grad = torch.autograd.grad(out[1].square().sum(), x)[0]
        assert grad[1].abs().sum() > 0
        assert grad[[0, 2, 3]].abs().sum() == 0

    def test_first_and_second_derivatives_are_exact(self, name: str) -> None:
        T, x = make(name), pictures(1, size=(4, 5), dtype=torch.float64).requires_grad_()

        def seen(x: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(2)
            return T(x)[0]

        assert torch.autograd.gradcheck(seen, (x,))
        if name == "kornia" and not grid_sample_has_second_derivative():
            with pytest.raises(RequestError, match=r"RandomAffine cannot be used: it has no second derivative in torch 2\..*; accepted: ops such as RandomBrightness,RandomContrast"):
                T.check((3,), (4, 5), twice=True)
            return
        assert torch.autograd.gradgradcheck(lambda x: seen(x).tanh(), (x,))

    def test_it_is_computed_in_float32_under_autocast(self, name: str) -> None:
        T, x = make(name), pictures()
        torch.manual_seed(3)
        (whole,) = T(x)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(T(x)[0], whole)

    def test_it_runs_on_meta_tensors(self, name: str) -> None:
        with torch.device("meta"):
            T, x = make(name), torch.empty(2, 3, 8, 8, requires_grad=True)
            out, other = T(x, x)
            out.sum().backward()
            T.observe(torch.empty(2, 1, 3, 3), 2)
        assert out.is_meta
        assert out.shape == other.shape == x.shape

    def test_observing_d_needs_no_gradient(self, name: str) -> None:
        T = make(name)
        T.observe(torch.ones(2, 1, requires_grad=True))
        assert not any(value.requires_grad for value in T.state_dict().values())
        assert set(T.synced_buffers) <= set(T.state_dict())


@pytest.mark.parametrize("name", CHANGING)
def test_each_image_of_a_batch_has_its_own_random_numbers(name: str) -> None:
    same = pictures(1).expand(6, -1, -1, -1)
    (out,) = make(name)(same)
    assert all(not torch.equal(out[i], out[j]) for i in range(6) for j in range(i))


@pytest.mark.parametrize("name", [name for name in CHANGING if "policy" in schema("augment", name)])
def test_a_policy_consists_of_known_transforms_each_once(name: str) -> None:
    for policy in ((), ("tint",), ("color", "color")):
        with pytest.raises(RequestError, match="augment.policy"):
            make(name, policy=policy)
    x = pictures(channels=2)
    assert torch.equal(make(name, policy=("color",))(x)[0], x), "two channels are no color"


def test_none_is_the_identity_and_draws_nothing() -> None:
    x, state = pictures(), torch.random.get_rng_state()
    assert make("none")(x)[0] is x
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not make("none").state_dict()


def draws(*shares: float) -> object:
    """torch.rand that returns these values in turn, for every image."""
    queue = list(shares)
    return lambda n, device=None: torch.full((n,), queue.pop(0))


def test_diffaugment_color_is_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zhao et al. 2020: x + (u - 1/2); (x - mean of channels) 2u + it; (x - mean) (u + 1/2) + it."""
    x = pictures(dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", draws(0.9, 0.2, 0.7))
    out = diffaugment.color(4, x.device)(x)
    monkeypatch.undo()
    y = x + 0.4
    y = (y - y.mean(1, keepdim=True)) * 0.4 + y.mean(1, keepdim=True)
    y = (y - y.mean((1, 2, 3), keepdim=True)) * 1.2 + y.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(out, y)


def test_diffaugment_translation_pads_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(size=(16, 32))
    monkeypatch.setattr(torch, "rand", draws(1.0, 0.0))     # Two pixels down, four to the left.
    out = diffaugment.translation(4, x.device)(x)
    assert torch.equal(out[:, :, 2:, :-4], x[:, :, :-2, 4:])
    assert out[:, :, :2].abs().sum() == out[:, :, :, -4:].abs().sum() == 0


def test_diffaugment_cutout_sets_a_hole_to_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 3, 8, 12)
    monkeypatch.setattr(torch, "rand", draws(0.5, 0.5))
    out = diffaugment.cutout(2, x.device)(x)
    assert (out == 0).sum() == 2 * 3 * 4 * 6
    assert (out[:, :, 2:6, 3:9] == 0).all()
    monkeypatch.undo()
    area = torch.stack([(diffaugment.cutout(200, x.device)(torch.ones(200, 1, 9, 9)) == 0).sum((1, 2, 3)) for _ in range(3)])
    assert area.max() == 25
    assert area.min() == 9      # A corner of it, its middle in a corner of the image: 3 of 5 each way.
