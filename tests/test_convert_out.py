"""Models as files of pytorch-CycleGAN-and-pix2pix and CUT: there and back without a bit changed; what those projects do not have is refused."""

import io
import pickletools
import shlex
import zipfile
from pathlib import Path

import pytest
import torch

from i2i import load
from i2i.config import override, parse_assignments, to_dict
from i2i.images.format import ImageFormat
from i2i.inference.model_file import model_header
from i2i.recipes.base import DataInfo
from i2i.registry import lookup
from i2i.runs import checkpoint
from tests.conftest import REFERENCE, Run
from tests.test_convert import GENERATORS, NETWORKS

CUT = REFERENCE / "cut"
OFFICIAL = {**{name: (NETWORKS / f"{name}_net.pth", "cyclegan-pix2pix") for name in GENERATORS},
            **{name: (CUT / f"{name}_0_net_G.pth", "cut") for name in ("cut", "cut_noantialias", "fastcut")}}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


@pytest.mark.parametrize("name", OFFICIAL)
def test_there_and_back_no_bit_changes(name: str, i2i: Run) -> None:
    path, to = OFFICIAL[name]
    assert i2i("convert", path, "--out", "a.safetensors").code == 0
    result = i2i("convert", "a.safetensors", "--to", to, "--out", "there/it")
    assert result.code == 0, result.err
    assert_same(torch.load("there/it/latest_net_G.pth", weights_only=True), torch.load(path, weights_only=True))
    assert i2i("convert", "there/it/latest_net_G.pth", "--out", "b.safetensors").code == 0
    (a, _), (b, _) = (checkpoint.load(Path(f"{each}.safetensors"), "model") for each in "ab")
    assert_same(a, b)


def save_model(path: str, recipe: str, *settings: str, a: ImageFormat | None = None, size: tuple[int, int] = (32, 32)) -> None:
    """A model of random weights."""
    config = override(lookup("recipe", recipe)(), parse_assignments(settings))
    a = a or ImageFormat(3)
    info = DataInfo(size, a.channels, 3)
    modules = config.modules(info)
    tensors = {f"{name}.{key}": value for name in config.ema_modules for key, value in modules[name].state_dict().items()}
    checkpoint.save(Path(path), tensors, {"kind": "model", **model_header(recipe, to_dict(config), info, (a, ImageFormat(3)), images=4, step=2, direction="ab")})


def test_both_generators_of_a_cyclegan_are_written(i2i: Run) -> None:
    save_model("run x.safetensors", "cyclegan", "generator.width=2", "generator.blocks=6")
    result = i2i("convert", "run x.safetensors", "--to", "cyclegan-pix2pix")
    assert result.code == 0, result.err
    folder = Path("checkpoints", "run x")
    assert sorted(path.name for path in folder.iterdir()) == ["latest_net_G_A.pth", "latest_net_G_B.pth"]
    for suffix, line in zip("AB", result.out.splitlines()[1::2], strict=True):
        words = shlex.split(line)
        options = dict(zip(words[2::2], words[3::2], strict=False))
        assert {**options, "--checkpoints_dir": ""} == {
            "--dataroot": "IMAGES", "--model": "test", "--checkpoints_dir": "", "--name": "run x", "--model_suffix": f"_{suffix}", "--netG": "resnet_6blocks", "--ngf": "2",
            "--input_nc": "3", "--output_nc": "3", "--norm": "instance", "--no_dropout": "--preprocess", "none": "--eval"}
        assert Path(options["--checkpoints_dir"]) == Path("checkpoints").absolute()
    assert i2i("convert", "--ab", folder / "latest_net_G_A.pth", "--ba", folder / "latest_net_G_B.pth", "--out", "back.safetensors").code == 0
    assert_same(checkpoint.load(Path("run x.safetensors"), "model")[0], checkpoint.load(Path("back.safetensors"), "model")[0])


def test_a_run_is_written_and_read_again(trained: Path, i2i: Run) -> None:
    """A U-Net of five halvings, which test.py has no name for: then a line of Python builds it."""
    result = i2i("convert", trained, "--to", "cyclegan-pix2pix")
    assert result.code == 0, result.err
    assert "G = networks.UnetGenerator(3, 3, 5, 4, networks.get_norm_layer('batch'), True); G.load_state_dict(torch.load('" in result.out
    assert i2i("convert", "checkpoints/run/latest_net_G.pth", "--out", "back.safetensors").code == 0
    x = torch.rand(1, 3, 32, 64) * 2 - 1
    assert torch.equal(load("back.safetensors", device="cpu").translate(x), load(trained, device="cpu").translate(x))


@pytest.mark.parametrize(("to", "recipe", "settings", "options"), [
    ("cyclegan-pix2pix", "pix2pix", ["generator.depth=7", "generator.norm=instance", "generator.dropout=0"], "--netG unet_128 --ngf 2 --input_nc 3 --output_nc 3 --norm instance --no_dropout --load_size 128 --crop_size 128 --eval"),
    ("cyclegan-pix2pix", "pix2pix", ["generator=resnet", "generator.blocks=9", "generator.norm=batch", "generator.dropout=0.2"], "--netG resnet_9blocks --ngf 2 --input_nc 3 --output_nc 3 --norm batch --preprocess none --eval"),
    ("cut", "cut", ["generator.blocks=6", "generator.dropout=0.5"], "--netG resnet_6blocks --ngf 2 --input_nc 3 --output_nc 3 --normG instance --no_dropout False --preprocess none --eval"),
    ("cut", "cut", ["generator.blocks=6", "generator.down=strided", "generator.up=transposed"], "--no_antialias --no_antialias_up --normG instance --preprocess none --eval"),
    ("cut", "cut", ["generator.blocks=5", "nce_layers=0,4,8"], "networks.ResnetGenerator(3, 3, 2, networks.get_norm_layer('instance'), False, 5, no_antialias=False, no_antialias_up=False)")])
def test_the_command_builds_the_same_network(to: str, recipe: str, settings: list[str], options: str, i2i: Run) -> None:
    save_model("m.safetensors", recipe, *settings, "generator.width=2", size=(128, 128))
    result = i2i("convert", "m.safetensors", "--to", to, "--out", "out")
    assert result.code == 0, result.err
    assert options in result.out


def test_the_file_is_tensors_and_nothing_else(i2i: Run) -> None:
    """The names in its pickle are those by which torch rebuilds tensors."""
    save_model("m.safetensors", "pix2pix", "generator.width=2", "generator.depth=5")
    assert i2i("convert", "m.safetensors", "--to", "cyclegan-pix2pix", "--out", "out").code == 0
    with zipfile.ZipFile("out/latest_net_G.pth") as archive:
        data = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    names = {argument for opcode, argument, _ in pickletools.genops(io.BytesIO(data)) if opcode.name == "GLOBAL"}
    assert names == {"torch._utils _rebuild_tensor_v2", "torch FloatStorage", "torch LongStorage", "collections OrderedDict"}


WRONG = {
    "noise": ("gan", ["generator.width=2", "discriminator.width=2"], "cyclegan-pix2pix", "is a model of gan; accepted with --to cyclegan-pix2pix: models of pix2pix, cut and cyclegan"),
    "two ways": ("cyclegan", ["generator.width=2"], "cut", "is a model of cyclegan; accepted with --to cut: models of pix2pix, cut"),
    "resize": ("pix2pix", ["generator.width=2", "generator.up=resize"], "cyclegan-pix2pix", "generator.up=resize cannot be used; accepted: transposed with --to cyclegan-pix2pix"),
    "skip": ("pix2pix", ["generator.width=2", "generator.input_skip=4"], "cyclegan-pix2pix", "generator.input_skip=4"),
    "no norm": ("pix2pix", ["generator.width=2", "generator.norm=none"], "cyclegan-pix2pix", "generator.norm=none"),
    "shallow": ("pix2pix", ["generator.width=2", "generator.depth=4"], "cyclegan-pix2pix", "generator.depth=4 cannot be used; accepted: 5 or more"),
    "blurs": ("cut", ["generator.width=2"], "cyclegan-pix2pix", "generator.down=blurpool cannot be used; accepted: strided with --to cyclegan-pix2pix"),
    "unet": ("pix2pix", ["generator.width=2"], "cut", "generator=unet cannot be used; accepted: resnet with --to cut"),
    "spade": ("pix2pix", ["generator=spade", "generator.width=2", "generator.hidden=2"], "cyclegan-pix2pix", "generator=spade cannot be used; accepted: unet or resnet"),
    "spectral": ("pix2pix", ["generator.width=2", "g_weight_norm=spectral"], "cyclegan-pix2pix", "g_weight_norm=spectral"),
    "instances": ("pix2pix", ["generator.width=2", "instance_channel=true"], "cyclegan-pix2pix", "instance_channel=true")}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_project_does_not_have_is_refused(name: str, i2i: Run) -> None:
    recipe, settings, to, message = WRONG[name]
    save_model("m.safetensors", recipe, *settings)
    result = i2i("convert", "m.safetensors", "--to", to, "--out", "out")
    assert (result.code, message in result.line, Path("out").exists()) == (2, True, False), result.line


def test_images_that_the_project_cannot_read_are_refused(i2i: Run) -> None:
    for image in (ImageFormat(3, "uint16"), ImageFormat(4, alpha=True), ImageFormat(3, clahe=2.0), ImageFormat(3, range=(0, 100)), ImageFormat(5)):
        save_model("m.safetensors", "pix2pix", "generator.width=2", a=image)
        result = i2i("convert", "m.safetensors", "--to", "cyclegan-pix2pix")
        assert (result.code, f"is for images of {image}; accepted" in result.line) == (2, True), result.line
    spade = torch.load(REFERENCE / "pix2pixhd" / "local2_instance.pth", weights_only=True)
    torch.save(spade, "hd.pth")
    assert i2i("convert", "hd.pth", "source_encoding=one-hot").code == 0
    assert "source_encoding=one-hot" in i2i("convert", "hd.safetensors", "--to", "cyclegan-pix2pix").line


def test_wrong_requests_are_one_line_and_no_file_is_lost(i2i: Run, tmp_path: Path) -> None:
    save_model("m.safetensors", "cyclegan", "generator.width=2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "latest_net_G_B.pth").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "x.pth").write_bytes(b"x")
    for words, code, message in [
            (["m.safetensors", "--to", "tensorflow"], 2, "--to=tensorflow cannot be used; accepted: cyclegan-pix2pix or cut"), (["--to", "cut"], 2, "i2i convert MODEL --to cut"),
            (["m.safetensors", "generator.depth=6", "--to", "cut"], 2, "i2i convert MODEL --to cut"), (["m.safetensors", "--ab", "a.pth", "--to", "cut"], 2, "i2i convert MODEL --to cut"),
            (["m.safetensors", "--to", "cyclegan-pix2pix", "--out", "full"], 2, "latest_net_G_B.pth exists already; choose another --out"),
            (["m.safetensors", "--to", "cyclegan-pix2pix", "--out", "file"], 1, "could not be written"), (["x.pth", "--to", "cut"], 2, "x.pth is damaged, truncated or not a safetensors file"),
            (["none.safetensors", "--to", "cut"], 2, "none.safetensors does not exist"), ([tmp_path / "full", "--to", "cut"], 2, "without model.safetensors")]:
        result = i2i("convert", *words)
        assert (result.code, message in result.line) == (code, True), (words, result.line)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["latest_net_G_B.pth"]
    assert (tmp_path / "full" / "latest_net_G_B.pth").read_text() == (tmp_path / "file").read_text() == "mine"
