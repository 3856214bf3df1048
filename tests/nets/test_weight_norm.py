"""Spectral and weight normalization: norms by SVD, initial weights, and that they survive copies, files and modes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import i2i
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.nets.blocks import GemmConv2d, GemmConvTranspose2d
from i2i.nets.weight_norm import Layer, output_dim
from i2i.recipes.base import DataInfo
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build, names
from i2i.training.memory import estimate_memory
from tests.conftest import SMALL, drawing


class Net(nn.Module):
    """One layer of each kind, and an embedding, which has no output_dim."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 6)
        self.linear = nn.Linear(6, 8 * 4 * 4)
        self.body = nn.Sequential(GemmConvTranspose2d(8, 6, 4, 2, 1), nn.Tanh(), GemmConv2d(6, 8, 3, padding=1), nn.Tanh(),
                                  nn.Conv2d(8, 4, 3, groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 6, 3, groups=2))

    def forward(self, c: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.linear(self.embed(c) + x).view(-1, 8, 4, 4))


def wrapped(name: str, seed: int = 0, **options: object) -> Net:
    torch.manual_seed(seed)
    return build("weight_norm", Spec(name, options), Net())


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([0, 3, 4]), torch.randn(3, 6, generator=torch.Generator().manual_seed(5))


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as the layers use them, as matrices of output_dim by all else."""
    return {name: m.weight.movedim(output_dim(m), 0).flatten(1) for name, m in net.named_modules() if isinstance(m, Layer)}


@pytest.mark.parametrize("name", names("weight_norm"))
class TestEach:
    def test_eval_mode_is_deterministic_and_changes_no_buffer(self, name: str) -> None:
        net = wrapped(name).eval()
        before = copy.deepcopy(net.state_dict())
        assert torch.equal(net(*inputs()), net(*inputs()))
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_a_copy_is_independent_and_has_the_same_output(self, name: str) -> None:
        net = wrapped(name).eval()
        twin = copy.deepcopy(net)
        out = net(*inputs())
        assert torch.equal(twin(*inputs()), out)
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(torch.randn_like(p))
        assert torch.equal(net(*inputs()), out)
        assert not torch.equal(twin(*inputs()), out)

    def test_a_network_on_the_meta_device_can_be_filled_from_a_state_dict(self, name: str) -> None:
        net = wrapped(name)
        net(*inputs())
        with torch.device("meta"):
            empty = wrapped(name)
            out = empty(torch.zeros(3, dtype=torch.int64), torch.empty(3, 6))
        out.sum().backward()
        assert out.is_meta
        filled = empty.to_empty(device="cpu")
        filled.load_state_dict(net.state_dict())
        assert torch.equal(filled.eval()(*inputs()), net.eval()(*inputs()))

    def test_every_parameter_has_first_and_second_derivatives(self, name: str) -> None:
        net, (c, x) = wrapped(name), inputs()
        x.requires_grad_()
        fine = torch.autograd.grad(net(c, x).square().sum(), x, create_graph=True)[0]
        fine.square().sum().backward()
        biasless = [p for key, p in net.named_parameters() if not key.endswith("bias")]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in biasless)

    def test_it_can_be_used_twice_before_the_backward_pass(self, name: str) -> None:
        """loss = D(fake) - D(real)"""
        net, (c, x) = wrapped(name), inputs()
        (net(c, x) - net(c, -x)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())

    def test_weights_stay_in_float32_under_autocast(self, name: str) -> None:
        net = wrapped(name)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(*inputs()).dtype == torch.bfloat16
            assert {weight.dtype for weight in weights(net).values()} == {torch.float32}
        assert {value.dtype for value in net.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("iterations", [1, 3])
def test_the_largest_singular_value_of_a_spectral_layer_is_one(iterations: int) -> None:
    """By SVD: close to 1 before the first step, and 1 after a few."""
    net = wrapped("spectral", iterations=iterations)
    first = [torch.linalg.svdvals(weight)[0].item() for weight in weights(net.eval()).values()]
    assert len(first) == 5
    assert all(0.999 < value < 1.2 for value in first), first
    net.train()
    for _ in range(300 // iterations):
        net(*inputs())
    last = [torch.linalg.svdvals(weight)[0].item() for weight in weights(net.eval()).values()]
    assert last == pytest.approx([1] * 5, abs=2e-3)
    plain = wrapped("none")
    assert all(abs(torch.linalg.svdvals(weight)[0].item() - 1) > 0.05 for weight in weights(plain).values())


def test_spectral_norm_follows_changing_weights() -> None:
    net = wrapped("spectral")
    for step in range(150):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.02 * torch.randn_like(p) * (step < 50))
        net(*inputs())
    assert [torch.linalg.svdvals(weight)[0].item() for weight in weights(net.eval()).values()] == pytest.approx([1] * 5, abs=0.01)


def test_the_gradient_of_a_spectral_weight_is_the_papers() -> None:
    """Miyato et al. 2018, equations 9 to 12: by finite differences."""
    layer = build("weight_norm", Spec("spectral"), nn.Sequential(nn.Linear(4, 3, bias=False))).double().eval()[0]
    original, norm = layer.parametrizations.weight.original, layer.parametrizations.weight[0]
    assert torch.autograd.gradcheck(norm, (original,))
    upstream = torch.randn(3, 4, dtype=torch.float64)
    (layer.weight * upstream).sum().backward()
    sigma = norm.u @ original @ norm.v
    expected = (upstream - (upstream * layer.weight).sum() * torch.outer(norm.u, norm.v)) / sigma
    torch.testing.assert_close(original.grad, expected.detach())


def test_weight_norm_preserves_the_initial_weights_and_has_their_lengths_as_parameters() -> None:
    net, plain = wrapped("weight"), wrapped("none")
    for (name, ours), (_, theirs) in zip(weights(net).items(), weights(plain).items(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    layers = [m for m in net.modules() if hasattr(m, "parametrizations")]
    assert len(layers) == 5
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original0.fill_(2.5)
            layer.parametrizations.weight.original1.mul_(torch.rand_like(layer.parametrizations.weight.original0) + 1)
    for layer in layers:
        matrix = layer.weight.movedim(output_dim(layer), 0).flatten(1)
        torch.testing.assert_close(matrix.norm(dim=1), torch.full((len(matrix),), 2.5))
        before = layer.parametrizations.weight.original1.movedim(output_dim(layer), 0).flatten(1)
        torch.testing.assert_close(torch.cosine_similarity(matrix, before), torch.ones(len(matrix)))


def test_the_gradient_of_a_direction_is_perpendicular_to_it() -> None:
    """Salimans and Kingma 2016, section 2.1"""
    net = wrapped("weight")
    net(*inputs()).square().sum().backward()
    for layer in (m for m in net.modules() if hasattr(m, "parametrizations")):
        direction = layer.parametrizations.weight.original1
        along = (direction * direction.grad).movedim(output_dim(layer), 0).flatten(1).sum(1)
        assert along.abs().max() < 1e-4 * direction.grad.norm() * direction.norm()


def test_networks_that_cannot_be_normalized_are_refused() -> None:
    zeros = nn.Sequential(nn.Linear(2, 2))
    nn.init.zeros_(zeros[0].weight)
    for name in ("spectral", "weight"):
        with pytest.raises(RequestError, match="neither linear nor convolutional"):
            build("weight_norm", Spec(name), nn.Sequential(nn.Tanh()))
        with pytest.raises(RequestError, match="initial weights are zeros"):
            build("weight_norm", Spec(name), zeros)
        with pytest.raises(RequestError, match="parametrized already"):
            build("weight_norm", Spec(name), wrapped("spectral"))
    for options in ({"iterations": 0}, {"eps": 0.0}):
        with pytest.raises(RequestError, match="weight_norm"):
            build("weight_norm", Spec("spectral", options), Net())


@pytest.mark.parametrize("recipe", [Pix2Pix(), CUT(), CycleGAN()])
def test_each_player_of_a_recipe_has_the_normalization_of_its_setting(recipe: Pix2Pix | CUT | CycleGAN) -> None:
    settings = ["generator.width=2", "discriminator.width=2", "g_weight_norm=weight", "d_weight_norm=spectral", "d_weight_norm.iterations=2"]
    recipe, info = override(recipe, parse_assignments(settings)), DataInfo((32, 32))
    m = recipe.modules(info)
    for name, module in m.items():
        has = {key.split(".")[-1] for key in module.state_dict() if "parametrizations" in key}
        assert has == ({"original", "u", "v"} if name.startswith("D") else {"original0", "original1"} if name.startswith("G") else set()), name
    assert m[next(name for name in m if name.startswith("D"))].layers[0].parametrizations.weight[0].iterations == 2
    estimate_memory(recipe, info, batch_size=2, ema=True)


def test_a_loaded_model_reproduces_the_sample_grid(strips: Path, tmp_path: Path) -> None:
    """From averaged weights, built on the meta device, with the buffers of the run."""
    settings = [*SMALL, "g_weight_norm=spectral", "d_weight_norm=weight", "train.images=16"]
    run = i2i.train("pix2pix", *settings, data=strips, out=tmp_path / "run", device="cpu")
    model = i2i.load(run, device="cpu")
    sheet = np.asarray(Image.open(run / "samples" / "00000016.png"))
    assert np.array_equal(sheet[2:34, 2:34], drawing(100)[:, :32])
    assert np.array_equal(model.translate(drawing(100)[:, :32]), sheet[2:34, 36:68])
