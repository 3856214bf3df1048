"""Converted checkpoints give the recorded outputs; anything else is refused in one line."""

import json
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i import load
from i2i.convert.checkpoint_files import read_tensors
from i2i.convert.cyclegan_pix2pix import read
from i2i.convert.fitting import fit
from i2i.errors import RequestError
from i2i.recipes.base import DataInfo
from i2i.registry import Spec, build
from tests.conftest import REFERENCE, Run

NETWORKS = REFERENCE / "networks"
INDEX = json.loads((NETWORKS / "index.json").read_text())
GENERATORS = [name for name, entry in INDEX.items() if entry["kind"] == "G"]
DISCRIMINATORS = [name for name, entry in INDEX.items() if entry["kind"] == "D"]


def compare(output: np.ndarray, recorded: dict[str, np.ndarray], mode: str) -> None:
    """Every recorded view of one mode: whole, strided, cropped, and its statistics."""
    compared = 0
    for name in recorded:
        if not name.startswith(f"output_{mode}"):
            continue
        view = output
        if name.endswith("_stats"):
            got = [output.mean(dtype=np.float64), output.std(dtype=np.float64), output.min(), output.max(), np.abs(output).sum(dtype=np.float64)]
            np.testing.assert_allclose(got[:4], recorded[name][:4], atol=1e-4)
            continue
        if match := re.search(r"_stride(\d+)$", name):
            step = int(match[1])
            view = output[..., ::step, ::step]
        elif match := re.search(r"_crop_y(\d+)_x(\d+)_s(\d+)$", name):
            y, x, s = map(int, match.groups())
            view = output[..., y:y + s, x:x + s]
        np.testing.assert_allclose(view, recorded[name], atol=1e-4, err_msg=name)
        compared += 1
    assert compared


@pytest.mark.parametrize("name", GENERATORS)
def test_converted_generators_give_the_recorded_output(name: str, i2i: Run, tmp_path: Path) -> None:
    result = i2i("convert", NETWORKS / f"{name}_net.pth", "--out", tmp_path / "g.safetensors")
    assert result.code == 0, result.err
    model = load(tmp_path / "g.safetensors", device="cpu")
    recorded = dict(np.load(NETWORKS / f"{name}.npz"))
    x = torch.from_numpy(recorded["input"])
    compare(model.translate(x).numpy(), recorded, "eval")
    if any(key.startswith("output_train_s") and "stats" not in key for key in recorded) or "output_train" in recorded:
        model.modules.train()
        for module in model.modules.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0      # A U-Net file does not tell whether there was any; these had none.
        with torch.no_grad():
            compare(model.modules["G"](x).numpy(), recorded, "train")
    arguments = INDEX[name]["args"]
    assert f"norm={arguments['norm']}" in result.out
    assert f"width={arguments['ngf']}" in result.out


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators_give_the_recorded_output(name: str) -> None:
    recorded, arguments = dict(np.load(NETWORKS / f"{name}.npz")), INDEX[name]["args"]
    tensors = {re.sub(r"^(model|net)\.", "layers.", key): value for key, value in read_tensors(NETWORKS / f"{name}_net.pth").items()}
    kind = "pixel" if arguments["netD"] == "pixel" else "patch"
    options = {"width": arguments["ndf"], "norm": arguments["norm"]} | ({"layers": arguments["n_layers_D"]} if "n_layers_D" in arguments else {})
    D = build("discriminator", Spec(kind, options), arguments["input_nc"], DataInfo(tuple(INDEX[name]["input_shape"][2:])).size)
    D.load_state_dict(tensors)
    x = torch.from_numpy(recorded["input"])
    with torch.no_grad():
        compare(D.eval()(x).numpy(), recorded, "eval")
        if "output_train" in recorded:
            np.testing.assert_allclose(D.train()(x).numpy(), recorded["output_train"], atol=1e-4)


def test_old_files_and_wrapped_files(tmp_path: Path, i2i: Run) -> None:
    """Statistics of instance norms (before 2018) are ignored, `module.` of DataParallel is stripped."""
    tensors = read_tensors(NETWORKS / "resnet_9blocks_instance_ngf8_net.pth")
    old = {f"module.{key}": value for key, value in tensors.items()}
    for i, channels in ((2, 8), (5, 16)):
        old |= {f"module.model.{i}.running_mean": torch.zeros(channels), f"module.model.{i}.running_var": torch.ones(channels)}
    torch.save(old, tmp_path / "old.pth")
    assert i2i("convert", tmp_path / "old.pth").code == 0
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    i2i("convert", NETWORKS / "resnet_9blocks_instance_ngf8_net.pth", "--out", tmp_path / "new.safetensors")
    assert torch.equal(load(tmp_path / "old.safetensors").translate(x), load(tmp_path / "new.safetensors").translate(x))


@pytest.mark.parametrize("name", ["cut", "fastcut"])
def test_a_generator_of_cut_is_a_model_of_cut(name: str, i2i: Run, tmp_path: Path) -> None:
    """Its output, as of the untrained generator: every layer is compared by the recorded runs (tests/recipes/test_cut.py)."""
    path = REFERENCE / "cut" / f"{name}_0_net_G.pth"
    result = i2i("convert", path, "--out", tmp_path / "g.safetensors")
    assert result.code == 0, result.err
    assert "cut, resnet(width=8, blocks=6, norm=instance, dropout=0.0, down=blurpool, up=bilinear), 3 -> 3 channels" in result.out
    model = load(tmp_path / "g.safetensors", device="cpu")
    G = build("generator", Spec("resnet", {"width": 8, "blocks": 6, "down": "blurpool", "up": "bilinear"}), 3, 3, (32, 32))
    G.load_state_dict(fit(read(read_tensors(path))))
    x = torch.rand(2, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model.translate(x), G(x))


def test_a_generator_of_cut_with_another_filter_is_refused(i2i: Run, tmp_path: Path) -> None:
    good = read_tensors(REFERENCE / "cut" / "cut_0_net_G.pth")
    for changed in ({"model.11.filt": good["model.11.filt"] * 2}, {"model.18.filt": good["model.18.filt"][:, :, :3, :3]}):
        torch.save(good | changed, tmp_path / "other.pth")
        result = i2i("convert", tmp_path / "other.pth")
        assert (result.code, f"{next(iter(changed))} is another filter" in result.line) == (2, True)
    torch.save({key: value for key, value in good.items() if key != "model.22.filt"}, tmp_path / "less.pth")
    assert i2i("convert", tmp_path / "less.pth").code == 2


def test_an_instance_norm_unet_is_recognized() -> None:
    ours = build("generator", Spec("unet", {"width": 4, "norm": "instance", "depth": 6}), 3, 1, (64, 64))
    theirs = {}
    for key, value in ours.state_dict().items():
        part, i, j, leaf = key.split(".")
        level = int(i) if part == "down" else 5 - int(i)
        prefix = "model" + ".model.1" * (level > 0) + ".model.3" * (level - 1)
        inner = {("down", "0"): 0 if level == 0 else 1, ("up", "0"): 3 if level in (0, 5) else 5}[part, j]
        theirs[f"{prefix}.model.{inner}.{leaf}"] = value
    found = read(theirs)
    spec, tensors = found.recipe.generator, fit(found)
    assert (spec.options["norm"], spec.options["depth"], found.info) == ("instance", 6, DataInfo((64, 64), 3, 1))
    assert all(torch.equal(tensors[key], value) for key, value in ours.state_dict().items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("owned"),))


def bad_files(folder: Path) -> dict[str, Path]:
    good = read_tensors(NETWORKS / "resnet_9blocks_instance_ngf8_net.pth")
    made: dict[str, object] = {
        "discriminator": read_tensors(NETWORKS / "D_basic_batch_ndf8_in6_net.pth"), "list": [1, 2, 3], "empty dict": {}, "numbers": {"a": 1},
        "missing layer": {key: value for key, value in good.items() if "model.13." not in key},
        "wrong shape": good | {"model.4.weight": torch.zeros(3, 3, 3, 3)},
        "something else": {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(10, 10)}}
    paths = {}
    for name, content in made.items():
        paths[name] = folder / f"{name}.pth"
        torch.save(content, paths[name])
    for name, data in {"text": b"hello", "zero": b"", "png": b"\x89PNG\r\n\x1a\n" + bytes(50)}.items():
        paths[name] = folder / f"{name}.pth"
        paths[name].write_bytes(data)
    paths["truncated"] = folder / "truncated.pth"
    paths["truncated"].write_bytes((NETWORKS / "resnet_9blocks_instance_ngf8_net.pth").read_bytes()[:5000])
    paths["evil"] = folder / "evil.pth"
    paths["evil"].write_bytes(pickle.dumps(Evil()))
    torch.save(Evil(), folder / "evil2.pth")
    paths["evil zip"] = folder / "evil2.pth"
    with zipfile.ZipFile(folder / "zip.pth", "w") as archive:
        archive.writestr("a", "b")
    paths["zip"] = folder / "zip.pth"
    paths["folder"] = folder
    paths["absent"] = folder / "absent.pth"
    paths["loop"] = folder / "loop.pth"
    paths["loop"].symlink_to("loop.pth")
    return paths


def test_anything_else_is_refused_in_one_line_and_never_run(i2i: Run, tmp_path: Path) -> None:
    for name, path in bad_files(tmp_path).items():
        result = i2i("convert", path, "--out", tmp_path / "out.safetensors")
        assert result.code == 2, name
        assert path.name in result.line, name
        assert not (tmp_path / "out.safetensors").exists()
    assert not Path("owned").exists()


def test_out_must_be_a_model_file(i2i: Run, tmp_path: Path) -> None:
    result = i2i("convert", NETWORKS / "resnet_9blocks_instance_ngf8_net.pth", "--out", tmp_path / "x.pth")
    assert result.code == 2
    assert "must end in .safetensors" in result.line


def test_reading_refuses_a_directory(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a folder"):
        read_tensors(tmp_path)
