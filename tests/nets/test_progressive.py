"""Networks that grow: the schedule, continuity, and that the level is their only additional state."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from i2i.errors import RequestError
from i2i.nets.progressive import Growth
from i2i.nets.stylegan import AdaIN
from i2i.registry import Spec, build, schema

SIZE = (32, 32)
GROWING = [("noise_generator", "progressive"), ("noise_generator", "stylegan"), ("discriminator", "progressive")]
TINY = {"width": 8, "max_channels": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}


def make(kind: str, name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    tiny = {key: value for key, value in TINY.items() if key in schema(kind, name)}
    return build(kind, Spec(name, {**tiny, **options}), 3, SIZE, 0).eval()


def make_inputs(network: nn.Module, n: int = 4) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(n, network.z_dim) if hasattr(network, "z_dim") else torch.randn(n, 3, *SIZE)


def levels(grown: float, fade: float, *progress: float) -> list[float]:
    growth, out = Growth("generator", 3, grown, fade), []
    for p in progress:
        growth.set_progress(p)
        out.append(round(growth.level.item(), 4))
    return out


def test_each_level_has_an_equal_part_of_the_run_and_fades_in_at_its_end() -> None:
    assert levels(0.6, 0.5, 0, 0.1, 0.15, 0.2, 0.29, 0.35, 0.4, 0.6, 0.7, 1) == [0, 0, 0.5, 1, 1, 1.5, 2, 3, 3, 3]
    assert levels(0.6, 1, 0, 0.05, 0.1, 0.5, 0.6) == [0, 0.25, 0.5, 2.5, 3]        # Always fading.
    assert levels(0.6, 0, 0, 0.19, 0.21, 0.59, 0.61) == [0, 0, 1, 2, 3]             # Never.
    assert levels(0, 0.5, 0, 0.5, 1) == [3, 3, 3]                                   # Full size at once.
    assert levels(1, 0.5, 0, 1) == [0, 3]


def test_a_new_network_has_full_size() -> None:
    assert Growth("generator", 3, 0.6, 0.5).stage() == (3, None)


@pytest.mark.parametrize("options", [{"grown": 1.5}, {"fade": -0.1}, {"width": 0}, {"width": 600}])
@pytest.mark.parametrize(("kind", "name"), GROWING)
def test_invalid_options_are_refused(kind: str, name: str, options: dict[str, float]) -> None:
    with pytest.raises(RequestError, match="|".join(options)):
        make(kind, name, **options)


@pytest.mark.parametrize("name", ["progressive", "stylegan"])
def test_images_have_4x4_distinct_pixels_first_and_all_at_the_end(name: str) -> None:
    G = make("noise_generator", name)
    z = make_inputs(G)
    for progress, side in ((0, 4), (0.2, 8), (0.4, 16), (0.6, 32)):
        G.set_progress(progress)
        image = G(z)
        small = F.avg_pool2d(image, 32 // side)
        torch.testing.assert_close(image, F.interpolate(small, scale_factor=32 // side))
        assert (small - F.interpolate(F.avg_pool2d(small, 2), scale_factor=2)).abs().mean() > 1e-3     # No smaller one would do.


def test_d_ignores_details_of_levels_that_are_not_in_use() -> None:
    D = make("discriminator", "progressive")
    x = make_inputs(D)
    D.set_progress(0)
    torch.testing.assert_close(D(x), D(F.interpolate(F.avg_pool2d(x, 8), scale_factor=8)))
    D.set_progress(0.6)
    assert not torch.allclose(D(x), D(F.interpolate(F.avg_pool2d(x, 8), scale_factor=8)), atol=1e-3)


@pytest.mark.parametrize(("kind", "name"), GROWING)
def test_growth_is_continuous(kind: str, name: str) -> None:
    network = make(kind, name)
    x, step, last, largest, whole = make_inputs(network), 1 / 600, None, 0.0, []
    with torch.no_grad():
        for i in range(401):
            network.set_progress(i * step)
            out = network(x)
            if last is not None:
                largest = max(largest, (out - last).abs().max().item())
            last = out
            whole.append(out)
    moved = (whole[0] - whole[-1]).abs().max().item()
    assert moved > 0.1
    assert largest < 0.1 * max(out.abs().max().item() for out in whole)      # A fade takes 60 of these steps.


@pytest.mark.parametrize(("kind", "name"), GROWING)
def test_halfway_through_a_fade_the_output_is_the_mean_of_both_ends(kind: str, name: str) -> None:
    """Figure 2 of Karras et al. 2018, for the level that is added last: what follows D's fade is not linear."""
    network = make(kind, name)
    if kind == "discriminator":
        x, out = make_inputs(network), network.trunk
        network.blocks[0] = network.blocks[1] = nn.Identity()       # Leaves the fade as the last thing in the trunk.
    else:
        x, out = make_inputs(network), network
    for alpha in (0.25, 0.5):
        results = []
        for level in (2.0, 2 + alpha, 3 - 1e-6):
            network.growth.level.fill_(level)
            results.append(out(x))
        torch.testing.assert_close(results[1], results[0] + alpha * (results[2] - results[0]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "name"), GROWING)
def test_the_level_is_its_only_additional_state(kind: str, name: str) -> None:
    network, x = make(kind, name), make_inputs(make(kind, name))
    for progress in (0.0, 0.17, 0.3, 0.45):
        network.set_progress(progress)
        resumed = make(kind, name)
        resumed.load_state_dict(network.state_dict())
        assert torch.equal(resumed(x), network(x))
        follower = copy.deepcopy(make(kind, name))      # As the average of the weights copies buffers.
        for old, new in zip(follower.buffers(), network.buffers(), strict=True):
            old.copy_(new)
        assert torch.equal(follower(x), network(x))


@pytest.mark.parametrize(("kind", "name"), GROWING)
def test_low_resolutions_cost_less(kind: str, name: str) -> None:
    network, cost = make(kind, name), []
    for progress in (0.0, 0.25, 0.6):
        network.set_progress(progress)
        with FlopCounterMode(display=False) as counter:
            network(make_inputs(network))
        cost.append(counter.get_total_flops())
    assert cost[0] < 0.1 * cost[2]
    assert cost[1] < 0.4 * cost[2]


def test_layers_not_in_use_get_no_gradient() -> None:
    G = make("noise_generator", "progressive")
    G.set_progress(0)
    G(make_inputs(G)).sum().backward()
    assert all(p.grad is None for p in G.blocks.parameters())


def test_only_the_direction_of_z_matters() -> None:
    G = make("noise_generator", "progressive")
    z = make_inputs(G)
    torch.testing.assert_close(G(z), G(3 * z), atol=1e-3, rtol=1e-3)


def test_adain_sets_the_mean_and_the_standard_deviation() -> None:
    adain = AdaIN(6, 8)
    w, x = torch.randn(2, 8), torch.randn(2, 6, 8, 8) * 5 + 3
    out, (scale, shift) = adain(x, w), adain.style(w).chunk(2, 1)
    torch.testing.assert_close(out.mean((2, 3)), shift)
    torch.testing.assert_close(out.std((2, 3), correction=0), (1 + scale).abs())


def test_every_style_reaches_the_image_once_its_level_is_in_use() -> None:
    G = make("noise_generator", "stylegan")
    for progress, used in ((0, 2), (0.15, 4), (0.25, 4), (0.6, 8)):
        G.set_progress(progress)
        assert G.layers_in_use() == used
        ws = torch.randn(1, G.num_ws, G.w_dim, requires_grad=True)
        G.synthesize(ws).sin().sum().backward()
        assert ws.grad.abs().sum((0, 2)).gt(0).tolist() == [i < used for i in range(G.num_ws)]


def test_noise_is_random_in_training_and_constant_in_eval_mode() -> None:
    G = make("noise_generator", "stylegan", mixing=0.0)
    for name, p in G.named_parameters():
        if name.endswith("strength"):
            nn.init.ones_(p)
    z = make_inputs(G)
    assert torch.equal(G(z), G(z))
    G.train()
    assert not torch.allclose(G(z), G(z), atol=1e-2)


def test_truncation_moves_images_towards_that_of_the_mean_style() -> None:
    G = make("noise_generator", "stylegan", mixing=0.0)
    z = make_inputs(G)
    for _ in range(50):
        G.train()(z)
    G.eval().truncation = 0.0
    images = G(z)
    torch.testing.assert_close(images, images[:1].expand_as(images), atol=1e-4, rtol=1e-4)
    G.truncation = 1.0
    assert (G(z)[0] - G(z)[1]).abs().mean() > 0.01
