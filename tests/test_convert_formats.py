"""Generators of pix2pixHD, SPADE and FastGAN: converted they give the recorded outputs; what does not fit is refused in one line, with the first name."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from i2i import load
from i2i.convert import FORMATS
from i2i.convert.checkpoint_files import read_tensors
from tests.conftest import REFERENCE, Run
from tests.reference_weights import weights_by_rule

PIX2PIXHD, SPADE, FASTGAN, CUT = (REFERENCE / name for name in ("pix2pixhd", "spade", "fastgan", "cut"))


def arrays(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(path).items()}


@pytest.fixture(scope="module")
def spade() -> dict[str, Tensor]:
    return weights_by_rule(SPADE / "generator_weights_checksum.json", "generator/", dict(np.load(SPADE / "generator.npz")))


@pytest.fixture(scope="module")
def fastgan() -> dict[str, Tensor]:
    return weights_by_rule(FASTGAN / "generator_256_weights_checksum.json", "G/", dict(np.load(FASTGAN / "generator_256.npz")))


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels.long(), classes).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize(("name", "spec"), [("local2_instance", "width=2, enhancers=2, depth=1, blocks=2, norm=instance, enhancer_blocks=1"),
                                            ("global_batch", "width=3, enhancers=0, depth=3, blocks=2, norm=batch, enhancer_blocks=0")])
def test_a_generator_of_pix2pixhd_gives_the_recorded_output(name: str, spec: str, i2i: Run, tmp_path: Path) -> None:
    result = i2i("convert", PIX2PIXHD / f"{name}.pth", "source_encoding=one-hot", "--out", tmp_path / "g.safetensors")
    assert result.code == 0, result.err
    assert f"pix2pix, pix2pixhd({spec}), label maps of 5 classes -> 3 channels" in result.out
    assert ("i2i translate --statistics image" in result.out) == (name == "global_batch")
    model, recorded = load(tmp_path / "g.safetensors", device="cpu"), arrays(PIX2PIXHD / f"{name}.npz")
    with torch.no_grad():
        torch.testing.assert_close(model.modules["G"](recorded["input"]), recorded["output_eval"], atol=2e-5, rtol=0)
        if "output_train" in recorded:      # The bias in front of a batch norm is within its mean, which only eval mode sees.
            torch.testing.assert_close(model.modules["G"].train()(recorded["input"]), recorded["output_train"], atol=2e-5, rtol=0)


def test_a_generator_of_spade_translates_label_maps(spade: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    """Files of gray values 0 to 4 give the recorded images, rounded to 8 bits."""
    torch.save(spade, tmp_path / "latest_net_G.pth")
    result = i2i("convert", "latest_net_G.pth", "source_encoding=one-hot")
    assert result.code == 0, result.err
    assert "pix2pix, spade(width=4, depth=5, norm=batch, hidden=128, spectral_norm=true), label maps of 5 classes -> 3 channels" in result.out
    assert "if it was more, add generator.depth=6" in result.out
    model, recorded = load("latest_net_G.safetensors", device="cpu"), arrays(SPADE / "generator.npz")
    with torch.no_grad():
        torch.testing.assert_close(model.modules["G"](one_hot(recorded["label"], 5)), recorded["eval"], atol=1e-4, rtol=0)
    for i, labels in enumerate(recorded["label"].numpy()):
        made = np.asarray(model.translate(Image.fromarray(labels)))
        np.testing.assert_allclose(made, (recorded["eval"][i].permute(1, 2, 0).numpy() + 1) * 127.5, atol=0.52)


def test_classes_may_share_their_map_with_instances(spade: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    torch.save(spade, tmp_path / "g.pth")
    result = i2i("convert", "g.pth", "source_encoding=one-hot", "instance_channel=true")
    assert result.code == 0, result.err
    assert "label maps of 4 classes and instances -> 3 channels" in result.out
    model = load("g.safetensors", device="cpu")
    maps = torch.zeros(1, 2, 64, 64)
    maps[:, 0, 20:], maps[:, 1, :, 30:] = 3, 7
    edges = torch.zeros(1, 1, 64, 64)
    edges[..., 29:31] = 1
    with torch.no_grad():
        expected = model.modules["G"](torch.cat([one_hot(maps[:, 0], 4), edges], 1))
        torch.testing.assert_close(model.translate(maps / 127.5 - 1), expected)


def test_settings_are_what_no_tensor_tells(spade: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    """num_upsampling_layers=more doubles a map once more, in the same tensors; dropout leaves no trace in a U-Net."""
    torch.save(spade, tmp_path / "g.pth")
    assert i2i("convert", "g.pth", "source_encoding=one-hot", "generator.depth=6").code == 0
    assert load("g.safetensors", device="cpu").modules["G"].multiple == 64
    unet = REFERENCE / "networks" / "unet_128_batch_ngf8_net.pth"
    assert i2i("convert", unet, "generator.dropout=0", "--out", "u.safetensors").code == 0
    assert load("u.safetensors", device="cpu").recipe.generator.options["dropout"] == 0.0
    resnet = REFERENCE / "networks" / "resnet_6blocks_batch_ngf8_net.pth"
    assert i2i("convert", "generator.dropout=0.1", "--ab", resnet, "--ba", resnet, "--out", "c.safetensors").code == 0
    assert load("c.safetensors", device="cpu").recipe.generator.options["dropout"] == 0.1


def test_a_generator_of_fastgan_gives_the_recorded_images(fastgan: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    """With the recorded noise in place of ours; without the tanh that theirs lacks at 256 pixels."""
    torch.save({"g": {f"module.{key}": value for key, value in fastgan.items()}, "d": {"module.a": torch.zeros(1)}}, tmp_path / "50000.pth")
    result = i2i("convert", "50000.pth")
    assert result.code == 0, result.err
    assert "gan, fastgan(z_dim=32, width=4, tanh=false), noise -> 256x256, 3 channels" in result.out
    assert "eval.py draws noise anew" in result.out
    model, recorded = load("50000.safetensors", device="cpu"), arrays(FASTGAN / "generator_256.npz")
    noises = [layer.noise for block in model.modules["G"].blocks for layer in block.layers if layer.noise is not None]
    settings = json.loads((FASTGAN / "settings.json").read_text())
    assert all(0.8 < noise.constant.std() < 1.2 for noise in noises)
    for noise, name in zip(noises, settings["noise_order"], strict=True):
        noise.constant = recorded[f"noise_{name}"].float()
    with torch.no_grad():
        torch.testing.assert_close(model.modules["G"](recorded["z"])[..., ::3, ::3], recorded["eval_big_stride3"], atol=1e-5, rtol=0)


def test_the_average_beside_a_generator_of_fastgan_is_taken(fastgan: dict[str, Tensor], tmp_path: Path) -> None:
    parameters = [key for key in fastgan if not key.endswith(("running_mean", "running_var", "weight_u", "weight_v"))]
    torch.save({"g": fastgan, "d": {}, "g_ema": [fastgan[key] + 1 for key in parameters], "opt_g": {}, "opt_d": {}}, tmp_path / "all_1.pth")
    found = read_tensors(tmp_path / "all_1.pth")
    assert found.keys() == fastgan.keys()
    assert all(torch.equal(value, fastgan[key] + (key in parameters)) for key, value in found.items())


def test_at_1024_pixels_fastgan_is_the_authors() -> None:
    """Tanh, and excitations of 64 to 512 pixels only: their names are all that theirs has (nfc of ngf=64)."""
    from i2i.convert.fastgan import read
    channels = dict(zip((4, 8, 16, 32, 64, 128, 256, 512, 1024), (128, 64, 32, 16, 16, 8, 4, 2, 1), strict=True))
    found = {"init.init.0.weight_orig": torch.zeros(4, 256, 4, 4), "to_big.weight_orig": torch.zeros(3, 1, 3, 3)}
    found |= {f"feat_{side}.1.weight_orig": torch.zeros(1) for side in list(channels)[1:]}
    read_back = read(found)
    assert read_back.recipe.generator.options == {"z_dim": 4, "width": 1, "tanh": True}
    from i2i.registry import build
    with torch.device("meta"):
        G = build("noise_generator", read_back.recipe.generator, 3, (1024, 1024), 0)
    assert [excitation.layers[0].weight.shape[:2] for excitation in G.excitations] == [(16, 128), (8, 64), (4, 32), (2, 16)]
    assert {f"excitations.{i}.layers.0.weight" for i in range(4)} <= set(read_back.names.values())


# ---------------------------------------------------------------------------------------------- what is refused

def hostile() -> dict[str, dict[str, Tensor]]:
    """State dicts that name what a generator has, in other shapes and kinds of tensors."""
    resnet = read_tensors(REFERENCE / "networks" / "resnet_9blocks_instance_ngf8_net.pth")
    return {
        "no dimensions": resnet | {"model.1.weight": torch.zeros(())}, "no numbers": resnet | {"model.1.weight": torch.zeros(0, 3, 7, 7)},
        "flat": resnet | {"model.26.weight": torch.zeros(7)}, "fewer": {"model.1.weight": torch.zeros(2, 3, 7, 7)},
        "expanded": resnet | {"model.1.weight": torch.zeros(1).expand(10**9, 3, 7, 7)}, "sparse": resnet | {"model.1.bias": torch.zeros(8).to_sparse()},
        "complex": resnet | {"model.1.bias": torch.zeros(8, dtype=torch.complex64)},
        "deep": {**{"model" + ".model.1" + ".model.3" * i + ".model.1.weight": torch.zeros(8, 8, 4, 4) for i in range(40)}, "model.model.0.weight": torch.zeros(8, 3, 4, 4),
                 "model.model.3.weight": torch.zeros(16, 3, 4, 4)},
        "spade": {"head_0.conv_0.bias": torch.zeros(1)}, "fastgan": {"init.init.0.weight_orig": torch.zeros(1)},
        "fastgan sizes": {"init.init.0.weight_orig": torch.zeros(1), "feat_8.1.weight": torch.zeros(1), "feat_32.1.weight": torch.zeros(1)},
        "pix2pixhd": {"model1_1.1.weight": torch.zeros(1)}, "pix2pixhd blocks": {"model.9000.conv_block.1.weight": torch.zeros(1), "model.1.weight": torch.zeros(8, 3, 7, 7)}}


@pytest.mark.parametrize("name", hostile())
def test_hostile_tensors_are_refused_in_one_line(name: str, i2i: Run, tmp_path: Path) -> None:
    torch.save(hostile()[name], tmp_path / "x.pth")
    result = i2i("convert", "x.pth")
    assert (result.code, "x.pth" in result.line, list(tmp_path.glob("*.safetensors"))) == (2, True, [])


def without(found: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    assert key in found
    return {name: value for name, value in found.items() if name != key}


def test_a_missing_or_other_tensor_is_named(spade: dict[str, Tensor], fastgan: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    """By the name that it has in its project; the first of several."""
    hd, biased = (read_tensors(PIX2PIXHD / f"{name}.pth") for name in ("local2_instance", "global_batch"))
    resnet = read_tensors(REFERENCE / "networks" / "resnet_9blocks_instance_ngf8_net.pth")
    cases = [
        (without(spade, "up_1.norm_s.mlp_beta.weight"), "SPADE but does not fit it: nothing for up_1.norm_s.mlp_beta.weight"),
        (without(without(spade, "up_3.conv_s.weight_u"), "G_middle_1.conv_0.bias"), "nothing for G_middle_1.conv_0.bias"),
        (spade | {"up_0.conv_0.bias": torch.zeros(5)}, "unexpected up_0.conv_0.bias (5,)"), (spade | {"up_4.conv_0.bias": torch.zeros(5)}, "num_upsampling_layers=most"),
        (spade | {"fc.weight": torch.zeros(256, 16)}, "use_vae"),
        (without(fastgan, "feat_32.5.weight_v"), "FastGAN-pytorch but does not fit it: nothing for feat_32.5.weight_v"), (without(fastgan, "se_64.main.1.weight_orig"), "nothing for se_64.main.1.weight_orig"),
        (fastgan | {"feat_8.2.weight": torch.zeros(2)}, "unexpected feat_8.2.weight (2,)"),
        (without(hd, "model2_2.0.conv_block.5.bias"), "pix2pixHD but does not fit it: nothing for model2_2.0.conv_block.5.bias"), (without(hd, "model.9.weight"), "nothing for model.9.weight"),
        (without(hd, "model2_2.5.weight"), "model2_2.5.weight"), (without(biased, "model.15.weight"), "nothing for model.15.weight"),
        (biased | {"model.1.bias": torch.zeros(9)}, "unexpected model.1.bias (9,)"), (without(resnet, "model.4.bias"), "nothing for model.4.bias")]
    for found, words in cases:
        torch.save(found, tmp_path / "x.pth")
        result = i2i("convert", "x.pth", *(["source_encoding=one-hot"] if "init.init.1.weight" not in found else []))
        assert (result.code, words in result.line) == (2, True), (words, result.line)
    assert not list(tmp_path.glob("*.safetensors"))


def test_other_networks_of_these_projects_are_refused(i2i: Run, tmp_path: Path) -> None:
    paths = [PIX2PIXHD / "discriminator.pth", CUT / "cut_0_net_D.pth", CUT / "cut_0_net_F.pth"]
    torch.save({"discriminator_0.model0.0.weight": torch.zeros(6, 8, 4, 4)}, tmp_path / "d.pth")
    for path in (*paths, tmp_path / "d.pth"):
        line = i2i("convert", path, "--out", "x.safetensors").line
        assert "no generator is recognized" in line
        assert all(format.project in line for format in FORMATS)


def test_settings_that_do_not_fit_are_refused(spade: dict[str, Tensor], i2i: Run, tmp_path: Path) -> None:
    torch.save(spade, tmp_path / "spade.pth")
    cut, resnet = CUT / "cut_0_net_G.pth", REFERENCE / "networks" / "resnet_9blocks_instance_ngf8_net.pth"
    for words, message in [
            (["spade.pth"], "images of 5 channels; accepted: 1 (gray) or 3 (color), and label maps: add source_encoding=one-hot if it takes 5 classes, and instance_channel=true if 4"),
            (["spade.pth", "source_encoding=onehot"], "channels or one-hot or auto"), (["spade.pth", "source_encodin=one-hot"], "did you mean 'source_encoding'"),
            (["spade.pth", "source_encoding=one-hot", "generator.depth=9"], "generator.depth=9"), (["spade.pth", "source_encoding=one-hot", "generator=unet"], "unexpected"),
            (["spade.pth", "source_encoding=one-hot", "generator.norm=instance"], "unexpected"), (["spade.pth", "data.size=64"], "no setting 'data'"),
            (["spade.pth", "more"], "'more' is not KEY=VALUE"), ([cut, "nce_layers=99"], "nce_layers=99"), ([resnet, "source_encoding=one-hot", "instance_channel=true", "generator.blocks=3"], "unexpected"),
            (["--ab", resnet, "--ba", resnet, "pol=5"], "no setting 'pol'"), (["--ab", resnet, "--ba", resnet, "x.pth"], "what to convert?"),
            (["--ab", resnet, "--ba", resnet, "g_weight_norm=spectral"], "unexpected")]:
        result = i2i("convert", *words, "--out", "x.safetensors")
        assert (result.code, message in result.line) == (2, True), (words, result.line)
        assert not Path("x.safetensors").exists()
