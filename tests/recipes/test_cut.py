"""CUT against its paper, written naively, and against recorded runs of the reference implementation."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i import load
from i2i.config import override, parse_assignments
from i2i.convert.checkpoint_files import read_tensors
from i2i.convert.cyclegan_pix2pix import read
from i2i.convert.fitting import fit
from i2i.errors import RequestError
from i2i.images.convert import to_tensor
from i2i.nets.norms import InstanceNorm
from i2i.nets.resnet import ResNet
from i2i.recipes import cut
from i2i.recipes.base import DataInfo, data_defaults
from i2i.recipes.cut import CUT
from i2i.recipes.presets import PRESETS
from i2i.registry import Spec
from i2i.seeding import Progress
from i2i.training.distributed import Runtime
from i2i.training.memory import estimate_memory
from i2i.training.player_optimizers import PlayerOptimizers
from tests.conftest import CUT as SMALL_CUT
from tests.conftest import REFERENCE, Run

INFO = DataInfo((32, 32))
CLOCK = Progress(0, 2, 1000)
WAYS = [[], ["flip_equivariance=true", "nce_identity=false"], ["flip_equivariance=true"], ["nce_width=0"], ["nce_negatives=batch"], ["generator.norm=batch", "generator.dropout=0.5"],
        ["adversarial=rpgan", "penalty=r1"], ["unrolling=sgd", "unrolling.steps=1"], ["feature_matching=means"], ["pack=2", "augment=diffaugment", "lambda_history=0.1"],
        ["discriminator.norm=virtual", "discriminator=dcgan"]]


def small(*settings: str) -> CUT:
    return override(CUT(), parse_assignments(["generator.width=4", "generator.blocks=2", "discriminator.width=4", "discriminator.layers=2", "nce_width=8", "nce_patches=9",
                                              "nce_layers=0,4,8,12", *settings]))


def batch(n: int = 2, seed: int = 5) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {key: torch.rand(n, 3, 32, 32, generator=g) * 2 - 1 for key in "ab"}


class Replayed:
    """`draw_places` as recorded, call by call."""

    def __init__(self, places: list[list[Tensor]]) -> None:
        self.calls = iter(places)

    def __call__(self, features: list[Tensor], count: int) -> list[Tensor]:
        places = next(self.calls)
        assert [len(index) for index in places] == [min(count, x.shape[2] * x.shape[3]) for x in features]
        return places


def naive_nce(m: nn.ModuleDict, recipe: CUT, output: Tensor, source: Tensor, places: list[Tensor], flipped: bool) -> Tensor:
    """Equations 3 and 4, patch by patch."""
    losses = []
    for head, layer, index in zip(m["F"].heads, recipe.nce_layers, places, strict=True):
        hidden = [m["G"].layers[:layer + 1](x) for x in (output, source)]
        if flipped:
            hidden[0] = hidden[0].flip(-1)
        q, k = ([head(x[:, p // x.shape[-1], p % x.shape[-1]]) for x in h for p in index.tolist()] for h in hidden)
        q, k = ([v / (v.norm() + 1e-7) for v in vectors] for vectors in (q, k))
        per_image = [slice(i * len(index), (i + 1) * len(index)) for i in range(len(output))]
        for image in per_image:
            rivals = k if recipe.nce_negatives == "batch" else k[image]
            for query, key in zip(q[image], k[image], strict=True):
                exponents = torch.stack([(query @ rival) / recipe.nce_temperature for rival in rivals])
                losses.append(-(query @ key / recipe.nce_temperature - exponents.exp().sum().log()) / len(index))
    return torch.stack(losses).sum() / len(recipe.nce_layers) / len(output)


@pytest.mark.parametrize("settings", [[], ["nce_identity=false"], ["nce_negatives=batch", "nce_temperature=0.2"], ["flip_equivariance=true", "lambda_nce=10"]])
@pytest.mark.parametrize("coin", [0.2, 0.8])
def test_the_objective_is_the_papers(settings: list[str], coin: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equations 1 to 5 with least squares: every term written out, in double precision."""
    recipe = small("lambda_nce=3", *settings)
    flipped = recipe.flip_equivariance and coin < 0.5
    m = recipe.modules(INFO).double()
    x = {key: value.double() for key, value in batch().items()}
    a, b, naive = x["a"], x["b"], copy.deepcopy(m)
    places = [[torch.randperm(38 * 38)[:9], *(torch.randperm(n)[:9] for n in (32 * 32, 16 * 16, 8 * 8))] for _ in range(2)]
    monkeypatch.setattr(cut, "draw_places", Replayed(places))
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.tensor(coin))
    seen: dict[str, Tensor] = {}
    recipe.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss, **logs}))

    fake, same = (naive["G"](image.flip(-1) if flipped else image) for image in (a, b))
    d = (((naive["D"](b) - 1) ** 2).mean() + (naive["D"](fake) ** 2).mean()) / 2
    gan, nce = ((naive["D"](fake) - 1) ** 2).mean(), naive_nce(naive, recipe, fake, a, places[0], flipped)
    if recipe.nce_identity:
        nce = (nce + naive_nce(naive, recipe, same, b, places[1], flipped)) / 2
    assert seen["D"].item() == pytest.approx(d.item(), rel=1e-6)
    assert seen["G"].item() == pytest.approx((gan + recipe.lambda_nce * nce).item(), rel=1e-6)


@pytest.mark.parametrize("settings", WAYS)
def test_each_update_moves_only_its_player(settings: list[str]) -> None:
    recipe = small(*(s for s in settings if "=" in s)) if "discriminator=dcgan" not in settings else override(small(), parse_assignments(["discriminator=dcgan", "discriminator.norm=virtual"]))
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    learner.begin(CLOCK)
    moved = []

    def weights() -> dict[str, Tensor]:
        return {name: nn.utils.parameters_to_vector(module.parameters()).clone() for name, module in m.items() if list(module.parameters())}

    def update(player: str, loss: Tensor, /, **logs: Tensor) -> None:
        before = weights()
        learner(player, loss, **logs)
        moved.append((player, {name for name, value in weights().items() if not torch.equal(value, before[name])}))

    recipe.step(m, batch(), CLOCK, update)
    assert moved == [("D", {"D"}), ("G", {"G", "F"} if recipe.nce_width else {"G"})]


# ---------------------------------------------------------------------------------------------- the recorded runs

RUNS = {"cut": PRESETS["cut"], "cut_noantialias": PRESETS["cut"], "fastcut": PRESETS["fastcut"]}


def recorded_recipe(name: str, options: dict[str, object], spec: Spec) -> CUT:
    """The settings of a recorded run, and those of the preset, which are the same."""
    # Without blurs the next ReLU overwrites the output of layer 8 in the reference implementation.
    layers = str(options["nce_layers"]).replace("8", "9") if options["no_antialias"] else options["nce_layers"]
    assert options["lambda_NCE"] == (10 if name == "fastcut" else 1)
    return override(CUT(generator=spec), parse_assignments([
        *RUNS[name].settings, "discriminator.width=8", f"discriminator.down={'strided' if options['no_antialias'] else 'blurpool'}", f"nce_layers={layers}", "nce_width=32",
        "nce_patches=16", "schedule=constant"]))


def instance_norm_is_wrong() -> bool:
    """torch 2.14 on a CPU: of one image, with a gradient in channels_last.  The run `cut` was recorded so; ours is right (tests/nets/test_networks.py)."""
    x, given = torch.randn(2, 1, 2, 4, 4)
    out = F.instance_norm(x.requires_grad_())
    return not torch.allclose(*(torch.autograd.grad(out, x, given.clone(memory_format=layout), retain_graph=True)[0]
                                for layout in (torch.contiguous_format, torch.channels_last)))


def as_recorded(patch: pytest.MonkeyPatch) -> None:
    """torch's own norm, and one image at a time through the encoder, as batches of one image are."""
    whole = ResNet.intermediates

    def one_by_one(G: ResNet, x: Tensor, indices: Sequence[int]) -> list[Tensor]:
        if -1 in indices:
            return whole(G, x, indices)
        return [torch.cat(features) for features in zip(*(whole(G, image, indices) for image in x.split(1)), strict=True)]

    patch.setattr(ResNet, "intermediates", one_by_one)
    patch.setattr(InstanceNorm, "forward", nn.InstanceNorm2d.forward)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RUNS)
def test_four_steps_follow_the_reference_implementation(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = REFERENCE / "cut"
    settings, recorded = json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")
    found = read(read_tensors(folder / f"{name}_0_net_G.pth"))
    spec, g = found.recipe.generator, fit(found)
    recipe = recorded_recipe(name, settings["options"], spec)
    m = recipe.modules(INFO)
    m["G"].load_state_dict(g)
    m["F"].load_state_dict({key.replace("mlp_", "heads."): value for key, value in read_tensors(folder / f"{name}_0_net_F.pth").items()})
    m["D"].load_state_dict({key.replace("model.", "layers."): value for key, value in read_tensors(folder / f"{name}_0_net_D.pth").items() if not key.endswith(".filt")})
    m.to(dtype).train()
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    losses, steps = [], settings["steps"]
    if name == "cut":
        as_recorded(monkeypatch)
        steps = steps if instance_norm_is_wrong() else 1
    for step in range(steps):
        monkeypatch.setattr(cut, "draw_places", Replayed([[torch.from_numpy(index).long() for index in call] for call in recorded["patch_ids"][step]]))
        monkeypatch.setattr(torch, "rand", lambda *shape, flipped=recorded["flipped"][step], **options: torch.tensor(0.0 if flipped else 1.0))
        x = {key: torch.stack([to_tensor(image.transpose(1, 2, 0)) for image in recorded[key.upper()][step]]).to(dtype) for key in "ab"}
        learner.begin(Progress(step, len(x["a"]), 100))
        recipe.step(m, x, Progress(step, len(x["a"]), 100), learner)
        logs = learner.means()
        nce = {theirs: recipe.lambda_nce * logs[key] for theirs, key in (("NCE", "nce"), ("NCE_Y", "nce_identity")) if key in logs}
        losses.append({"G_GAN": logs["gan"], "D": logs["d"], **nce, "G": logs["gan"] + sum(nce.values()) / len(nce)})
    monkeypatch.undo()
    single = dtype is torch.float32
    expected = dict(zip(settings["loss_names"], recorded["losses" if single else "losses_float64"].T, strict=True))
    expected["D"] = (expected["D_real"] + expected["D_fake"]) / 2
    assert losses[0].keys() == expected.keys() - {"D_real", "D_fake", *(key for key, values in expected.items() if np.isnan(values).any())}
    for key in losses[0]:
        ours = np.array([each[key] for each in losses])
        np.testing.assert_allclose(ours[:1], expected[key][:1], rtol=1e-5 if single else 1e-9, err_msg=key)
        np.testing.assert_allclose(ours, expected[key][:steps], rtol=2e-3 if single else 1e-9, err_msg=key)
    if steps == 1:
        return

    m.eval()
    probe = torch.stack([to_tensor(image.transpose(1, 2, 0)) for image in recorded["probe"]]).to(dtype)
    with torch.no_grad():
        output = m["G"](probe)
        suffix, tolerance = ("", 2e-2) if single else ("_float64", 1e-8)
        np.testing.assert_allclose(output, recorded[f"probe_output{suffix}"], atol=tolerance)
        np.testing.assert_allclose(m["D"](output), recorded[f"probe_D_eval{suffix}"], atol=tolerance)
        if single:
            return
        for layer, features in zip(settings["options"]["nce_layers"].split(","), m["G"].intermediates(probe, recipe.nce_layers), strict=True):
            ours = torch.stack([features.mean((1, 2, 3)), features.std((1, 2, 3), correction=0)], 1)
            np.testing.assert_allclose(ours, recorded[f"probe_feature_layer{layer}_stats"], atol=1e-8)
        sums = settings["final_float64_tensor_sums"]
        for ours, (total, absolute) in zip(m["G"].parameters(), sums["G"].values(), strict=True):
            assert (ours.sum().item(), ours.abs().sum().item()) == pytest.approx((total, absolute), rel=1e-8, abs=1e-8)
        for network, renamed in (("F", lambda key: key.replace("mlp_", "heads.")), ("D", lambda key: key.replace("model.", "layers."))):
            for key, (total, absolute) in sums[network].items():
                value = m[network].state_dict()[renamed(key)]
                assert (value.sum().item(), value.abs().sum().item()) == pytest.approx((total, absolute), rel=1e-8, abs=1e-8), key


# ---------------------------------------------------------------------------------------------- as a component

def test_the_heads_are_there_before_the_first_step_and_in_the_estimate() -> None:
    recipe = small()
    m = recipe.modules(INFO)
    assert [head[0].in_features for head in m["F"].heads] == [3, 8, 16, 16]
    modules, _ = estimate_memory(recipe, INFO, batch_size=2, ema=True)
    assert {part.name: part.parameters for part in modules}["F"] == sum(p.numel() for p in m["F"].parameters()) == sum(8 * c + 8 + 8 * 8 + 8 for c in (3, 8, 16, 16))
    assert {part.name: part.shapes for part in modules}["G"] == "4x3x32x32 -> 4x3x32x32"


def test_the_defaults_are_the_papers() -> None:
    recipe = CUT()
    assert (recipe.lambda_nce, recipe.nce_identity, recipe.nce_layers, recipe.nce_patches, recipe.nce_temperature, recipe.nce_width, recipe.flip_equivariance) == (
        1, True, (0, 4, 8, 12, 16), 256, 0.07, 256, False)
    assert (recipe.adversarial, recipe.nce_negatives) == (Spec("lsgan"), "image")
    fast = override(recipe, parse_assignments(PRESETS["fastcut"].settings))
    assert (fast.lambda_nce, fast.nce_identity, fast.flip_equivariance) == (10, False, True)
    with torch.device("meta"):
        m = recipe.modules(DataInfo((256, 256)))
    assert sum(p.numel() for p in m["G"].parameters()) == 11_378_179        # As the reference implementation prints for resnet_9blocks,
    assert sum(p.numel() for p in m["D"].parameters()) == 2_764_737         # and for its basic discriminator with instance norm.
    assert m["G"].intermediate_channels(recipe.nce_layers) == [3, 128, 256, 256, 256]


def test_layers_are_given_by_index_and_computed_no_further() -> None:
    G = small().modules(INFO)["G"]
    x, reached = batch()["a"], []
    G.layers[-2].register_forward_hook(lambda *_: reached.append(1))
    inputs, image, inner = G.intermediates(x, [0, -1, 12])
    assert torch.equal(image, G(x))
    assert (inputs.shape, inner.shape) == ((2, 3, 38, 38), (2, 16, 8, 8))
    count = len(reached)
    assert torch.equal(G.intermediates(x, [12])[0], inner)
    assert len(reached) == count
    torch.testing.assert_close(G(x, [12]), (image, [inner]))


def test_sides_of_different_channels_have_no_identity_and_are_compared_in_the_channels_of_a() -> None:
    assert data_defaults(CUT(), DataInfo((32, 32), 1, 3)) == {"nce_identity": (False, "the sides differ in channels, 1 and 3")}
    for a, b in ((1, 3), (3, 1), (2, 5)):
        info = DataInfo((32, 32), a, b)
        with pytest.raises(RequestError, match="nce_identity=true cannot be used; accepted: false where the sides differ in channels"):
            small().modules(info)
        recipe = small("nce_identity=false")
        m, seen = recipe.modules(info), {}
        recipe.step(m, {"a": torch.rand(2, a, 32, 32), "b": torch.rand(2, b, 32, 32)}, CLOCK, lambda player, loss, /, seen=seen, **logs: seen.update({player: loss}))
        gradients = torch.autograd.grad(seen["G"], list(m["G"].parameters()))
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(("settings", "message"), [
    (["generator=unet"], "generator=unet cannot be used; accepted: resnet with cut"), (["nce_layers=0,40"], "accepted: layers from 0 to 22"), (["nce_layers="], "nce_layers"),
    (["nce_temperature=0"], "more than 0"), (["nce_patches=1"], "2 or more"), (["lambda_nce=-1"], "0 or more"), (["nce_negatives=all"], "image or batch"), (["feature_matching=layers"], "means")])
def test_settings_that_cannot_be_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        (override(CUT(), parse_assignments(settings)) if settings == ["generator=unet"] else small(*settings)).modules(INFO)


def test_one_pair_is_overfitted() -> None:
    """The patches of an output are those of the input at their places, by far."""
    torch.manual_seed(0)
    recipe = small("generator.width=8", "g_optimizer.lr=2e-3", "schedule=constant", "nce_identity=false", "nce_width=16")
    m = recipe.modules(INFO)
    learner = PlayerOptimizers(recipe, m, Runtime(device="cpu"), max_skips=3)
    history = []
    for step in range(60):
        learner.begin(Progress(step, 1, 1000))
        recipe.step(m, batch(1), Progress(step, 1, 1000), learner)
        history.append(learner.means()["nce"])
    assert np.mean(history[-5:]) < 0.6 * history[0]


def test_train_translate_and_evaluate_one_way(sides: Path, i2i: Run) -> None:
    result = i2i("train", "cut", *SMALL_CUT, "--data", sides, "--out", "run", "--epochs", 2, "--device", "cpu")
    assert result.code == 0, result.err
    sheet = np.asarray(Image.open("run/samples/00000014.png"))
    assert i2i("translate", "run", sides / "testA", "--out", "made", "--device", "cpu").code == 0
    made = np.asarray(Image.open("made/0.png"))
    assert any(np.array_equal(sheet[2:34, left:left + 32], made) for left in range(sheet.shape[1] - 32))
    result = i2i("translate", "run", sides / "testB", "--out", "back", "--direction", "ba", "--device", "cpu")
    assert (result.code, "ab" in result.line) == (2, True)
    result = i2i("evaluate", "run", "--device", "cpu", "--metrics", "l1", "--json", "scores.json")
    assert result.code == 0, result.err
    assert json.loads(Path("scores.json").read_text())["scores"].keys() >= {"model", "copy the input"}
    model = load("run/model.safetensors", device="cpu")
    assert set(model.modules) == {"G"}
