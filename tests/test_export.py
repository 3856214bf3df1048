"""Exported models: what the file makes is what the model makes, at any size, without i2i."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2i import registry
from i2i.config import to_dict
from i2i.errors import JobError, RequestError
from i2i.images.format import ImageFormat
from i2i.inference import export as exporting
from i2i.inference import export_check, export_example, export_graph
from i2i.inference.export import export
from i2i.inference.model import Model, load
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo
from i2i.registry import Spec, lookup, names
from i2i.runs import checkpoint

TINY: dict[str, Any] = {"width": 4, "hidden": 4, "max_channels": 8, "z_dim": 16, "w_dim": 8, "mapping_layers": 2, "couplings": 1, "blocks": 1}
PATCH = Spec("patch", {"width": 4, "layers": 1})
PAIR = DataInfo((32, 32))


def tiny(kind: str, name: str, **options: Any) -> Spec:
    known = registry.schema(kind, name)
    return Spec(name, {key: value for key, value in TINY.items() if key in known} | options)


def make(recipe: str, info: DataInfo = PAIR, formats: tuple[ImageFormat, ImageFormat] | None = None, **settings: Any) -> Model:
    """A model that has not learned anything."""
    torch.manual_seed(0)
    made = lookup("recipe", recipe)(**settings)
    networks = made.modules(info)
    header = model_header(recipe, to_dict(made), info, formats or (ImageFormat(info.a_channels), ImageFormat(info.b_channels)),
                          classes=[f"class {i}" for i in range(info.num_classes)], images=0, direction="ab", data="")
    return Model(made, nn.ModuleDict({name: networks[name] for name in made.ema_modules}), header, torch.device("cpu"))


def pix2pix(name: str = "unet", info: DataInfo = PAIR, formats: tuple[ImageFormat, ImageFormat] | None = None, **options: Any) -> Model:
    depth = {"depth": 2} if name == "unet" else {}
    return make("pix2pix", info, formats, generator=tiny("generator", name, **depth, **options), discriminator=PATCH)


def gan(name: str = "dcgan", *, classes: int = 0, latent: str = "normal", recipe: str = "gan", **settings: Any) -> Model:
    return make(recipe, DataInfo((16, 16), num_classes=classes), generator=tiny("noise_generator", name, **settings.pop("options", {})), latent=Spec(latent),
                conditional=classes > 0, discriminator=Spec("dcgan", {"width": 4}), **settings)


def cyclegan() -> Model:
    return make("cyclegan", DataInfo((32, 32), 1, 3), generator=tiny("generator", "resnet"), discriminator=PATCH, lambda_identity=0.0)


def cut() -> Model:
    return make("cut", generator=tiny("generator", "resnet", down="blurpool", up="bilinear"), discriminator=PATCH, nce_layers=(0, 4))


def vae() -> Model:
    return make("vae", DataInfo((16, 16), num_classes=3), generator=tiny("noise_generator", "dcgan"), encoder=Spec("dcgan", {"width": 4}), conditional=True)


def flow(**options: Any) -> Model:
    return make("flow", DataInfo((8, 8)), network=tiny("invertible_network", "realnvp", **options))


WALK: dict[str, Callable[[], Model]] = {
    **{f"generator {name}": lambda name=name: pix2pix(name) for name in names("generator")},
    **{f"noise_generator {name}": lambda name=name: gan(name, classes=3) for name in names("noise_generator")},
    **{f"latent {name}": lambda name=name: gan(latent=name) for name in names("latent")},
    **{f"norm {name}": lambda name=name: gan(options={"norm": name}) for name in names("norm")},
    **{f"weight_norm {name}": lambda name=name: gan(g_weight_norm=Spec(name)) for name in names("weight_norm")},
    "recipe gan": gan, "recipe pix2pix": pix2pix, "recipe cyclegan": cyclegan, "recipe cut": cut, "recipe vae": vae, "recipe flow": flow,
    "recipe infogan": lambda: gan(latent="codes", recipe="infogan"), "mixing conv1x1": lambda: flow(mixing="conv1x1")}
STEPS = ("diffusion", "rectified-flow", "palette", "bbdm", "autoregressive")
QUICK = ("noise_generator dcgan",)         # The others take 1 to 7 s each.


def test_the_walk_has_every_component_of_a_model() -> None:
    kinds = {kind: {key.partition(" ")[2] for key in WALK if key.partition(" ")[0] == kind} for kind in ("generator", "noise_generator", "latent", "norm", "weight_norm", "recipe")}
    assert kinds.pop("recipe") | set(STEPS) == set(names("recipe"))
    assert all(found == set(names(kind)) for kind, found in kinds.items())


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WALK])
def test_an_onnx_file_makes_the_images_of_the_model(name: str, tmp_path: Path) -> None:
    made = export(WALK[name](), tmp_path / "model.onnx")
    assert made.difference <= 1e-4
    assert made.size == made.path.stat().st_size
    graph = onnx.load(made.path).graph
    assert {value.name for value in graph.input} <= {"image", "z", "label", "truncation"}
    dims = [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"] or dims[0] == "batch"
    assert ("image" in {value.name for value in graph.input}) == ("height" in dims)


@pytest.mark.slow
@pytest.mark.parametrize("name", WALK)
def test_a_pt2_file_makes_the_images_of_the_model(name: str, tmp_path: Path) -> None:
    assert export(WALK[name](), tmp_path / "model.pt2").difference <= 1e-5


@pytest.mark.parametrize("recipe", STEPS)
def test_models_that_call_a_network_many_times_are_refused_in_one_line(recipe: str, tmp_path: Path) -> None:
    model = make(recipe, DataInfo((16, 16)), **({"network": tiny("autoregressive_network", "pixelcnn")} if recipe == "autoregressive" else {"denoiser": tiny("denoiser", "unet")}))
    with pytest.raises(RequestError, match=f"this {recipe} model calls its network (for each pixel|many times) to make an image"):
        export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------- through the command line

def run_example(text: str, folder: Path) -> None:
    """Run the printed program in a process that has not imported i2i."""
    program = text[text.index("import numpy"):]
    assert 8 <= len(program.splitlines()) <= 14
    check = "\nimport sys\nassert not [name for name in sys.modules if name.partition('.')[0] == 'i2i']\n"
    subprocess.run([sys.executable, "-c", program + check], cwd=folder, check=True, timeout=120)


def test_the_printed_example_translates_a_picture_without_i2i(trained: Path, i2i, tmp_path: Path) -> None:
    out = i2i("export", trained, "--out", "model.onnx", "--pixels")
    assert out.code == 0, out.err
    assert re.match(r"model\.onnx \(0\.\d MB\), verified with 3 pictures of openmoji-64 of 32x32 and 43x25: the largest difference is \S+, where images are -1 to 1\n", out.out)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (41, 30, 3), np.uint8))
    picture.save(tmp_path / "input.png")
    run_example(out.out, tmp_path)
    made, expected = (np.asarray(image).astype(int) for image in (Image.open(tmp_path / "output.png"), load(trained, "cpu").translate(picture)))
    assert made.shape == expected.shape == (41, 30, 3)
    assert np.abs(made - expected).max() <= 1
    assert (made != expected).mean() < 0.001
    properties = {each.key: each.value for each in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert (properties["recipe"], properties["direction"]) == ("pix2pix", "ab")


def test_the_printed_example_makes_images_of_classes_from_noise_without_i2i(i2i, tmp_path: Path) -> None:
    model = vae()
    checkpoint.save(tmp_path / "vae.safetensors", model.modules.state_dict(), {"kind": "model", **model.header})
    out = i2i("export", "vae.safetensors", "--out", "vae.pt2")
    assert out.code == 0, out.err
    assert "truncation 1.0 and 0.5" in out.out
    run_example(out.out, tmp_path)
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 16), np.float32))
    expected = (model.generate_from(z, torch.arange(4) % 3)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(np.asarray(Image.open(tmp_path / "output.png")) - expected).max() <= 0.51


def test_each_direction_of_a_two_way_model_is_a_file(tmp_path: Path) -> None:
    model = make("cyclegan", DataInfo((32, 32), 1, 3), generator=tiny("generator", "unet", depth=2, norm="instance"), discriminator=PATCH, lambda_identity=0.0)
    made = export(model, tmp_path / "ba.onnx", direction="ba")
    assert "of 32x32 and 43x25" in made.samples
    x = torch.rand(1, 3, 5, 70) * 2 - 1
    output, = onnxruntime.InferenceSession(made.path).run(None, {"image": x.numpy()})
    assert output.shape == (1, 1, 5, 70)
    torch.testing.assert_close(torch.from_numpy(output), model(x, direction="ba"), atol=1e-5, rtol=0)
    with pytest.raises(RequestError, match="direction xy"):
        export(model, tmp_path / "xy.onnx", direction="xy")


@pytest.mark.parametrize("suffix", ["pt2", pytest.param("onnx", marks=pytest.mark.slow)])
def test_pixels_of_other_types_and_ranges_go_in_and_come_out(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = ImageFormat(1, "uint16", range=(1000, 4000)), ImageFormat(2, "float32", range=(-3.0, 5.0))
    model = pix2pix(info=DataInfo((32, 32), 1, 2), formats=formats)
    made = export(model, tmp_path / f"model.{suffix}", pixels=True)
    assert made.samples.startswith("3 random images")
    image = np.random.default_rng(0).integers(0, 65536, (33, 21), np.uint16)
    np.save(tmp_path / "input.npy", image)
    monkeypatch.chdir(tmp_path)
    exec(made.example, {})
    output, expected = np.load(tmp_path / "output.npy"), model.translate(image)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, atol=1e-4)


# ---------------------------------------------------------------------------------------- verification

def test_a_file_that_makes_other_images_is_an_error_and_not_left_behind(i2i, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").write_text("an older file")
    monkeypatch.setattr(exporting, "_run_model", lambda model, direction, part, inputs: inputs["image"])
    out = i2i("export", trained, "--out", "x.safetensors", "--half")
    assert out.code == 1
    assert re.search(r"differs from the model by \d.* where 0\.1 is accepted; x\.safetensors was not written", out.line)
    assert (tmp_path / "x.safetensors").read_text() == "an older file"
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_file_that_does_not_run_is_an_error_and_not_left_behind(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_run_model", lambda model, direction, part, inputs: {}["image"])
    with pytest.raises(JobError, match=r"what was exported cannot be run on 3 pictures of openmoji-64.*KeyError.*x\.safetensors was not written"):
        export(load(trained, "cpu"), tmp_path / "x.safetensors", half=True)
    assert not list(tmp_path.iterdir())


def difference(output: np.ndarray, expected: Tensor, pixels: ImageFormat | None = None) -> float:
    return export_check.Samples([export_check.Sample({}, expected)], "").difference(lambda inputs: output, pixels)


def test_differences_are_of_any_value_and_integers_may_be_rounded() -> None:
    expected = torch.tensor([-1.5, -1.0, 0.0, 0.3, 1.0]).reshape(1, 1, 1, 5)
    assert difference(expected.numpy(), expected) == 0
    assert difference((expected + torch.tensor([0, 0, 0.125, 0, 0])).numpy(), expected) == 0.125
    assert difference(expected.numpy()[..., :4], expected) == float("inf")
    assert difference(np.full((1, 1, 1, 5), np.nan, np.float32), expected) == float("inf")
    levels = np.array([0, 0, 127, 166, 255], np.uint8).reshape(1, 1, 5, 1)
    assert difference(levels, expected, ImageFormat(1)) == 0            # 127.5 may be 127 or 128, 165.75 is 166.
    assert difference(levels + np.array([0, 0, 0, 1, 0], np.uint8).reshape(1, 1, 5, 1), expected, ImageFormat(1)) == pytest.approx(0.75 / 127.5, rel=1e-5)
    assert difference(levels, expected.permute(0, 1, 3, 2), ImageFormat(1)) == float("inf")
    floats = ImageFormat(1, "float32", range=(0, 10))
    assert difference(np.array([-2.5, 0, 5, 6.5, 11], np.float32).reshape(1, 1, 5, 1), expected, floats) == pytest.approx(0.2)


def test_it_is_verified_with_the_pictures_it_was_trained_on(tmp_path: Path) -> None:
    model = pix2pix()
    model.header = {**model.header, "data": "/elsewhere/personas-edges-64.zip"}
    edges = export_check.translator_samples(model, "ab", pixels=True)
    assert edges.description == "3 pictures of personas-edges-64 of 32x32 and 43x25"
    outline = edges.samples[0].inputs["image"]
    assert np.isin(outline, (0, 255)).mean() > 0.7          # Lines, not the drawing beside them.
    model.header = {**model.header, "direction": "ba"}
    drawing = export_check.translator_samples(model, "ab", pixels=True).samples[0].inputs["image"]
    assert np.isin(drawing, (0, 255)).mean() < 0.7
    assert "random images" in export_check.translator_samples(pix2pix(info=DataInfo((32, 32), 5, 3)), "ab", pixels=False).description


# ---------------------------------------------------------------------------------------- half precision

def test_a_model_file_in_half_precision_is_half_as_large_and_loads(trained: Path, i2i, tmp_path: Path) -> None:
    out = i2i("export", trained, "--out", "half.safetensors", "--half")
    assert out.code == 0, out.err
    assert 0 < float(re.search(r"difference is (\S+),", out.out)[1]) < 0.02
    original, half = load(trained, "cpu"), load(tmp_path / "half.safetensors", "cpu")
    assert half.header == original.header
    stored = load_file(tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in stored.values() if tensor.is_floating_point()} == {torch.float16}
    assert {tensor.dtype for tensor in half.modules.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    for name, tensor in original.modules.state_dict().items():
        assert torch.equal(half.modules.state_dict()[name], tensor.half().to(tensor.dtype) if tensor.is_floating_point() else tensor)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert (half(x) - original(x)).abs().max() < 0.02
    assert i2i("export", trained, "--out", "whole.safetensors").code == 0
    assert torch.equal(load(tmp_path / "whole.safetensors", "cpu")(x), original(x))


def test_what_half_precision_cannot_hold_stays_as_it_is_and_other_types_are_refused(trained: Path, i2i, tmp_path: Path) -> None:
    model = pix2pix()
    model.modules["G"].up[0][1].running_var.fill_(1e6)
    export(model, tmp_path / "half.safetensors", half=True)
    stored = load_file(tmp_path / "half.safetensors")
    assert [name for name, tensor in stored.items() if tensor.dtype == torch.float32] == ["G.up.0.1.running_var"]
    wrong = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in stored.items()}
    checkpoint.save(tmp_path / "wrong.safetensors", wrong, {"kind": "model", **model.header})
    assert "bfloat16" in i2i("translate", "wrong.safetensors", ".", "--out", "x").line


# ---------------------------------------------------------------------------------------- bad input

class Branch(nn.Module):
    """A layer that computes one of two things by the values it gets."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Solve(nn.Module):
    """A layer with an operation that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(torch.eye(x.shape[-1]) * 2, x, upper=True, left=False)


class Draw(nn.Module):
    """A layer that makes something else each time."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def odd(layer: nn.Module) -> Model:
    """A model with a layer of one's own."""
    model = pix2pix()
    model.modules["G"] = nn.ModuleDict({"inner": nn.Sequential(nn.Conv2d(3, 3, 1), layer)})
    model.modules["G"].forward = model.modules["G"]["inner"].forward
    return model


@pytest.mark.parametrize(("layer", "suffix", "message"), [
    (Branch(), "pt2", r"layer G\.inner\.1 \(Branch\) cannot be exported: "), (Branch(), "onnx", r"layer G\.inner\.1 \(Branch\) cannot be exported: "),
    (Solve(), "onnx", r"layer G\.inner\.1 \(Solve\) cannot be exported to ONNX, which has no aten\.linalg_solve_triangular")])
def test_what_cannot_be_exported_names_the_layer_in_one_line(layer: nn.Module, suffix: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        export(odd(layer), tmp_path / f"model.{suffix}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 450
    assert capfd.readouterr().err == ""
    assert not list(tmp_path.iterdir())


def test_a_model_that_makes_other_images_each_time_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="differs from the model by"):
        export(odd(Draw()), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "words"), [
    (("--out", "model.bin"), ("--out", "model.bin", ".onnx, .pt2, .safetensors")),
    (("--out", "model.onnx", "--format", "pt2"), ("--out", "model.onnx", "ends in .pt2")),
    (("--out", "model.onnx", "--format", "tflite"), ("--format", "tflite", "onnx, pt2, safetensors")),
    (("--out", "model.onnx", "--half"), ("--half", "with .safetensors")),
    (("--out", "model.safetensors", "--pixels"), ("--pixels", "with .onnx or .pt2")),
    (("--out", "model.onnx", "--direction", "ba"), ("direction ba", "accepted: ab")),
    (("--out", "folder.onnx"), ("--out folder.onnx cannot be written",)),
    (("--out", "model.onnx", "--statistics", "mine"), ("statistics", "running or image"))])
def test_wrong_requests_are_one_line(options: tuple[str, ...], words: tuple[str, ...], trained: Path, i2i, tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    out = i2i("export", trained, *options)
    assert out.code == 2
    assert all(word in out.line for word in words), out.line
    assert [path.name for path in tmp_path.iterdir()] == ["folder.onnx"]


def test_models_of_another_kind_and_missing_packages_are_one_line(trained: Path, i2i, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "not one of i2i" in i2i("export", "other.safetensors", "--out", "x.onnx").line
    assert "does not exist" in i2i("export", "nothing", "--out", "x.onnx").line
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in ("onnx", "onnxscript") else find(name, *rest))
    assert i2i("export", trained, "--out", "x.onnx").line == "error: exporting to ONNX needs onnx, onnxscript: pip install 'i2i-toolkit[onnx]'"


def test_clahe_is_refused_as_pixels_and_mentioned_otherwise(tmp_path: Path) -> None:
    formats = ImageFormat(clahe=2.0), ImageFormat()
    with pytest.raises(RequestError, match="--pixels: the CLAHE that images of side a go through"):
        export(pix2pix(formats=formats), tmp_path / "model.pt2", pixels=True)
    assert replace(formats[0], clahe=0.0) == formats[1]
    model = pix2pix(formats=formats)
    text = export_example.example(model, export_graph.ExportableTranslator(model, "ab"), "ab", tmp_path / "model.pt2", pixels=False)
    assert "CLAHE (clip limit 2, 8x8 tiles)" in text
