"""FastGAN: recorded outputs of the reference implementation with every random choice replayed, and what the paper says of its parts."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from i2i.nets import fastgan
from i2i.registry import Spec, build
from tests.conftest import REFERENCE
from tests.reference_weights import fill, weights_by_rule

FOLDER = REFERENCE / "fastgan"
SETTINGS = json.loads((FOLDER / "settings.json").read_text())


def recorded(name: str) -> dict[str, np.ndarray[Any, Any]]:
    return dict(np.load(FOLDER / f"{name}_256.npz"))


def layers_of_generator(G: Any) -> list[tuple[nn.Module, str]]:
    """Our layers and their names in the reference."""
    pairs = [(G.first, "init.init.0"), (G.first_norm.norm, "init.init.1"), (G.out, "to_big")]
    for size, block in zip((8, 16, 32, 64, 128, 256), G.blocks, strict=True):
        place = 1
        for layer in block.layers:
            for part in (layer.conv, layer.noise, layer.norm.norm):
                if part is not None:
                    pairs.append((part, f"feat_{size}.{place}"))
                    place += 1
            place += 1      # The gated linear unit.
    for size, excitation in zip((64, 128, 256), G.excitations, strict=True):
        pairs += [(excitation.layers[0], f"se_{size}.main.1"), (excitation.layers[2], f"se_{size}.main.3")]
    return pairs


@pytest.fixture(scope="module")
def generator() -> nn.Module:
    arrays = recorded("generator")
    theirs = weights_by_rule(FOLDER / "generator_256_weights_checksum.json", "G/", arrays)
    G = build("weight_norm", Spec("spectral"), fastgan.Generator(3, (256, 256), z_dim=SETTINGS["G"]["nz"], width=SETTINGS["G"]["ngf"] // 2))
    left = fill(layers_of_generator(G), theirs)
    assert left == {key for key in theirs if key.startswith("to_128.")}     # The head of the smaller picture.
    return G


def noise_of(G: Any) -> list[Any]:
    return [layer.noise for block in G.blocks for layer in block.layers if layer.noise is not None]


@pytest.mark.parametrize("mode", ["eval", "eval_nonoise", "train"])
def test_the_generator_is_that_of_the_reference(generator: nn.Module, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, G = recorded("generator"), generator
    state = {key: value.clone() for key, value in G.state_dict().items()}
    noises = [torch.from_numpy(arrays[f"noise_{name}"].astype(np.float32)) * (mode != "eval_nonoise") for name in SETTINGS["noise_order"]]
    for module, noise in zip(noise_of(G), noises, strict=True):
        module.constant = noise
    drawn = iter(noises)
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: next(drawn))
    G.train(mode == "train")
    with torch.no_grad():
        out = G(torch.from_numpy(arrays["z"]))
    expected = torch.tanh(torch.from_numpy(arrays[f"{mode}_big_stride3"]))         # The reference has no tanh below 1024 pixels.
    torch.testing.assert_close(out[..., ::3, ::3], expected, atol=1e-4 if mode == "train" else 1e-5, rtol=0)
    for module in noise_of(G):
        module.constant = module.constant[:1]
    G.load_state_dict(state)


def down_block(block: Any, name: str) -> list[tuple[nn.Module, str]]:
    main, direct = block.main, block.direct
    return [(main[0], f"{name}.main.0"), (main[1], f"{name}.main.1"), (main[3], f"{name}.main.3"), (main[4], f"{name}.main.4"),
            (direct[1], f"{name}.direct.1"), (direct[2], f"{name}.direct.2")]


def layers_of_discriminator(D: Any) -> list[tuple[nn.Module, str]]:
    pairs = [(D.first[0], "down_from_big.0"), (D.last[0], "rf_big.0"), (D.last[1], "rf_big.1"), (D.out, "rf_big.3"), (D.small_out, "rf_small"),
             (D.small[0], "down_from_small.0")]
    for size, block in zip((4, 8, 16, 32, 64), D.blocks, strict=True):
        pairs += down_block(block, f"down_{size}")
    for name, excitation in zip(("se_2_16", "se_4_32", "se_8_64"), D.excitations, strict=True):
        pairs += [(excitation.layers[0], f"{name}.main.1"), (excitation.layers[2], f"{name}.main.3")]
    for i, (conv, norm) in enumerate(zip(D.small[2::3], D.small[3::3], strict=True), 2):
        pairs += [(conv, f"down_from_small.{i}.main.0"), (norm, f"down_from_small.{i}.main.1")]
    for name, decoder in zip(("big", "small", "part"), D.decoders, strict=True):
        for i, block in enumerate(decoder.blocks, 1):
            pairs += [(block.layers[0].conv, f"decoder_{name}.main.{i}.1"), (block.layers[0].norm.norm, f"decoder_{name}.main.{i}.2")]
        pairs.append((decoder.out, f"decoder_{name}.main.5"))
    return pairs


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_discriminator_is_that_of_the_reference(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = recorded("discriminator")
    theirs = weights_by_rule(FOLDER / "discriminator_256_weights_checksum.json", "D/", arrays)
    D: Any = build("weight_norm", Spec("spectral"), fastgan.Discriminator(3, (256, 256), width=SETTINGS["D"]["ndf"] // 4, decoder_width=128))
    assert fill(layers_of_discriminator(D), theirs) == set()
    state = {key: value.clone() for key, value in D.state_dict().items()}
    tolerance = {"atol": 1e-4 if mode == "train" else 1e-5, "rtol": 0.0}
    images = {name: (torch.from_numpy(arrays[name]).float() / 255 - 0.5) / 0.5 for name in ("real_small", "fake_big_small", "fake_128")}
    real, fake = (F.interpolate(images[name], scale_factor=SETTINGS["image_repeat"]) for name in ("real_small", "fake_big_small"))
    monkeypatch.setattr(fastgan, "half_size", lambda x: F.interpolate(x, scale_factor=0.5))       # The reference leaves pixels out.
    D.train(mode == "train")
    with torch.no_grad():
        for kind, image, half in (("fake", fake, images["fake_128"]), ("real", real, fastgan.half_size(real))):
            D.load_state_dict(state)
            features, small = D.levels(image), D.small(half)
            logits = torch.cat([each.flatten() for each in D.logits(features[-1], small, None)])
            torch.testing.assert_close(logits, torch.from_numpy(arrays[f"{mode}_{kind}_logits"]), **tolerance)
        inputs = [features[-1], small, *(fastgan.quarters(features[-2], torch.full((2,), part)) for part in range(4))]
        for name, i, h in zip(("big", "small", "part0", "part1", "part2", "part3"), (0, 1, 2, 2, 2, 2), inputs, strict=True):
            D.load_state_dict(state)
            torch.testing.assert_close(D.decoders[i](h)[..., ::5, ::5], torch.from_numpy(arrays[f"{mode}_rec_{name}_stride5"]), **tolerance)


def test_the_reconstruction_loss_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equation 2 by hand: mean absolute differences of the decoders' images to the reduced image, twice, and to a random quarter."""
    torch.manual_seed(0)
    D: Any = fastgan.Discriminator(3, (32, 48), width=2, norm="none", decoder_width=8, lambda_rec=0.5)
    x, part = torch.rand(4, 3, 32, 48) * 2 - 1, torch.tensor([3, 0, 1, 2])
    monkeypatch.setattr(torch, "randint", lambda high, shape, **options: part if (high, shape) == (4, (4,)) else None)
    logits, loss = D.self_supervise(x)
    assert all(torch.equal(a, b) for a, b in zip(logits, D(x), strict=True))
    corners = {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (1, 1)}
    half = torch.stack([image.reshape(3, 16, 2, 24, 2).mean((2, 4)) for image in x])
    quarter = torch.stack([image[:, 16 * row:16 * row + 16, 24 * column:24 * column + 24] for image, (row, column) in zip(x, map(corners.get, part.tolist()), strict=True)])
    features = D.levels(x)
    cut = torch.stack([h[:, 8 * row:8 * row + 8, 12 * column:12 * column + 12] for h, (row, column) in zip(features[-2], map(corners.get, part.tolist()), strict=True)])
    naive = sum((decoder(h) - target).abs().mean() for decoder, h, target in zip(D.decoders, (features[-1], D.small(half), cut), (half, half, quarter), strict=True))
    torch.testing.assert_close(loss, 0.5 * naive)


def test_distant_layers_are_joined_as_in_figure_three() -> None:
    """At 256 pixels 4 gates 64, 8 gates 128 and 16 gates 256; smaller networks join their first and last layer."""
    with torch.device("meta"):
        joined = {side: len(fastgan.Generator(3, (side, side)).excitations) for side in (16, 32, 64, 128, 256, 512)}
    assert joined == {16: 1, 32: 1, 64: 1, 128: 2, 256: 3, 512: 4}
