"""Pix2pix against its paper, written naively, and against the recorded run of the reference implementation."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.convert.checkpoint_files import read_tensors
from i2i.convert.cyclegan_pix2pix import read
from i2i.convert.fitting import fit
from i2i.images.convert import to_tensor
from i2i.losses.adversarial import NonSaturating
from i2i.recipes.base import DataInfo
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec
from i2i.seeding import Progress
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers
from tests.conftest import REFERENCE

INFO = DataInfo((32, 32))
CLOCK = Progress(0, 2, 1000)


def small(*words: str) -> Pix2Pix:
    return override(Pix2Pix(), parse_assignments(["generator.width=4", "discriminator.width=4", "discriminator.layers=2", *words]))


def batch(n: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return {"a": torch.rand(n, 3, 32, 32) * 2 - 1, "b": torch.rand(n, 3, 32, 32) * 2 - 1}


def test_the_objective_is_the_papers() -> None:
    """Equations 1 to 4: G* = arg min_G max_D E[log D(a,b)] + E[log(1 - D(a,G(a)))] + 100 E|b - G(a)|, G maximizing log D; D's loss halved."""
    recipe, x = small("generator.dropout=0.0"), batch()
    m = recipe.modules(INFO)
    naive = copy.deepcopy(m)
    seen = {}
    recipe.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss}))

    fake = naive["G"](x["a"])
    p_fake = torch.sigmoid(naive["D"](torch.cat([x["a"], fake], 1)))
    p_real = torch.sigmoid(naive["D"](torch.cat([x["a"], x["b"]], 1)))
    d = -(torch.log(p_real).mean() + torch.log(1 - p_fake).mean()) / 2
    g = -torch.log(p_fake).mean() + 100 * (fake - x["b"]).abs().mean()
    assert seen["D"].item() == pytest.approx(d.item(), rel=1e-5)
    assert seen["G"].item() == pytest.approx(g.item(), rel=1e-5)


@pytest.mark.parametrize("words", [[], ["adversarial=lsgan"], ["adversarial=hinge"], ["generator=resnet"], ["discriminator=pixel", "discriminator.width=4"]])
def test_each_update_moves_only_its_player(words: list[str]) -> None:
    recipe = override(small(), parse_assignments(words))
    if "generator=resnet" in words:
        recipe = override(recipe, parse_assignments(["generator.width=4", "generator.blocks=1"]))
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    learner.begin(CLOCK)

    def weights() -> dict[str, torch.Tensor]:
        return {name: nn.utils.parameters_to_vector(module.parameters()).clone() for name, module in m.items()
            if any(True for _ in module.parameters())}

    moved = []

    def update(player: str, loss: torch.Tensor, /, **logs: torch.Tensor) -> None:
        before = weights()
        learner(player, loss, **logs)
        moved.append((player, {name for name, value in weights().items() if not torch.equal(value, before[name])}))
        assert all(p.grad is None for p in m.parameters())

    recipe.step(m, batch(), CLOCK, update)
    assert moved == [("D", {"D"}), ("G", {"G"})]


def test_one_pair_is_overfitted() -> None:
    torch.manual_seed(0)
    recipe = small("generator.width=16", "g_optimizer.lr=2e-3", "generator.dropout=0.0", "schedule=constant")
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    x = {key: F.interpolate(F.avg_pool2d(value, 8), scale_factor=8) for key, value in batch().items()}
    history = []
    for step in range(60):
        learner.begin(Progress(step, 2, 1000))
        recipe.step(m, x, Progress(step, 2, 1000), learner)
        history.append(learner.means()["l1"])
    assert history[-1] < 0.25 * history[0]


def test_at_256_the_defaults_are_the_papers() -> None:
    recipe = Pix2Pix()
    assert recipe.lambda_l1 == 100
    assert recipe.generator == Spec("unet")
    assert recipe.discriminator == Spec("patch")
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    for optimizer in learner.optimizers.values():
        assert isinstance(optimizer, torch.optim.Adam)
        assert optimizer.param_groups[0]["lr"] == 2e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert TrainConfig().batch_size == 1
    weights = m["G"].down[3][0].weight
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert weights.mean().item() == pytest.approx(0, abs=1e-3)


def test_the_rate_is_constant_then_falls_to_zero() -> None:
    recipe = small()
    learner = PlayerOptimizers(recipe, recipe.modules(INFO), Runtime(device="cpu"), max_skips=3)
    rates = []
    for step in (0, 250, 500, 750, 999):
        learner.begin(Progress(step, 1, 1000))
        rates.append(learner.optimizers["G"].param_groups[0]["lr"])
    assert rates == pytest.approx([2e-4, 2e-4, 2e-4, 1e-4, 4e-7])


# ---------------------------------------------------------------------------------------------- the recorded run

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_six_steps_follow_the_reference_implementation(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REFERENCE / "pix2pix_trajectory"
    settings, recorded = json.loads((folder / "settings.json").read_text()), np.load(folder / "trajectory.npz")
    found = read(read_tensors(REFERENCE / "networks" / "unet_128_batch_ngf8_net.pth"))
    spec, g = found.recipe.generator, fit(found)
    d = {key.replace("model.", "layers."): value for key, value in read_tensors(REFERENCE / "networks" / "D_basic_batch_ndf8_in6_net.pth").items()}
    recipe = Pix2Pix(generator=Spec("unet", {**spec.options, "dropout": 0.0}), discriminator=Spec("patch", {"width": 8}),
                     schedule=Spec("constant"))
    m = recipe.modules(DataInfo((128, 128)))
    m["G"].load_state_dict(g)
    m["D"].load_state_dict(d)
    m.to(dtype).train()
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    losses, terms, whole = [], [], NonSaturating.d

    def remembering(self: NonSaturating, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        terms.append((F.softplus(-real).mean().item(), F.softplus(fake).mean().item()))
        return whole(self, real, fake)

    monkeypatch.setattr(NonSaturating, "d", remembering)
    for step in range(settings["steps"]):
        x = {key: torch.stack([to_tensor(image.transpose(1, 2, 0)) for image in recorded[key.upper()][step]]).to(dtype) for key in "ab"}
        learner.begin(Progress(step, 2, 12))
        recipe.step(m, x, Progress(step, 2, 12), learner)
        logs = learner.means()
        losses.append([logs["gan"], 100 * logs["l1"], *terms[-1]])
    key, tolerance = ("losses", 1e-5) if dtype is torch.float32 else ("losses_float64", 1e-9)
    np.testing.assert_allclose(np.array(losses), recorded[key], rtol=tolerance)

    m.eval()
    probe = to_tensor(recorded["probe"][0].transpose(1, 2, 0))[None].to(dtype)
    with torch.no_grad():
        output = m["G"](probe)
        logits = m["D"](torch.cat([probe, output], 1))
    np.testing.assert_allclose(output.numpy(), recorded["probe_output"], atol=1e-4)
    np.testing.assert_allclose(logits.numpy(), recorded["probe_D_eval"], atol=1e-4)
    sums = settings["final_float64_tensor_sums"]["D"]
    assert m["D"].layers[3].num_batches_tracked.item() == sums["model.3.num_batches_tracked"][0]
    assert m["D"].layers[11].weight.sum().item() == pytest.approx(sums["model.11.weight"][0], abs=1e-4)
