"""The learned mixture prior of DeLiGAN: its formula, and a run whose images can be reproduced."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import load
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.nets.priors import GaussianMixturePrior
from i2i.recipes.base import DataInfo
from i2i.recipes.gan import GAN
from i2i.registry import Spec, build
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers


def mixture(components: int = 8, z_dim: int = 3, **options: float) -> GaussianMixturePrior:
    torch.manual_seed(0)
    return build("latent", Spec("mixture", {"components": components, **options}), z_dim)


def test_components_are_equally_likely_and_normal() -> None:
    Z, n = mixture(), 40_000
    with torch.no_grad():
        Z.mu.copy_(torch.arange(8)[:, None] * 100.0)
        Z.sigma.copy_(1 + torch.rand_like(Z.sigma))
    z = Z(torch.randn(n, Z.noise_dim))
    k = (z / 100).round()
    assert (k == k[:, :1]).all()            # One component for all places.
    counts = torch.bincount(k[:, 0].long(), minlength=8)
    chi_squared = ((counts - n / 8).square() / (n / 8)).sum()
    assert chi_squared < 26                 # The 0.05 % point of 7 degrees of freedom.
    for i in range(8):
        eta = ((z - Z.mu[i]) / Z.sigma[i])[k[:, 0] == i]
        assert eta.mean(0).abs().max() < 0.07
        assert (eta.std(0) - 1).abs().max() < 0.05


def test_z_is_the_papers_formula() -> None:
    """Gurumurthy et al. 2017, section 4: z = mu_i + sigma_i eta."""
    Z = mixture()
    eps = torch.randn(5, 4)
    eps[:, -1] = torch.tensor([-50.0, -1.2, 0.01, 1.2, 50.0])       # Shares of the normal distribution: 0, 0.115, 0.504, 0.885, 1.
    k = torch.tensor([0, 0, 4, 7, 7])
    assert torch.equal(Z(eps), Z.mu[k] + Z.sigma[k] * eps[:, :3])
    assert Z.mu.min() >= -1
    assert Z.mu.max() <= 1
    assert (Z.sigma == 0.2).all()
    assert mixture(weight=3.0).regularization().item() == pytest.approx(3 * 0.8**2)


def test_g_learns_mu_and_sigma() -> None:
    torch.manual_seed(0)
    r = override(GAN(), parse_assignments(["generator.width=4", "discriminator.width=4", "generator.z_dim=6", "latent=mixture", "latent.components=3", "latent.weight=0"]))
    m = r.modules(DataInfo((16, 16)))
    before = {name: p.detach().clone() for name, p in m.named_parameters()}
    learner, x = PlayerOptimizers(r, m, Runtime(device="cpu"), max_skips=3), {"b": torch.rand(32, 3, 16, 16) * 2 - 1}
    learner.begin(Progress(0, 32, 1000))
    r.step(m, x, Progress(0, 32, 1000), lambda player, loss, /, **logs: learner(player, loss, **logs) if player == "D" else None)
    assert all(torch.equal(m["Z"].get_parameter(name), before[f"Z.{name}"]) for name in ("mu", "sigma"))       # D's update leaves them.
    r.step(m, x, Progress(0, 32, 1000), lambda player, loss, /, **logs: learner(player, loss, **logs) if player == "G" else None)
    assert all((m["Z"].get_parameter(name) != before[f"Z.{name}"]).all() for name in ("mu", "sigma"))


@pytest.mark.parametrize(("weight", "alive"), [(1 / 3, True), (0.0, False)])
def test_the_regularization_keeps_sigma_from_collapsing(weight: float, alive: bool) -> None:
    """With a loss that prefers equal images, |x - mean of its component|^2, as G has once it has found one good image for a component."""
    Z = mixture(4, weight=weight)
    optimizer = torch.optim.Adam(Z.parameters(), 0.01)
    for _ in range(600):
        eps = torch.randn(64, Z.noise_dim)
        spread = (Z.sigma[(torch.special.ndtr(eps[:, -1]) * 4).long().clamp(max=3)] * eps[:, :-1]).square().mean()
        optimizer.zero_grad()
        (0.1 * spread + Z.regularization()).backward()
        optimizer.step()
    # Of weight (1 - sigma)^2 + 0.1 sigma^2 the least is at sigma = weight / (weight + 0.1).
    assert Z.sigma.abs().mean().item() == pytest.approx(weight / (weight + 0.1), abs=0.03)
    assert (Z.sigma.abs().min() > 0.5) == alive


def test_invalid_options_are_refused() -> None:
    for options in ({"components": 0}, {"sigma": 0.0}, {"weight": -1.0}):
        with pytest.raises(RequestError, match=f"latent.{next(iter(options))}"):
            mixture(**options)


def test_a_run_with_virtual_batch_norm_and_a_mixture_resumes_exactly_and_its_model_file_reproduces_its_images(i2i, tmp_path: Path) -> None:
    flat, g = tmp_path / "flat", np.random.default_rng(0)
    flat.mkdir()
    for i in range(8):
        Image.fromarray(g.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(flat / f"{i}.png")
    line = ("train", "gan", "generator.width=4", "discriminator.width=4", "generator.z_dim=6", "latent=mixture", "latent.components=5", "generator.norm=virtual",
            "discriminator.norm=virtual", "generator.reference=6", "discriminator.reference=6", "penalty=r1", "train.batch_size=4", "train.images=24", "train.log_every=8",
            "train.checkpoint_every=12", "--data", flat, "--device", "cpu", "--out")
    for out in ("whole", "cut"):
        result = i2i(*line, out)
        assert result.code == 0, result.err
    cut = RunFolder(tmp_path / "cut")
    cut.state(24).unlink()
    assert i2i("train", "--resume", "cut", "--device", "cpu").code == 0
    ours, theirs = (checkpoint.load(tmp_path / out / cut.state(24).name, "state")[0] for out in ("cut", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert cut.log.read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    assert ours["modules.D.reference.initialized"] == 1
    assert not torch.equal(ours["ema.Z.mu"], ours["modules.Z.mu"])      # The prior is averaged like the rest of G.
    model = load(cut.model, device="cpu")
    few, all_ = model.generate(2, seed=7), model.generate(5, seed=7, batch_size=2)
    torch.testing.assert_close(few, all_[:2], atol=1e-5, rtol=0)
    assert torch.equal(few, load(cut.model, device="cpu").generate(2, seed=7))
    assert not torch.equal(few, model.generate(2, seed=8))
