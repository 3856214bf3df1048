"""The autoregressive model: parity with recorded numbers, causality, exact sampling, a known distribution."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.losses.logistic_mixture import count_parameters, log_prob, sample
from i2i.nets.pixelcnn import CausalConv2d, PixelCNN, Scan
from i2i.recipes import autoregressive
from i2i.recipes.autoregressive import Autoregressive
from i2i.recipes.base import DataInfo
from i2i.registry import Spec
from i2i.seeding import Progress

REFERENCE = Path(__file__).parents[1] / "reference" / "flows_vae"
MIXTURES, MASKS = ({key: torch.from_numpy(value) for key, value in np.load(REFERENCE / f"{name}.npz").items()} for name in ("mol", "pixelcnn_masks"))
BLOCKS = ["resnet", "gated"]
DEEP = {"width": 4, "blocks": 1, "halvings": 2}


def recorded_parameters() -> Tensor:
    """In our order: the record has, per channel, K means, log scales and coefficients."""
    logits, rest = MIXTURES["params"].double().permute(0, 3, 1, 2).split([5, 45], 1)
    return torch.cat([logits, *(part.flatten(1, 2) for part in rest.unflatten(1, (3, 15)).split(5, 2))], 1)


def test_mixtures_have_the_recorded_probabilities() -> None:
    """The exact ones; the authors' code has the density in place of those below 1e-5, in 20 of these 60 pixels."""
    x = MIXTURES["image"].double().permute(0, 3, 1, 2) / 127.5 - 1
    parameters = recorded_parameters()
    found = log_prob(x, parameters, 256)
    torch.testing.assert_close(found, MIXTURES["log_prob_per_pixel_exact"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_prob(x.float(), parameters.float(), 256), found.float(), rtol=1e-4, atol=1e-4)
    same = (MIXTURES["log_prob_per_pixel_source"] - found).abs() < 1e-6
    assert int((~same).sum()) == 20
    network = nn.Module()
    network.forward = lambda x, c: parameters       # type: ignore[assignment]
    bits = Autoregressive(components=5).score(nn.ModuleDict({"G": network}), {"b": x})
    torch.testing.assert_close(bits, MIXTURES["nll_per_image_exact"] / (60 * math.log(2)), rtol=1e-10, atol=1e-10)


def footprint(conv: CausalConv2d, kernel: tuple[int, int]) -> Tensor:
    """Which inputs around it the middle pixel of a convolution depends on."""
    height, width = kernel
    x = torch.randn(1, 1, 2 * height + 1, 2 * width + 1, requires_grad=True)
    conv(x)[0, 0, height, width].backward()
    assert x.grad is not None
    whole = (x.grad[0, 0] != 0).float()
    middle = whole[height - height // 2:height + height // 2 + 1, width - width // 2:width + width // 2 + 1]
    assert whole.sum() == middle.sum()
    return middle


@pytest.mark.parametrize("k", [3, 5])
def test_convolutions_see_what_the_recorded_masks_leave(k: int) -> None:
    rows = {kind: footprint(CausalConv2d(1, 1, (k // 2 + (kind == "B"), k), rows=True, shift=kind == "A"), (k, k)) for kind in "AB"}
    own = {kind: footprint(CausalConv2d(1, 1, (1, k // 2 + (kind == "B")), rows=False, shift=kind == "A"), (1, k)) for kind in "AB"}
    for kind in "AB":
        assert torch.equal(rows[kind], MASKS[f"gated_vertical_{kind}_{k}"])
        assert torch.equal(own[kind], MASKS[f"gated_horizontal_{kind}_1x{k}"])
        whole = rows["A"].clone()           # The mask of one convolution: the rows above and what is to the left.
        whole[k // 2] = own[kind][0]
        assert torch.equal(whole, MASKS[f"spatial_{kind}_{k}"])


def spatial_mask(kind: str, k: int) -> Tensor:
    mask = footprint(CausalConv2d(1, 1, (k // 2, k), rows=True, shift=True), (k, k)).clone()
    mask[k // 2] = footprint(CausalConv2d(1, 1, (1, k // 2 + (kind == "B")), rows=False, shift=kind == "A"), (1, k))[0]
    return mask


def test_masks_of_color_groups_are_made_of_ours() -> None:
    """Earlier colors are seen at the own pixel, too, later ones are not: the two masks of one color, put together."""
    masks = {}
    for kind, k, inputs, outputs in (("A", 7, 3, 6), ("B", 7, 3, 6), ("A", 3, 6, 6), ("B", 3, 6, 6), ("A", 3, 9, 12), ("B", 3, 9, 12)):
        into, out = torch.arange(inputs) * 3 // inputs, (torch.arange(outputs) * 3 // outputs)[:, None]
        seen = (into < out) | (into == out) & (kind == "B")
        masks[kind, k] = torch.where(seen[:, :, None, None], spatial_mask("B", k), spatial_mask("A", k))
        assert torch.equal(masks[kind, k], MASKS[f"rgb_{kind}_k{k}_{inputs}to{outputs}"])
        if (kind, k, inputs) in (("A", 7, 3), ("B", 3, 6)):
            masks[kind] = masks[kind, k]
    x, w1, b1, w2, b2 = (MASKS[key].double() for key in ("x", "w1", "b1", "w2", "b2"))
    h = F.relu(F.conv2d(x, w1 * masks["A"], b1, padding=3))
    torch.testing.assert_close(F.conv2d(h, w2 * masks["B"], b2, padding=1), MASKS["two_layer_output"], rtol=1e-10, atol=1e-10)


def scrambled(network: PixelCNN) -> PixelCNN:
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=g))
    return network.double()


@pytest.mark.parametrize(("block", "size", "halvings"), [("resnet", (4, 8), 2), ("gated", (4, 8), 2), ("resnet", (5, 3), 0), ("gated", (3, 1), 0)])
def test_a_pixel_depends_on_all_pixels_before_it_and_on_no_other(block: str, size: tuple[int, int], halvings: int) -> None:
    """By the gradient, as deep as this network sees: three rows above everything is seen that can be."""
    torch.manual_seed(0)
    network = scrambled(PixelCNN(1, 2, size, width=4, blocks=2, halvings=halvings, block=block))     # type: ignore[arg-type]
    x = torch.randn(1, 1, *size, dtype=torch.float64)
    pixels = size[0] * size[1]
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x).abs().sum(1).flatten(), x).reshape(pixels, pixels) != 0
    before = torch.ones(pixels, pixels).tril(-1).bool()
    assert not (jacobian & ~before).any()
    near = before & (torch.arange(pixels)[:, None] // size[1] - torch.arange(pixels) // size[1] <= 2) & ((torch.arange(pixels)[:, None] - torch.arange(pixels)) % size[1] <= 1)
    assert jacobian[near].all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("conditional", [False, True])
def test_sampling_pixel_by_pixel_is_sampling_from_the_whole_network(block: str, conditional: bool) -> None:
    """Each pixel is what the whole network, given the finished image, makes of the pixel's noise; and no other noise was used."""
    torch.manual_seed(0)
    recipe = Autoregressive(network=Spec("pixelcnn", {**DEEP, "block": block}), components=3, conditional=conditional)
    m = recipe.modules(DataInfo((4, 8), b_channels=2, num_classes=2)).eval()
    scrambled(m["G"])      # type: ignore[arg-type]
    batch = {"eps": torch.randn(3, int(m["Z"].noise_dim), dtype=torch.float64), "c": torch.tensor([0, 1, 1])}      # type: ignore[arg-type]
    with torch.no_grad():
        image = recipe.generate(m, batch)["fake_b"]
        parameters = m["G"](image, batch["c"] if conditional else None)
        torch.testing.assert_close(sample(parameters, batch["eps"].unflatten(1, (3, 4, 8)), 256), image, rtol=0, atol=1e-12)
        assert torch.equal(recipe.generate(m, batch)["fake_b"], image)
        if conditional:
            assert (recipe.generate(m, batch | {"c": 1 - batch["c"]})["fake_b"] - image).abs().max() > 0.1
            with pytest.raises(RequestError, match="labels"):
                m["G"](image, None)
    levels = (image + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    assert len(image.unique()) > 20


def test_memory_is_estimated_by_the_first_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It allocates all that a scan keeps, so the others, of which there are thousands, are left out on tensors without data."""
    recipe = Autoregressive(network=Spec("pixelcnn", DEEP), components=2)

    def kept(device: str) -> tuple[int, list[tuple[int, ...]]]:
        """Pixels computed, and the shapes of what the scan keeps."""
        scans, calls = list[Scan](), list[int]()
        with torch.device(device):
            m = recipe.modules(DataInfo((4, 8), b_channels=2))
            eps = torch.empty(2, 3 * 32).zero_()
        monkeypatch.setattr(autoregressive, "Scan", lambda size: scans.append(Scan(size)) or scans[-1])
        m["G"].left.register_forward_hook(lambda *args: calls.append(1))        # type: ignore[union-attr, operator]
        with torch.no_grad():
            assert recipe.generate(m, {"eps": eps})["fake_b"].shape == (2, 2, 4, 8)
        return len(calls), sorted(tuple(tensor.shape) for tensor in scans[0].memory.values())

    (first, estimated), (every, found) = kept("meta"), kept("cpu")
    assert (first, every) == (1, 32)
    assert estimated == found


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_probabilities_of_all_pixels_sum_to_one_and_samples_have_them(channels: int) -> None:
    torch.manual_seed(0)
    levels, count = 4, 40_000
    parameters = torch.randn(1, count_parameters(channels, 3), 1, 1, dtype=torch.float64)
    every = torch.cartesian_prod(*[torch.arange(levels)] * channels).reshape(-1, channels)
    probabilities = log_prob((every * (2 / 3) - 1.0)[..., None, None].double(), parameters.expand(len(every), -1, -1, -1), levels).flatten().exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-12)
    made = sample(parameters.expand(count, -1, -1, -1), torch.randn(count, 1 + channels, 1, 1, dtype=torch.float64), levels)
    number = (((made.flatten(1) + 1) * 1.5).round().long() * levels ** torch.arange(channels).flip(0)).sum(1)
    found = torch.bincount(number, minlength=len(every)) / count
    deviations = (found - probabilities) / (probabilities * (1 - probabilities) / count).sqrt().clamp(min=1e-3 / count**0.5)
    assert float(deviations.abs().max()) < 5


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_levels_sum_to_one_at_any_scale(levels: int) -> None:
    """In single precision, with scales from far below a level, where most are impossible, to far above all."""
    x = (torch.arange(levels) * (2 / (levels - 1)) - 1)[:, None, None, None]
    for scale in (-20.0, -7.0, -3.0, 0.0, 8.0):
        parameters = torch.tensor([0.0, 0.3, scale]).reshape(1, 3, 1, 1).expand(levels, -1, -1, -1)
        found = log_prob(x, parameters, levels)
        assert found.isfinite().all()
        assert float(found.double().exp().sum()) == pytest.approx(1, abs=2e-3 if levels > 256 else 2e-4)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_entropy_of_a_known_distribution_is_found(block: str) -> None:
    """Four pixels in a row, each its left neighbor with probability 0.8: bits by the closed form, to 2 percent."""
    torch.manual_seed(0)
    recipe = Autoregressive(levels=2, components=1, network=Spec("pixelcnn", {"width": 8, "blocks": 1, "block": block}))
    m = recipe.modules(DataInfo((1, 4), b_channels=1))
    optimizer = torch.optim.Adam(m.parameters(), 0.02)

    def draw(n: int) -> dict[str, Tensor]:
        first, keep = torch.rand(n, 1) < 0.5, torch.rand(n, 3) < 0.8
        bits = torch.cat([first, first ^ (~keep).cumsum(1).bool() & ((~keep).cumsum(1) % 2 == 1)], 1)
        return {"b": bits[:, None, None].float() * 2 - 1}

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    entropy = (1 - 3 * (0.8 * math.log2(0.8) + 0.2 * math.log2(0.2))) / 4
    for step in range(150):
        recipe.step(m, draw(128), Progress(step, 128, 150 * 128), update)
        optimizer.param_groups[0]["lr"] *= 0.98
    with torch.no_grad():
        assert float(recipe.score(m, draw(20_000)).mean()) == pytest.approx(entropy, rel=0.02)
        made = recipe.generate(m, {"eps": torch.randn(4000, 8)})["fake_b"].flatten(1)
    assert float((made[:, 1:] == made[:, :-1]).float().mean()) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("block", BLOCKS)
def test_one_step_trains_all_layers(block: str) -> None:
    recipe: Any = override(Autoregressive(conditional=True), parse_assignments([f"network.block={block}", "network.width=4", "network.dropout=0.3"]))
    m = recipe.modules(DataInfo((28, 28), num_classes=2))
    assert m["G"].stacks[0].halvings == 2
    batch = {"b": torch.rand(2, 3, 28, 28) * 2 - 1, "c": torch.tensor([0, 1])}
    recipe.step(m, batch, Progress(0, 2, 4), lambda player, loss, **logs: loss.backward())
    unused = [name for name, p in m.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize(("words", "expected"), [
    (["levels=1"], "levels=1 cannot be used; accepted: 2 to 65536"), (["levels=0"], "levels=0"), (["components=0"], "components=0"), (["components=1001"], "1 to 1000"),
    (["network.halvings=3"], "network.halvings=3 cannot be used; accepted: 0 to 2 for images of 28x20"), (["network.width=0"], "network.width=0"),
    (["network.blocks=0"], "network.blocks=0"), (["network.dropout=1"], "network.dropout=1.0"), (["network.block=dense"], "resnet or gated")])
def test_impossible_settings_are_refused(words: list[str], expected: str) -> None:
    with pytest.raises(RequestError) as error:
        override(Autoregressive(), parse_assignments(words)).modules(DataInfo((28, 20)))
    assert expected in str(error.value)


@pytest.mark.parametrize(("size", "halvings"), [((16, 16), 1), ((28, 28), 2), ((64, 64), 2), ((8, 8), 0), ((1, 1), 0), ((15, 15), 0), ((30, 28), 1)])
def test_sides_are_halved_as_often_as_fits(size: tuple[int, int], halvings: int) -> None:
    assert PixelCNN(1, 1, size, blocks=1, width=1).stacks[0].halvings == halvings
