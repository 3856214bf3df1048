"""PSNR, SSIM, MS-SSIM and LPIPS against scikit-image, torchmetrics and lpips (tests/reference/README.md)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from i2i.errors import RequestError
from i2i.metrics import lpips
from i2i.metrics.paired import ms_ssim, psnr, ssim
from tests.metrics.reference import REFERENCE, tensor

PAIRS = REFERENCE / "metrics" / "pairs"
EXPECTED = json.loads((REFERENCE / "metrics" / "expected.json").read_text())
NAMES = ["0", "1", "2", "3", "big0", "big1"]
LINS = REFERENCE / "metrics" / "lpips_lin_v0.1.npz"


def pair(name: str) -> tuple[Tensor, Tensor]:
    files = ("big_ref", f"big_dist{name[-1]}") if name.startswith("big") else (f"{name}_ref", f"{name}_dist")
    ref, dist = (torch.from_numpy(np.asarray(Image.open(PAIRS / f"{file}.png").convert("RGB")).transpose(2, 0, 1).copy())[None] for file in files)
    return dist, ref


def backbone(net: str) -> dict[str, Tensor]:
    return {name: tensor(name, tuple(entry["shape"])) for name, entry in EXPECTED["lpips_backbone_checksums"][net].items()}


@pytest.mark.parametrize("name", NAMES)
def test_psnr_and_ssim_are_scikit_images(name: str) -> None:
    fake, real = pair(name)
    want = EXPECTED["pairs"][name]
    assert psnr(fake, real, data_range=255).item() == pytest.approx(want["psnr_skimage"], abs=1e-9)
    assert ssim(fake, real, data_range=255).item() == pytest.approx(want["ssim_skimage"], abs=1e-5)
    assert ssim(fake.double() / 255, real.double() / 255, data_range=1).item() == pytest.approx(want["ssim_skimage"], abs=1e-5)


@pytest.mark.parametrize("name", ["big0", "big1"])
def test_ms_ssim(name: str) -> None:
    fake, real = pair(name)
    got = ms_ssim(fake, real, data_range=255).item()
    assert got == pytest.approx(EXPECTED["pairs"][name]["msssim_valid_window_per_channel_formula_float64"], abs=1e-6)
    assert got == pytest.approx(EXPECTED["pairs"][name]["msssim_torchmetrics"], abs=2e-4)       # Whose last scale pads its border.
    assert ms_ssim(real, real, data_range=255).item() == pytest.approx(1)
    assert ms_ssim(255 - real, real, data_range=255).item() == 0      # Negative correlation at every scale.


def test_ms_ssim_guards_its_size() -> None:
    assert ms_ssim(*torch.rand(2, 1, 1, 176, 200), data_range=1).isfinite().all()
    with pytest.raises(ValueError, match="at least 176 pixels a side, these are 200x175"):
        ms_ssim(*torch.rand(2, 1, 1, 175, 200), data_range=1)


@pytest.mark.parametrize("net", ["alex", "vgg", "squeeze"])
def test_lpips_is_that_of_its_authors(net: lpips.Net) -> None:
    model = lpips.LPIPS(net, backbone(net), lpips.read_lins(LINS))
    for name in NAMES if net != "vgg" else NAMES[:2]:
        fake, real = (image / 127.5 - 1 for image in pair(name))
        want = EXPECTED["pairs"][name][f"lpips_{net}"]
        assert model(real, fake).item() == pytest.approx(want["total"], abs=1e-5)
        assert model.layer_distances(real, fake)[:, 0].tolist() == pytest.approx(want["per_layer"], abs=1e-5)
    assert model(real, real).item() == 0
    assert model(fake, real).item() == pytest.approx(model(real, fake).item(), rel=1e-5)


def test_lpips_refuses_other_ranges_sizes_and_files(tmp_path: Path) -> None:
    model = lpips.LPIPS("squeeze", backbone("squeeze"), lpips.read_lins(LINS))
    with pytest.raises(ValueError, match=r"takes images in \[-1, 1\]"):
        model(torch.full((1, 3, 40, 40), 255.0), torch.zeros(1, 3, 40, 40))
    with pytest.raises(ValueError, match="at least 32x32"):
        model(torch.zeros(1, 3, 31, 40), torch.zeros(1, 3, 31, 40))
    torch.save(backbone("alex"), tmp_path / "alex.pth")
    assert lpips.load("alex", tmp_path / "alex.pth", LINS).net == "alex"
    with pytest.raises(RequestError, match=r"alex\.pth does not hold the layers of vgg"):
        lpips.load("vgg", tmp_path / "alex.pth", LINS)
    (tmp_path / "lins.npz").write_bytes(LINS.read_bytes()[:5000])
    with pytest.raises(RequestError, match=r"lins\.npz cannot be read"):
        lpips.load("alex", tmp_path / "alex.pth", tmp_path / "lins.npz")
