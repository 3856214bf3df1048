"""The flow: parity with recorded numbers, exact volumes, inversion, a known distribution."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.losses.likelihood import dequantize, inverse_logit, logit
from i2i.nets.realnvp import AffineCoupling, ClassNormal, InvertibleConv, RealNVP
from i2i.recipes.base import DataInfo
from i2i.recipes.flow import Flow
from i2i.registry import Spec, build
from i2i.seeding import Progress

RECORDED = {key: torch.from_numpy(value).double() for key, value in np.load(Path(__file__).parents[1] / "reference" / "flows_vae" / "coupling.npz").items()}
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def scrambled(network: nn.Module, std: float = 0.2) -> nn.Module:
    """With changed parameters, so that nothing is the identity."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(std * torch.randn(p.shape, generator=g))
    return network.double()


class Recorded(nn.Module):
    """A recorded coupling's network: (N, 48, 1, 1) -> (N, 96, 1, 1)."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        w = {key: RECORDED[f"layer{self.layer}.{key}"] for key in ("W1", "b1", "Ws", "bs", "Wt", "bt")}
        h = torch.tanh(x.flatten(1) @ w["W1"].T + w["b1"])
        return torch.cat([h @ w["Ws"].T + w["bs"], h @ w["Wt"].T + w["bt"]], 1)[:, :, None, None]


class Couplings(nn.Module):
    """The recorded couplings as a network of a recipe."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for i in range(4):
            layer = AffineCoupling(48, RECORDED[f"layer{i}.mask"][:, None, None], 1, 1)
            layer.network = Recorded(i)     # type: ignore[assignment]
            self.layers.append(layer.double())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, total = x.flatten(1)[:, :, None, None], torch.zeros(len(x), dtype=x.dtype)
        for i, layer in enumerate(self.layers):
            z, change = layer(z)
            torch.testing.assert_close(z.flatten(1), RECORDED[f"z_after_{i}"], **EXACT)
            total = total + change
        return z.flatten(1), total


def test_couplings_logit_and_bits_are_those_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    r = RECORDED
    x = r["image"] / 127.5 - 1
    v, volume = logit(dequantize(x, 256, r["uniform"]), 0.05)
    torch.testing.assert_close(v, r["logit"], **EXACT)
    torch.testing.assert_close(volume, r["logit_logdet"], **EXACT)
    z, log_determinant = Couplings()(v)
    torch.testing.assert_close(z, r["z"], **EXACT)
    torch.testing.assert_close(log_determinant, r["coupling_logdet"], **EXACT)
    monkeypatch.setattr(torch, "rand_like", lambda x: r["uniform"])
    torch.testing.assert_close(Flow().score(nn.ModuleDict({"F": Couplings()}), {"b": x}), r["bits_per_dim"], **EXACT)
    logged: dict[str, Tensor] = {}
    Flow().step(nn.ModuleDict({"F": Couplings()}), {"b": x}, Progress(0, 4, 4), lambda player, loss, **logs: logged.update(loss=loss, **logs))
    torch.testing.assert_close(logged["loss"], r["bits_per_dim"].mean(), **EXACT)
    torch.testing.assert_close(inverse_logit(v, 0.05), dequantize(x, 256, r["uniform"]), rtol=0, atol=1e-12)


NETWORKS = {"whole": (2, (4, 4), {"width": 4, "couplings": 2, "halvings": 1}), "glow": (1, (4, 8), {"width": 4, "couplings": 1, "halvings": 2, "mixing": "conv1x1"}),
            "one scale": (3, (3, 3), {"width": 4, "couplings": 2}), "points": (5, (1, 1), {"width": 8, "couplings": 3, "mixing": "conv1x1"})}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_determinant_is_that_of_the_jacobian_and_the_inverse_inverts(name: str) -> None:
    torch.manual_seed(0)
    channels, size, options = NETWORKS[name]
    network: Any = scrambled(build("invertible_network", Spec("realnvp", options), channels, size))
    x = torch.randn(3, channels, *size, dtype=torch.float64)
    z, log_determinant = network(x)
    assert z.shape == (3, x[0].numel())
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x)[0].sum(0), x).transpose(0, 1)
    torch.testing.assert_close(jacobian.flatten(2).slogdet().logabsdet, log_determinant, rtol=1e-9, atol=1e-9)
    assert (log_determinant.abs() > 1e-3).all()        # Not the identity.
    torch.testing.assert_close(network.inverse(z), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mixing", ["none", "conv1x1"])
def test_images_come_back_to_a_ten_thousandth_in_float32(mixing: str) -> None:
    torch.manual_seed(0)
    recipe = Flow(network=Spec("realnvp", {"width": 8, "mixing": mixing}), conditional=True)
    m = recipe.modules(DataInfo((32, 32), num_classes=2))
    for name in "FP":
        scrambled(m[name], 0.05).float()
    batch = {"c": torch.tensor([0, 1]), "b": (torch.rand(2, 3, 32, 32) * 255).round() / 127.5 - 1}
    with torch.no_grad():
        z, _ = recipe.encode(m, dequantize(batch["b"], 256, torch.full((), 0.5)), batch)
        torch.testing.assert_close(recipe.generate(m, {"z": z, "c": batch["c"]})["fake_b"], batch["b"], rtol=0, atol=1e-4)
        assert (recipe.generate(m, {"z": z, "c": 1 - batch["c"]})["fake_b"] - batch["b"]).abs().max() > 0.1


def test_temperature_scales_the_noise() -> None:
    m = Flow(levels=0).modules(DataInfo((4, 4), 1, 1))
    eps = torch.randn(2, 16)
    warm = Flow(levels=0).generate(m, {"eps": eps})["fake_b"]
    m["Z"].truncation = 0.7     # type: ignore[assignment]
    torch.testing.assert_close(Flow(levels=0).generate(m, {"eps": eps})["fake_b"], 0.7 * warm)     # An untrained flow is the identity.


def test_the_likelihood_of_a_known_distribution_is_found() -> None:
    """Correlated, skewed points: their entropy is that of the normal they are made from and the mean volume of the map."""
    torch.manual_seed(0)
    recipe = Flow(levels=0, network=Spec("realnvp", {"width": 16, "couplings": 4, "mixing": "conv1x1"}))
    m = recipe.modules(DataInfo((1, 1), 2, 2))
    optimizer = torch.optim.Adam(m.parameters(), 0.02)

    def draw(n: int) -> dict[str, Tensor]:
        e = torch.randn(n, 2)
        x = 0.8 * e[:, 0]
        return {"b": torch.stack([x, 0.5 * torch.exp(0.5 * x) * e[:, 1] + x.square()], 1)[:, :, None, None]}

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    entropy = (math.log(2 * math.pi * math.e) + math.log(0.8) + math.log(0.5)) / (2 * math.log(2))      # E[0.5 x] = 0.
    for step in range(130):
        recipe.step(m, draw(128), Progress(step, 128, 130 * 128), update)
        optimizer.param_groups[0]["lr"] *= 0.975
    with torch.no_grad():
        assert float(recipe.score(m, draw(10_000)).mean()) == pytest.approx(entropy, rel=0.02)


def test_the_parts_invert() -> None:
    torch.manual_seed(0)
    conv, by_class = scrambled(InvertibleConv(5)), scrambled(ClassNormal(3, 4))
    x, z, c = torch.randn(2, 5, 2, 3).double(), torch.randn(3, 4).double(), torch.arange(3)
    assert isinstance(conv, InvertibleConv)
    assert isinstance(by_class, ClassNormal)
    torch.testing.assert_close(conv.inverse(conv(x)[0]), x)
    torch.testing.assert_close(by_class.inverse(by_class(z, c)[0], c), z)


@pytest.mark.parametrize(("options", "message"), [
    ({"halvings": 4}, r"network\.halvings=4.*0 to 2 for images of 28x28"), ({"halvings": -2}, r"network\.halvings=-2"), ({"couplings": 0}, r"network\.couplings=0"), ({"width": 0}, r"network\.width=0")])
def test_impossible_networks_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build("invertible_network", Spec("realnvp", options), 1, (28, 28))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 0.5}, {"levels": -1}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=next(iter(settings))):
        Flow(**settings)        # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "halvings"), [((16, 16), 2), ((28, 28), 2), ((64, 64), 3), ((128, 128), 3), ((8, 8), 1), ((1, 1), 0), ((15, 15), 0)])
def test_sides_are_halved_as_often_as_fits(size: tuple[int, int], halvings: int) -> None:
    assert RealNVP(1, size, couplings=1, width=1).halvings == halvings
