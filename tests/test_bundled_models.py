"""Bundled models: what is listed, what the files hold, names in place of paths, half precision."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i import load
from i2i.data.sources import bundled_datasets
from i2i.errors import RequestError
from i2i.inference.bundled_models import bundled_models, models_folder
from i2i.inference.model_file import find_model, is_model
from i2i.metrics.weights import sha256
from i2i.runs import checkpoint
from tests.conftest import Run, drawing

NAMES = ("lorelei-hair", "peeps", "personas-color")


def test_the_catalog_describes_all_that_is_there(i2i: Run) -> None:
    known = bundled_models()
    assert tuple(known) == NAMES
    assert {path.stem for path in models_folder().glob("*.safetensors")} == set(NAMES)
    result = i2i("models")
    assert (result.code, result.err) == (0, "")
    for name, model in known.items():
        assert sha256(model.file) == model.sha256
        assert model.file.stat().st_size <= 12_000_000
        card = model.card.read_text()
        assert all(part in card for part in (f"# {name}\n", model.sha256, model.license, f"`{model.data}`", "i2i train "))
        assert all((model.card.parent / picture).is_file() for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", card))
        listed = " ".join(result.out.split())
        assert all(part in listed for part in (name, model.purpose, model.license, model.figures, model.usage, str(model.card)))


@pytest.mark.parametrize("name", NAMES)
def test_each_is_read_in_single_precision_from_half(name: str) -> None:
    model = load(name, device="cpu")
    assert (model.path, model.header["data"]) == (bundled_models()[name].file, bundled_models()[name].data)
    assert model.header["data"] in bundled_datasets()
    assert {p.dtype for p in model.modules.parameters()} == {torch.float32}
    assert {str(dtype) for _, dtype in checkpoint.shapes(find_model(name)).values()} <= {"torch.float16", "torch.float32", "torch.int64"}
    assert all(torch.isfinite(tensor).all() for tensor in model.modules.state_dict().values())


def test_names_stand_for_models(i2i: Run, tmp_path: Path) -> None:
    Image.fromarray(drawing(0, 64)).save(tmp_path / "sketch.png")
    assert i2i("translate", "personas-color", "sketch.png", "--half", "left", "--out", "colored", "--device", "cpu").code == 0
    assert Image.open(tmp_path / "colored" / "sketch.png").size == (64, 64)
    assert i2i("translate", "lorelei-hair", "colored", "--direction", "ba", "--chain", "lorelei-hair:ab", "--out", "dark", "--device", "cpu").code == 0
    result = i2i("generate", "peeps", "--n", 2, "--classes", "hat", "--out", "made", "--device", "cpu")
    assert result.code == 0, result.err
    found = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "made" / "hat").iterdir())])
    expected = load("peeps", device="cpu").generate(2, labels="hat").permute(0, 2, 3, 1).numpy()
    assert np.abs(found - (expected + 1) * 127.5).max() <= 1
    assert is_model("peeps")
    result = i2i("translate", "personas-colour", "sketch.png", "--out", "x")
    assert (result.code, "personas-colour does not exist" in result.line, "did you mean 'personas-color'?" in result.line) == (2, True, True)


def test_what_lies_here_wins_over_a_name(noisy: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "peeps").symlink_to(noisy["plain"])
    assert find_model("peeps") == Path("peeps/model.safetensors")
    (tmp_path / "peeps").unlink()
    (tmp_path / "peeps").write_bytes(b"x")
    assert find_model("peeps") == Path("peeps")
    assert not is_model("peeps")
    (tmp_path / "peeps").unlink()
    for path in ("./peeps", "peeps.safetensors", "models/peeps"):       # Paths, of what is not there.
        assert find_model(path) == Path(path)


def test_half_precision_changes_hardly_anything_and_nothing_that_it_cannot_hold(noisy: dict[str, Path], tmp_path: Path) -> None:
    tensors, header = checkpoint.load(find_model(noisy["plain"]), "model")
    checkpoint.save(tmp_path / "half.safetensors", checkpoint.in_half(tensors), header)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.75 * find_model(noisy["plain"]).stat().st_size
    half, whole = (load(path, device="cpu").generate(2) for path in (tmp_path / "half.safetensors", noisy["plain"]))
    assert 0 < (half - whole).abs().max() < 0.02
    kept = checkpoint.in_half({"large": torch.tensor([1e6]), "count": torch.tensor(3), "small": torch.tensor([0.5])})
    assert {name: tensor.dtype for name, tensor in kept.items()} == {"large": torch.float32, "count": torch.int64, "small": torch.float16}
    checkpoint.save(tmp_path / "other.safetensors", {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, header)
    with pytest.raises(RequestError, match="float64"):
        load(tmp_path / "other.safetensors", device="cpu")
