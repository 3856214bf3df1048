"""Virtual batch norm: the formula, the independence of images, and the choice of the reference batch."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.nets import norms
from i2i.nets.virtual_batch_norm import ReferenceBatch, VirtualBatchNorm
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build
from i2i.seeding import Progress

SMALL = {"width": 4, "norm": "virtual", "reference": 5}
NETWORKS = [("noise_generator", "dcgan", {}), ("noise_generator", "dcgan", {"condition": "batchnorm"}), ("noise_generator", "mlp", {}), ("noise_generator", "sagan", {}),
            ("noise_generator", "sagan", {"condition": "concat"}), ("discriminator", "dcgan", {}), ("discriminator", "dcgan", {"condition": "projection"}),
            ("discriminator", "mlp", {})]


def test_an_image_is_normalized_as_in_batch_norm_of_the_reference_and_itself() -> None:
    """Salimans et al. 2016, section 3.4, in terms of batch norm: of the reference alone, and of the reference with one more image."""
    layer, x = VirtualBatchNorm(3, 4), torch.randn(7, 3, 5, 6) * 3 + torch.tensor([0.0, 4.0, -90.0])[:, None, None]
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    reference = F.batch_norm(x[:4], None, None, layer.weight, layer.bias, training=True)
    others = [F.batch_norm(torch.cat([x[:4], image[None]]), None, None, layer.weight, layer.bias, training=True)[4:] for image in x[4:]]
    torch.testing.assert_close(layer(x), torch.cat([reference, *others]), atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (layer(x.bfloat16()).float() - layer(x)).abs().max() < 0.2       # Where x is -90, bf16 itself is off by 0.25.
    assert torch.equal(layer.eval()(x), layer.train()(x))


def made(kind: str, name: str, **options: object) -> tuple[nn.Module, list[Tensor]]:
    """A network of three classes in training mode, and its inputs for six images."""
    torch.manual_seed(0)
    network = build(kind, Spec(name, {**SMALL, **options}), 3, (32, 32), 3)
    for p in network.parameters():      # As after some training: nothing is still 0 or 1.
        p.data += 0.05 * torch.randn_like(p)
    return network, [torch.randn(6, network.z_dim) if kind == "noise_generator" else torch.randn(6, 3, 32, 32), torch.arange(6) % 3]


@pytest.mark.parametrize(("kind", "name", "options"), NETWORKS)
def test_in_training_an_image_does_not_depend_on_the_rest_of_its_batch(kind: str, name: str, options: dict[str, str]) -> None:
    for norm in ("virtual", "batch"):
        network, (x, c) = made(kind, name, **options, norm=norm)
        together = network(x, c)
        strangers = network(torch.cat([x[:2], 3 * x[2:].flip(0)]), torch.cat([c[:2], c[2:].flip(0)]))[:2]
        assert len(together) == 6
        if norm == "virtual":
            torch.testing.assert_close(strangers, together[:2], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(torch.cat([network(x[i:i + 1], c[i:i + 1]) for i in range(6)]), together, atol=1e-5, rtol=1e-5)
            assert torch.equal(network.eval()(x, c), together)
            assert not norms.uses_batch_statistics(network)
        else:
            assert not torch.allclose(strangers, together[:2], atol=1e-3)
    if hasattr(network, "features"):
        assert all(len(h) == 6 for h in made(kind, name, **options)[0].features(x, c))


@pytest.mark.parametrize(("kind", "name", "options"), NETWORKS)
def test_outputs_depend_on_the_reference_which_is_set_once_and_saved(kind: str, name: str, options: dict[str, str]) -> None:
    network, (x, c) = made(kind, name, **options)
    before = network(x, c)
    network.reference.initialize(torch.randn(3, *network.reference.inputs.shape[1:]) * 4)
    after = network(x, c)
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.equal(network.reference.inputs[:2], network.reference.inputs[3:])     # Three images are repeated to make five.
    network.reference.initialize(torch.randn(5, *network.reference.inputs.shape[1:]))
    assert torch.equal(network(x, c), after)                                           # It is set once.
    other, _ = made(kind, name, **options)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x, c), after)
    after.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for name, p in network.named_parameters() if "embedding" not in name)


# ---------------------------------------------------------------------------------------------- what recipes compare with

INFO = DataInfo((16, 16), num_classes=3)
TINY = ("discriminator=dcgan", "discriminator.norm=virtual", "discriminator.reference=4", "discriminator.width=4", "generator.width=4")


def step(recipe: Recipe, m: nn.ModuleDict, seed: int, at: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = {side: torch.rand(4, 3, 16, 16, generator=g) * 2 - 1 for side in "ab"} | {"c": torch.arange(4) % 3}
    recipe.step(m, x, Progress(at, 4, 1000), lambda player, loss, /, **logs: loss.backward())
    return x


@pytest.mark.parametrize("settings", [(), ("pack=2",), ("conditional=true",)], ids="".join)
def test_the_reference_of_d_is_the_first_real_images(settings: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    r = override(GAN(), parse_assignments([*TINY, "generator.norm=virtual", "generator.reference=4", "latent=uniform", *settings]))
    m = r.modules(INFO)
    z = m["G"].reference.inputs.clone()
    assert z.abs().max() <= 1           # From the prior, whatever that is.
    first = step(r, m, 1)
    step(r, m, 2, 1)
    saved = m["D"].reference.inputs
    assert torch.equal(saved, first["b"] if not settings or "pack=2" not in settings else first["b"].reshape(2, 6, 16, 16).repeat(2, 1, 1, 1))
    assert torch.equal(m["G"].reference.inputs, z)
    if settings == ("conditional=true",):
        assert torch.equal(m["D"].reference.labels, first["c"])


def test_the_reference_of_pix2pix_holds_both_sides() -> None:
    r = override(Pix2Pix(), parse_assignments([*TINY, "generator.depth=2"]))
    m = r.modules(INFO)
    first = step(r, m, 1)
    step(r, m, 2, 1)
    assert torch.equal(m["D"].reference.inputs, torch.cat([first["a"], first["b"]], 1))


def test_a_penalty_is_allowed_as_a_gradient_belongs_to_one_image() -> None:
    r = override(GAN(), parse_assignments([*TINY, "penalty=r1"]))
    m = r.modules(INFO)
    x = step(r, m, 1)["b"].requires_grad_()
    slopes, = torch.autograd.grad(m["D"](x, None)[1].sum(), x)
    assert slopes[1].abs().max() > 0
    assert slopes[[0, 2, 3]].abs().max() == 0


@pytest.mark.parametrize(("recipe", "settings", "message"), [
    (Pix2Pix, ["discriminator.norm=virtual", "discriminator.layers=1"], "has no reference batch"), (Pix2Pix, ["generator.norm=virtual"], "has no reference batch"),
    (CycleGAN, ["generator.norm=virtual"], "has no reference batch"), (CycleGAN, [*TINY], "G is updated before D"), (GAN, ["generator.reference=1"], "generator.reference=1"),
    (GAN, ["discriminator.reference=0"], "discriminator.reference=0")])
def test_networks_without_a_reference_batch_refuse_it_with_the_reason(recipe: type, settings: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        override(recipe(), parse_assignments(settings)).modules(INFO)


def test_other_norms_have_no_reference_batch() -> None:
    assert not list(ReferenceBatch("generator", "batch", 64, (100,)).state_dict())
