"""StyleGAN2: recorded outputs of the reference implementation, the equations written naively, second derivatives and precision."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.nets.norms import uses_batch_statistics
from i2i.nets.style_generator import W_AVG_DECAY, NoiseInjection
from i2i.nets.stylegan2 import Discriminator, Generator, SynthesisLayer, ToRGB
from i2i.recipes.stabilizers.gradient_penalty import check_penalty
from i2i.registry import Spec, build
from tests.conftest import REFERENCE

SMALL = {"z_dim": 8, "w_dim": 12, "width": 4, "max_channels": 8, "mapping_layers": 2}


def generator(size: tuple[int, int] = (16, 16), classes: int = 0, **options: object) -> Generator:
    torch.manual_seed(0)
    G = build("noise_generator", Spec("stylegan2", {**SMALL, **options}), 3, size, classes)
    for module in G.modules():
        if isinstance(module, NoiseInjection):
            nn.init.constant_(module.strength, 0.3)     # 0 at first, which would hide it.
    return G


def discriminator(size: tuple[int, int] = (16, 16), classes: int = 0, **options: object) -> Discriminator:
    torch.manual_seed(0)
    return build("discriminator", Spec("stylegan2", {"width": 4, "max_channels": 8, "mapping_layers": 2, **options}), 3, size, classes)


def inputs(n: int = 3, classes: int = 0) -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(5)), torch.arange(n) % classes if classes else None


# ---------------------------------------------------------------------------------------------- the reference implementation

def our_name(theirs: str) -> str:
    """Our name of a tensor of the reference discriminator at 64x64."""
    block, rest = theirs.split(".", 1)
    if block == "mapping":
        return "mapping." + re.sub(r"^fc", "layers.", rest)
    if block == "b4":
        return rest.replace("fc.", "dense.")
    return rest.replace("fromrgb", "rgb") if rest.startswith("fromrgb") else f"blocks.{('b64', 'b32', 'b16', 'b8').index(block)}.{rest}"


@pytest.mark.parametrize(("name", "classes"), [("uncond64", 0), ("cond64_c5", 5)])
def test_the_discriminator_gives_the_recorded_logits(name: str, classes: int) -> None:
    recorded = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE / "stylegan2" / f"{name}.npz").items()}
    tensors = {our_name(key): torch.from_numpy(value) for key, value in np.load(REFERENCE / "stylegan2" / f"{name}_D.npz").items()
               if "resample_filter" not in key}
    D = discriminator((64, 64), classes, width=16, max_channels=32, mapping_layers=8)
    D.load_state_dict(tensors)
    c = recorded["c"].argmax(1) if classes else None
    with torch.no_grad():
        torch.testing.assert_close(D(recorded["image_psi1"], c), recorded["d_psi1"], atol=1e-4, rtol=0)
        assert not torch.allclose(D(recorded["image_psi1"][:2], None if c is None else c[:2]), recorded["d_psi1"][:2], atol=1e-2)   # The group counts.


# ---------------------------------------------------------------------------------------------- the equations

@pytest.mark.parametrize("up", [False, True])
def test_a_layer_is_equations_1_to_3_with_a_kernel_for_each_image(up: bool) -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(5, 7, 6, (16, 12) if up else (8, 6), up=up).double().eval()
    nn.init.constant_(layer.noise.strength, 0.7)
    nn.init.normal_(layer.bias)
    x, w = torch.randn(3, 5, 8, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    out = layer(x, w)
    taps = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])).double() / 64
    for i in range(3):
        style = layer.affine.weight @ w[i] / 6**0.5 + layer.affine.bias
        kernel = layer.weight * style[None, :, None, None]                                          # 1
        kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()              # 3
        if up:
            spread = torch.zeros(1, 5, 19, 15, dtype=torch.float64)
            spread[..., 2:17:2, 2:13:2] = x[i]
            y = F.conv2d(spread, kernel.flip(2, 3))                                                 # A convolution in the proper sense.
            y = F.conv2d(F.pad(y, (1, 1, 1, 1)).transpose(0, 1), 4 * taps[None, None]).transpose(0, 1)
        else:
            y = F.conv2d(x[i:i + 1], kernel, padding=1)
        y = F.leaky_relu(y + 0.7 * layer.noise.constant + layer.bias[:, None, None], 0.2) * 2**0.5
        torch.testing.assert_close(out[i:i + 1], y)


def test_outputs_have_unit_deviation_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = SynthesisLayer(64, 64, 16, (32, 32))
    deviations = [layer(torch.randn(4, 64, 32, 32), size * torch.randn(4, 16)).square().mean().sqrt().item() for size in (0.1, 1, 100)]
    assert deviations == pytest.approx([2**0.5 * (1.04 / 2)**0.5] * 3, rel=0.05)        # Of a leaky ReLU, times its gain.


def test_rgb_is_modulated_but_not_demodulated() -> None:
    torch.manual_seed(0)
    layer, x, w = ToRGB(6, 3, 5), torch.randn(2, 6, 4, 4), torch.randn(2, 5)
    nn.init.normal_(layer.bias)
    style = (w @ layer.affine.weight.t() / 5**0.5 + layer.affine.bias) / 6**0.5
    expected = torch.einsum("oc,nc,nchw->nohw", layer.weight[:, :, 0, 0], style, x) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x, w), expected)


# ---------------------------------------------------------------------------------------------- styles

def test_mixing_gives_later_layers_a_second_style() -> None:
    G, (z, _) = generator(mixing=1.0), inputs(64)
    ws = G.styles(z)
    w = G.mapping(z)
    own = (ws == w[:, None]).all(2)
    assert own[:, 0].all()
    assert not own[:, -1].any()
    assert (own[:, 1:] <= own[:, :-1]).all()                    # The change comes once.
    assert set(own.sum(1).tolist()) == set(range(1, G.num_ws))  # At any layer.
    some = (generator(mixing=0.5).styles(inputs(400)[0])[:, -1] == G.mapping(inputs(400)[0])).all(1).float().mean()
    assert some == pytest.approx(0.5, abs=0.1)
    alone = generator(mixing=0.0)
    torch.testing.assert_close(alone.styles(z), alone.mapping(z)[:, None].expand(-1, G.num_ws, -1))


def test_the_mean_style_follows_in_training_and_stays_in_eval_mode() -> None:
    G, (z, _) = generator(), inputs(6)
    expected = torch.zeros(12)
    for _ in range(2):
        G(z)
        expected = W_AVG_DECAY * expected + (1 - W_AVG_DECAY) * G.mapping(z).mean(0)
    torch.testing.assert_close(G.w_avg, expected)
    G.eval()(z)
    torch.testing.assert_close(G.w_avg, expected)
    assert G.synced_buffers == ("w_avg",)


def test_truncation_moves_all_images_towards_one() -> None:
    G, (z, _) = generator().eval(), inputs(6)
    nn.init.normal_(G.w_avg)
    spread = []
    for truncation in (1.0, 0.5, 0.0):
        G.truncation = truncation
        spread.append(G(z).std(0).mean().item())
        torch.testing.assert_close(G.styles(z)[:, 0], G.w_avg + truncation * (G.mapping(z) - G.w_avg))
    assert spread[0] > spread[1] > spread[2]
    assert spread[2] < 1e-6


def test_noise_is_random_in_training_and_constant_in_eval_mode() -> None:
    G, (z, _) = generator(mixing=0.0), inputs()
    assert not torch.equal(G(z), G(z))
    assert torch.equal(G.eval()(z), G(z))
    torch.testing.assert_close(G(z), torch.cat([G(one[None]) for one in z]), atol=1e-5, rtol=1e-5)


def test_images_and_logits_depend_on_the_labels() -> None:
    G, D, (z, c) = generator(classes=3).eval(), discriminator(classes=3), inputs(3, 3)
    x = G(z, c)
    assert not torch.allclose(x, G(z, (c + 1) % 3), atol=1e-3)
    assert not torch.allclose(D(x, c), D(x, (c + 1) % 3), atol=1e-3)
    for call in (lambda: G(z), lambda: D(x)):
        with pytest.raises(RequestError, match="needs the labels"):
            call()


# ---------------------------------------------------------------------------------------------- sizes and options

@pytest.mark.parametrize("size", [(8, 8), (16, 16), (28, 28), (16, 32), (48, 48)])
def test_supported_sizes(size: tuple[int, int]) -> None:
    x = generator(size)(inputs()[0])
    assert x.shape == (3, 3, *size)
    assert discriminator(size)(x).shape == (3, 1)


@pytest.mark.parametrize("size", [(4, 4), (50, 50), (64, 72), (30, 32)])
def test_other_sizes_are_refused_with_the_nearest_supported_ones(size: tuple[int, int]) -> None:
    for make in (generator, discriminator):
        with pytest.raises(RequestError, match=r"stylegan2 does not support \d+x\d+ images; the nearest"):
            make(size)


@pytest.mark.parametrize("options", [{"width": 0}, {"max_channels": 0}, {"z_dim": 0}, {"w_dim": 0}, {"mapping_layers": 0}, {"mixing": 1.5}])
def test_invalid_options_of_the_generator_are_refused(options: dict[str, object]) -> None:
    key, = options
    with pytest.raises(RequestError, match=f"generator.{key}"):
        generator(**options)


@pytest.mark.parametrize("options", [{"width": 0}, {"max_channels": 0}, {"group": 1}, {"group": -1}, {"mapping_layers": 0}])
def test_invalid_options_of_the_discriminator_are_refused(options: dict[str, object]) -> None:
    key, = options
    with pytest.raises(RequestError, match=f"discriminator.{key}"):
        discriminator(**options)


def test_width_counts_the_channels_next_to_the_image_and_the_default_is_the_papers() -> None:
    with torch.device("meta"):
        G, D = Generator(3, (1024, 1024)), Discriminator(3, (1024, 1024))
    assert [layer.weight.shape[0] for layer in (G.first, *G.up)] == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert G.num_ws == 18
    assert sum(p.numel() for p in G.parameters()) == 30_370_060      # As printed for config F at 1024.
    assert sum(p.numel() for p in D.parameters()) == 29_012_513
    plain = discriminator(group=0)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(plain(x), torch.cat([plain(one[None]) for one in x]))


# ---------------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("classes", [0, 3])
def test_every_parameter_gets_a_gradient(classes: int) -> None:
    G, D, (z, c) = generator(classes=classes, mixing=0.5), discriminator(classes=classes), inputs(6, classes)
    for network, out in ((G, G(z, c)), (D, D(G(z, c).detach(), c))):
        out.square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def slope(loss, parameters: list[torch.Tensor]) -> tuple[float, float]:
    """The derivative of a loss, itself made of gradients, along a random direction: by autograd and by central differences."""
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    directions = [torch.randn_like(p) for p in parameters]
    exact = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
        values.append(loss().item())
    return exact, (values[0] - values[1]) / 2e-5


def test_r1_differentiates_the_discriminator_twice() -> None:
    D, x, c = discriminator(classes=3).double(), torch.randn(4, 3, 16, 16, dtype=torch.float64, requires_grad=True), torch.arange(4) % 3

    def r1() -> torch.Tensor:
        return torch.autograd.grad(D(x, c).sum(), x, create_graph=True)[0].square().sum()

    exact, difference = slope(r1, list(D.parameters()))
    assert exact == pytest.approx(difference, rel=1e-4)
    assert exact != 0


def test_path_length_differentiates_the_synthesis_twice() -> None:
    G, (z, _) = generator().double().eval(), inputs()
    ws = G.styles(z.double()).detach().requires_grad_()
    y = torch.randn(3, 3, 16, 16, dtype=torch.float64)

    def length() -> torch.Tensor:
        return torch.autograd.grad((G.synthesize(ws) * y).sum(), ws, create_graph=True)[0].square().sum()

    exact, difference = slope(length, [p for name, p in G.named_parameters() if "mapping" not in name])
    assert exact == pytest.approx(difference, rel=1e-4)
    assert exact != 0


def test_gradient_penalties_are_allowed_with_the_minibatch_standard_deviation() -> None:
    assert not uses_batch_statistics(discriminator())
    check_penalty(Spec("r1"), discriminator())      # Raises where images of a batch depend on each other.


@pytest.mark.parametrize("classes", [0, 3])
def test_bfloat16_autocast_forward_and_backward(classes: int) -> None:
    G, D, (z, c) = generator(classes=classes, mixing=0.0), discriminator(classes=classes), inputs(4, classes)
    G.eval()        # The same noise twice.

    def step() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for network in (G, D):
            network.zero_grad()
        image = G(z, c)
        logits = D(image, c)
        logits.sum().backward()
        return image, logits, torch.cat([p.grad.flatten() for p in G.parameters()])

    exact = step()
    with torch.autocast("cpu", torch.bfloat16):
        inside = []
        G.layers[-1].register_forward_hook(lambda module, args, out: inside.append(out.dtype))
        rough = step()
    assert inside == [torch.bfloat16]
    for a, b in zip(exact, rough, strict=True):
        assert b.dtype == torch.float32         # Images, logits and gradients.
        assert (a - b).norm() / a.norm() < 0.1  # 8 bits of mantissa, through a dozen layers.
    assert all(p.grad.isfinite().all() for p in [*G.parameters(), *D.parameters()])


@pytest.mark.parametrize("classes", [0, 3])
def test_it_runs_on_meta_tensors(classes: int) -> None:
    with torch.device("meta"):
        G, D = generator(classes=classes), discriminator(classes=classes)
        z, c = torch.empty(4, 8), torch.empty(4, dtype=torch.int64) if classes else None
        logits = D(G(z, c), c)
    logits.sum().backward()
    assert logits.shape == (4, 1)
    assert all(p.grad is not None and p.grad.is_meta for p in G.parameters())
