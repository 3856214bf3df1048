"""CycleGAN against its paper, written naively, and against a plain torch loop."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.nets.resnet import ResNet
from i2i.recipes import cyclegan
from i2i.recipes.base import DataInfo, data_defaults
from i2i.recipes.cyclegan import CycleGAN
from i2i.registry import Spec
from i2i.seeding import Progress, seed_step
from i2i.training.config import TrainConfig
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers
from tests.nets.test_image_pool import ListPool

INFO = DataInfo((32, 32))
CLOCK = Progress(0, 2, 1000)


def small(*settings: str) -> CycleGAN:
    return override(CycleGAN(), parse_assignments(["generator.width=4", "generator.blocks=2", "discriminator.width=4", "discriminator.layers=2", *settings]))


def batch(n: int = 2, seed: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {key: torch.rand(n, 3, 32, 32, generator=g) * 2 - 1 for key in "ab"}


WAYS = [[], ["adversarial=nonsaturating"], ["adversarial=wasserstein", "penalty=wgan-gp"], ["penalty=r1", "penalty.every=2"], ["lambda_identity=0"],
        ["generator.norm=batch", "generator.dropout=0.5"],
        ["pool=0"]]


def test_the_objective_is_the_papers() -> None:
    """Equations 1 to 3 and section 5.2, with least squares (section 4): eight terms, each written out."""
    recipe, x = small("lambda_cycle_a=7", "lambda_cycle_b=11", "lambda_identity=0.3"), batch()
    m = recipe.modules(INFO)
    naive, a, b = copy.deepcopy(m), x["a"], x["b"]
    seen: dict[str, Tensor] = {}
    recipe.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss}))

    fake_b, fake_a = naive["G_ab"](a), naive["G_ba"](b)
    g = ((naive["D_b"](fake_b) - 1) ** 2).mean() + ((naive["D_a"](fake_a) - 1) ** 2).mean()
    g = g + 7 * (naive["G_ba"](fake_b) - a).abs().mean() + 11 * (naive["G_ab"](fake_a) - b).abs().mean()
    g = g + 7 * 0.3 * (naive["G_ba"](a) - a).abs().mean() + 11 * 0.3 * (naive["G_ab"](b) - b).abs().mean()
    d_b = (((naive["D_b"](b) - 1) ** 2).mean() + (naive["D_b"](fake_b) ** 2).mean()) / 2
    d_a = (((naive["D_a"](a) - 1) ** 2).mean() + (naive["D_a"](fake_a) ** 2).mean()) / 2
    assert seen["G"].item() == pytest.approx(g.item(), rel=1e-5)
    assert seen["D"].item() == pytest.approx((d_a + d_b).item(), rel=1e-5)


def test_one_batch_of_forward_and_identity_changes_nothing() -> None:
    a, b = (value.double() for value in batch().values())
    for settings in ([], ["generator.norm=none"]):
        G = small(*settings).modules(INFO)["G_ab"].double()
        for joint, alone in zip(cyclegan.translate_both(G, a, b), (G(a), G(b)), strict=True):
            torch.testing.assert_close(joint, alone)


@pytest.mark.parametrize(("settings", "batches"), [([], 1), (["generator.norm=batch"], 2), (["generator.dropout=0.5"], 2), (["generator.norm=none"], 1)])
def test_images_share_a_batch_only_if_the_result_is_the_same(settings: list[str], batches: int) -> None:
    G, calls = small(*settings).modules(INFO)["G_ab"], []
    G.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    x = batch()
    cyclegan.translate_both(G, x["a"], x["b"])
    assert len(calls) == batches


@pytest.mark.parametrize("settings", WAYS)
def test_each_update_moves_only_its_player(settings: list[str]) -> None:
    recipe = small(*settings)
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    learner.begin(CLOCK)

    def weights() -> dict[str, Tensor]:
        return {name: nn.utils.parameters_to_vector(module.parameters()).clone() for name, module in m.items() if list(module.parameters())}

    moved = []

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        before = weights()
        learner(player, loss, **logs)
        moved.append((player, {name for name, value in weights().items() if not torch.equal(value, before[name])}))
        assert all(p.grad is None for p in m.parameters())

    recipe.step(m, batch(), CLOCK, update)
    assert moved == [("G", {"G_ab", "G_ba"}), ("D", {"D_a", "D_b"})]


def naive_loop(m: nn.ModuleDict, steps: int, capacity: int) -> list[list[float]]:
    """The usual training loop: an optimizer for each player, `requires_grad` switched off and on, lists as pools.  -> the losses of each step"""
    G, D = [m["G_ab"], m["G_ba"]], [m["D_a"], m["D_b"]]
    adam_G, adam_D = (torch.optim.Adam([p for net in nets for p in net.parameters()], 2e-4, (0.5, 0.999), foreach=False, fused=False) for nets in (G, D))
    pools, out = {"a": ListPool(capacity), "b": ListPool(capacity)}, []
    dtype = next(m.parameters()).dtype
    for step in range(steps):
        x = batch(seed=step)
        a, b = x["a"].to(dtype), x["b"].to(dtype)
        seed_step(0, 0, step)
        for net in D:
            net.requires_grad_(False)
        adam_G.zero_grad()
        fake_b, fake_a = m["G_ab"](a), m["G_ba"](b)
        rec_a, rec_b, same_a, same_b = m["G_ba"](fake_b), m["G_ab"](fake_a), m["G_ba"](a), m["G_ab"](b)
        gan = [F.mse_loss(logits, torch.ones_like(logits)) for logits in (m["D_a"](fake_a), m["D_b"](fake_b))]
        rest = [F.l1_loss(rec_a, a), F.l1_loss(rec_b, b), F.l1_loss(same_a, a), F.l1_loss(same_b, b)]
        (gan[0] + gan[1] + 10 * rest[0] + 10 * rest[1] + 5 * rest[2] + 5 * rest[3]).backward()
        adam_G.step()
        for net in D:
            net.requires_grad_(True)
        adam_D.zero_grad()
        losses = {}
        for side, real, fake in (("b", b, fake_b), ("a", a, fake_a)):
            on_real, on_fake = m[f"D_{side}"](real), m[f"D_{side}"](pools[side](fake))
            losses[side] = (F.mse_loss(on_real, torch.ones_like(on_real)) + F.mse_loss(on_fake, torch.zeros_like(on_fake))) * 0.5
            losses[side].backward()
        adam_D.step()
        out.append([value.item() for value in (*gan, *rest, losses["a"], losses["b"])])
    return out


@pytest.mark.parametrize("seed", range(3))
def test_a_trajectory_is_that_of_a_plain_loop(seed: int) -> None:
    """In double precision: where a gradient is nothing but rounding, as of biases before an instance norm, Adam makes whole steps of it in single
    precision, and two equal programs that add in another order part by up to 4e-4 in six steps."""
    torch.manual_seed(seed)
    recipe = small("pool=3", "schedule=constant")
    m = recipe.modules(INFO).double()
    naive = copy.deepcopy(m)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    ours = []
    for step in range(6):
        progress = Progress(step, 2, 1000)
        learner.begin(progress)
        seed_step(0, 0, step)
        recipe.step(m, {key: value.double() for key, value in batch(seed=step).items()}, progress, learner)
        logs = learner.means()
        ours.append([logs[key] for key in ("gan_a", "gan_b", "cycle_a", "cycle_b", "identity_a", "identity_b", "d_a", "d_b")])
    theirs = naive_loop(naive, 6, 3)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=1e-6)
    for (name, one), (_, other) in zip(m.named_parameters(), naive.named_parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, msg=name)


def test_one_pair_is_overfitted() -> None:
    torch.manual_seed(0)
    recipe = small("generator.width=8", "g_optimizer.lr=2e-3", "schedule=constant")
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    x = {key: F.interpolate(F.avg_pool2d(value, 8), scale_factor=8) for key, value in batch(1).items()}
    history = []
    for step in range(100):
        learner.begin(Progress(step, 1, 1000))
        recipe.step(m, x, Progress(step, 1, 1000), learner)
        logs = learner.means()
        history.append(logs["cycle_a"] + logs["cycle_b"])
    assert history[-1] < 0.4 * history[0]


def test_the_defaults_are_the_papers() -> None:
    recipe = CycleGAN()
    assert (recipe.lambda_cycle_a, recipe.lambda_cycle_b, recipe.lambda_identity, recipe.pool) == (10, 10, 0.5, 50)
    assert recipe.adversarial == Spec("lsgan")
    with torch.device("meta"):
        large, medium = recipe.modules(DataInfo((256, 256))), recipe.modules(DataInfo((128, 128)))
    assert isinstance(large["G_ab"], ResNet)
    assert [sum(type(layer).__name__ == "ResidualBlock" for layer in m["G_ab"].layers) for m in (large, medium)] == [9, 6]
    assert sum(p.numel() for p in large["G_ab"].parameters()) == 11_378_179     # As the reference implementation prints for resnet_9blocks.
    assert sum(p.numel() for p in large["D_a"].parameters()) == 2_764_737       # ... and for its basic discriminator with instance norm.
    assert large["pool_a"].images.shape == (50, 3, 256, 256)
    learner = PlayerOptimizers(small(), small().modules(INFO), Runtime(device="cpu"), max_skips=3)
    rates = []
    for step in (0, 500, 750):
        learner.begin(Progress(step, 1, 1000))
        rates.append(learner.optimizers["D"].param_groups[0]["lr"])
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4])
    assert learner.optimizers["G"].param_groups[0]["betas"] == (0.5, 0.999)
    assert TrainConfig().batch_size == 1


def test_each_direction_generates_alone() -> None:
    recipe, x = small(), batch()
    m = recipe.modules(INFO).eval()
    whole = recipe.generate(m, x)
    assert list(whole) == ["fake_b", "fake_a"]
    for key, side in recipe.sources.items():
        alone = recipe.generate(m, {side: x[side]})
        assert list(alone) == [key]
        assert torch.equal(alone[key], whole[key])
    assert torch.equal(recipe.discriminate(m, x), m["D_b"](x["b"]))


def test_sides_of_different_channels_have_no_identity_loss() -> None:
    assert data_defaults(CycleGAN(), DataInfo((32, 32), 3, 3)) == {}
    assert data_defaults(CycleGAN(), DataInfo((32, 32), 1, 3)) == {"lambda_identity": (0.0, "the sides differ in channels, 1 and 3")}
    with pytest.raises(RequestError, match="lambda_identity=0.5 cannot be used; accepted: 0 where the sides differ in channels"):
        small().modules(DataInfo((32, 32), 1, 3))
    recipe = small("lambda_identity=0")
    m = recipe.modules(DataInfo((32, 32), 1, 3))
    seen = []
    recipe.step(m, batch() | {"a": batch()["a"][:, :1]}, CLOCK, lambda player, loss, /, **logs: seen.append(loss.item()))
    assert len(seen) == 2


@pytest.mark.parametrize("word", ["lambda_cycle_a=-1", "lambda_identity=-1", "pool=-1"])
def test_negative_settings_are_refused(word: str) -> None:
    with pytest.raises(RequestError, match="0 or more"):
        small(word)
