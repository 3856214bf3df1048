"""A contract over all generators from noise and all discriminators."""

import typing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from i2i.errors import RequestError
from i2i.nets.class_conditioning import ClassEmbedding
from i2i.nets.minibatch_discrimination import MinibatchStdDev
from i2i.registry import Spec, build, lookup, names, schema

TINY = {"width": 4, "decoder_width": 8, "channels": 4, "max_channels": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 2}
WIDE = {"mlp": 16}      # Of four ReLU units in each of four layers all may be dead.
CLASSES = 3


def cases(kind: str) -> list[tuple[str, dict[str, object], int, tuple[int, int]]]:
    """Every component, without classes and with each of its conditions, at 32x32, 32x64 and, where that is common, 28x28."""
    out: list[tuple[str, dict[str, object], int, tuple[int, int]]] = []
    for name in names(kind):
        options = schema(kind, name)
        ways = typing.get_args(options["condition"].type) if "condition" in options else ()
        out += [(name, {}, 0, (32, 32)), (name, {}, 0, (32, 64))] + [(name, {"condition": way} if way else {}, CLASSES, (32, 32)) for way in ways or ("",)]
    return [*out, ("dcgan", {}, 0, (28, 28)), ("dcgan", {}, CLASSES, (28, 28))]


def case_name(case: tuple[str, dict[str, object], int, tuple[int, int]]) -> str:
    name, options, classes, size = case
    return "-".join([name, *map(str, options.values()), *(["labels"] if classes else []), f"{size[0]}x{size[1]}"])


def make(kind: str, case: tuple[str, dict[str, object], int, tuple[int, int]], channels: int = 3, seed: int = 0) -> nn.Module:
    name, options, classes, size = case
    torch.manual_seed(seed)
    tiny = {key: value for key, value in TINY.items() if key in schema(kind, name)} | ({"width": WIDE[name]} if name in WIDE else {})
    return build(kind, Spec(name, {**tiny, **options}), channels, size, classes)


def opened(network: nn.Module) -> nn.Module:
    """Set the learned strengths that start at 0, which would hide what they multiply."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    return network


def settled(G: nn.Module, classes: int) -> nn.Module:
    """The network in eval mode, with the running statistics of its own outputs."""
    for module in opened(G).modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    for _ in range(12):       # Each norm needs those before it to be settled.
        G(torch.randn(8, G.z_dim), labels(classes, 8))
    return G.eval()


def labels(classes: int, n: int) -> Tensor | None:
    return torch.arange(n) % classes if classes else None


def stages(network: nn.Module) -> typing.Iterator[None]:
    """Run it once or, if it grows, at each stage: smallest size, every fade, full size."""
    for progress in [i / 12 for i in range(13)] if hasattr(network, "set_progress") else [1.0]:
        if hasattr(network, "set_progress"):
            network.set_progress(progress)
        yield


def judge(D: nn.Module, *inputs: Tensor | None) -> Tensor:
    """The logits of all outputs.  -> (N, 1, ...)"""
    out = D(*inputs)
    return torch.cat([each.flatten(2) for each in out], 2) if isinstance(out, list) else out


def independent(network: nn.Module) -> bool:
    return not any(isinstance(module, MinibatchStdDev) for module in network.modules())


def saved(network: nn.Module, path: Path) -> dict[str, Tensor]:
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return load_file(path)


@pytest.mark.parametrize("case", cases("noise_generator"), ids=case_name)
class TestGenerators:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_shape(self, case, channels: int) -> None:
        _, _, classes, size = case
        G = make("noise_generator", case, channels)
        out = G(torch.randn(2, G.z_dim), labels(classes, 2))
        assert out.shape == (2, channels, *size)
        assert out.isfinite().all()
        assert out.std() > 0
        assert G.num_classes == classes

    def test_every_parameter_gets_a_gradient(self, case) -> None:
        G = opened(make("noise_generator", case))
        for _ in stages(G):
            G(torch.randn(4, G.z_dim), labels(case[2], 4)).sin().sum().backward()
        assert [name for name, p in G.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_in_eval_mode_an_image_depends_on_its_z_and_label_alone(self, case) -> None:
        G = settled(make("noise_generator", case), case[2])
        z, c = torch.randn(3, G.z_dim), labels(case[2], 3)
        for _ in stages(G):
            both = G(z, c)
            alone = torch.cat([G(z[i:i + 1], None if c is None else c[i:i + 1]) for i in range(3)])
            torch.testing.assert_close(both, alone, atol=1e-4, rtol=1e-4)
            assert torch.equal(both, G(z, c))
            assert (both[0] - both[1]).abs().mean() > 0.01

    def test_it_runs_on_meta_tensors(self, case) -> None:
        with torch.device("meta"):
            G = make("noise_generator", case)
            if hasattr(G, "set_progress"):
                G.set_progress(0.25)
            c = torch.zeros(2, dtype=torch.int64) if case[2] else None
            assert G(torch.empty(2, G.z_dim), c).shape == (2, 3, *case[3])

    def test_the_state_dict_holds_its_whole_state(self, case, tmp_path: Path) -> None:
        G, other = opened(make("noise_generator", case)), make("noise_generator", case, seed=1).eval()
        if hasattr(G, "set_progress"):
            G.set_progress(0.25)
        z, c = torch.randn(2, G.z_dim), labels(case[2], 2)
        G(z, c)         # Running statistics, the mean style.
        assert not torch.equal(G.eval()(z, c), other(z, c))
        other.load_state_dict(saved(G, tmp_path / "G.safetensors"))
        assert torch.equal(G(z, c), other(z, c))

    def test_it_trains_under_bfloat16_autocast(self, case) -> None:
        G = opened(make("noise_generator", case))
        with torch.autocast("cpu", torch.bfloat16):
            out = G(torch.randn(2, G.z_dim), labels(case[2], 2))
        out.float().square().mean().backward()
        assert out.isfinite().all()
        assert all(p.grad.isfinite().all() for p in G.parameters() if p.grad is not None)


@pytest.mark.parametrize("case", cases("discriminator"), ids=case_name)
class TestDiscriminators:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_logits(self, case, channels: int) -> None:
        _, _, classes, size = case
        D = make("discriminator", case, channels)
        out = judge(D, torch.randn(2, channels, *size), labels(classes, 2))
        assert out.shape[:2] == (2, 1)
        assert out.isfinite().all()
        assert D.num_classes == classes

    def test_every_parameter_gets_a_gradient(self, case) -> None:
        D = opened(make("discriminator", case))
        for _ in stages(D):
            judge(D, torch.randn(4, 3, *case[3]), labels(case[2], 4)).sin().sum().backward()
            if hasattr(D, "self_supervise"):
                D.self_supervise(torch.randn(4, 3, *case[3]), labels(case[2], 4))[1].backward()
        assert [name for name, p in D.named_parameters() if p.grad is None or not p.grad.any()] == []

    def test_in_eval_mode_images_are_independent_unless_the_network_compares_them(self, case) -> None:
        D = opened(make("discriminator", case)).eval()
        x, c = torch.randn(3, 3, *case[3]), labels(case[2], 3)
        alone = torch.cat([judge(D, x[i:i + 1], None if c is None else c[i:i + 1]) for i in range(3)])
        assert torch.equal(judge(D, x, c), judge(D, x, c))
        assert torch.allclose(judge(D, x, c), alone, atol=1e-4, rtol=1e-4) == independent(D)

    def test_it_runs_on_meta_tensors(self, case) -> None:
        with torch.device("meta"):
            D = make("discriminator", case)
            if hasattr(D, "set_progress"):
                D.set_progress(0.25)
            assert judge(D, torch.empty(2, 3, *case[3]), torch.zeros(2, dtype=torch.int64) if case[2] else None).shape[:2] == (2, 1)

    def test_the_state_dict_holds_its_whole_state(self, case, tmp_path: Path) -> None:
        D, other = opened(make("discriminator", case)), make("discriminator", case, seed=1).eval()
        if hasattr(D, "set_progress"):
            D.set_progress(0.25)
        x, c = torch.randn(2, 3, *case[3]), labels(case[2], 2)
        judge(D, x, c)
        assert not torch.equal(judge(D.eval(), x, c), judge(other, x, c))
        other.load_state_dict(saved(D, tmp_path / "D.safetensors"))
        assert torch.equal(judge(D, x, c), judge(other, x, c))

    def test_it_trains_under_bfloat16_autocast(self, case) -> None:
        D = opened(make("discriminator", case))
        with torch.autocast("cpu", torch.bfloat16):
            out = judge(D, torch.randn(2, 3, *case[3]), labels(case[2], 2))
        out.float().square().mean().backward()
        assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)

    def test_a_gradient_penalty_has_a_gradient(self, case) -> None:
        D = opened(make("discriminator", case)).double()
        x = torch.randn(2, 3, *case[3], dtype=torch.float64, requires_grad=True)
        gradient, = torch.autograd.grad(judge(D, x, labels(case[2], 2)).sum(), x, create_graph=True)
        gradient.square().sum().backward()
        moved = [p for p in D.parameters() if p.grad is not None and p.grad.any()]
        assert len(moved) >= len(list(D.parameters())) // 3
        assert all(p.grad.isfinite().all() for p in moved)


@pytest.mark.parametrize("case", [case for case in cases("noise_generator") if case[2]], ids=case_name)
def test_an_image_depends_on_its_label(case) -> None:
    G = make("noise_generator", case)
    for module in G.modules():
        if isinstance(module, ClassEmbedding):        # Gains and biases of classes start equal.
            nn.init.normal_(module.weight)
    settled(G, CLASSES)
    z = torch.randn(1, G.z_dim).expand(CLASSES, -1)
    for _ in stages(G):
        out = G(z, torch.arange(CLASSES))
        assert (out[0] - out[1]).abs().mean() > 0.01
        assert (out[1] - out[2]).abs().mean() > 0.01
    with pytest.raises(RequestError, match="needs the labels"):
        G(z)


@pytest.mark.parametrize("case", [case for case in cases("discriminator") if case[2]], ids=case_name)
def test_a_logit_depends_on_the_label(case) -> None:
    D, x = opened(make("discriminator", case)).eval(), torch.randn(1, 3, *case[3]).expand(CLASSES, -1, -1, -1)
    for _ in stages(D):
        out = judge(D, x, torch.arange(CLASSES)).flatten(1).mean(1)
        assert (out.diff().abs() > 1e-5).all()
    with pytest.raises(RequestError, match="needs the labels"):
        judge(D, x)


@pytest.mark.parametrize("case", [case for case in cases("discriminator") if hasattr(lookup("discriminator", case[0]), "trunk")], ids=case_name)
def test_trunk_and_head_make_up_the_network(case) -> None:
    D = opened(make("discriminator", case)).eval()
    x, c = torch.randn(2, 3, *case[3]), labels(case[2], 2)
    h = D.trunk(x, c)
    assert h.shape[1:] == D.feature_shape
    assert torch.equal(D.head(h, c), judge(D, x, c))
    if hasattr(D, "features"):
        assert torch.equal(D.features(x, c)[-1], h)
