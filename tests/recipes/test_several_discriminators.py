"""Several discriminators at once: each with its options, its logits and its loss, in every recipe."""

import json

import pytest
import torch
from torch import Tensor, nn

from i2i.config import components_in_use, from_dict, override, parse_assignments, to_dict
from i2i.errors import RequestError
from i2i.losses.adversarial import NonSaturating
from i2i.recipes.base import DataInfo, Recipe, feature_networks
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.discriminator_outputs import average_logits, build_adversarial, join_logits
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build, schema
from i2i.seeding import Progress

INFO = DataInfo((32, 32), num_classes=2)
CLOCK = Progress(0, 2, 1000)
PARTS = ("discriminator=projected+patch+fastgan", "discriminator.projected.features=random", "discriminator.projected.width=4",
         "discriminator.projected.channels=2", "discriminator.patch.width=4", "discriminator.patch.norm=instance", "discriminator.patch.layers=1",
         "discriminator.fastgan.width=2", "discriminator.fastgan.decoder_width=4")
TINY = {GAN: ("generator.width=4", "generator.z_dim=6", "conditional=true"), Pix2Pix: ("generator.width=4",), CycleGAN: ("generator.width=4", "generator.blocks=1", "pool=0")}


def small(recipe: type, *settings: str) -> Recipe:
    return override(recipe(), parse_assignments([*PARTS, *TINY[recipe], *settings]))


def batch() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    return {"a": torch.rand(2, 3, 32, 32, generator=g) * 2 - 1, "b": torch.rand(2, 3, 32, 32, generator=g) * 2 - 1, "c": torch.arange(2)}


def test_losses_are_sums_over_discriminators_of_means_over_outputs() -> None:
    a, b, c = torch.randn(2, 1, 3, 3), torch.randn(2, 1), torch.randn(2, 1, 2, 2)
    fake = ([a, b], c)
    real = ([a + 1, b - 1], 2 * c)
    loss, one = build_adversarial(Spec("nonsaturating")), NonSaturating()
    torch.testing.assert_close(loss.d(real, fake), (one.d(a + 1, a) + one.d(b - 1, b)) / 2 + one.d(2 * c, c))
    torch.testing.assert_close(loss.g(fake), (one.g(a) + one.g(b)) / 2 + one.g(c))
    assert join_logits(fake).shape == (2, 9 + 1 + 4)
    torch.testing.assert_close(average_logits(fake).mean(1), ((a.mean((1, 2, 3)) + b[:, 0]) / 2 + c.mean((1, 2, 3))) / 2)


def test_each_is_the_network_that_it_is_alone() -> None:
    recipe = small(GAN)
    torch.manual_seed(0)
    both = build("discriminator", recipe.discriminator, 3, (32, 32), 2).eval()
    assert list(both.parts) == ["projected", "patch", "fastgan"]
    assert both.parts["patch"].layers[0].out_channels == 4
    x, c = batch()["b"], torch.arange(2)
    for found, part in zip(both(x, c), both.parts.values(), strict=True):
        for one, other in zip(*((each if isinstance(each, list) else [each]) for each in (found, part(x, c))), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(both.self_supervise(x, c)[1] > 0, torch.tensor(True))
    assert len(both.features(x, c)) == 3 + 1 + 2      # Of three heads, of patches, of both branches.


@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CycleGAN])
def test_every_recipe_trains_all_of_them(recipe: type) -> None:
    r = small(recipe)
    torch.manual_seed(0)
    m = r.modules(INFO)
    seen: dict[str, Tensor] = {}

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        seen.update(logs)
        for name in (name for name in r.players[player].modules if list(m[name].parameters())):
            gradients = torch.autograd.grad(loss, list(m[name].parameters()), retain_graph=True, allow_unused=True)
            assert [key for (key, _), g in zip(m[name].named_parameters(), gradients, strict=True) if g is None] == []

    r.step(m, batch(), CLOCK, update)
    assert any(key.startswith("self_supervised") for key in seen)
    assert all(value.isfinite() for value in seen.values())
    assert join_logits(r.discriminate(m.eval(), batch())).shape[0] == 2


def test_the_loss_of_d_is_that_of_its_parts_and_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    r = small(Pix2Pix, "discriminator.fastgan.lambda_rec=3")
    torch.manual_seed(0)
    m, x, seen = r.modules(INFO), batch(), {}
    m.eval()
    part = torch.tensor([2, 1])
    monkeypatch.setattr(torch, "randint", lambda *arguments, **options: part)
    r.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss, **logs}))
    fake, loss = m["G"](x["a"]).detach(), NonSaturating()
    expected = torch.zeros(())
    for D in m["D"].parts.values():
        pairs = [D(torch.cat([x["a"], image], 1)) for image in (x["b"], fake)]
        outputs = list(zip(*pairs, strict=True)) if isinstance(pairs[0], list) else [tuple(pairs)]
        expected = expected + torch.stack([loss.d(real, generated) for real, generated in outputs]).mean() / 2
    own = m["D"].parts["fastgan"].self_supervise(torch.cat([x["a"], x["b"]], 1))[1]
    torch.testing.assert_close(seen["D"], expected + own, rtol=1e-4, atol=0)


def test_options_are_typed_after_the_name_of_each_and_kept() -> None:
    recipe = small(GAN)
    assert recipe.discriminator.options["patch.width"] == 4
    assert from_dict(GAN, json.loads(json.dumps(to_dict(recipe)))) == recipe
    assert {"projected.features", "patch.layers", "fastgan.decoder_width"} <= set(schema("discriminator", "projected+patch+fastgan"))
    assert {("discriminator", "projected"), ("discriminator", "patch"), ("norm", "instance")} <= set(components_in_use(recipe))
    assert feature_networks(recipe) == ("random",)


@pytest.mark.parametrize(("words", "message"), [
    (["discriminator=patch+patsh"], "did you mean 'pixel'|did you mean 'patch'"), (["discriminator=patch+patch"], "one of them comes twice"), (["generator=dcgan+sagan"], "no such noise_generator"),
    (["discriminator=patch+pixel", "discriminator.width=4"], r"no option 'width'; did you mean 'p\w+.width'"), (["discriminator=patch+"], "there is no such discriminator")])
def test_what_is_wrong_is_reported(words: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        override(GAN(), parse_assignments(words))


def test_virtual_batch_norm_is_refused() -> None:
    spec = Spec("dcgan+patch", {"dcgan.norm": "virtual"})
    with pytest.raises(RequestError, match="share no reference batch"):
        build("discriminator", spec, 3, (32, 32))


def test_list_says_how_they_are_combined(i2i) -> None:
    assert "Several at once: discriminator=dcgan+fastgan" in i2i("list", "discriminator").out
    assert isinstance(build("discriminator", Spec("patch+pixel"), 3, (32, 32)), nn.Module)
