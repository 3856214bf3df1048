"""The projected discriminator: recorded values of the authors' code, its own size of images, pairs, and a network that is part of no checkpoint."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.config import override, parse_assignments
from i2i.errors import RequestError
from i2i.nets import projected
from i2i.nets.joined_images import JoinedChannels
from i2i.nets.projected import FeaturePyramid, Head, ProjectedDiscriminator, frozen_network
from i2i.nets.weight_norm import spectral
from i2i.recipes.base import DataInfo
from i2i.recipes.cut import CUT
from i2i.recipes.cyclegan import CycleGAN
from i2i.recipes.gan import GAN
from i2i.recipes.pix2pix import Pix2Pix
from i2i.registry import Spec, build
from tests.conftest import REFERENCE
from tests.reference_weights import fill, weights_by_rule

FOLDER = REFERENCE / "projected"
SETTINGS = json.loads((FOLDER / "settings.json").read_text())
TINY = {"features": "random", "channels": 2, "width": 4}


def arrays(side: int) -> dict[str, Any]:
    return {key: torch.from_numpy(value) for key, value in np.load(FOLDER / f"images_{side}.npz").items()}


@pytest.fixture(scope="module")
def pyramid() -> FeaturePyramid:
    found = FeaturePyramid(3, "efficientnet-lite0", (), SETTINGS["settings"]["cout"], 1)
    layers = [(conv, f"layer{i}_ccm") for i, conv in enumerate(found.mix_channels)] + [(conv, f"layer{i}_csm.out_conv") for i, conv in enumerate(found.mix_scales)]
    assert fill(layers, weights_by_rule(FOLDER / "projection_weights_checksum.json", "proj/", {})) == set()
    return found


def test_the_frozen_network_is_the_references() -> None:
    assert frozen_network("efficientnet-lite0").weights == SETTINGS["backbone_file_sha256"]


@pytest.mark.parametrize("side", [64, 128])
def test_features_and_their_mixing_are_those_of_the_reference(pyramid: FeaturePyramid, side: int) -> None:
    a = arrays(side)
    x = a["image"].float() / 127.5 - 1
    raw = pyramid.raw(x)
    for i, h in enumerate(raw):
        torch.testing.assert_close(h, a[f"raw{i}"], atol=5e-4, rtol=0)
        torch.testing.assert_close(pyramid.mix_channels[i](h)[:, ::5, ::3, ::3], a[f"ccm{i}_sample"], atol=5e-4, rtol=0)
    for i, h in enumerate(pyramid(x)):
        torch.testing.assert_close(h[..., ::3, ::3], a[f"pyramid{i}_stride3"], atol=2e-3, rtol=0)


def reference_heads() -> nn.ModuleList:
    """The heads for 256 pixels: their halvings are fixed in the reference, whatever the size of the image."""
    heads = nn.ModuleList(Head(channels, blocks, 512, "batch", 0) for channels, blocks in ((16, 4), (16, 3), (32, 2), (64, 1)))
    spectral(heads)
    layers: list[tuple[nn.Module, str]] = []
    for i, head in enumerate(heads):
        blocks = len(head.layers) // 3
        layers += [(head.layers[3 * j + k], f"mini_discs.{i}.main.{j}.main.{k}") for j in range(blocks) for k in (0, 1)]
        layers.append((head.out, f"mini_discs.{i}.main.{blocks}"))
    assert fill(layers, weights_by_rule(FOLDER / "heads_weights_checksum.json", "heads/", dict(np.load(FOLDER / "heads_buffers.npz")))) == set()
    return heads


def test_the_heads_are_those_of_the_reference(pyramid: FeaturePyramid) -> None:
    heads, a = reference_heads(), arrays(128)
    x = a["image"].float() / 127.5 - 1
    large = F.interpolate(x, (224, 224), mode="bilinear", align_corners=False)
    with torch.no_grad():
        heads.eval()
        for kind, image in (("", x), ("224", large)):
            for i, (head, h) in enumerate(zip(heads, pyramid(image), strict=True)):
                torch.testing.assert_close(head(h).flatten(1), a[f"logits{kind}_scale{i}"], atol=5e-4, rtol=0)
        heads.train()
        logits = torch.cat([head(h).flatten(1) for head, h in zip(heads, pyramid(large), strict=True)], 1)
        torch.testing.assert_close(logits, a["logits224_heads_train"], atol=5e-4, rtol=0)


@pytest.mark.parametrize(("side", "blocks", "logits"), [(256, (4, 3, 2, 1), (5, 5, 5, 5)), (64, (2, 1, 0, 0), (5, 5, 5, 1)), (32, (1, 0, 0, 0), (5, 5, 1, 1))])
def test_heads_halve_as_often_as_the_image_allows(side: int, blocks: tuple[int, ...], logits: tuple[int, ...]) -> None:
    """At 256 pixels as often as in the paper."""
    with torch.device("meta"):
        D = ProjectedDiscriminator(3, (side, side), width=16, channels=2)
        assert tuple(sum(layer.stride == (2, 2) for layer in head.layers if isinstance(layer, nn.Conv2d)) for head in D.heads) == blocks
        assert tuple(out.shape[2] for out in D(torch.empty(1, 3, side, side))) == logits


def make(in_channels: int = 3, **options: object) -> Any:
    torch.manual_seed(0)
    return build("discriminator", Spec("projected", {**TINY, **options}), in_channels, (32, 32))


def test_nothing_of_the_frozen_network_is_saved_or_learned() -> None:
    D = make()
    assert {name.split(".")[0] for name, _ in D.named_parameters()} == {"heads"}
    assert not any("network" in name or "filters" in name for name in D.state_dict())
    before = {name: value.clone() for name, value in D.pyramid.state_dict().items()}
    assert before.keys() == {f"{part}.{i}.{leaf}" for part in ("mix_channels", "mix_scales") for i in range(3) for leaf in ("weight", "bias")}
    torch.optim.SGD(D.parameters(), 1.0).zero_grad()
    sum(out.sum() for out in D(torch.randn(2, 3, 32, 32))).backward()
    assert all(torch.equal(value, before[name]) for name, value in D.pyramid.state_dict().items())


def test_the_networks_weights_draw_none_of_the_runs_random_numbers() -> None:
    frozen_network.cache_clear()
    first = make().state_dict()
    assert all(torch.equal(value, first[name]) for name, value in make().state_dict().items())


@pytest.mark.parametrize("channels", [(3, 3), (1, 3), (3, 1), (4, 1), (1, 1, 1), (2, 3)])
def test_every_image_is_seen_as_itself_by_every_head(channels: tuple[int, ...]) -> None:
    """Each passes through the network as it would alone, none joined with a channel of its neighbor: features of all are those of each."""
    D, x = make(JoinedChannels(*channels)).eval(), torch.rand(2, sum(channels), 32, 32) * 2 - 1
    images = x.split(list(channels), 1)
    alone = [make(image.shape[1]).pyramid.raw(image) for image in images]
    assert all(torch.equal(both, torch.cat(each, 1)) for both, *each in zip(D.pyramid.raw(x), *alone, strict=True))
    for i in range(len(images)):
        moved = torch.cat([-image if i == j else image for j, image in enumerate(images)], 1)
        assert all((one - other).abs().max() > 1e-6 for one, other in zip(D(x), D(moved), strict=True))
    assert torch.equal(copy.deepcopy(D)(x)[0], D(x)[0])


PIX2PIX, GAN_ = ("generator.width=2", "discriminator=projected"), ("generator.width=2", "generator.z_dim=2", "discriminator=projected")


@pytest.mark.parametrize(("recipe", "words", "info", "images"), [
    (Pix2Pix, PIX2PIX, {"a_channels": 1}, (1, 3)), (Pix2Pix, (*PIX2PIX, "pack=2"), {"a_channels": 3, "b_channels": 1}, (3, 1, 3, 1)),
    (GAN, (*GAN_, "pack=3"), {"b_channels": 1}, (1, 1, 1)), (GAN, (*GAN_, "pack=2", "conditional=true"), {"b_channels": 3, "num_classes": 2}, (3, 1, 3, 1)),
    (CUT, ("generator.width=2", "discriminator=projected", "pack=2"), {}, (3, 3)), (CycleGAN, ("generator.width=2", "discriminator=projected"), {"a_channels": 4, "b_channels": 4}, (4,))])
def test_recipes_say_which_channels_are_an_image(recipe: type, words: tuple[str, ...], info: dict[str, int], images: tuple[int, ...]) -> None:
    r = override(recipe(), parse_assignments([*words, "discriminator.features=random"]))
    with torch.device("meta"):
        m = r.modules(DataInfo((32, 32), **info))
    assert {D.pyramid.images for name, D in m.items() if name in ("D", "D_a", "D_b")} == {images}


def test_label_maps_of_a_channel_for_each_class_are_refused() -> None:
    r = override(Pix2Pix(), parse_assignments([*PIX2PIX, "discriminator.features=random", "source_encoding=auto"]))
    colors = tuple((level / 4,) for level in range(5))
    with torch.device("meta"), pytest.raises(RequestError, match=r"more than 4 channels \(5 here; .*source_encoding=channels"):
        r.modules(DataInfo((32, 32), 1, 3, a_colors=colors))
    with torch.device("meta"):
        r.modules(DataInfo((32, 32), 1, 3))


def test_gray_images_are_seen_as_gray_ones() -> None:
    x = torch.rand(2, 1, 32, 32)
    for one, other in zip(make(1).pyramid.raw(x), make(3).pyramid.raw(x.expand(-1, 3, -1, -1)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 6)])
def test_features_are_enlarged_as_by_interpolation(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    expected = F.interpolate(x, (8, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(projected.enlarge(x, (8, 9)), expected)


def test_without_weights_the_network_is_refused_but_on_the_meta_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model file is read for its generator, which needs none of them."""
    def absent(name: str, device: object = None) -> None:
        raise RequestError("efficientnet-lite0.pth is absent")

    monkeypatch.setattr(projected, "frozen_network", absent)
    projected.raw_sizes.cache_clear()
    with pytest.raises(RequestError, match="absent"):
        make(features="efficientnet-lite0")
    with torch.device("meta"):
        D = make(features="efficientnet-lite0")
    assert len(D.heads) == 4
    with pytest.raises(RequestError, match="absent"):
        D(torch.empty(2, 3, 32, 32, device="meta"))


@pytest.mark.parametrize(("options", "accepted"), [({"width": 0}, "1 or more"), ({"kernel": 2}, "an odd number"), ({"layers": ("scale3",)}, "did you mean 'scale"), ({"features": "lite"}, "no feature_network is called 'lite'")])
def test_invalid_options_are_refused(options: dict[str, object], accepted: str) -> None:
    with pytest.raises(RequestError, match=accepted):
        make(**options)


def by_hand(D: Any, x: Tensor) -> list[Tensor]:
    """Equations 4 and 5: the features, mixed from the deepest up, and a head on each."""
    maps = [conv(h) for conv, h in zip(D.pyramid.mix_channels, D.pyramid.raw(x), strict=True)]
    mixed = None
    out = []
    for i in reversed(range(len(maps))):
        h = maps[i] if mixed is None else maps[i] + mixed
        size = maps[i - 1].shape[2:] if i else (2 * maps[0].shape[2], 2 * maps[0].shape[3])
        mixed = D.pyramid.mix_scales[i](F.interpolate(h, size, mode="bilinear", align_corners=True))
        out.append(D.heads[i].out(D.heads[i].layers(mixed)))
    return out[::-1]


def test_the_network_is_the_papers_formula() -> None:
    D, x = make(kernel=3).eval(), torch.rand(2, 3, 32, 32)
    for one, other in zip(D(x), by_hand(D, x), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(head.layers(h), features[-1]) for head, h, features in zip(D.heads, D.pyramid(x), D.features(x), strict=True))
