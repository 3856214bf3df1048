"""The variational autoencoder: parity with recorded numbers, a known distribution, what it reconstructs and scores."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.losses.likelihood import (
    SIGMA_RATE,
    GaussianLikelihood,
    bits_per_dim,
    dequantize,
    kl_to_standard_normal,
    quantize,
    with_free_bits,
)
from i2i.nets.precision import to_float32
from i2i.recipes.base import DataInfo
from i2i.recipes.vae import VAE
from i2i.registry import Spec, build
from i2i.seeding import Progress

RECORDED = {key: torch.from_numpy(value).double() for key, value in np.load(Path(__file__).parents[1] / "reference" / "flows_vae" / "vae.npz").items()}
TINY = {"generator": Spec("dcgan", {"width": 4, "z_dim": 8}), "encoder": Spec("dcgan", {"width": 4})}


class Unlabeled(nn.Sequential):
    """Layers that are given labels, too."""

    def forward(self, x: Tensor, c: object = None) -> Tensor:
        return super().forward(x)       # type: ignore[no-any-return]


def images(n: int = 4) -> Tensor:
    return (torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255).round() / 127.5 - 1


def test_the_terms_of_the_bound_are_those_recorded() -> None:
    r = RECORDED
    torch.testing.assert_close(kl_to_standard_normal(r["mu"], r["logvar"]), r["kl_per_dim"], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(with_free_bits(r["kl_per_dim"], 0.25), r["free_bits_0_25_batch_mean"], rtol=1e-10, atol=1e-10)
    likelihood = GaussianLikelihood(0.7)
    for k, eps in enumerate(r["eps"]):
        z = r["mu"] + (r["logvar"] / 2).exp() * eps
        found = likelihood(r["x"], torch.sigmoid(z @ r["decoder_W"].T + r["decoder_b"]))
        torch.testing.assert_close(found, r["log_px_gaussian"][k], rtol=1e-10, atol=1e-10)
        if not k:
            torch.testing.assert_close(found - kl_to_standard_normal(r["mu"], r["logvar"]).sum(1), r["elbo_gaussian"], rtol=1e-10, atol=1e-10)


def test_the_step_minimizes_the_recorded_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole recipe, with the recorded encoder, decoder and noise in place of the networks and the generator."""
    r = RECORDED

    class Fixed(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = nn.Parameter(value)

        def forward(self, *inputs: object) -> Tensor:
            return self.value

    class Decoder(nn.Module):
        def forward(self, z: Tensor, c: object = None) -> Tensor:
            return torch.sigmoid(z @ r["decoder_W"].T + r["decoder_b"])[:, :, None, None]

    m = nn.ModuleDict({"E": Fixed(torch.cat([r["mu"], r["logvar"]], 1)), "G": Decoder(), "L": GaussianLikelihood(0.7)})
    monkeypatch.setattr(torch, "randn_like", lambda x: r["eps"][0])
    batch, found = {"b": r["x"][:, :, None, None]}, {}
    recipe = VAE(levels=0, sigma=0.7, free_bits=0.25, beta=3.0)
    recipe.step(m, batch, Progress(0, 6, 6), lambda player, loss, **logs: found.update(loss=loss, **logs))
    scale = 20 * math.log(2)
    expected = {"loss": 3 * r["free_bits_0_25_batch_mean"] - r["log_px_gaussian"][0].mean(), "bits_per_dim": -r["elbo_gaussian"].mean(),
                "reconstruction": -r["log_px_gaussian"][0].mean(), "kl": r["kl"].mean()}
    for key, value in expected.items():
        torch.testing.assert_close(found[key] * scale, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(recipe.score(m, batch) * scale, -r["elbo_gaussian"], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_dequantized_images_fill_their_levels_and_come_back(levels: int) -> None:
    x = torch.arange(levels).double() / (levels - 1) * 2 - 1
    low, high = dequantize(x, levels, torch.zeros(())), dequantize(x, levels, torch.ones(()))
    torch.testing.assert_close(low[1:], high[:-1])
    assert (low[0], high[-1]) == (0, 1)
    torch.testing.assert_close(quantize((low + high) / 2, levels), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(bits_per_dim(torch.zeros(1), 7, levels), torch.tensor([math.log2(levels)]))     # Uniform noise takes log2(levels) bits.


def test_a_linear_autoencoder_finds_the_density_of_a_known_distribution() -> None:
    """Probabilistic PCA: for x = w z + sigma noise the posterior is normal, so the best bound is the density itself (Tipping and Bishop 1999)."""
    torch.manual_seed(0)
    w, sigma = torch.tensor([[1.0, 0.5], [-0.5, 1.2], [0.3, 0.5], [0.9, -0.05 / 0.9]]), 0.4        # Orthogonal columns: the posterior is diagonal.
    exact = float(torch.distributions.MultivariateNormal(torch.zeros(4), w @ w.T + sigma**2 * torch.eye(4)).entropy()) / (4 * math.log(2))
    decoder, encoder, recipe = nn.Linear(2, 4), nn.Linear(4, 4), VAE(levels=0)
    m = nn.ModuleDict({"G": Unlabeled(decoder, nn.Unflatten(1, (4, 1, 1))), "E": Unlabeled(nn.Flatten(), encoder), "L": GaussianLikelihood(0.0)})
    precision = w.square().sum(0) + sigma**2
    with torch.no_grad():
        decoder.weight.copy_(w)
        encoder.weight.copy_(torch.cat([(w / precision).T, torch.zeros(2, 4)]))
        encoder.bias.copy_(torch.cat([torch.zeros(2), torch.log(sigma**2 / precision)]))
        decoder.bias.zero_()
        m["L"].log_sigma.fill_(math.log(sigma) / SIGMA_RATE)        # type: ignore[union-attr, operator]

    def draw(n: int) -> dict[str, Tensor]:
        return {"b": (torch.randn(n, 2) @ w.T + sigma * torch.randn(n, 4))[:, :, None, None]}

    def bound() -> float:
        with torch.no_grad():
            return float(recipe.score(m, draw(20_000)).mean())

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert bound() == pytest.approx(exact, rel=0.01)
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(0.5)
    assert bound() > 1.1 * exact
    optimizer = torch.optim.Adam([{"params": list(m[name].parameters()), "lr": rate} for name, rate in {"G": 0.03, "E": 0.03, "L": 0.003}.items()])
    for step in range(200):
        recipe.step(m, draw(128), Progress(step, 128, 200 * 128), update)
        for group in optimizer.param_groups:
            group["lr"] *= 0.985
    assert bound() == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(("encoder", "generator"), [("dcgan", "dcgan"), ("mlp", "mlp"), ("dcgan", "sagan")])
@pytest.mark.parametrize("conditional", [False, True])
def test_one_step_trains_all_networks_and_labels_matter(encoder: str, generator: str, conditional: bool) -> None:
    torch.manual_seed(0)
    recipe = VAE(conditional=conditional, encoder=Spec(encoder, {"width": 4}), generator=Spec(generator, {"width": 4, "z_dim": 8}))
    m = recipe.modules(DataInfo((16, 16), num_classes=2))
    batch = {"b": images(), "c": torch.tensor([0, 1, 0, 1])}
    recipe.step(m, batch, Progress(0, 4, 4), lambda player, loss, **logs: loss.backward())
    assert [name for name, p in m.named_parameters() if p.grad is None] == []
    m.eval()
    with torch.no_grad():
        other = batch | {"c": 1 - batch["c"]}
        assert torch.equal(recipe.encode(m, batch)[0], recipe.encode(m, other)[0]) != conditional
        assert torch.equal(recipe.reconstruct(m, batch), recipe.reconstruct(m, other)) != conditional
        assert recipe.reconstruct(m, batch).shape == (4, 3, 16, 16)
        score = recipe.score(m, batch)
        assert score.shape == (4,)
        assert (score > 0).all()
    assert to_float32(score).dtype == torch.float32


@pytest.mark.parametrize(("settings", "message"), [
    ({"levels": 1}, "levels=1"), ({"beta": -1.0}, "beta=-1"), ({"free_bits": -0.1}, "free_bits=-0.1")])
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        VAE(**settings)     # type: ignore[arg-type]


def test_impossible_networks_are_refused() -> None:
    with pytest.raises(RequestError, match="sigma=-1"):
        VAE(**TINY, sigma=-1.0).modules(DataInfo((16, 16)))     # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"encoder\.norm=virtual"):
        build("encoder", Spec("dcgan", {"norm": "virtual"}), 3, (16, 16), 8)
