"""Kornia's augmentations of what D sees: the same as kornia's own on images in [0, 1], one draw for all images of a call."""

import inspect
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from i2i.augment.kornia import DEFAULTS, KorniaAugment, check_ops, known_ops, parse_ops
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.training.memory import estimate_memory

RGB_ONLY = ["ColorJiggle", "ColorJitter", "RandomHue", "RandomJPEG", "RandomPlanckianJitter", "RandomRGBShift", "RandomSaturation", "RandomSnow"]
WITHOUT_GRADIENT = ["RandomClahe", "RandomEqualize", "RandomPosterize"]
NEED_ARGUMENTS = ["RandomCrop", "RandomFisheye", "RandomResizedCrop"]
USABLE = sorted(set(known_ops()) - {*WITHOUT_GRADIENT, *NEED_ARGUMENTS})


def warps_twice() -> bool:
    """Whether the installed version of torch differentiates warps twice; older ones refuse."""
    x = torch.rand(1, 1, 4, 4).requires_grad_()
    grid = torch.nn.functional.affine_grid(torch.eye(2, 3)[None], [1, 1, 4, 4], align_corners=False)
    gradient, = torch.autograd.grad(torch.nn.functional.grid_sample(x, grid, align_corners=False).square().sum(), x, create_graph=True)
    try:
        torch.autograd.grad(gradient.square().sum(), x)
    except RuntimeError:
        return False
    return True


WARPS_TWICE = warps_twice()


def accepted(name: str, *channels: int) -> bool:
    """Whether the installed version of kornia has an op that can be used on such images."""
    try:
        check_ops((name,), channels, (32, 32), False)
    except RequestError:
        return False
    return True


PAIRED = [name for name in USABLE if accepted(name, 3, 3)]      # Older versions draw some numbers anew for each image.


def pictures(n: int = 3, channels: int = 3, side: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(n, channels, side, side, dtype=dtype, generator=torch.Generator().manual_seed(channels)) * 2 - 1


def augmented(T: KorniaAugment, *images: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    return T(*images)


@pytest.mark.parametrize("name", USABLE)
def test_an_op_is_kornias_own_on_images_from_0_to_1(name: str) -> None:
    from kornia import augmentation
    x = pictures()
    op = getattr(augmentation, name)(p=1.0, **DEFAULTS.get(name, {}))
    torch.manual_seed(0)
    expected = 2 * op((x + 1) / 2) - 1
    assert torch.equal(augmented(KorniaAugment(ops=(name,), p=1.0), x)[0], expected)
    assert not torch.allclose(expected, x, atol=1e-3), "the defaults change nothing"


def test_most_ops_can_be_used_on_pairs() -> None:
    assert len(PAIRED) > 35
    assert set(PAIRED) >= {"ColorJiggle", "RandomAffine", "RandomErasing", "RandomGaussianBlur", "RandomHorizontalFlip", "RandomPerspective"}


@pytest.mark.parametrize("name", PAIRED)
def test_source_and_target_get_the_same_draw(name: str) -> None:
    T, x = KorniaAugment(ops=(name,), p=1.0), pictures()
    source, target = augmented(T, x, x.clone())
    assert torch.equal(source, target)


def test_several_ops_are_applied_in_order_with_arguments() -> None:
    x = pictures(1)
    brighter = ("RandomBrightness(brightness=(1.5", "1.5)", "clip_output=False)")       # As the commas of a setting cut it.
    (out,) = augmented(KorniaAugment(ops=("RandomInvert", *brighter), p=1.0), x)
    torch.testing.assert_close(out, -x + 1)        # Kornia adds factor - 1 to an image from 0 to 1.
    (out,) = augmented(KorniaAugment(ops=(*brighter, "RandomInvert"), p=1.0), x)
    torch.testing.assert_close(out, -x - 1)


def test_each_op_has_the_probability_p_for_each_image_by_itself() -> None:
    x = pictures(400, side=2)
    changed = (augmented(KorniaAugment(ops=("RandomInvert",), p=0.3), x)[0] - x).abs().flatten(1).amax(1) > 1e-3
    assert 0.22 < changed.float().mean() < 0.38
    (same,) = augmented(KorniaAugment(p=0.0), x)
    torch.testing.assert_close(same, x)


@pytest.mark.parametrize("ops", ["ColorJiggle,RandomAffine", "RandomGaussianBlur,RandomPerspective", "RandomErasing,RandomGamma"])
def test_first_and_second_derivatives_are_exact(ops: str) -> None:
    T, x = KorniaAugment(ops=tuple(ops.split(",")), p=1.0), pictures(1, side=6, dtype=torch.float64).mul(0.8).requires_grad_()

    def out(image: torch.Tensor) -> torch.Tensor:
        return augmented(T, image)[0].square()

    assert torch.autograd.gradcheck(out, x, fast_mode=True)
    if WARPS_TWICE or "Erasing" in ops:
        assert torch.autograd.gradgradcheck(out, x, fast_mode=True, atol=1e-4)


def test_numbers_come_from_torchs_generator_alone() -> None:
    T, x = KorniaAugment(ops=tuple(PAIRED), p=0.5), pictures()
    states, outs = [], []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        before = random.getstate(), np.random.get_state()[1].tolist()
        outs.append(augmented(T, x)[0])
        states.append(before == (random.getstate(), np.random.get_state()[1].tolist()))
    assert torch.equal(*outs)
    assert states == [True, True]


def test_trying_the_ops_takes_no_random_numbers() -> None:
    def modules() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        recipe = override(Pix2Pix(), parse_assignments(["augment=kornia", "generator.width=2", "discriminator.width=2", "discriminator.layers=1"]))
        torch.manual_seed(0)
        return recipe.modules(DataInfo((16, 16))).state_dict(), torch.rand(1)

    check_ops.cache_clear()
    (first, after), (second, again) = modules(), modules()      # Tried and remembered.
    assert torch.equal(after, again)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("words", "info", "message"), [
    (["augment.ops=ColorJigle"], DataInfo((16, 16)), "augment.ops=ColorJigle cannot be used: did you mean 'ColorJiggle'"),
    (["augment.ops=RandomMixUpV2"], DataInfo((16, 16)), "RandomMixUpV2 cannot be used: .*known: "),
    (["augment.ops=RandomDissolving"], DataInfo((16, 16)), "RandomDissolving cannot be used: .*known: "),
    (["augment.ops="], DataInfo((16, 16)), "augment.ops= cannot be used; accepted: RandomAffine,"),
    (["augment.ops=RandomAffine(15)"], DataInfo((16, 16)), "cannot be used; accepted: RandomAffine,"),
    (["augment.ops=RandomAffine(degrees=open('x'))"], DataInfo((16, 16)), "cannot be used; accepted: RandomAffine,"),
    (["augment.ops=kornia.augmentation.RandomAffine"], DataInfo((16, 16)), "cannot be used; accepted: RandomAffine,"),
    (["augment.ops=" + "(" * 1000], DataInfo((16, 16)), "cannot be used; accepted: RandomAffine,"),
    (["augment.ops=RandomAffine(degres=15)"], DataInfo((16, 16)), "augment.ops=RandomAffine cannot be used: .*degres"),
    (["augment.ops=RandomRotation(degrees='x')"], DataInfo((16, 16)), "augment.ops=RandomRotation cannot be used: "),
    (["augment.ops=RandomCrop"], DataInfo((16, 16)), "augment.ops=RandomCrop cannot be used: .*'size'"),
    (["augment.ops=RandomCrop(size=(8,8))"], DataInfo((16, 16)), r"changes the shape of images from \(3, 16, 16\) to \(3, 8, 8\)"),
    (["augment.ops=ColorJiggle"], DataInfo((16, 16), 1, 1), "ColorJiggle cannot be used: it fails on 1-channel images"),
    (["augment.ops=ColorJiggle"], DataInfo((16, 16), 3, 4), "ColorJiggle cannot be used: it fails on 3-channel and 4-channel images"),
    (["augment.ops=RandomGaussianNoise"], DataInfo((16, 16), 3, 1), "RandomGaussianNoise cannot be used: it "),
    (["augment.ops=RandomGaussianBlur(kernel_size=63)"], DataInfo((16, 16)), r"RandomGaussianBlur cannot be used: it fails on 3-channel images \("),
    (["augment.ops=RandomInvert(p=2)"], DataInfo((16, 16)), "augment.ops=RandomInvert: p=2 cannot be used; accepted: 0 to 1"),
    (["augment.ops=RandomInvert(p='often')"], DataInfo((16, 16)), "augment.ops=RandomInvert: p=often cannot be used; accepted: 0 to 1"),
    (["augment.ops=RandomInvert(p_batch=-1)"], DataInfo((16, 16)), "augment.ops=RandomInvert: p_batch=-1 cannot be used; accepted: 0 to 1"),
    (["augment.p=1.5"], DataInfo((16, 16)), "augment.p=1.5 cannot be used; accepted: 0 to 1"),
    (["augment.p=nan"], DataInfo((16, 16)), "augment.p=nan cannot be read")])
def test_what_cannot_be_used_is_refused_in_one_line(words: list[str], info: DataInfo, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        override(Pix2Pix(), parse_assignments(["augment=kornia", "discriminator.layers=1", *words])).modules(info)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
@pytest.mark.parametrize("recipe", [Pix2Pix(), CycleGAN(), GAN()])
def test_ops_that_g_cannot_learn_through_are_refused(name: str, recipe: Pix2Pix | CycleGAN | GAN) -> None:
    with pytest.raises(RequestError, match=f"augment.ops={name} cannot be used: it has .*gradient"):
        override(recipe, parse_assignments(["augment=kornia", f"augment.ops={name}"])).modules(DataInfo((32, 32)))


@pytest.mark.parametrize("name", RGB_ONLY)
def test_ops_for_rgb_are_refused_for_other_channels_and_the_others_are_not(name: str) -> None:
    for channels in ((1,), (4,), (3, 1)):
        with pytest.raises(RequestError, match=f"{name} cannot be used"):
            check_ops((name,), channels, (32, 32), False)
    check_ops(("RandomAffine", "RandomBrightness", "RandomContrast", "RandomErasing"), (3, 1, 4, 7), (32, 32), WARPS_TWICE)


class OnceDifferentiable(torch.autograd.Function):
    """The identity, whose gradient cannot be differentiated again."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return grad


def test_second_derivatives_are_asked_for_with_gradient_penalties_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_ops()["RandomInvert"], "forward", lambda self, image, params=None: OnceDifferentiable.apply(image))
    words = ["augment=kornia", "augment.ops=RandomInvert", "discriminator.norm=instance"]
    override(Pix2Pix(), parse_assignments(words)).modules(DataInfo((32, 32)))
    for more in ("penalty=r1", "unrolling=sgd"):
        with pytest.raises(RequestError, match="RandomInvert cannot be used: it has no second derivative"):
            override(Pix2Pix(), parse_assignments([*words, more])).modules(DataInfo((32, 32)))
    check_ops.cache_clear()


def test_memory_can_be_estimated_with_it() -> None:
    recipe = override(Pix2Pix(), parse_assignments(["augment=kornia", "generator.width=4"]))
    plain = override(Pix2Pix(), parse_assignments(["generator.width=4"]))
    (_, estimate), (_, without) = (estimate_memory(each, DataInfo((32, 32)), batch_size=2, ema=False) for each in (recipe, plain))
    assert estimate.total >= without.total


def test_kornia_is_imported_only_when_asked() -> None:
    code = ("import sys; from i2i.recipes import gan; from i2i.recipes.base import DataInfo; "
            "gan.GAN().modules(DataInfo((16, 16))); print('kornia' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_pieces_of_a_setting_become_ops_again() -> None:
    assert parse_ops(("RandomAffine(degrees=5", "translate=(0.1", "0.2))", "RandomInvert")) == [
        ("RandomAffine", {"degrees": 5, "translate": (0.1, 0.2)}), ("RandomInvert", {})]


def test_every_default_is_an_argument_of_its_op() -> None:
    for name, arguments in DEFAULTS.items():
        assert set(arguments) <= set(inspect.signature(known_ops()[name]).parameters), name
