"""The FID network against pytorch-fid, clean-fid and torch-fidelity (tests/reference/README.md)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from i2i.errors import RequestError
from i2i.metrics.feature_networks import FeatureExtractor
from i2i.metrics.networks import inception, inception_v3
from i2i.metrics.resizing import clean, legacy_pytorch, legacy_tf
from tests.metrics.reference import REFERENCE, inception_state, picture

EXPECTED = np.load(REFERENCE / "inception" / "features.npz")
RESIZED = np.load(REFERENCE / "inception" / "resized.npz")
NAMES = [str(name) for name in EXPECTED["filenames"]]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return inception_state()


@pytest.fixture(scope="module")
def file(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "formula.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def extractor(file: Path) -> FeatureExtractor:
    return FeatureExtractor.of(inception.Inception(file))


def with_resize(extractor: FeatureExtractor, mode: str) -> FeatureExtractor:
    return FeatureExtractor(**{**vars(extractor), "resize": mode})


def test_the_formula_gives_the_weights_of_the_reference(state: dict[str, torch.Tensor]) -> None:
    checks = json.loads((REFERENCE / "inception" / "weights_checksum.json").read_text())
    for name in ("Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.bn.running_var", "fc.weight", "fc.bias"):
        assert hashlib.sha256(state[name].numpy().tobytes()).hexdigest()[:16] == checks[name]["sha256"]
    assert {name: tuple(tensor.shape) for name, tensor in inception_v3.FIDInception().state_dict().items()} == {name: tuple(entry["shape"]) for name, entry in checks.items()}


@pytest.mark.parametrize(("mode", "key"), [("clean", "features_clean"), ("legacy-pytorch", "features_pytorch_fid"),
                                           ("legacy-tf", "features_torch_fidelity")])
def test_features_of_every_mode_are_those_of_its_source(extractor: FeatureExtractor, mode: str, key: str) -> None:
    ours, logits = with_resize(extractor, mode).extract([picture(name) for name in NAMES], batch_size=6)
    assert np.abs(ours.numpy() - EXPECTED[key]).max() < 1e-4
    if mode == "legacy-tf":
        assert logits is not None
        assert np.abs(logits.numpy() - EXPECTED["logits_unbiased_torch_fidelity"]).max() < 1e-4
    assert np.abs(EXPECTED["features_clean"] - EXPECTED["features_torch_fidelity"]).max() > 0.01       # The modes do differ.


@pytest.mark.parametrize(("resize", "key"), [(clean, "clean"), (legacy_pytorch, "legacy_pytorch"), (legacy_tf, "torch_fidelity")])
def test_resized_pixels(resize, key: str) -> None:
    for i, name in enumerate(NAMES):
        out = resize(picture(name), 299).numpy()
        assert np.abs(out[:, ::37, ::37] - RESIZED[f"grid37_{key}"][i]).max() < 1e-2
        stats = np.stack([out.astype(np.float64).mean((1, 2)), out.astype(np.float64).std((1, 2)), out.min((1, 2)), out.max((1, 2))], 1)
        assert np.abs(stats - RESIZED[f"stats_{key}"][i]).max() < 1e-2


def test_batch_size_does_not_change_features(extractor: FeatureExtractor) -> None:
    images = torch.stack([extractor.prepare(picture(NAMES[i % 12])) for i in range(16)]).repeat(4, 1, 1, 1)
    together, _ = extractor(images)
    alone = torch.cat([extractor(images[i:i + 1])[0] for i in range(0, 12, 4)])
    assert torch.allclose(together[0:12:4], alone, rtol=0, atol=1e-4)
    assert torch.allclose(together[:16], together[16:32], rtol=0, atol=1e-4)


def test_folding_changes_nothing_but_speed(state: dict[str, torch.Tensor], extractor: FeatureExtractor) -> None:
    plain = inception_v3.from_state(state)
    x = extractor.prepare(picture(NAMES[2]))[None]
    with torch.inference_mode():
        assert torch.allclose(plain(x)[0], extractor(x)[0], rtol=0, atol=1e-4)


def test_the_last_pool_is_a_maximum_and_means_leave_out_padding() -> None:
    net = inception_v3.FIDInception().eval()
    seen = {}
    for name in ("Mixed_7b", "Mixed_7c"):
        block = getattr(net, name)
        block.branch_pool.register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
        x = torch.rand(1, 1280 if name == "Mixed_7b" else 2048, 4, 4)
        with torch.no_grad():
            block(x)
        corner = x[0, :, :2, :2].reshape(x.shape[1], 4)
        want = corner.mean(1) if name == "Mixed_7b" else corner.amax(1)
        assert torch.allclose(seen[name][0, :, 0, 0], want, atol=1e-6)


def test_wrong_and_damaged_weights_are_refused(file: Path, tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    cut = tmp_path / "cut.pth"
    cut.write_bytes(file.read_bytes()[: 40_000_000])
    with pytest.raises(RequestError, match=r"cut\.pth is damaged"):
        inception.Inception(cut)
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, tmp_path / "other.pth")
    with pytest.raises(RequestError, match="does not hold the FID Inception"):
        inception.Inception(tmp_path / "other.pth")
    torch.save(dict(state, **{"fc.weight": torch.zeros(1000, 2048)}), tmp_path / "torchvision.pth")
    with pytest.raises(RequestError, match=r"fc\.weight is \(1000, 2048\), expected \(1008, 2048\); torchvision"):
        inception.Inception(tmp_path / "torchvision.pth")
    torch.save({"anything": print}, tmp_path / "code.pth")
    with pytest.raises(RequestError, match="not a file of plain tensors"):
        inception.Inception(tmp_path / "code.pth")
    with pytest.raises(RequestError, match="does not exist"):
        inception.Inception(tmp_path / "absent.pth")
