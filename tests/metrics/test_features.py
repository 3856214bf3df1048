"""Real ImageNet features that install with the package, and timm networks with local weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from skimage import data

from i2i.errors import RequestError
from i2i.metrics import feature_networks
from i2i.metrics.networks.timm_models import LITE0_DEPTHS, EfficientNetLite0, TimmNetwork, lite_name
from i2i.metrics.state_dict import read_state
from i2i.metrics.weights import find_weights, sha256
from tests.metrics.reference import picture

CATS, ESPRESSO, SCOOTERS = {281, 282, 285}, {967}, {665, 670}      # ImageNet classes: tabby, tiger and Egyptian cat; espresso; moped, scooter.


@pytest.fixture(scope="module")
def lite() -> feature_networks.FeatureExtractor:
    return feature_networks.load_extractor("efficientnet-lite0")


def square(image: np.ndarray) -> np.ndarray:
    side = min(image.shape[:2])
    y, x = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[y:y + side, x:x + side]


def test_photographs_are_recognized(lite: feature_networks.FeatureExtractor) -> None:
    """A wrong mapping of weights, scale or channel order would not see a cat."""
    found, logits = lite.extract([square(data.chelsea()), square(data.coffee()), square(data.stereo_motorcycle()[0])])
    assert logits is not None
    share = logits.softmax(1)
    assert found.shape == (3, 1280)
    assert share[0, sorted(CATS)].sum() > 0.5
    assert share[1, sorted(ESPRESSO)].sum() > 0.5
    assert share[2, sorted(SCOOTERS)].sum() > 0.5


def test_every_tensor_gets_a_name_of_its_own() -> None:
    names = {name: lite_name(name, LITE0_DEPTHS) for name in read_state(find_weights("efficientnet-lite0"))}
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert set(names.values()) == set(model.state_dict())
    assert len(set(names.values())) == len(names)


def test_batch_size_does_not_change_features(lite: feature_networks.FeatureExtractor) -> None:
    x = torch.stack([lite.prepare(picture(name)) for name in ("02_chelsea_256x256.png", "06_rocket_500x333.png", "08_chelsea_31x47.png",
                                                               "10_camera_gray_200x160.png")]).repeat(16, 1, 1, 1)
    together, _ = lite(x)
    assert torch.allclose(together[:4], torch.cat([lite(x[i:i + 1])[0] for i in range(4)]), rtol=0, atol=1e-4)
    assert together[:4].std(0).mean() > 0.05        # The pictures do differ.


def test_features_are_the_same_whatever_the_state_of_torch(lite: feature_networks.FeatureExtractor) -> None:
    image = [picture("02_chelsea_256x256.png")]
    want, _ = lite.extract(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lite.extract(image)[0], want)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with feature_networks.exact_float32():
            assert not torch.backends.cuda.matmul.allow_tf32
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_any_timm_model_with_local_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", pretrained=False).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "r.pth")
    extractor = feature_networks.load_extractor("timm:resnet10t", tmp_path / "r.pth")
    image = picture("02_chelsea_256x256.png")
    found, logits = extractor.extract([image])
    assert found.shape == (1, model.num_features) == (1, extractor.num_features)
    assert (extractor.name, extractor.weights) == ("timm:resnet10t", sha256(tmp_path / "r.pth"))
    with torch.no_grad():
        assert torch.allclose(model(extractor.prepare(image)[None]), logits, atol=1e-4)
    with pytest.raises(RequestError, match=r"timm has no model 'resnet10x'; nearest: .*resnet10t"):
        feature_networks.load_extractor("timm:resnet10x", tmp_path / "r.pth")
    with pytest.raises(RequestError, match=r"r\.pth does not hold resnet18"):
        TimmNetwork(tmp_path / "r.pth", architecture="resnet18")
    with pytest.raises(RequestError, match="does not hold EfficientNet-Lite0"):
        EfficientNetLite0(tmp_path / "r.pth")


def test_features_that_are_not_finite_are_counted() -> None:
    bad = np.zeros((5, 3), np.float32)
    feature_networks.check_finite(bad, "fakes")
    bad[2, 1], bad[4, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 of 5 feature vectors of fakes are not finite, the first at 2"):
        feature_networks.check_finite(bad, "fakes")
