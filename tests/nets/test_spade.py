"""SPADE's norm, block and generator against the reference implementation (tests/reference/README.md)."""

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i.errors import RequestError
from i2i.nets.spade import SPADE, SPADEBlock, SPADEGenerator
from i2i.nets.weight_norm import SpectralNorm
from tests.conftest import REFERENCE

FOLDER = REFERENCE / "spade"
NAMES = {"param_free_norm": "norm", "mlp_shared.0": "shared", "mlp_gamma": "gamma", "mlp_beta": "beta", "weight_orig": "parametrizations.weight.original",
         "weight_u": "parametrizations.weight.0.u", "weight_v": "parametrizations.weight.0.v", "fc": "start", "conv_img": "output", "head_0": "blocks.0",
         "G_middle_0": "blocks.1", "G_middle_1": "blocks.2", "up_0": "blocks.3", "up_1": "blocks.4", "up_2": "blocks.5", "up_3": "blocks.6"}


def arrays(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(FOLDER / f"{name}.npz").items()}


def one_hot(label: Tensor, classes: int = 5) -> Tensor:
    return F.one_hot(label.long(), classes).permute(0, 3, 1, 2).float()


def translated(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name


def by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor of the source's state dict by the rule of tests/reference/README.md."""
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(("generator/" + name).encode()).digest()[:8], "little")))
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if name.endswith("running_var"):
        values = 1 + 0.2 * rng.random(shape)
    elif len(shape) > 1:
        values = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    else:
        values = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def of_reference(data: dict[str, Tensor]) -> SPADEGenerator:
    """The generator of five doublings from 2x2, with its weights: those of the rule, singular vectors as stored."""
    G = SPADEGenerator(5, 3, (64, 64), width=4, depth=5)
    theirs = {ours: name for name, ours in NAMES.items()}

    def source(name: str) -> str:
        for ours, original in theirs.items():
            name = name.replace(ours, original) if ours != "norm" else name.replace(".norm.", ".param_free_norm.")
        return name

    state = {}
    for name, value in G.state_dict().items():
        original = source(name)
        state[name] = data[f"buffer.{original}"] if original.endswith(("_u", "_v")) else by_rule(original, tuple(value.shape))
        assert translated(original) == name
    G.load_state_dict(state)
    return G


@torch.no_grad()
def test_the_norm_is_spades() -> None:
    data, state = arrays("norm_spadeinstance5x5"), torch.load(FOLDER / "norm_spadeinstance5x5.pth", weights_only=True)
    norm = SPADE("instance", 6, 5, kernel=5)
    norm.load_state_dict({translated(name): value for name, value in state.items()})
    torch.testing.assert_close(norm(data["x"], one_hot(data["label"])), data["train"], atol=2e-5, rtol=0)
    exact = norm.double()(data["x"].double(), one_hot(data["label"]).double())
    torch.testing.assert_close(exact, data["train_float64"], atol=1e-12, rtol=1e-9)


@torch.no_grad()
def test_the_block_without_a_learned_shortcut_is_spades() -> None:
    data, state = arrays("block_6to6_spadeinstance3x3"), torch.load(FOLDER / "block_6to6_spadeinstance3x3.pth", weights_only=True)
    block = SPADEBlock(6, 6, 5, "instance", 128)
    block.load_state_dict({translated(name): value for name, value in state.items()})
    torch.testing.assert_close(block(data["x"], one_hot(data["label"])), data["train"], atol=2e-5, rtol=0)
    exact = block.double()(data["x"].double(), one_hot(data["label"]).double())
    torch.testing.assert_close(exact, data["train_float64"], atol=1e-12, rtol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_generator_is_spades(mode: str) -> None:
    """Batch norm's running statistics and the stored singular vectors in eval mode; those of the batch and one iteration more in train mode."""
    data = arrays("generator")
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, None)):
        G = of_reference(data).to(dtype).train(mode == "train")
        out = G(one_hot(data["label"]).to(dtype))
        if tolerance:
            torch.testing.assert_close(out, data[mode], atol=tolerance, rtol=0)
        else:
            torch.testing.assert_close(torch.stack([out.sum((2, 3)), out.abs().sum((2, 3))]), data[f"{mode}_float64_sums"], atol=1e-8, rtol=1e-9)
        if mode == "train" and dtype == torch.float32:
            after = {name.removeprefix("after_train."): value for name, value in data.items() if name.startswith("after_train.")}
            state = G.state_dict()
            assert len(after) == 20
            for name, value in after.items():
                torch.testing.assert_close(state[translated(name)], value, atol=2e-5, rtol=1e-5)


def test_the_norm_is_its_formula() -> None:
    """Equation 1 with statistics of the batch, gamma and beta of each pixel's label; without gain and bias of its own."""
    norm = SPADE("batch", 2, 3, hidden=4).double()
    x, labels = torch.randn(2, 2, 6, 6, dtype=torch.float64), one_hot(torch.randint(0, 3, (2, 12, 12)), 3).double()
    h = F.relu(norm.shared(labels[:, :, ::2, ::2]))
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x, labels), (x - mean) / (variance + 1e-5).sqrt() * (1 + norm.gamma(h)) + norm.beta(h))
    assert not list(norm.norm.parameters())


def test_at_256_pixels_it_is_the_papers() -> None:
    """Appendix A: 1024, 1024, 1024, 512, 256, 128, 64 channels; as the reference implementation has them for its sizes."""
    with torch.device("meta"):
        G = SPADEGenerator(184, 3, (256, 256))
        assert [block.conv_1.out_channels for block in G.blocks] == [1024, 1024, 1024, 512, 256, 128, 64]
        assert (G.multiple, G.doubled) == (32, [0, 2, 3, 4, 5])
        assert G(torch.empty(1, 184, 256, 256)).shape == (1, 3, 256, 256)
        more = SPADEGenerator(36, 3, (512, 1024))
        assert (more.multiple, more.doubled) == (64, [0, 1, 2, 3, 4, 5])
    # On COCO-Stuff, with a class for the rest and edges, as the reference implementation prints.
    assert sum(p.numel() for p in G.parameters()) == 97_480_899


@pytest.mark.parametrize(("size", "doublings"), [((256, 256), 5), ((64, 64), 3), ((32, 64), 2), ((16, 16), 1), ((48, 48), 2), ((96, 32), 2), ((1024, 1024), 6), ((100, 100), 2)])
def test_the_depth_suits_the_size(size: tuple[int, int], doublings: int) -> None:
    with torch.device("meta"):
        G = SPADEGenerator(2, 1, size, width=1, hidden=1)
        assert G.multiple == 2**doublings
        assert G(torch.empty(1, 2, *size)).shape == (1, 1, *size)


def test_spectral_norm_is_that_of_the_blocks_convolutions_alone_and_optional() -> None:
    G = SPADEGenerator(2, 3, (32, 32), width=2, hidden=3)
    normalized = {name.split(".parametrizations")[0] for name, module in G.named_modules() if isinstance(module, SpectralNorm)}
    assert normalized == {f"blocks.{i}.{name}" for i, block in enumerate(G.blocks) for name, layer in block.named_children() if isinstance(layer, nn.Conv2d)}
    assert not any(isinstance(m, SpectralNorm) for m in SPADEGenerator(2, 3, (32, 32), width=2, spectral_norm=False).modules())


@pytest.mark.parametrize(("options", "message"), [
    ({"depth": 5}, "data.size=32x32 cannot be used; accepted: multiples of 32 from 64 up, for generator=spade of depth 5"), ({"depth": 7}, "generator.depth=7"),
    ({"width": 0}, "generator.width=0"), ({"hidden": 0}, "generator.hidden=0")])
def test_what_it_cannot_do_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SPADEGenerator(3, 3, (32, 32), **options)
