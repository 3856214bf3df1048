"""Diffusion, rectified flow, Palette and BBDM: objectives stated naively, sampling, guidance, bad input, and the command line."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import registry
from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.images.format import ImageFormat
from i2i.inference.model import load
from i2i.inference.spread import sample_spread
from i2i.recipes.base import DataInfo
from i2i.recipes.bbdm import bridge_source, bridge_step
from i2i.recipes.denoising import Denoising
from i2i.recipes.diffusion_process import alphas_cumprod
from i2i.seeding import ImageNoise, Progress
from i2i.training.distributed import Runtime
from i2i.training.player_optimizers import PlayerOptimizers
from tests.conftest import Run, drawing, drawn_strips

INFO = DataInfo((8, 8), num_classes=3)
CLOCK = Progress(0, 4, 1000)
TINY = ("denoiser.width=4", "steps=3", "train.batch_size=2", "train.images=8", "data.size=32")


def recipe(name: str, *words: str) -> Denoising:
    return override(registry.lookup("recipe", name)(), parse_assignments(["denoiser.width=4", "steps=4", *words]))


def batch(n: int = 4) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    return {"a": torch.rand(n, 3, 8, 8, generator=g) * 2 - 1, "b": torch.rand(n, 3, 8, 8, generator=g) * 2 - 1, "c": torch.arange(n) % 3}


def built(recipe: Denoising, info: DataInfo = INFO) -> torch.nn.ModuleDict:
    """Its modules with weights that are nowhere 0."""
    torch.manual_seed(2)
    m = recipe.modules(info).eval()
    with torch.no_grad():
        for parameter in m.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return m


def draws(*functions: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """What a step draws, in its order."""
    torch.manual_seed(0)
    return [draw() for draw in functions]


def loss_of(recipe: Denoising, m: torch.nn.ModuleDict, x: dict[str, torch.Tensor]) -> torch.Tensor:
    seen: dict[str, torch.Tensor] = {}
    torch.manual_seed(0)
    recipe.step(m, x, CLOCK, lambda player, loss, /, **logs: seen.update({player: loss}))
    assert list(seen) == ["model"]
    return seen["model"]


@pytest.mark.parametrize("name", ["diffusion", "palette"])
@pytest.mark.parametrize("words", [(), ("prediction=epsilon", "noise_schedule=linear"), ("prediction=x0", "min_snr=5"), ("min_snr=5",)])
def test_the_objective_of_diffusion_is_the_papers(name: str, words: tuple[str, ...]) -> None:
    """The squared error of the prediction at a random time; min(SNR, 5) times that of the image with min_snr."""
    r, x = recipe(name, *words), batch()
    m = built(r)
    t, noise = draws(lambda: torch.randint(1000, (4,)), lambda: torch.randn(4, 3, 8, 8))
    ab = alphas_cumprod(r.noise_schedule)[t].float()[:, None, None, None]
    x_t = ab.sqrt() * x["b"] + (1 - ab).sqrt() * noise
    output = m["G"](torch.cat([x_t, x["a"]], 1) if name == "palette" else x_t, t / 1000)
    target = {"v": ab.sqrt() * noise - (1 - ab).sqrt() * x["b"], "epsilon": noise, "x0": x["b"]}[r.prediction]
    weight = torch.ones_like(ab) if not r.min_snr else (ab / (1 - ab)).clamp(max=5) * (1 - ab if r.prediction == "v" else 1)
    torch.testing.assert_close(loss_of(r, m, x), (weight * (output - target) ** 2).mean(), rtol=1e-4, atol=0)


def test_the_objective_of_rectified_flow_is_the_papers() -> None:
    r, x = recipe("rectified-flow"), batch()
    m = built(r)
    noise, s = draws(lambda: torch.randn(4, 3, 8, 8), lambda: torch.rand(4))
    x_s = s[:, None, None, None] * noise + (1 - s[:, None, None, None]) * x["b"]
    torch.testing.assert_close(loss_of(r, m, x), (m["G"](x_s, s) - (noise - x["b"])).square().mean())


def test_the_objective_of_the_bridge_is_the_papers() -> None:
    """Algorithm 1: |m (y - x0) + sqrt(delta) eps - prediction|^2 with delta = 2 s (m - m^2)."""
    r, x = recipe("bbdm", "variance=0.5"), batch()
    m = built(r)
    time, noise = draws(lambda: torch.rand(4), lambda: torch.randn(4, 3, 8, 8))
    t = time[:, None, None, None]
    offset = t * (x["a"] - x["b"]) + (t - t**2).sqrt() * noise
    expected = (m["G"](torch.cat([x["b"] + offset, x["a"]], 1), time) - offset).square().mean()
    torch.testing.assert_close(loss_of(r, m, x), expected)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_bridge_keeps_its_distribution_step_by_step(eta: float) -> None:
    """With the target known, x at time m is N((1 - m) x0 + m y, 2 s (m - m^2)) after any number of steps; the first noise is fresh in share eta."""
    g = torch.Generator().manual_seed(0)
    x0, y, scale = torch.tensor(0.3), torch.tensor(-0.8), 0.7
    x = y.expand(200_000)
    for m, m_next in ((1.0, 0.6), (0.6, 0.5), (0.5, 0.1)):
        before = x
        x = bridge_step(x, x0, y, m, m_next, scale, 1.0 if m == 1 else eta, torch.randn(len(x), generator=g))
        assert float(x.mean()) == pytest.approx(float((1 - m_next) * x0 + m_next * y), abs=5e-3)
        assert float(x.var()) == pytest.approx(2 * scale * (m_next - m_next**2), rel=0.01)
        if m < 1:       # Li et al. 2023, equation 12: with all of the fresh noise the covariance is that of the Brownian bridge.
            covariance = float(((x - x.mean()) * (before - before.mean())).mean())
            independent = 2 * scale * m_next * (1 - m)
            assert covariance == pytest.approx(independent, rel=0.02) if eta == 1 else covariance > independent
    assert float(bridge_step(x, x0, y, 0.1, 0.0, scale, eta, torch.randn(len(x))).sub(x0).abs().max()) < 1e-6


@pytest.mark.parametrize("words", [("diffusion", "sampler=ddpm"), ("diffusion", "eta=0.7"), ("diffusion",), ("rectified-flow", "sampler=heun"), ("palette", "eta=1"), ("bbdm",)])
def test_an_image_does_not_depend_on_the_others_of_its_batch(words: tuple[str, ...]) -> None:
    r, x = recipe(*words), batch()
    m = built(r)
    x["eps"] = torch.randn(4, 192, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = r.generate(m, x)["fake_b"]
        alone = torch.cat([r.generate(m, {key: value[i:i + 1] for key, value in x.items()})["fake_b"] for i in (3, 1)])
        assert torch.equal(r.generate(m, x)["fake_b"], whole)
    torch.testing.assert_close(alone, whole[[3, 1]], rtol=1e-4, atol=1e-5)
    assert whole.isfinite().all()
    if r.sources:
        m["S"].seed = 1
        with torch.no_grad():
            assert (r.generate(m, x)["fake_b"] - whole).abs().flatten(1).max(1).values.min() > 1e-3


def test_noise_of_an_image_is_normal_and_another_for_another_image_seed_or_call() -> None:
    keys = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    noise = ImageNoise(keys, (3, 100, 100))
    first, second = noise(), noise()
    assert torch.equal(ImageNoise(keys.flip(0), (3, 100, 100))().flip(0), first)
    others = [first[0], first[1], second[0], ImageNoise(keys, (3, 100, 100), 1)()[0]]
    correlations = torch.corrcoef(torch.stack(others).flatten(1))
    torch.testing.assert_close(correlations, torch.eye(4), rtol=0, atol=0.03)
    assert float(first.std()) == pytest.approx(1, abs=0.01)


def test_the_first_steps_do_not_blow_up_a_network_that_halves_twice() -> None:
    torch.manual_seed(0)
    G, rate = registry.build("denoiser", registry.Spec("unet", {"depth": 2}), 3, 3, (32, 32), 0), Denoising().optimizer.options["lr"]
    optimizer, seen = torch.optim.Adam(G.parameters(), rate, betas=(0.9, 0.999)), list[float]()
    G.last[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach().square().mean().sqrt().item()))
    for _ in range(12):
        image, noise, t = torch.ones(4, 3, 32, 32), torch.randn(4, 3, 32, 32), torch.rand(4, 1, 1, 1)
        image[:, :, 8:20, 4:28] = torch.rand(4, 3, 1, 1) * 2 - 1
        optimizer.zero_grad()
        (G((1 - t) * image + t * noise, t.flatten()) - (noise - image)).square().mean().backward()
        optimizer.step()
    assert 0.1 < seen[0] < max(seen) < 25       # 0.5 and 11; hundreds with a rate of 2e-3, after which nothing is learned for long.


def test_guidance_extrapolates_from_the_prediction_without_a_label() -> None:
    r, x = recipe("rectified-flow", "conditional=true", "steps=1", "guidance=3"), batch()
    m, eps = built(r), torch.randn(4, 192)
    start, ones = eps.unflatten(1, (3, 8, 8)), torch.ones(4)
    with torch.no_grad():
        with_label, without = m["G"](start, ones, x["c"]), m["G"](start, ones, None)
        assert (with_label - without).abs().max() > 1e-3
        expected = start - (without + 3 * (with_label - without))
        torch.testing.assert_close(r.generate(m, {"eps": eps, "c": x["c"]})["fake_b"], expected)
        m["S"].set(guidance=1.0)
        torch.testing.assert_close(r.generate(m, {"eps": eps, "c": x["c"]})["fake_b"], start - with_label)


def test_labels_are_dropped_in_their_share() -> None:
    r = recipe("diffusion", "denoiser=mlp", "conditional=true", "label_dropout=0.25")
    m, seen = r.modules(DataInfo((1, 1), num_classes=3)), list[torch.Tensor]()
    m["G"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    x = {"b": torch.zeros(2000, 3, 1, 1), "c": torch.arange(2000) % 3}
    r.train_predict(m, x, x["b"], torch.rand(2000))
    dropped = seen[0] == 3
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(seen[0][~dropped], x["c"][~dropped])


@pytest.mark.parametrize(("name", "words"), [
    ("diffusion", ()), ("diffusion", ("prediction=epsilon", "noise_schedule=linear", "sampler=ddpm")), ("diffusion", ("prediction=x0", "min_snr=5", "eta=1")),
    ("rectified-flow", ()), ("rectified-flow", ("sampler=heun", "times=logit-normal")), ("palette", ()), ("bbdm", ())])
def test_one_image_is_learned(name: str, words: tuple[str, ...]) -> None:
    """Of a single image all noise, and all sources, lead to it."""
    r = override(recipe(name, *words), parse_assignments(["denoiser=mlp", "denoiser.width=48", "denoiser.layers=2", "steps=20", "optimizer.lr=5e-3"]))
    torch.manual_seed(0)
    m = r.modules(DataInfo((2, 2)))
    optimizers = PlayerOptimizers(r, m, Runtime(device="cpu"), max_skips=9)
    target = torch.tensor([[[[0.5, -0.5], [0.9, 0.1]]]]).expand(64, 3, 2, 2)
    before = copy.deepcopy(m.state_dict())
    for step in range(150):
        optimizers.begin(Progress(step, 64, 64 * 150))
        r.step(m, {"a": torch.rand(64, 3, 2, 2) * 2 - 1, "b": target}, Progress(step, 64, 64 * 150), optimizers)
    assert all(not torch.equal(value, before[key]) for key, value in m.state_dict().items())
    with torch.no_grad():
        images = r.generate(m.eval(), {"a": torch.rand(64, 3, 2, 2) * 2 - 1, "eps": torch.randn(64, 12)})["fake_b"]
    assert float((images - target).abs().mean()) < 0.1


@pytest.mark.parametrize("name", ["diffusion", "rectified-flow"])
def test_with_the_exact_prediction_a_normal_distribution_is_recovered(name: str) -> None:
    """Data N(0.5, 0.3^2): the best prediction is linear in x, and samples have mean and standard deviation to 2 percent."""
    r = recipe(name, *(("clip=false", "eta=1") if name == "diffusion" else ("sampler=heun",)))
    mean, variance = 0.5, 0.09

    def predict(x: torch.Tensor, t: float) -> torch.Tensor:
        if name == "rectified-flow":
            image, sigma = 1 - t, t
        else:
            ab = float(alphas_cumprod("cosine")[round(t * 1000)])
            image, sigma = math.sqrt(ab), math.sqrt(1 - ab)
        total = image**2 * variance + sigma**2
        x0 = mean + image * variance / total * (x - image * mean)
        noise = sigma / total * (x - image * mean)
        return noise - x0 if name == "rectified-flow" else image * noise - sigma * x0

    start = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = r.sample(predict, start, 500, ImageNoise(start, (3, 40, 40)))
    assert float(images.mean()) == pytest.approx(mean, rel=0.02)
    assert float(images.std()) == pytest.approx(variance**0.5, rel=0.02)


@pytest.mark.parametrize(("name", "words", "expected"), [
    ("diffusion", ("steps=0",), "steps=0 cannot be used; accepted: 1 to 1000"), ("rectified-flow", ("steps=0",), "steps=0"), ("bbdm", ("steps=1001",), "steps=1001"),
    ("diffusion", ("guidance=2",), "guidance=2.0 cannot be used; accepted: 1 in a model without labels; others are trained with conditional=true"),
    ("diffusion", ("conditional=true", "guidance=-1"), "guidance=-1.0"), ("diffusion", ("label_dropout=1.5",), "label_dropout=1.5"), ("diffusion", ("eta=2",), "eta=2.0"),
    ("diffusion", ("min_snr=-1",), "min_snr=-1.0"), ("rectified-flow", ("shift=0",), "shift=0.0"), ("bbdm", ("variance=0",), "variance=0.0"), ("bbdm", ("eta=-1",), "eta=-1.0"),
    ("diffusion", ("prediction=noise",), "v or epsilon or x0")])
def test_wrong_settings_are_refused(name: str, words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(RequestError) as error:
        recipe(name, *words)
    assert expected in str(error.value)


def test_a_bridge_starts_in_gray_where_the_target_has_other_channels() -> None:
    r, x = recipe("bbdm"), batch()
    a = torch.cat([x["a"], x["a"][:, :1]], 1)
    assert torch.equal(bridge_source(x["a"], 3), x["a"])
    torch.testing.assert_close(bridge_source(a, 2)[:, 1], a.mean(1))
    m = built(r, DataInfo((8, 8), a_channels=4))
    assert loss_of(r, m, {"a": a, "b": x["b"]}).isfinite()
    with torch.no_grad():
        assert r.generate(m, {"a": a})["fake_b"].shape == x["b"].shape


def picture(index: int, size: int = 32) -> np.ndarray:
    return np.ascontiguousarray(drawing(index, size)[:, size:])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    for i in range(6):
        for place in (folder / "images" / "red", folder / "images" / "blue"):
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(i)).save(place / f"{i}.png")
    return {"images": folder / "images", "paired": drawn_strips(folder / "pairs")}


def train(i2i: Run, data: dict[str, Path], name: str, *words: str) -> None:
    result = i2i("train", name, *TINY, *words, "--data", data[registry.lookup("recipe", name).dataset], "--out", "run", "--device", "cpu")
    assert result.code == 0, result.line


def test_steps_and_guidance_can_be_changed_when_generating(data: dict[str, Path], i2i: Run, tmp_path: Path) -> None:
    train(i2i, data, "diffusion", "conditional=true")
    model = load("run", device="cpu")
    assert i2i("generate", "run", "--n", 4, "--steps", 2, "--guidance", 2.5, "--out", "out", "--device", "cpu").code == 0
    line = (tmp_path / "out" / "generated.jsonl").read_text().splitlines()[0]
    assert '"steps": 2, "guidance": 2.5' in line
    assert i2i("generate", "run", "--n", 6, "--like", "out", "--out", "again", "--device", "cpu").code == 0
    for path in (tmp_path / "out").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(tmp_path / "out")).read_bytes()
    own = model.generate(2)
    assert not torch.equal(model.generate(2, steps=2), own)
    assert torch.equal(model.generate(2), own)             # The model's own again.
    for words, expected in ((("--steps", 0), "steps=0"), (("--steps", 1001), "1 to 1000"), (("--guidance", "nan"), "guidance=nan")):
        result = i2i("generate", "run", "--n", 2, *words, "--out", "new", "--device", "cpu")
        assert (result.code, expected in result.line) == (2, True), result.line
        assert not (tmp_path / "new").exists()


def test_guidance_without_labels_and_steps_of_a_gan_are_refused(data: dict[str, Path], noisy: dict[str, Path], i2i: Run, tmp_path: Path) -> None:
    train(i2i, data, "rectified-flow")
    result = i2i("generate", "run", "--n", 2, "--guidance", 2, "--out", "new", "--device", "cpu")
    assert (result.code, "1 in a model without labels" in result.line) == (2, True), result.line
    result = i2i("generate", noisy["plain"], "--n", 2, "--steps", 2, "--out", "new", "--device", "cpu")
    assert (result.code, "steps=2 cannot be used; accepted: none in this gan model" in result.line) == (2, True), result.line


@pytest.mark.parametrize("name", ["palette", "bbdm"])
def test_samples_of_a_translation_and_their_spread(data: dict[str, Path], i2i: Run, tmp_path: Path, name: str) -> None:
    train(i2i, data, name)
    inputs = tmp_path / "in"
    inputs.mkdir()
    for i, size in enumerate((32, 32, 45)):
        Image.fromarray(picture(i, size)).save(inputs / f"{i}.png")
    base = ("translate", "run", inputs, "--device", "cpu", "--steps", 2)
    assert i2i(*base, "--out", "one").code == 0
    assert i2i(*base, "--out", "seeded", "--seed", 0, "--batch", 1).code == 0
    assert i2i(*base, "--out", "out", "--samples", 3, "--spread", "spread").code == 0
    model = load("run", device="cpu")
    model.set_sampling(2)
    for i, size in enumerate((32, 32, 45)):
        first, spread = (np.asarray(Image.open(tmp_path / folder / f"{i}.png")) for folder in ("out", "spread"))
        assert first.tobytes() == np.asarray(Image.open(tmp_path / "seeded" / f"{i}.png")).tobytes()
        assert first.shape == spread.shape == (size, size, 3)
        assert spread.max() > 0
        assert (spread == spread[..., :1]).all()
        one = np.asarray(Image.open(tmp_path / "one" / f"{i}.png")).astype(int)
        assert np.abs(one - model.translate(picture(i, size))).max() <= 1
    assert "3 there already" in i2i(*base, "--out", "out", "--samples", 3, "--spread", "spread", "--skip-existing").out
    for words, expected in ((("--samples", 3), "--spread DIR go together"), (("--spread", "s"), "--samples N, 2 or more"), (("--steps", 0), "steps=0"),
                            (("--samples", 3, "--spread", "new"), "folders beside each other"), (("--samples", 3, "--spread", inputs), "would overwrite the inputs")):
        result = i2i(*base, "--out", "new", *words)
        assert (result.code, expected in result.line) == (2, True), result.line


def test_samples_of_a_model_that_makes_one_image_are_refused(trained: Path, i2i: Run) -> None:
    result = i2i("translate", trained, trained, "--out", "new", "--steps", 3)
    assert (result.code, "steps=3 cannot be used" in result.line) == (2, True), result.line


def test_the_spread_is_the_standard_deviation_of_the_samples() -> None:
    values = {}

    def translate(seed: int) -> torch.Tensor:
        values[seed] = torch.randn(1, 4, 5, 6, generator=torch.Generator().manual_seed(seed)) / 8
        return values[seed]

    first, spread = sample_spread(translate, 7, 5, ImageFormat(4, alpha=True))
    assert len(values) == 5
    assert torch.equal(first, values[7])
    expected = torch.stack([*values.values()]).std(0, correction=0)[:, :3].mean(1, keepdim=True)
    torch.testing.assert_close(spread[:, :3], (4 * expected - 1).expand(-1, 3, -1, -1))
    assert (spread[:, 3] == 1).all()
