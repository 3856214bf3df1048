"""The coarse-to-fine generator against pix2pixHD (tests/reference/README.md)."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.nets.norms import BatchNorm
from i2i.nets.pix2pixhd import Pix2PixHD
from i2i.nets.resnet import ResidualBlock
from tests.conftest import REFERENCE


def reference(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    data = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE / "pix2pixhd" / f"{name}.npz").items()}
    return data, torch.load(REFERENCE / "pix2pixhd" / f"{name}.pth", weights_only=True)


def load(G: Pix2PixHD, state: dict[str, Tensor]) -> Pix2PixHD:
    """Copy the source's layers in their order.  Biases in front of batch norm, which ours has not, go into its running mean."""
    sources = [{key.rpartition(".")[2]: value for key, value in state.items() if key.startswith(name + ".")}
               for name in dict.fromkeys(key.rpartition(".")[0] for key in state)]
    parts = [G.global_generator, *(part for pair in zip(G.encoders, G.decoders, strict=True) for part in pair), G.output]
    ours = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | BatchNorm)]
    bias = torch.zeros(())
    for layer, source in zip(ours, sources, strict=True):
        if isinstance(layer, BatchNorm):
            source["running_mean"] = source["running_mean"] - bias
        elif layer.bias is None:
            bias = source.pop("bias")
        layer.load_state_dict(source)
    return G


def assert_reproduces(G: Pix2PixHD, data: dict[str, Tensor]) -> None:
    out = G.eval()(data["input"])
    torch.testing.assert_close(out, data["output_eval"], atol=2e-5, rtol=0)
    exact = G.double()(data["input"].double())
    stats = torch.stack([exact.sum((2, 3)), exact.abs().sum((2, 3))])
    torch.testing.assert_close(stats, data["output_eval_float64_stats"], atol=1e-9, rtol=1e-9)


@torch.no_grad()
def test_a_global_generator_and_two_enhancers_are_pix2pixhds() -> None:
    data, state = reference("local2_instance")
    assert_reproduces(load(Pix2PixHD(5, 3, (32, 48), width=2, enhancers=2, depth=1, blocks=2, enhancer_blocks=1), state), data)


@torch.no_grad()
def test_the_global_generator_with_batch_norm_is_pix2pixhds() -> None:
    data, state = reference("global_batch")
    G = load(Pix2PixHD(5, 3, (32, 48), width=3, enhancers=0, depth=3, blocks=2, norm="batch"), state)
    torch.testing.assert_close(G.train()(data["input"]), data["output_train"], atol=2e-5, rtol=0)
    G = load(G, state)
    assert_reproduces(G, data)


def test_on_cityscapes_it_is_the_papers() -> None:
    """35 labels and edges.  The global generator alone, as the paper trains it first, has 182,546,755 parameters."""
    with torch.device("meta"):
        G, alone = Pix2PixHD(36, 3, (512, 1024)), Pix2PixHD(36, 3, (256, 512), width=64, enhancers=0)
        assert G(torch.empty(1, 36, 512, 1024)).shape == (1, 3, 512, 1024)
    assert sum(p.numel() for p in alone.parameters()) == 182_546_755
    assert [p.shape for p in G.global_generator.parameters()] == [p.shape for p in alone.global_generator.parameters()]
    assert len([m for m in G.modules() if isinstance(m, ResidualBlock)]) == 9 + 3
    assert (G.multiple, G.smallest) == (32, 64)


@pytest.mark.parametrize(("size", "enhancers", "halvings"), [((256, 256), 1, 4), ((64, 64), 1, 2), ((32, 64), 1, 1), ((100, 100), 1, 1), ((512, 512), 0, 4), ((32, 32), 0, 2)])
def test_the_depth_suits_the_size(size: tuple[int, int], enhancers: int, halvings: int) -> None:
    with torch.device("meta"):
        assert Pix2PixHD(1, 1, size, width=1, enhancers=enhancers).multiple == 2**(halvings + enhancers)


@pytest.mark.parametrize(("options", "message"), [
    ({"depth": 4}, "data.size=32x32 cannot be used; accepted: multiples of 32 from 64 up, for generator=pix2pixhd of depth 4"),
    ({"enhancers": -1}, "generator.enhancers=-1"), ({"blocks": 0}, "generator.blocks=0"), ({"enhancer_blocks": -1}, "generator.enhancer_blocks=-1"),
    ({"dropout": 1.0}, "generator.dropout=1.0"), ({"width": 0}, "generator.width=0"), ({"depth": 9}, "generator.depth=9")])
def test_what_it_cannot_do_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Pix2PixHD(3, 3, (32, 32), **options)
