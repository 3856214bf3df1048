"""A contract over all image-to-image generators, and the papers' statements about the default networks.  Discriminators: test_noise_generators.py."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from i2i.errors import RequestError
from i2i.nets import norms
from i2i.nets.blocks import GemmConv2d, GemmConvTranspose2d
from i2i.nets.padding import ReflectionPad2d
from i2i.nets.resnet import ResNet
from i2i.nets.unet import UNet
from i2i.registry import Spec, build, names, schema

SIZE = (32, 64)
TINY = {"width": 4, "hidden": 8}


def make(kind: str, name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    tiny = {key: value for key, value in TINY.items() if key in schema(kind, name)}
    return build(kind, Spec(name, {**tiny, **options}), 2, 3, SIZE)


def with_option(option: str) -> list[str]:
    return [name for name in names("generator") if option in schema("generator", name)]


@pytest.mark.parametrize("name", names("generator"))
class TestGenerators:
    def test_shape_and_range(self, name: str) -> None:
        out = make("generator", name)(torch.randn(2, 2, *SIZE) * 3)
        assert out.shape == (2, 3, *SIZE)
        assert out.abs().max() <= 1
        assert out.std() > 0

    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        network = make("generator", name, norm="batch")
        network(torch.randn(2, 2, *SIZE)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())

    def test_in_eval_mode_an_image_does_not_depend_on_the_rest_of_its_batch(self, name: str) -> None:
        network, x = make("generator", name).eval(), torch.randn(3, 2, *SIZE)
        alone = torch.cat([network(image[None]) for image in x])
        torch.testing.assert_close(network(x), alone, atol=1e-5, rtol=1e-5)

    def test_other_multiples_of_its_smallest_size_are_supported(self, name: str) -> None:
        network = make("generator", name).eval()
        m = max(network.multiple, getattr(network, "smallest", 1))
        assert network(torch.randn(1, 2, m, 2 * m)).shape == (1, 3, m, 2 * m)


@pytest.mark.parametrize("name", with_option("dropout"))
def test_dropout_is_random_in_training_and_off_in_eval_mode(name: str) -> None:
    network, x = make("generator", name, dropout=0.5), torch.randn(2, 2, *SIZE)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize("up", ["transposed", "resize"])
@pytest.mark.parametrize("name", with_option("up"))
def test_both_upsamplings_reach_the_size_of_the_image(name: str, up: str) -> None:
    assert make("generator", name, up=up)(torch.randn(1, 2, *SIZE)).shape == (1, 3, *SIZE)


def test_the_generators_with_dropout_and_a_choice_of_upsampling_are_found() -> None:
    assert {"unet", "resnet", "pix2pixhd"} <= set(with_option("dropout")) & set(with_option("up"))


@pytest.mark.parametrize("norm", names("norm"))
def test_every_norm_keeps_the_shape(norm: str) -> None:
    if norm == "syncbatch":
        assert isinstance(norms.make_norm(norm, 6), nn.SyncBatchNorm)
        return
    assert norms.make_norm(norm, 6, reference=1)(torch.randn(2, 6, 8, 8)).shape == (2, 6, 8, 8)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("norm", [name for name in names("norm") if name not in ("syncbatch", "none")])
def test_the_gradients_of_a_norm_do_not_depend_on_memory_formats(norm: str, images: int) -> None:
    """torch's instance norm of one image takes the numbers of a gradient in channels_last in the wrong order."""
    layer = norms.make_norm(norm, 6, reference=1).double()
    layer(torch.randn(1, 6, 8, 5, dtype=torch.float64))     # The reference batch of virtual batch norm.
    x, given, weight = torch.randn(3, images, 6, 8, 5, dtype=torch.float64)

    def derivatives(of_x: torch.memory_format, of_given: torch.memory_format) -> list[torch.Tensor]:
        inputs = x.clone(memory_format=of_x).requires_grad_()
        first, = torch.autograd.grad(layer(inputs), inputs, given.clone(memory_format=of_given), create_graph=True)
        return [first, *torch.autograd.grad((first * weight).sum() + first.square().sum(), inputs)]

    expected = derivatives(torch.contiguous_format, torch.contiguous_format)
    for of_x in (torch.contiguous_format, torch.channels_last):
        for of_given in (torch.contiguous_format, torch.channels_last):
            torch.testing.assert_close(derivatives(of_x, of_given), expected)


def test_instance_norm_of_one_image_is_torchs_own() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(1, 6, 8, 5, dtype=dtype, requires_grad=True)
        ours, theirs = norms.make_norm("instance", 6)(x), nn.InstanceNorm2d(6)(x)
        assert torch.equal(ours, theirs)
        assert torch.equal(*(torch.autograd.grad(out, x, torch.ones_like(out).cumsum(3))[0] for out in (ours, theirs)))
        with torch.autocast("cpu", torch.bfloat16):
            assert norms.make_norm("instance", 6)(x).dtype == nn.InstanceNorm2d(6)(x).dtype


def test_batch_norm_can_use_each_images_own_statistics() -> None:
    norm = norms.BatchNorm(3)
    x = torch.randn(1, 3, 8, 8) * 5 + 2
    trained = norm(x)
    norm.eval()
    assert not torch.allclose(norm(x), trained, atol=1e-3)
    norm.per_image = True
    torch.testing.assert_close(norm(x), trained, atol=1e-5, rtol=1e-5)


def test_at_256_pixels_the_networks_are_the_papers() -> None:
    with torch.device("meta"):
        G, D = build("generator", Spec("unet"), 3, 3, (256, 256)), build("discriminator", Spec("patch"), 6, (256, 256))
    assert sum(p.numel() for p in G.parameters()) == 54_413_955      # As the reference implementation prints for unet_256.
    assert sum(p.numel() for p in D.parameters()) == 2_768_705       # ... and for the basic discriminator on pairs.
    assert [layer[0].out_channels for layer in G.down] == [64, 128, 256, 512, 512, 512, 512, 512]
    assert [any(isinstance(m, nn.Dropout) for m in layer) for layer in G.up] == [True] * 3 + [False] * 5
    assert D(torch.empty(1, 6, 256, 256, device="meta")).shape == (1, 1, 30, 30)


@pytest.mark.parametrize(("side", "layers"), [(256, 3), (24, 3), (23, 2), (16, 2), (12, 2), (11, 1), (6, 1)])
def test_a_patch_discriminator_of_small_images_has_fewer_layers(side: int, layers: int) -> None:
    with torch.device("meta"):
        default, given = (build("discriminator", Spec("patch", options), 3, (side, side)) for options in ({}, {"layers": layers}))
    assert [p.shape for p in default.parameters()] == [p.shape for p in given.parameters()]
    assert min(default(torch.empty(1, 3, side, side, device="meta")).shape) >= 1
    with pytest.raises(RequestError, match="discriminator.layers=1 cannot be used; accepted: 0"):
        build("discriminator", Spec("patch"), 3, (5, 5))


def test_a_patch_sees_seventy_pixels() -> None:
    D = build("discriminator", Spec("patch", {"norm": "none", "width": 2}), 1, (128, 128)).double()
    x = torch.randn(1, 1, 128, 128, dtype=torch.float64, requires_grad=True)
    logits = D(x)
    logits[0, 0, 7, 7].backward()
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == 70


@pytest.mark.parametrize(("size", "halvings"), [((64, 64), 6), ((256, 256), 8), ((512, 512), 9), ((96, 96), 5), ((64, 256), 6), ((96, 64), 5)])
def test_a_unet_halves_both_sides_as_often_as_the_size_allows(size: tuple[int, int], halvings: int) -> None:
    with torch.device("meta"):
        G = UNet(3, 3, size, width=1)
    assert G.multiple == 2**halvings
    assert len(G.down) == halvings


@pytest.mark.parametrize("network", [UNet, ResNet])
def test_the_input_skip_can_copy_the_image(network: Callable[..., Any]) -> None:
    G, x = network(1, 3, (32, 32), width=2, input_skip=4), torch.rand(2, 1, 32, 32) - 0.5
    assert not torch.equal(G(x), G(x.roll(1, 3)).roll(-1, 3))
    with torch.no_grad():
        G.last.weight.zero_()[:, 0, 1, 1] = 1
        G.last.bias.zero_()
    torch.testing.assert_close(G(x), torch.tanh(x).expand(2, 3, 32, 32))


@pytest.mark.parametrize(("size", "options"), [((50, 50), {}), ((64, 64), {"depth": 7}), ((33, 64), {}), ((64, 64), {"dropout": 1.0}), ((64, 64), {"width": 0}), ((64, 64), {"input_skip": -1})])
def test_sizes_and_options_that_do_not_go_together_are_refused(size: tuple[int, int], options: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        UNet(3, 3, size, **options)


def test_images_that_are_too_small_for_the_layers_are_refused() -> None:
    with pytest.raises(RequestError, match="at least 24"):
        build("discriminator", Spec("patch", {"layers": 3}), 6, (16, 16))
    assert build("discriminator", Spec("patch", {"width": 2}), 6, (24, 24))(torch.randn(1, 6, 24, 24)).shape[-1] == 1


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(4, 2, 1), (3, 1, 1), (3, 2, 1), (1, 1, 0)])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_matrix_product_equals_the_convolution(kernel: int, stride: int, padding: int, batch: int) -> None:
    x = torch.randn(batch, 5, 4, 6, dtype=torch.float64, requires_grad=True)
    for layer, base in ((GemmConv2d(5, 7, kernel, stride, padding), nn.Conv2d),
                        (GemmConvTranspose2d(5, 7, kernel, stride, padding, output_padding=stride - 1 if kernel == 3 else 0), nn.ConvTranspose2d)):
        layer = layer.double()
        ours, theirs = layer(x), base.forward(layer, x)
        torch.testing.assert_close(ours, theirs)
        weight = torch.randn_like(ours)
        for mine, its in zip(torch.autograd.grad((ours * weight).sum(), [x, *layer.parameters()]),
                             torch.autograd.grad((theirs * weight).sum(), [x, *layer.parameters()]), strict=True):
            torch.testing.assert_close(mine, its)


def test_reflection_padding_equals_that_of_torch() -> None:
    x = torch.randn(2, 3, 9, 7)
    assert torch.equal(ReflectionPad2d(3)(x), nn.ReflectionPad2d(3)(x))
