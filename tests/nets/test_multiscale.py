"""The multiscale discriminator, and losses over several outputs, against pix2pixHD and SPADE (tests/reference/README.md) and their formulas."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.images.convert import to_tensor
from i2i.nets.multiscale import MultiscaleDiscriminator
from i2i.nets.weight_norm import SpectralNorm
from i2i.recipes.base import DataInfo
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.discriminator_outputs import average_logits, build_adversarial, join_logits
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.recipes.stabilizers.feature_matching import match_features
from i2i.recipes.stabilizers.gradient_penalty import penalty_term
from i2i.registry import Spec
from i2i.seeding import Progress
from tests.conftest import REFERENCE

CLOCK = Progress(0, 2, 1000)
SETTINGS = {name: json.loads((REFERENCE / name / "settings.json").read_text()) for name in ("pix2pixhd", "spade")}


def arrays(name: str) -> tuple[dict[str, np.ndarray], dict[str, Tensor]]:
    folder = REFERENCE / name
    return dict(np.load(folder / "discriminator.npz")), torch.load(folder / "discriminator.pth", weights_only=True)


def convolutions(network: MultiscaleDiscriminator) -> list[list[nn.Conv2d]]:
    return [[layer for layer in scale.layers if isinstance(layer, nn.Conv2d)] for scale in network.scales]


def of_pix2pixhd() -> tuple[MultiscaleDiscriminator, Tensor, Tensor]:
    """Its discriminator, whose full resolution is the scale with the highest number, and its two inputs."""
    data, state = arrays("pix2pixhd")
    D = MultiscaleDiscriminator(8, (64, 80), width=4, layers=3)
    for i, scale in enumerate(convolutions(D)):
        for j, layer in enumerate(scale):
            layer.load_state_dict({key: state[f"scale{1 - i}_layer{j}.0.{key}"] for key in ("weight", "bias")})
    fake, real = (torch.stack([to_tensor(image.transpose(1, 2, 0)) for image in data[f"{kind}_uint8"]]) for kind in ("fake", "real"))
    label = torch.from_numpy(data["label"])
    return D, torch.cat([label, real], 1), torch.cat([label, fake], 1)


def of_spade() -> tuple[MultiscaleDiscriminator, Tensor, Tensor]:
    """Its discriminator with spectral norm on all but the first and last layers, and its two inputs."""
    data, state = arrays("spade")
    D = MultiscaleDiscriminator(8, (64, 64), width=6, layers=3)
    for i, scale in enumerate(convolutions(D)):
        for j, layer in enumerate(scale):
            name = f"discriminator_{i}.model{j}.0." + ("0." if 0 < j < 4 else "")
            weight = state[name + ("weight_orig" if 0 < j < 4 else "weight")]
            layer.load_state_dict({"weight": weight, "bias": state.get(name + "bias", torch.zeros(len(weight)))})
            if 0 < j < 4:
                norm = SpectralNorm(layer.weight, 0, 1, 1e-12)
                parametrize.register_parametrization(layer, "weight", norm)
                norm.u.copy_(state[name + "weight_u"])
                norm.v.copy_(state[name + "weight_v"])
    fake, real = (torch.stack([to_tensor(image.transpose(1, 2, 0)) for image in data[f"{kind}_uint8"]]) for kind in ("fake", "real"))
    label = F.one_hot(torch.from_numpy(data["label"]).long(), 5).permute(0, 3, 1, 2).float()
    return D, torch.cat([label, real], 1), torch.cat([label, fake], 1)


def assert_layers(D: MultiscaleDiscriminator, x: Tensor, data: dict[str, np.ndarray], prefix: str) -> None:
    for i, (maps, logits) in enumerate(zip(D.features(x), D(x), strict=True)):
        torch.testing.assert_close(logits, torch.from_numpy(data[f"{prefix}{i}_layer4"]), atol=2e-5, rtol=0)
        assert len(maps) == 4
        for j, activation in enumerate(maps):
            sample = torch.from_numpy(data[f"{prefix}{i}_layer{j}_sample"])
            torch.testing.assert_close(activation[:, ::3, ::5, ::5], sample, atol=2e-5, rtol=0)
            stats = torch.stack([activation.double().mean((1, 2, 3)), activation.double().abs().mean((1, 2, 3))])
            torch.testing.assert_close(stats, torch.from_numpy(data[f"{prefix}{i}_layer{j}_stats"]), atol=2e-5, rtol=0)


@torch.no_grad()
def test_the_network_is_pix2pixhds() -> None:
    D, real, fake = of_pix2pixhd()
    data, _ = arrays("pix2pixhd")
    assert_layers(D, real, data, "real_result")
    assert_layers(D, fake, data, "fake_result")


@torch.no_grad()
def test_the_network_with_spectral_norm_is_spades() -> None:
    """In eval mode from the stored singular vectors, in train mode after one iteration, which stays."""
    D, real, fake = of_spade()
    data, _ = arrays("spade")
    both = torch.cat([fake, real])
    assert_layers(D.eval(), both, data, "eval_scale")
    trained = copy.deepcopy(D).train()
    for i, logits in enumerate(trained(both)):
        torch.testing.assert_close(logits, torch.from_numpy(data[f"train_scale{i}_layer4"]), atol=2e-5, rtol=0)
    for i, scale in enumerate(convolutions(trained)):
        for j in (1, 2, 3):
            for key in "uv":
                after = torch.from_numpy(data[f"after_train.discriminator_{i}.model{j}.0.0.weight_{key}"])
                torch.testing.assert_close(getattr(scale[j].parametrizations.weight[0], key), after, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("ours", "theirs"), [("hinge", "hinge"), ("lsgan", "ls"), ("nonsaturating", "original"), ("wasserstein", "w")])
def test_losses_are_spades_means_over_scales(ours: str, theirs: str) -> None:
    D, real, fake = of_spade()
    loss, expected = build_adversarial(Spec(ours)), SETTINGS["spade"]["losses_eval"][theirs]
    D.eval()
    assert loss.d(D(real), D(fake)).item() == pytest.approx(expected["D_fake"] + expected["D_real"], rel=1e-5)
    assert loss.g(D(fake)).item() == pytest.approx(expected["G"], rel=1e-5)


@torch.no_grad()
def test_losses_are_half_of_pix2pixhds_sums_over_two_scales() -> None:
    D, real, fake = of_pix2pixhd()
    loss, expected = build_adversarial(Spec("lsgan")), SETTINGS["pix2pixhd"]["losses"]["lsgan"]
    assert loss.d(D(real), D(fake)).item() == pytest.approx((expected["D_fake"] + expected["D_real"]) / 2, rel=1e-5)
    assert loss.g(D(fake)).item() == pytest.approx(expected["G"] / 2, rel=1e-5)


@torch.no_grad()
def test_feature_matching_over_scales_is_that_of_both() -> None:
    for (D, real, fake), expected in ((of_pix2pixhd(), SETTINGS["pix2pixhd"]["losses"]["G_GAN_Feat"]),
                                      (of_spade(), SETTINGS["spade"]["losses_eval"]["GAN_Feat_lambda10"])):
        loss, _ = match_features(Spec("layers", {"weight": 10.0}), DiscriminatorView(D.eval()), real, fake, torch.zeros(()))
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def small(recipe: type, *words: str) -> object:
    return override(recipe(), parse_assignments(["discriminator=multiscale", "discriminator.width=3", "discriminator.layers=1", "generator.width=3", *words]))


def test_the_objective_of_pix2pixhd_is_the_papers() -> None:
    """Equations 2 to 5: the sum over k of GAN(D_k), and lambda times the sum over k and layers of |D_k(a, b) - D_k(a, G(a))| / N_i; LSGAN."""
    recipe = small(Pix2Pix, "discriminator.scales=3", "adversarial=lsgan", "feature_matching=layers", "feature_matching.weight=30", "feature_matching.gan=3",
                   "lambda_l1=0", "generator.dropout=0.0")
    torch.manual_seed(5)
    x = {side: torch.rand(2, 3, 32, 32) * 2 - 1 for side in "ab"}
    m = recipe.modules(DataInfo((32, 32)))
    D = copy.deepcopy(m["D"])
    seen = {}
    recipe.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss, **logs}))

    fake = m["G"](x["a"])
    real_image, fake_image, d, gan, matching, logits = torch.cat([x["a"], x["b"]], 1), torch.cat([x["a"], fake], 1), 0, 0, 0, []
    for network in D.scales:
        real, of_fake = network(real_image), network(fake_image)
        d += ((real - 1)**2).mean() + (of_fake**2).mean()
        gan += ((of_fake - 1)**2).mean()
        matching += sum((r - f).abs().mean() for r, f in zip(network.features(real_image), network.features(fake_image), strict=True))
        logits.append(real.mean())
        real_image, fake_image = (F.avg_pool2d(F.pad(image, (1, 1, 1, 1)), 3, 2) * 9 / F.avg_pool2d(F.pad(torch.ones_like(image) * 9, (1, 1, 1, 1)), 3, 2)
                                  for image in (real_image, fake_image))
    assert seen["D"].item() == pytest.approx(d.item() / 3 / 2, rel=1e-5)
    assert seen["G"].item() == pytest.approx((gan + 10 * matching).item(), rel=1e-5)
    assert seen["real_logits"].item() == pytest.approx(sum(logits).item() / 3, rel=1e-5)


def test_a_gradient_penalty_is_of_the_mean_over_scales_of_the_mean_logit() -> None:
    D = MultiscaleDiscriminator(3, (24, 24), width=3, layers=1, norm="none").double()
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    at = x.clone().requires_grad_()
    gradient, = torch.autograd.grad(sum(logits.mean((1, 2, 3)) for logits in D(at)).sum() / 2, at)
    penalty = penalty_term(Spec("r1", {"gamma": 2.0}), 0, DiscriminatorView(D), x, x, 1)
    assert penalty.item() == pytest.approx(gradient.square().sum((1, 2, 3)).mean().item(), rel=1e-9)


def test_one_output_is_left_as_it_is_and_several_weigh_the_same() -> None:
    one, other = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 2, 2)
    assert average_logits(one) is one
    assert join_logits(one) is one
    torch.testing.assert_close(average_logits([one, other]), torch.stack([one.mean((1, 2, 3)), other.mean((1, 2, 3))], 1))
    assert join_logits([one, other]).shape == (2, 13)
    loss = build_adversarial(Spec("nonsaturating"))
    assert torch.equal(loss.g(one), F.softplus(-one).mean())
    assert (loss.relativistic, loss.decision_boundary) == (False, 0.0)
    assert build_adversarial(Spec("rpgan")).relativistic


# Everything that acts on D's logits at once, in each recipe.
@pytest.mark.parametrize(("recipe", "words"), [
    (Pix2Pix, ["adversarial=rpgan", "penalty=r1", "feature_matching=layers", "pack=2"]), (Pix2Pix, ["augment=ada", "unrolling=adam", "unrolling.steps=1"]),
    (CycleGAN, ["adversarial=ragan", "augment=diffaugment", "generator.blocks=1"]), (GAN, ["augment=ada", "feature_matching=means", "conditional=true"])])
def test_every_recipe_and_stabilizer_takes_several_outputs(recipe: type, words: list[str]) -> None:
    r = small(recipe, "discriminator.norm=none", *words)
    torch.manual_seed(1)
    m = r.modules(DataInfo((32, 32), num_classes=2))
    x = {"a": torch.rand(4, 3, 32, 32), "b": torch.rand(4, 3, 32, 32), "c": torch.arange(4) % 2}

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        parameters = [p for name in r.players[player].modules for p in m[name].parameters()]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert sum(bool(g is not None and g.any()) for g in gradients) > len(parameters) / 2
        assert all(value.ndim == 0 for value in logs.values())

    r.step(m, x, CLOCK, update)
    assert [len(each) for each in r.discriminate(m.eval(), x)] == [4, 4]


def test_scales_that_the_images_are_too_small_for_are_refused() -> None:
    with pytest.raises(RequestError, match="discriminator.scales=4 cannot be used; accepted: fewer.* the last scale has 4x4 pixels and needs 6"):
        MultiscaleDiscriminator(3, (32, 32), scales=4)
    with pytest.raises(RequestError, match="discriminator.scales=0"):
        MultiscaleDiscriminator(3, (32, 32), scales=0)
    with pytest.raises(RequestError, match="or fewer discriminator.layers than 3"):
        MultiscaleDiscriminator(3, (32, 32), layers=3)
    assert [len(convolutions(MultiscaleDiscriminator(3, size, width=2))[0]) for size in ((256, 256), (32, 64), (16, 16))] == [5, 4, 3]
