"""Penalties: closed forms on a linear critic, precision, and their effect in training."""

import copy

import pytest
import torch
from torch import nn

from i2i import losses  # noqa: F401 - registers them.
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.losses.penalties import gradients, lazy_penalty
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build, names
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers

DIFFERENTIATING = [name for name in names("penalty") if build("penalty", Spec(name)).uses_input_gradients]
W = torch.randn(3 * 4 * 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def linear(x: torch.Tensor) -> torch.Tensor:
    """D(x) = w·x: its gradient is w everywhere."""
    return x.flatten(1) @ W.to(x.dtype)[:, None]


def images(n: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_closed_forms_on_a_linear_critic() -> None:
    expected = {
        "none": ({}, 0.0), "clip": ({"limit": 0.1}, 0.0),
        "wgan-gp": ({"weight": 7.0}, 7 * (W.norm() - 1) ** 2), "wgan-lp": ({"weight": 7.0}, 7 * (W.norm() - 1) ** 2),
        "dragan": ({"weight": 7.0}, 7 * (W.norm() - 1) ** 2),
        "r1": ({"gamma": 3.0}, 3 / 2 * W.norm() ** 2), "r2": ({"gamma": 3.0}, 3 / 2 * W.norm() ** 2), "r1r2": ({"gamma": 3.0}, 3 * W.norm() ** 2)}
    assert set(expected) == set(names("penalty"))
    for name, (options, value) in expected.items():
        penalty = build("penalty", Spec(name, options))
        assert penalty(linear, images(), images(seed=1)).item() == pytest.approx(float(value), abs=1e-12), name


def test_gradients_shorter_than_1_are_penalized_except_by_the_one_sided_penalty() -> None:
    """|w| = 1/2"""
    def flat(x: torch.Tensor) -> torch.Tensor:
        return linear(x) / (2 * W.norm())

    for name, value in (("wgan-gp", 10 / 4), ("dragan", 10 / 4), ("wgan-lp", 0.0)):
        assert build("penalty", Spec(name))(flat, images(), images(seed=1)).item() == pytest.approx(value, abs=1e-12), name


def square(x: torch.Tensor) -> torch.Tensor:
    """D(x) = |x|^2 / 2: its gradient is x itself."""
    return x.flatten(1).square().sum(1) / 2


def test_r2_is_taken_at_generated_images_and_r1r2_at_both() -> None:
    real, fake = images(), images(seed=1)
    of_real, of_fake = (x.flatten(1).square().sum(1).mean().item() for x in (real, fake))
    for name, value in (("r1", of_real), ("r2", of_fake), ("r1r2", of_real + of_fake)):
        assert build("penalty", Spec(name, {"gamma": 2.0}))(square, real, fake).item() == pytest.approx(value), name


def test_dragan_is_taken_around_real_images_only() -> None:
    """real + share * noise: never below the real image, never above it by more than half of a standard deviation."""
    real, seen = images(), []

    def critic(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.detach())
        return square(x)

    dragan = build("penalty", Spec("dragan"))
    torch.manual_seed(0)
    value = dragan(critic, real, images(seed=1))
    away = (seen[0] - real) / real.std(correction=0)
    assert away.min() >= -1e-12
    assert away.max() <= 0.5
    furthest = away.flatten(1).amax(1)
    assert len(furthest.unique()) == 5, "each image has its own share"
    assert value.item() == pytest.approx(10 * (seen[0].flatten(1).norm(dim=1) - 1).square().mean().item())
    torch.manual_seed(0)
    assert torch.equal(dragan(square, real, torch.full_like(real, torch.nan)), value)


def test_r1_is_taken_at_real_images_and_wgan_gp_between_them_and_generated_ones() -> None:
    real, fake = images(), images(seed=1)
    assert build("penalty", Spec("r1", {"gamma": 2.0}))(square, real, fake).item() == pytest.approx(real.flatten(1).square().sum(1).mean().item())
    torch.manual_seed(3)
    share = torch.rand(5, 1, 1, 1, dtype=torch.float64)
    torch.manual_seed(3)
    between = share * real + (1 - share) * fake
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    assert build("penalty", Spec("wgan-gp", {"weight": 1.0}))(square, real, fake).item() == pytest.approx(expected.item())


def test_a_patch_critic_counts_as_the_mean_of_its_patches() -> None:
    torch.testing.assert_close(gradients(lambda x: linear(x)[:, :, None, None].expand(len(x), 1, 6, 6), images()), W.expand(5, -1))


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_its_gradients_match_finite_differences(name: str) -> None:
    """With respect to the weights of the critic."""
    w = torch.randn(48, 1, dtype=torch.float64, requires_grad=True)

    def loss(w: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return build("penalty", Spec(name))(lambda x: (x.flatten(1) @ w).tanh(), images(), images(seed=1))

    assert torch.autograd.gradcheck(loss, (w,))


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_it_is_computed_in_float32_under_autocast(name: str) -> None:
    D, seen = nn.Conv2d(3, 2, 3), []

    def critic(x: torch.Tensor) -> torch.Tensor:
        out = D(x)
        seen.append((x.dtype, out.dtype))
        return out

    with torch.autocast("cpu", torch.bfloat16):
        assert D(torch.zeros(1, 3, 4, 4)).dtype == torch.bfloat16
        value = lazy_penalty(build("penalty", Spec(name)), 0, critic, images().float(), images(seed=1).bfloat16())
        assert D(torch.zeros(1, 3, 4, 4)).dtype == torch.bfloat16
    assert set(seen) == {(torch.float32, torch.float32)}
    assert value.dtype == torch.float32
    value.backward()
    assert D.weight.grad.dtype == torch.float32


def test_only_weight_clipping_limits_the_weights() -> None:
    assert {name: build("penalty", Spec(name)).clip for name in names("penalty")} == {name: 0.01 if name == "clip" else 0.0 for name in names("penalty")}
    assert set(names("penalty")) - set(DIFFERENTIATING) == {"none", "clip"}


@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_a_lazy_penalty_is_multiplied_by_its_interval(name: str) -> None:
    lazy = build("penalty", Spec(name, {"every": 4}))
    whole = build("penalty", Spec(name))(linear, images(), images())
    values = [lazy_penalty(lazy, step, linear, images(), images()).item() for step in range(8)]
    assert values == pytest.approx([4 * whole.item(), 0, 0, 0] * 2)


@pytest.mark.parametrize("recipe", [Pix2Pix(), CUT(), CycleGAN()])
@pytest.mark.parametrize("name", DIFFERENTIATING)
def test_a_critic_with_batch_norm_is_refused_with_the_reason(recipe: Recipe, name: str) -> None:
    with pytest.raises(RequestError, match=r"batch norm.*Gulrajani et al. 2017, section 4.*discriminator.norm=instance"):
        override(recipe, parse_assignments([f"penalty={name}", "discriminator.norm=batch"])).modules(DataInfo((32, 32)))
    override(recipe, parse_assignments([f"penalty={name}", "discriminator.norm=instance"])).modules(DataInfo((32, 32)))


@pytest.mark.parametrize("settings", [["penalty=wgan-gp", "penalty.weight=-1"], ["penalty=r1", "penalty.gamma=-1"], ["penalty=r1", "penalty.every=0"], ["penalty=wgangp"],
                                   ["penalty=clip", "penalty.limit=0"], ["penalty=clip", "penalty.every=2"], ["penalty=dragan", "penalty.weight=-1"], ["penalty=r1r2", "penalty.gamma=-1"],
                                   ["penalty.weight=3"]])
def test_invalid_settings_are_refused(settings: list[str]) -> None:
    with pytest.raises(RequestError):
        build("penalty", override(CycleGAN(), parse_assignments(settings)).penalty)


@pytest.mark.parametrize("recipe", [Pix2Pix(generator=Spec("unet", {"width": 2})), CycleGAN(generator=Spec("resnet", {"width": 2, "blocks": 1}))])
def test_after_each_step_the_critics_weights_are_within_the_limit_and_others_are_not_touched(recipe: Recipe) -> None:
    recipe = override(recipe, parse_assignments(["adversarial=wasserstein", "penalty=clip", "penalty.limit=0.005", "discriminator.width=2", "discriminator.layers=1"]))
    torch.manual_seed(0)
    m = recipe.modules(DataInfo((16, 16)))
    critics = [name for name in m if name.startswith("D")]
    free = override(recipe, parse_assignments(["penalty=none"]))
    twin = copy.deepcopy(m)
    for step in range(2):
        for which, modules in ((recipe, m), (free, twin)):
            torch.manual_seed(step)
            learner = PlayerOptimizers(which, modules, Runtime(device="cpu"), max_skips=3)
            progress = Progress(step, 2, 10**6)
            learner.begin(progress)
            which.step(modules, {"a": torch.rand(2, 3, 16, 16), "b": torch.rand(2, 3, 16, 16)}, progress, learner)
        for name in critics:
            assert max(p.abs().max() for p in m[name].parameters()) <= 0.005
            for clipped, whole in zip(m[name].parameters(), twin[name].parameters(), strict=True):
                assert step or torch.equal(clipped, whole.clamp(-0.005, 0.005))
            assert max(p.abs().max() for p in twin[name].parameters()) > 0.005
    for name in set(m) - set(critics):
        assert all(p.abs().max() > 0.005 for p in m[name].parameters() if p.ndim > 1), name


def train(recipe: Recipe, steps: int) -> tuple[list[float], list[float]]:
    """Train on two kinds of noise and measure both critics between real and generated images.  -> gradient norms of D_a and D_b"""
    torch.manual_seed(0)
    m = recipe.modules(DataInfo((16, 16)))
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    norms: dict[str, list[float]] = {"a": [], "b": []}
    for step in range(steps):
        x = {"a": torch.rand(4, 3, 16, 16) * 0.5 - 1, "b": torch.rand(4, 3, 16, 16) * 0.5 + 0.5}
        progress = Progress(step, 4, 10**6)
        learner.begin(progress)
        recipe.step(m, x, progress, learner)
        if step >= steps - 20:
            fake = {"b": m["G_ab"](x["a"]).detach(), "a": m["G_ba"](x["b"]).detach()}
            for side, values in norms.items():
                share = torch.rand(4, 1, 1, 1)
                values += gradients(m[f"D_{side}"], share * x[side] + (1 - share) * fake[side]).norm(dim=1).tolist()
    return norms["a"], norms["b"]


WORDS = ["generator.width=2", "generator.blocks=1", "discriminator.width=8", "discriminator.layers=1", "discriminator.norm=none", "adversarial=wasserstein",
         "d_optimizer.lr=2e-3", "d_optimizer.beta1=0", "schedule=constant", "pool=0"]


def test_only_with_the_penalty_the_gradient_norm_of_the_critic_stays_near_one() -> None:
    values = train(override(CycleGAN(), parse_assignments([*WORDS, "penalty=wgan-gp"])), 150)
    free = train(override(CycleGAN(), parse_assignments(WORDS)), 150)
    for side in (0, 1):
        assert sum(values[side]) / len(values[side]) == pytest.approx(1, abs=0.25), side
        assert sum(free[side]) / len(free[side]) > 3, side
