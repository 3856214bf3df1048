"""Every preset parses, plans, trains, resumes bit for bit, and its model makes the images of its own last grid."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import load
from i2i.config import parse_assignments
from i2i.data.config import DataConfig
from i2i.data.format_detection import DatasetSummary, training_sizes
from i2i.data.labeled import ImageDataset
from i2i.data.paired import PairedDataset
from i2i.data.unpaired import UnpairedDataset
from i2i.errors import RequestError
from i2i.images.format import ImageFormat
from i2i.recipes.base import DataInfo, data_defaults
from i2i.recipes.meta_device import build_on_meta
from i2i.recipes.presets import PRESETS
from i2i.registry import lookup, names
from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from i2i.training import job as jobs
from i2i.training.config import TrainConfig
from i2i.training.settings import configure, recipe_or_preset
from tests.conftest import drawn_strips, two_styles

TINY = ("generator.width=4", "discriminator.width=4", "train.batch_size=4", "train.images=24", "train.log_every=8", "train.checkpoint_every=12")

FEWER = ("generator.blocks=1", "generator.hidden=4", "encoder.width=4", "network.width=4", "network.couplings=1", "network.blocks=1", "denoiser.width=4", "steps=2")        # Where a network has the option.


def accepts(name: str, word: str) -> bool:
    """Whether a preset has a setting."""
    recipe_name, preset = recipe_or_preset(name)
    try:
        configure(lookup("recipe", recipe_name)(), DataConfig(), TrainConfig(), parse_assignments([*preset, word]))
    except RequestError:
        return False
    return True


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six 32x32 pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    g = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir()
        for i in range(6):
            Image.fromarray((level + g.integers(-50, 50, (32, 32, 3))).astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def dataset_of(name: str) -> str:
    """What a recipe or preset learns from: paired, unpaired or images."""
    return lookup("recipe", recipe_or_preset(name)[0])().dataset


@pytest.fixture(scope="module")
def data(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What recipes of each kind of dataset learn from."""
    base = tmp_path_factory.mktemp("data")
    return {"images": pictures, "paired": drawn_strips(base / "paired"), "unpaired": two_styles(base / "unpaired")}


def test_the_presets_of_the_literature_are_there() -> None:
    assert set(PRESETS) >= {"dcgan", "lsgan", "wgan", "wgan-gp", "dragan", "sngan", "rpgan", "r3gan", "sagan", "cgan", "infogan", "progan", "stylegan",
                            "stylegan2", "stylegan2-ada", "pacgan", "unrolled", "deligan", "ttur"}
    root = Path(__file__).parents[2]
    assert f"({len(PRESETS)} presets" in (root / "README.md").read_text()
    page = (root / "docs" / "noise.md").read_text()
    listed = page[page.index("Presets: `") + len("Presets: `"):].split("`")[0].split()
    assert set(listed) == set(PRESETS)
    assert [name for name in listed if dataset_of(name) != "images"] == listed[-8:]     # As the page says.


@pytest.mark.parametrize("name", [*names("recipe"), *PRESETS])
def test_the_defaults_of_a_recipe_build_its_networks_for_images_of_every_size_and_format(name: str) -> None:
    """From 16 pixels on; what a recipe cannot do with these data is no default of it."""
    recipe_name, preset = recipe_or_preset(name)
    recipe = configure(lookup("recipe", recipe_name)(), DataConfig(), TrainConfig(), parse_assignments(preset))[0]
    dataset: Any = {"paired": PairedDataset, "unpaired": UnpairedDataset, "images": ImageDataset}[recipe.dataset]
    built = set()
    for height, width in ((16, 16), (17, 40), (23, 23), (24, 31), (28, 28), (48, 48), (64, 100), (250, 300)):
        for a, b in ((1, 1), (3, 3), (4, 4), *(((1, 3), (3, 1), (2, 5)) if recipe.sources else ())):
            summary = DatasetSummary(height, width, ImageFormat(), ImageFormat())
            info = DataInfo(training_sizes(DataConfig(), dataset, summary)[0], a, b, num_classes=2)
            if info not in built:
                build_on_meta(replace(recipe, **{key: value for key, (value, _) in data_defaults(recipe, info).items()}), info)
                built.add(info)
    assert len(built) >= 12


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_and_resumes_exactly(name: str, data: dict[str, Path], i2i, tmp_path: Path) -> None:
    words = [word for word in (*TINY, *FEWER) if accepts(name, word)]
    assert len(words) >= 5 or not hasattr(lookup("recipe", recipe_or_preset(name)[0])(), "discriminator")
    for out in ("whole", "cut"):
        assert i2i("train", name, *words, "--data", data[dataset_of(name)], "--out", out, "--device", "cpu").code == 0
    cut = RunFolder(tmp_path / "cut")
    cut.state(24).unlink()          # As if it had been killed after the checkpoint before the last.
    resumed = i2i("train", "--resume", "cut", "--device", "cpu")
    assert resumed.code == 0, resumed.err
    for file in (cut.state(24), cut.model):
        ours, _ = checkpoint.load(file, "state" if "state" in file.name else "model")
        theirs, _ = checkpoint.load(tmp_path / "whole" / file.name, "state" if "state" in file.name else "model")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), file
    assert cut.log.read_text() == (tmp_path / "whole" / "log.jsonl").read_text()
    lines = [json.loads(line) for line in cut.log.read_text().splitlines()]
    assert all(np.isfinite(list(line.values())).all() for line in lines)


@pytest.mark.parametrize("name", ["dcgan", "cgan", "stylegan2", "infogan"])
def test_a_model_file_generates_images_by_itself(name: str, pictures: Path, i2i, tmp_path: Path) -> None:
    assert i2i("train", name, *TINY, "train.ema_half_life=0", "--data", pictures, "--out", "run", "--device", "cpu").code == 0
    model = load(tmp_path / "run" / "model.safetensors", device="cpu")
    few, all_ = model.generate(3, seed=7), model.generate(5, seed=7, batch_size=2)
    assert few.shape == (3, 3, 32, 32)
    torch.testing.assert_close(few, all_[:3], atol=1e-5, rtol=0)
    assert not torch.equal(few[0], few[1])
    assert not torch.equal(few, model.generate(3, seed=8))


def test_user_settings_override_those_of_a_preset(pictures: Path) -> None:
    job = jobs.prepare("wgan-gp", ["penalty=r1", "d_optimizer.lr=0.5", "train.batch_size=4"], data=pictures)
    assert (job.name, job.recipe.penalty.name, job.recipe.d_optimizer.options["lr"], job.recipe.d_optimizer.options["beta2"]) == ("gan", "r1", 0.5, 0.9)
    assert job.train.batch_size == 4
    assert job.recipe.d_steps == 5


def test_invalid_requests_are_one_line(pictures: Path, i2i, strips: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (32, 32)).save(flat / "x.png")
    for words, message in ((("train", "dcgann", "--data", pictures), "dcgan"), (("train", "cgan", "--data", flat), "no labels"),
                        (("train", "dcgan", "--data", pictures, "data.size=50"), "48"), (("train", "dcgan", "--data", strips / "nothing"), "does not exist"),
                        (("train", "stylegan2", "--data", pictures, "data.size=50"), "48")):
        result = i2i(*words, "--dry-run")
        assert result.code == 2, words
        assert message in result.line
