"""Stabilizers: each has the property that its paper states, alone and combined in a run that resumes."""

import copy
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.augment.instance_noise import InstanceNoise
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo, Recipe
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.discriminator_view import DiscriminatorView
from i2i.recipes.gan import GAN
from i2i.recipes.infogan import InfoGAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.recipes.stabilizers.feature_matching import BatchMeans, Layers
from i2i.recipes.stabilizers.historical_averaging import HistoricalAverage
from i2i.recipes.stabilizers.packing import pack_images, pack_neighbors, unpack_images
from i2i.recipes.stabilizers.unrolling import UnrolledAdam, UnrolledSGD
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.memory import estimate_memory
from i2i.training.player_optimizers import PlayerOptimizers

INFO = DataInfo((16, 16), num_classes=3)
CLOCK = Progress(0, 4, 1000)
TINY = {GAN: ("generator.width=4", "discriminator.width=4", "generator.z_dim=6"), InfoGAN: ("generator.width=4", "discriminator.width=4"),
        Pix2Pix: ("generator.width=4", "discriminator.width=4", "discriminator.layers=1"),
        CUT: ("generator.width=4", "generator.blocks=1", "discriminator.width=4", "discriminator.layers=1", "nce_layers=0,4,8", "nce_width=4", "nce_identity=false"),
        CycleGAN: ("generator.width=4", "generator.blocks=1", "discriminator.width=4", "discriminator.layers=1", "pool=0", "lambda_identity=0")}


def small(*settings: str, recipe: type = GAN) -> Recipe:
    return override(recipe(), parse_assignments([*TINY[recipe], *settings]))


def made(*settings: str, recipe: type = GAN) -> tuple[Recipe, nn.ModuleDict]:
    torch.manual_seed(0)
    r = small(*settings, recipe=recipe)
    return r, r.modules(INFO)


def batch(n: int = 4, seed: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {"a": torch.rand(n, 3, 16, 16, generator=g) * 2 - 1, "b": torch.rand(n, 3, 16, 16, generator=g) * 2 - 1, "c": torch.arange(n) % 3}


def image_of(out: Tensor | tuple[Tensor, list[Tensor]]) -> Tensor:
    """What a generator made, without the outputs of its layers."""
    return (out[0] if isinstance(out, tuple) else out).detach()


def losses(recipe: Recipe, m: nn.ModuleDict, x: dict[str, Tensor], progress: Progress = CLOCK, seed: int = 1) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    torch.manual_seed(seed)
    recipe.step(m, x, progress, lambda player, loss, /, **logs: seen.update({player: loss}))
    return seen


def inputs_of(D: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    D.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    return seen


# ---------------------------------------------------------------------------------------------- packing

def test_a_pack_is_consecutive_images_concatenated_on_channels() -> None:
    x = torch.randn(6, 2, 3, 4)
    packs = pack_images(x, 3)
    assert packs.shape == (2, 6, 3, 4)
    assert torch.equal(packs[1], torch.cat([x[3], x[4], x[5]]))
    assert torch.equal(unpack_images(packs, 3), x)
    assert torch.equal(pack_neighbors(x, 2)[5], torch.cat([x[5], x[0]]))
    assert torch.equal(pack_images(x, 1), x)
    with pytest.raises(RequestError, match=r"pack=4 .* \(6\)"):
        pack_images(x, 4)


@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CUT, CycleGAN])
def test_d_sees_packs_that_are_all_real_or_all_generated(recipe: type) -> None:
    """Lin et al. 2018, section 2: m real images together, or m generated ones."""
    r, m = made("pack=2", recipe=recipe)
    x, seen, fakes = batch(), [], []
    for name in (name for name in m if name.startswith("D")):
        seen.append(inputs_of(m[name]))
    for name in (name for name in m if name.startswith("G")):
        m[name].register_forward_hook(lambda module, inputs, out: fakes.append(image_of(out)))
    losses(r, m, x)
    sides = {GAN: [x["b"]], Pix2Pix: [x["b"]], CUT: [x["b"]], CycleGAN: [x["a"], x["b"]]}[recipe]
    for inputs in seen:
        assert len(inputs) == 3         # Of D: generated and real; of G: generated.
        for packs in inputs:
            images = unpack_images(packs, 2)[:, -3:]
            assert len(packs) == 2
            assert sum(any(torch.equal(images, known) for known in group) for group in (sides, fakes)) == 1
    assert r.discriminate(m.eval(), x).shape[0] == 4


def test_labels_are_channels_of_a_pack_and_matter() -> None:
    r, m = made("pack=2", "conditional=true")
    assert m["D"].layers[0][0].in_channels == 2 * (3 + 1)
    assert r.players["D"].modules == ("D", "L")
    x = batch()
    one, two = (losses(r, copy.deepcopy(m), {**x, "c": c})["D"] for c in (x["c"], (x["c"] + 1) % 3))
    assert not torch.equal(one, two)
    assert r.discriminate(m.eval(), x).shape == (4, 1)


def test_a_penalty_takes_the_gradient_of_a_whole_pack() -> None:
    """R1 of a critic of packs, written naively: gamma / 2 E |grad of a pack's logit with respect to its images|^2."""
    r, m = made("pack=2", "penalty=r1", "penalty.gamma=3e5", "discriminator.norm=none")
    x = batch()
    with_, without = losses(r, m, x)["D"], losses(override(r, parse_assignments(["penalty=none"])), m, x)["D"]
    packs = pack_images(x["b"], 2).requires_grad_()
    slopes, = torch.autograd.grad(m["D"](packs).sum(), packs)
    assert (with_ - without).item() == pytest.approx(1.5e5 * slopes.square().sum((1, 2, 3)).mean().item(), rel=1e-3)


# ---------------------------------------------------------------------------------------------- instance noise

def test_instance_noise_decays_linearly_to_zero() -> None:
    N, x = InstanceNoise(std=0.4, until=0.5), torch.zeros(20, 3, 40, 40)
    for progress, std in ((0.0, 0.4), (0.25, 0.2), (0.5, 0.0), (0.9, 0.0)):
        N.set_progress(progress)
        assert N(x).std().item() == pytest.approx(std, rel=0.02)
    assert torch.equal(N(x), x)


@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CUT, CycleGAN])
def test_d_sees_noise_on_all_images_but_sources(recipe: type) -> None:
    r, m = made("instance_noise=normal", "instance_noise.std=0.3", "instance_noise.until=0.8", recipe=recipe)
    x, D = batch(), next(name for name in reversed(list(m)) if name.startswith("D"))
    for images, std in ((0, 0.3), (400, 0.15), (900, 0.0)):
        seen = inputs_of(m[D])
        known = [x["b"]]
        for name in (name for name in m if name.startswith("G")):
            m[name].register_forward_hook(lambda module, inputs, out, known=known: known.append(image_of(out)))
        losses(r, m, x, Progress(images // 4, 4, 1000))
        for shown in seen:
            assert min((shown[:, -3:] - image).std().item() for image in known) == pytest.approx(std, abs=0.02)
            assert recipe is not Pix2Pix or torch.equal(shown[:, :3], x["a"])


# ---------------------------------------------------------------------------------------------- feature matching

def test_only_the_means_are_matched() -> None:
    """Salimans et al. 2016, section 3.1: other images of the same mean features cost nothing, others do, whatever the real ones' order."""
    f = torch.randn(8, 5, 2, 2)
    mirrored = 2 * f.mean(0) - f
    assert BatchMeans()([f], [mirrored]).item() == pytest.approx(0, abs=1e-12)
    assert BatchMeans()([f], [f + 2]).item() == pytest.approx(4, rel=1e-5)
    assert Layers()([f], [mirrored]).item() > 0.5
    assert Layers()([f, f], [f + 2, f - 1]).item() == pytest.approx(3, rel=1e-5)


def test_the_generators_loss_is_the_distance_of_features() -> None:
    r, m = made("feature_matching=means", "generator.norm=none", "discriminator.norm=none")
    x = batch()
    seen = losses(r, m, x)
    torch.manual_seed(1)
    fake = m["G"](torch.randn(4, 6))
    f = m["D"].features(fake)[-1].mean(0) - m["D"].features(x["b"])[-1].mean(0)
    assert seen["G"].item() == pytest.approx(f.square().mean().item(), rel=1e-4)
    both = losses(override(r, parse_assignments(["feature_matching.gan=2", "feature_matching.weight=3"])), m, x)["G"]
    assert both.item() == pytest.approx(2 * F.softplus(-m["D"](fake)).mean().item() + 3 * seen["G"].item(), rel=1e-4)


def test_layers_are_matched_pair_by_pair() -> None:
    """Wang et al. 2018, equation 5, written naively."""
    r, m = made("feature_matching=layers", "generator.dropout=0.0", "discriminator.norm=none", "lambda_l1=0", recipe=Pix2Pix)
    x = batch()
    seen = losses(r, m, x)["G"]
    fake, D, expected = m["G"](x["a"]), m["D"].layers, 0.0
    one, two = torch.cat([x["a"], x["b"]], 1), torch.cat([x["a"], fake], 1)
    for layer in D:
        one, two = layer(one), layer(two)
        if isinstance(layer, nn.LeakyReLU):
            expected += (one - two).abs().sum().item() / one.numel()
    assert seen.item() == pytest.approx(F.softplus(-two).mean().item() + 10 * expected, rel=1e-4)


# ---------------------------------------------------------------------------------------------- unrolling

def test_zero_unrolled_steps_are_plain_training() -> None:
    x = batch()
    plain = losses(*made(), x)
    for settings in (["unrolling=sgd", "unrolling.steps=0"], ["unrolling=adam", "unrolling.steps=0"]):
        assert torch.equal(losses(*made(*settings), x)["G"], plain["G"])
    assert not torch.equal(losses(*made("unrolling=sgd"), x)["G"], plain["G"])


def gradient(recipe: Recipe, m: nn.ModuleDict, x: dict[str, Tensor]) -> list[Tensor]:
    """Of G's loss."""
    return list(torch.autograd.grad(losses(recipe, m, x)["G"], list(m["G"].parameters())))


def test_one_unrolled_step_is_the_papers_double_backward() -> None:
    """Metz et al. 2017, equations 7 to 11, written by hand in double precision: D' = D - lr grad_D L(D, G), then dL_G(D'(G), G)/dG."""
    settings = ("unrolling=sgd", "unrolling.steps=1", "unrolling.lr=0.7", "generator=mlp", "generator.width=8", "generator.layers=1", "generator.norm=none",
             "discriminator=mlp", "discriminator.width=8", "discriminator.layers=1", "discriminator.activation=tanh", "generator.z_dim=6")
    r, m = made(*settings)
    m.double()
    still = copy.deepcopy(m)
    still["U"].second_order = False
    still["G"], still["D"] = m["G"], m["D"]
    x = {"b": batch()["b"].double()}
    G, (W, b, V, v) = m["G"], m["D"].parameters()

    def D(image: Tensor, W: Tensor, b: Tensor, V: Tensor, v: Tensor) -> Tensor:
        return torch.tanh(image.flatten(1) @ W.t() + b) @ V.t() + v

    def expected(through: bool) -> list[Tensor]:
        torch.manual_seed(1)
        fake = G(torch.randn(4, 6).double())
        shown = fake if through else fake.detach()
        d = F.softplus(-D(x["b"], W, b, V, v)).mean() + F.softplus(D(shown, W, b, V, v)).mean()
        slopes = torch.autograd.grad(d, (W, b, V, v), create_graph=through)
        after = [p - 0.7 * slope for p, slope in zip((W, b, V, v), slopes, strict=True)]
        return list(torch.autograd.grad(F.softplus(-D(fake, *after)).mean(), list(G.parameters())))

    real_randn = torch.randn
    try:
        torch.randn = lambda *size, **more: real_randn(*size, **more).double()     # The recipe's noise, in the precision of this test.
        through, constant = (gradient(r, each, x) for each in (m, still))
    finally:
        torch.randn = real_randn
    for ours, theirs in ((through, expected(True)), (constant, expected(False))):
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert not all(torch.allclose(one, other, rtol=1e-3) for one, other in zip(through, constant, strict=True))


def test_unrolled_steps_lower_the_loss_of_d() -> None:
    """So G's loss is higher than against the current D."""
    D = build_D()
    real, fake = batch()["b"], batch(seed=6)["b"]

    def loss(at: DiscriminatorView) -> Tensor:
        return F.softplus(-at(real)).mean() + F.softplus(at(fake)).mean()

    values = [loss(UnrolledSGD(D, steps=steps, lr=1.0)(DiscriminatorView(D), loss)).item() for steps in range(5)]
    assert values == sorted(values, reverse=True)
    assert values[4] < values[0] - 0.01


def build_D() -> nn.Module:
    return made("discriminator.norm=none")[1]["D"]


@pytest.mark.parametrize("settings", [["d_weight_norm=spectral"], ["discriminator.kernels=3"], ["unrolling=adam"], ["unrolling.second_order=false"], ["augment=ada"]],
                         ids=" ".join)
@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CUT])
def test_unrolled_steps_do_not_change_d(recipe: type, settings: list[str]) -> None:
    """Parameters and buffers (batch norm's, spectral norm's) apart from the effect of the one forward pass in G's update."""
    if recipe is not GAN and "discriminator.kernels=3" in settings:
        settings = []
    r, m = made("unrolling=sgd", "unrolling.steps=3", *settings, recipe=recipe)
    D, seen = m["D"], []
    D.register_forward_hook(lambda module, inputs, out: seen.append(copy.deepcopy(dict(module.state_dict()))))
    losses(r, m, batch())
    assert len(seen) == 2 + 3 * 2 + 1           # D's update; the unrolled steps; G's update.
    assert all(torch.equal(value, seen[1][key]) for key, value in D.state_dict().items())


def test_the_first_unrolled_adam_step_has_the_size_of_the_learning_rate() -> None:
    """Kingma and Ba 2015, section 2.1: the first step of Adam is one of lr in every parameter that has a gradient; the mean squares are kept."""
    D = build_D()
    U = UnrolledAdam(D, steps=1, lr=1e-3)
    real, fake = batch()["b"], batch(seed=6)["b"]

    def loss(at: DiscriminatorView) -> Tensor:
        return F.softplus(-at(real)).mean() + F.softplus(at(fake)).mean()

    after, before = U(DiscriminatorView(D), loss).state, dict(D.named_parameters())
    slopes = torch.autograd.grad(loss(DiscriminatorView(D)), list(before.values()))
    for (name, p), slope, square in zip(before.items(), slopes, U.synced_buffers, strict=True):
        sure = slope.abs() > 1e-5
        torch.testing.assert_close((p - after[name])[sure], 1e-3 * slope.sign()[sure], rtol=2e-3, atol=1e-6)
        torch.testing.assert_close(getattr(U, square), 1e-3 * slope.square(), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("through", [True, False])
def test_unrolled_adam_steps_are_those_of_torch(through: bool) -> None:
    """torch.optim.Adam without momentum, from the mean squares of two earlier states of D: no unrolled step is longer than Adam's."""
    D, beta2 = build_D().double(), 0.9
    real, fake = batch()["b"].double(), batch(seed=6)["b"].double()

    def loss(at: DiscriminatorView) -> Tensor:
        return F.softplus(-at(real)).mean() + F.softplus(at(fake)).mean()

    U, theirs = UnrolledAdam(D, steps=6, lr=1e-2, beta2=beta2, second_order=through).double(), copy.deepcopy(D)
    adam = torch.optim.Adam(theirs.parameters(), 1e-2, betas=(0.0, beta2))
    for scale in (1.0, 30.0):
        with torch.no_grad():
            for one, other in zip(D.parameters(), theirs.parameters(), strict=True):
                one.mul_(scale)
                other.copy_(one)
        ahead = U(DiscriminatorView(D), loss).state
        for step in range(6):
            adam.zero_grad()
            loss(DiscriminatorView(theirs)).backward()
            adam.step()
            if step == 0:
                saved = copy.deepcopy(adam.state_dict())     # The mean squares of D as it is.
        for name, p in theirs.named_parameters():
            torch.testing.assert_close(ahead[name], p, rtol=1e-9, atol=1e-12)
        adam.load_state_dict(saved)


# ---------------------------------------------------------------------------------------------- historical averaging

def test_the_historical_average_is_the_mean_of_all_steps() -> None:
    theta = [nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor(3.0))]
    H, past = HistoricalAverage(theta), [torch.cat([p.detach().reshape(-1) for p in theta])]
    assert H(theta).item() == 0
    for step in range(5):
        with torch.no_grad():
            for p in theta:
                p.add_(0.5 * (step + 1))
        now = torch.cat([p.detach().reshape(-1) for p in theta])
        away = now - torch.stack(past).mean(0)
        assert H(theta).item() == pytest.approx(away.square().sum().item(), rel=1e-5)
        slopes = torch.cat([slope.reshape(-1) for slope in torch.autograd.grad(H(theta), theta)])
        torch.testing.assert_close(slopes, 2 * away)
        H.update(theta)
        past.append(now)


@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CUT, CycleGAN])
def test_both_players_are_pulled_to_their_historical_average(recipe: type) -> None:
    r, m = made("lambda_history=10", recipe=recipe)
    learner = PlayerOptimizers(r, m, Runtime(device="cpu"), max_skips=3)
    past = {player: [torch.cat([p.detach().flatten() for name in who.modules for p in m[name].parameters()])] for player, who in r.players.items()}
    for step in range(3):
        learner.begin(Progress(step, 4, 1000))
        r.step(m, batch(seed=step), Progress(step, 4, 1000), learner)
        logs = learner.means()
        for player, who in r.players.items():
            before = past[player][-1]
            away = (before - torch.stack(past[player][:max(1, step + 1)]).mean(0)).square().sum().item()
            assert logs[f"history_{player}"] == pytest.approx(away, rel=1e-3, abs=1e-9)
            past[player].append(torch.cat([p.detach().flatten() for name in who.modules for p in m[name].parameters()]))
    assert logs["history_D"] > 0


# ---------------------------------------------------------------------------------------------- update ratio

@pytest.mark.parametrize("recipe", [GAN, InfoGAN, Pix2Pix, CUT, CycleGAN])
def test_either_player_can_have_more_updates(recipe: type) -> None:
    for settings, expected in ((["d_steps=3"], ["DG", "D", "D", "DG"]), (["g_steps=3"], ["DG", "G", "G", "DG"]), ([], ["DG"] * 4)):
        r, m = made(*settings, recipe=recipe)
        assert ["".join(sorted(losses(r, m, batch(), Progress(step, 4, 1000)))) for step in range(4)] == expected
    with pytest.raises(RequestError, match="only one player"):
        small("d_steps=2", "g_steps=2", recipe=recipe)


# ---------------------------------------------------------------------------------------------- unsupported combinations

@pytest.mark.parametrize(("recipe", "settings", "message"), [
    (GAN, ["pack=0"], "pack=0"), (GAN, ["lambda_history=-1"], "lambda_history"), (InfoGAN, ["pack=2"], "Q reads the codes"), (GAN, ["feature_matching=layers"], "only means can be matched"),
    (GAN, ["feature_matching=means", "discriminator=progressive"], "features"), (CycleGAN, ["feature_matching=means"], "do not correspond"),
    (CycleGAN, ["unrolling=sgd"], "a pool of earlier images"), (GAN, ["unrolling=adam", "penalty=r1", "discriminator.norm=none"], "a third time"),
    (GAN, ["unrolling=adam", "unrolling.steps=-1"], "steps=-1"), (GAN, ["instance_noise=normal", "instance_noise.until=0"], "until=0"),
    (GAN, ["feature_matching=means", "feature_matching.weight=0"], "feature_matching=none")])
def test_unsupported_combinations_are_refused_with_the_reason(recipe: type, settings: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        made(*settings, recipe=recipe)


@pytest.mark.parametrize("recipe", [GAN, Pix2Pix, CUT, CycleGAN])
def test_a_step_is_short_enough_to_compare_with_its_paper(recipe: type) -> None:
    assert len(inspect.getsource(recipe.step).splitlines()) <= 40


# ---------------------------------------------------------------------------------------------- together

ALL = ("pack=2", "instance_noise=normal", "unrolling=adam", "unrolling.steps=2", "lambda_history=0.01", "g_steps=2")
TOGETHER = [(GAN, ("feature_matching=means", "feature_matching.gan=1", "discriminator.kernels=3", "discriminator.group=2", "conditional=true", *ALL)), (Pix2Pix, ("feature_matching=layers", *ALL)),
            (InfoGAN, tuple(word for word in ALL if word != "pack=2")), (CUT, ("feature_matching=means", *ALL)), (CycleGAN, tuple(word for word in ALL if "unrolling" not in word))]


@pytest.mark.parametrize(("recipe", "settings"), TOGETHER, ids=lambda value: getattr(value, "__name__", ""))
def test_combined_stabilizers_update_one_player_at_a_time_also_in_bf16_and_on_meta(recipe: type, settings: tuple[str, ...]) -> None:
    r, m = made(*settings, recipe=recipe)
    learner = PlayerOptimizers(r, m, Runtime(device="cpu"), max_skips=3)
    for player, who in r.players.items():
        learner.begin(CLOCK)
        before = copy.deepcopy(dict(m.named_parameters()))
        with torch.autocast("cpu", torch.bfloat16):
            r.step(m, batch(), CLOCK, lambda name, loss, /, player=player, **logs: learner(name, loss, **logs) if name == player else None)
        moved = {name.split(".")[0] for name, value in m.named_parameters() if not torch.equal(value, before[name])}
        assert moved == {name for name in who.modules if list(m[name].parameters())}
        assert all(np.isfinite(list(learner.means().values())))
    parts, estimate = estimate_memory(r, INFO, batch_size=4, ema=True)
    assert estimate.total > 0
    assert {part.name for part in parts} == set(m)


@pytest.fixture(scope="module")
def strips16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("strips16") / "train"
    folder.mkdir()
    g = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(g.integers(0, 255, (16, 32, 3)).astype(np.uint8)).save(folder / f"{i}.png")
    return folder.parent


@pytest.mark.parametrize(("name", "settings"), [("pix2pix", ("feature_matching=layers", *TINY[Pix2Pix], *ALL)), ("gan", ("feature_matching=means", *TINY[GAN], *ALL))])
def test_a_run_with_all_stabilizers_resumes_exactly(name: str, settings: tuple[str, ...], i2i, strips16: Path, tmp_path: Path) -> None:
    if name == "gan":
        flat = tmp_path / "flat"
        flat.mkdir()
        for path in (strips16 / "train").iterdir():
            Image.open(path).crop((0, 0, 16, 16)).save(flat / path.name)
        strips16 = flat
    line = ("train", name, *settings, "train.batch_size=4", "train.images=24", "train.log_every=8", "train.checkpoint_every=12", "--data", strips16, "--device", "cpu", "--out")
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
    assert any("H_D.mean" in key for key in ours)
