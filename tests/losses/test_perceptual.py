"""Perceptual losses: the formula, and what each recipe compares."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.losses import perceptual
from i2i.losses.perceptual import FeatureDistance
from i2i.metrics import weights
from i2i.metrics.feature_networks import frozen_network
from i2i.metrics.lpips import layer_distance
from i2i.metrics.networks.vgg import VGG16
from i2i.recipes.base import DataInfo, feature_networks
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build, schema
from i2i.seeding import Progress
from tests.metrics.test_paired_reference import EXPECTED, backbone, pair

CLOCK = Progress(0, 2, 1000)
TINY = {Pix2Pix: ("generator.width=4", "discriminator.width=4", "discriminator.layers=1"),
        CUT: ("generator.width=4", "generator.blocks=1", "discriminator.width=4", "discriminator.layers=1", "nce_layers=0,4", "nce_width=4"),
        CycleGAN: ("generator.width=4", "generator.blocks=1", "discriminator.width=4", "discriminator.layers=1", "pool=0")}


def test_it_is_the_weighted_sum_of_mean_absolute_differences_in_each_layer() -> None:
    x, y = torch.rand(2, 3, 16, 24, requires_grad=True), torch.rand(2, 3, 16, 24, requires_grad=True)
    loss = FeatureDistance(features="random", layers=("scale1", "scale4"), layer_weights=(0.5, 2.0))
    network = frozen_network("random")
    naive = sum(w * (network.feature_maps(x, [layer])[0] - network.feature_maps(y, [layer])[0]).abs().mean() for layer, w in (("scale1", 0.5), ("scale4", 2.0)))
    found = loss(x, y)
    torch.testing.assert_close(found, naive)
    found.backward()
    assert x.grad is not None
    assert x.grad.any()
    assert y.grad is None       # The target is a constant.
    assert loss(y.detach(), y.detach()) == 0


def test_gray_images_are_compared_as_gray_ones_and_alpha_beside_color() -> None:
    loss, x, y = FeatureDistance(features="random"), torch.rand(2, 4, 16, 16), torch.rand(2, 4, 16, 16)
    gray = loss(x[:, 3:], y[:, 3:])
    torch.testing.assert_close(gray, loss(x[:, 3:].expand(-1, 3, -1, -1), y[:, 3:].expand(-1, 3, -1, -1)))
    torch.testing.assert_close(loss(x, y), (loss(x[:, :3], y[:, :3]) + gray) / 2)


@pytest.mark.parametrize(("options", "accepted"), [({"weight": 0}, "more than 0"), ({"layers": ("scale3",)}, "did you mean 'scale"), ({"layer_weights": (1.0,)}, "3, one for each layer"),
                                                   ({"features": "vgg"}, "no feature_network is called 'vgg'")])
def test_invalid_options_are_refused(options: dict[str, object], accepted: str) -> None:
    with pytest.raises(RequestError, match=accepted):
        FeatureDistance(**{"features": "random", **options})


def test_lpips_is_that_of_its_authors_and_differentiable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded values of lpips 0.1.4 for a VGG16 whose weights a formula makes; the calibrated weights are the bundled ones."""
    torch.save(backbone("vgg"), tmp_path / "vgg.pth")
    network = VGG16(tmp_path / "vgg.pth")
    monkeypatch.setattr(perceptual, "frozen_network", lambda name, device=None: network)
    loss = perceptual.LPIPSDistance()
    fake, real = pair("0")
    fake, real = (fake / 127.5 - 1).requires_grad_(), real / 127.5 - 1
    found = loss(fake, real)
    assert found.item() == pytest.approx(EXPECTED["pairs"]["0"]["lpips_vgg"]["total"], abs=1e-5)
    gradient, = torch.autograd.grad(found, fake)
    assert gradient.isfinite().all()
    assert (gradient.abs().mean((0, 2, 3)) > 0).all()
    assert loss(fake - 1e-2 * gradient / gradient.norm(), real) < found


def test_lpips_without_the_weights_says_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "locate_weights", lambda name, folder=None: None)
    frozen_network.cache_clear()
    with pytest.raises(RequestError, match=r"vgg16-397923af.pth is absent \(sha256 397923af.*i2i weights fetch vgg16, or put it from https://"):
        build("perceptual", Spec("lpips"))
    assert schema("perceptual", "lpips")["features"].default == "vgg16"     # Which the model's header names as one it is not to be judged by.


@pytest.mark.parametrize("zero", [True, False])
def test_the_distance_of_a_layer_is_the_formula_and_has_a_gradient_where_nothing_is_seen(zero: bool) -> None:
    pair = torch.rand(4, 3, 2, 5, dtype=torch.float64)
    if zero:
        pair[:, :, 0] = 0
    pair.requires_grad_()
    lin = torch.tensor([0.5, 0.0, 2.0], dtype=torch.float64).reshape(1, 3, 1, 1)
    found = layer_distance(pair, lin)
    for i in range(2):
        naive = sum(w * (pair[i, c, y, x] / (pair[i, :, y, x].norm() + 1e-10) - pair[2 + i, c, y, x] / (pair[2 + i, :, y, x].norm() + 1e-10)) ** 2
                    for c, w in enumerate((0.5, 0.0, 2.0)) for y in range(2) for x in range(5)) / 10
        torch.testing.assert_close(found[i], naive)
    found.sum().backward()
    assert pair.grad.isfinite().all()


def loss_of_g(recipe: type, *words: str) -> tuple[Tensor, nn.ModuleDict, dict[str, Tensor]]:
    r = override(recipe(), parse_assignments([*TINY[recipe], *words]))
    assert feature_networks(r) == (("random",) if words else ())
    torch.manual_seed(0)
    m, seen = r.modules(DataInfo((16, 16))).eval(), {}
    g = torch.Generator().manual_seed(5)
    x = {side: torch.rand(2, 3, 16, 16, generator=g) * 2 - 1 for side in "ab"}
    r.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss, **logs}))
    return seen["G"], m, x


@pytest.mark.parametrize("recipe", TINY)
def test_outputs_are_compared_with_targets_of_pairs_and_with_inputs_without(recipe: type) -> None:
    plain, m, x = loss_of_g(recipe)
    with_, _, _ = loss_of_g(recipe, "perceptual=features", "perceptual.features=random", "perceptual.weight=3")
    loss = FeatureDistance(features="random")
    pairs = [(m["G_ab"](x["a"]), x["a"]), (m["G_ba"](x["b"]), x["b"])] if recipe is CycleGAN else [(m["G"](x["a"]), x["b" if recipe is Pix2Pix else "a"])]
    torch.testing.assert_close(with_ - plain, 3 * sum(loss(*pair) for pair in pairs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("recipe", "identity"), [(CycleGAN, "lambda_identity=0"), (CUT, "nce_identity=false")])
def test_sides_that_differ_in_channels_are_not_compared(recipe: type, identity: str) -> None:
    recipe = override(recipe(), parse_assignments([*TINY[recipe], identity, "perceptual=features", "perceptual.features=random"]))
    with pytest.raises(RequestError, match="none where the sides differ in channels"):
        recipe.modules(DataInfo((16, 16), a_channels=1))
