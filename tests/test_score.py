"""`i2i score`: bits per dimension or a discriminator's logits of images, anomalies by them, heat maps, what is refused."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2i as package
from i2i import load
from i2i.inference.score import make_scorer
from i2i.metrics.detection import auroc
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.seeding import stable_seed
from tests.conftest import Run, drawing

FEW = ("train.batch_size=4", "train.images=16", "train.ema_half_life=0")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 16x16, three of another size and kind that are anomalies, and a run of each family."""
    base = tmp_path_factory.mktemp("score")
    for i in range(6):
        (base / "data" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(drawing(i)[::2, 32::2])).save(base / "data" / "ab"[i % 2] / f"{i}.png")
    (base / "odd").mkdir()
    for i in range(3):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 24)).astype(np.uint8)).save(base / "odd" / f"{i}.png")
    runs = {"vae": ("vae", "generator.width=4", "generator.z_dim=4", "encoder.width=4"), "flow": ("flow", "network.width=4", "network.couplings=1", "conditional=true"),
            "autoregressive": ("autoregressive", "network.width=4", "network.blocks=1", "components=2"), "dcgan": ("dcgan", "generator.width=4", "generator.z_dim=4", "discriminator.width=4", "pack=2")}
    for name, (recipe, *words) in runs.items():
        package.train(recipe, *words, *FEW, data=base / "data", out=base / name, device="cpu")
    return base


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    ordinary, anomalous = [0.0, 1.0, 2.0, 2.0, 5.0], [2.0, 3.0, 7.0]
    pairs = [(a > b) + (a == b) / 2 for a in anomalous for b in ordinary]
    area, low, high = auroc(ordinary, anomalous)
    assert area == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= low < area < high <= 1
    assert auroc([1.0, 2.0], [3.0])[0] == 1
    assert auroc([3.0], [1.0, 2.0])[0] == 0


def test_the_interval_is_as_wide_as_areas_scatter() -> None:
    g = np.random.default_rng(0)
    found = np.array([auroc(g.exponential(1, 40), g.exponential(2, 40)) for _ in range(600)])
    assert found[:, 0].mean() == pytest.approx(2 / 3, abs=0.01)
    assert ((found[:, 2] - found[:, 1]) / 2 / 1.96).mean() == pytest.approx(found[:, 0].std(), rel=0.1)


@pytest.mark.parametrize(("name", "score", "said"), [("vae", "bits_per_dim", "an upper bound"), ("flow", "bits_per_dim", "exact"), ("autoregressive", "bits_per_dim", "exact"), ("dcgan", "minus_logit", "no density")])
def test_every_family_scores_images(base: Path, i2i: Run, name: str, score: str, said: str) -> None:
    words = ("score", base / name, base / "data", "--anomalies", base / "odd", "--json", "scores.json", "--csv", "scores.csv", "--device", "cpu")
    result = i2i(*words)
    note = "note: gray, converted to color: 3 of the anomalies, such as 0.png\n"
    assert (result.code, result.err) == (0, note)       # Gray ones.
    assert said in result.out
    found = json.loads(Path("scores.json").read_text())
    assert found["score"] == score
    assert found["images"]["each"].keys() == {f"{'ab'[i % 2]}/{i}.png" for i in range(6)}
    values, odd = ([*found[key]["each"].values()] for key in ("images", "anomalies"))
    assert np.isfinite(values).all()
    assert found["images"]["mean"] == pytest.approx(np.mean(values))
    assert found["images"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert [found["auroc"][key] for key in ("value", "low", "high")] == list(auroc(values, odd))
    rows = list(csv.reader(Path("scores.csv").read_text().splitlines()))
    assert rows[0] == ["set", "file", score]
    assert [float(row[2]) for row in rows[1:]] == [*values, *odd]
    assert i2i(*words).out == result.out


def test_scores_are_those_of_the_recipe(base: Path) -> None:
    images = torch.stack([torch.from_numpy(np.ascontiguousarray(drawing(i)[::2, 32::2])).permute(2, 0, 1) / 127.5 - 1 for i in range(4)])
    model = load(base / "vae", device="cpu")
    torch.manual_seed(stable_seed(3))
    with torch.no_grad():
        expected = model.recipe.score(model.modules, {"b": images})         # type: ignore[attr-defined]
    assert make_scorer(model)(images, seed=3) == expected.tolist()
    model = load(base / "dcgan", device="cpu")
    D = model.recipe.modules(package.inference.score.DataInfo((16, 16)))
    D.load_state_dict(checkpoint.subset(checkpoint.load(RunFolder(base / "dcgan").states()[-1], "state")[0], "modules"))
    with torch.no_grad():
        logits = model.recipe.discriminate(D.eval(), {"b": images})         # type: ignore[attr-defined]
    assert make_scorer(model)(images, seed=0) == pytest.approx((-logits.flatten()).tolist(), abs=1e-6)


def test_a_density_of_classes_is_their_mean(base: Path) -> None:
    """p(x) = sum over c of p(x|c) / K, in the middle between the likelier class and it less log2(K) / D."""
    model = load(base / "flow", device="cpu")
    with torch.no_grad():
        for p in model.modules["P"].parameters():
            p.normal_(0, 0.05)
    scorer, images = make_scorer(model), torch.rand(3, 3, 16, 16) * 2 - 1
    found = torch.tensor(scorer(images, seed=0)).double()
    with torch.no_grad():
        torch.manual_seed(stable_seed(0))
        each = torch.stack([scorer.score({"b": images, "c": torch.full((3,), c)}) for c in range(2)]).double()
    densities = torch.exp(-(each - each.amin(0)) * 768 * math.log(2)).mean(0)
    torch.testing.assert_close(found, each.amin(0) - torch.log2(densities) / 768, rtol=1e-6, atol=1e-6)
    assert (each[0] - each[1]).abs().min() > 1e-5


def test_heat_maps_show_original_reconstruction_and_difference(base: Path, i2i: Run) -> None:
    result = i2i("score", base / "vae", base / "data", "--anomalies", base / "odd", "--heatmaps", "heat", "--device", "cpu")
    assert (result.code, result.err.startswith("note: gray, converted to color: 3 of the anomalies")) == (0, True), result.err
    assert sorted(path.relative_to("heat").as_posix() for path in Path("heat").rglob("*.png")) == sorted(
        [f"images/{'ab'[i % 2]}/{i}.png" for i in range(6)] + [f"anomalies/{i}.png" for i in range(3)])
    strip = np.asarray(Image.open("heat/images/a/0.png")).astype(float)
    original = np.asarray(Image.open(base / "data" / "a" / "0.png")).astype(float)
    assert strip.shape == (20, 56, 3)
    first, second, heat = (strip[2:18, x:x + 16] for x in (2, 20, 38))
    assert np.array_equal(first, original)
    assert np.abs(np.clip(np.abs(first - second).mean(2) * 2, 0, 255) - heat[..., 0]).max() <= 2


def test_what_cannot_be_read_is_named_and_the_rest_scored(base: Path, i2i: Run) -> None:
    Path("mixed").mkdir()
    (Path("mixed") / "good.png").write_bytes((base / "data" / "a" / "0.png").read_bytes())
    (Path("mixed") / "bad.png").write_bytes(b"no image")
    result = i2i("score", base / "vae", "mixed", "--device", "cpu", "--csv", "scores.csv")
    assert result.code == 1
    assert len(Path("scores.csv").read_text().splitlines()) == 2
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["failed", "error"]
    assert "1 of 2 images could not be scored" in result.err
    (Path("mixed") / "good.png").unlink()
    assert "none of the images in mixed can be read" in i2i("score", base / "vae", "mixed", "--device", "cpu").line


def test_what_cannot_be_scored_is_said_in_one_line(base: Path, trained: Path, i2i: Run) -> None:
    Path("empty").mkdir()
    (Path("alone.safetensors")).write_bytes((base / "dcgan" / "model.safetensors").read_bytes())
    for words, said in [
            ((trained, base / "odd"), "this pix2pix model scores no images"), (("alone.safetensors", base / "odd"), "a model file holds no discriminator"),
            ((base / "dcgan", base / "odd", "--heatmaps", "heat"), "--heatmaps are of models that reconstruct images, and gan does not"),
            ((base / "flow", base / "odd", "--heatmaps", "heat"), "flow does not"), ((base / "vae", "empty"), "empty"), ((base / "vae", "absent"), "absent does not exist"),
            ((base / "vae", base / "odd", "--heatmaps", base / "odd"), "--heatmaps"), ((base / "vae", base / "odd", "--heatmaps", ""), "--heatmaps is empty"),
            ((base / "vae", base / "odd", "--json", "empty"), "--json empty cannot be written"), ((base / "vae", base / "odd", "--anomalies", "absent"), "absent does not exist"),
            (("absent", base / "odd"), "absent does not exist")]:
        result = i2i("score", *words, "--device", "cpu")
        assert (result.code, said in result.line) == (2, True), result.err
