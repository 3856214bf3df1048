"""Networks of stylegan2-ada-pytorch: converted they give the recorded images, from every kind of file; and nothing in a pickle is ever run.

No original pickle was at hand: the ones here are written by stand-ins for that project's modules, of the structure its `persistence` gives them.
"""

import io
import os
import pickle
import random
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from i2i import load
from i2i.convert import unpickle
from i2i.convert.fitting import fit
from i2i.convert.stylegan2 import read
from i2i.convert.unpickle import read_network
from i2i.errors import RequestError
from i2i.nets.style_generator import NoiseInjection
from i2i.recipes.base import DataInfo
from i2i.registry import Spec, build
from tests.conftest import REFERENCE, Run

STYLEGAN2 = REFERENCE / "stylegan2"
BUFFERS = ("noise_const", "resample_filter", "w_avg")


def tensors(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(STYLEGAN2 / f"{name}.npz").items()}


# ---------------------------------------------------------------------------------------------- their pickles

def stand_in(module: str, name: str, item: Any) -> Any:
    """Give something the name by which a pickle will call it."""
    item.__module__, item.__name__, item.__qualname__ = module, name, name
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    setattr(sys.modules[module], name, item)
    return item


def network_pickle(networks: dict[str, dict[str, Tensor]], protocol: int = 4) -> bytes:
    """What their training loop writes: modules that reduce to a record of their source code, their class and their state."""
    before = set(sys.modules)
    try:
        def rebuild(meta: dict[str, Any]) -> None:
            raise AssertionError("read by the real thing")

        rebuild = stand_in("torch_utils.persistence", "_reconstruct_persistent_obj", rebuild)
        settings = stand_in("dnnlib.util", "EasyDict", type("EasyDict", (dict,), {}))

        class Persistent(nn.Module):
            def __reduce__(self) -> tuple[Any, ...]:
                state = {**self.__dict__, "_init_args": (), "_init_kwargs": settings(z_dim=64, mapping_kwargs=settings(num_layers=4))}
                return rebuild, ({"type": "class", "version": 6, "module_src": "import os; os.system('touch owned')", "class_name": "Generator",
                                  "state": state},), None

        def module(found: dict[str, Tensor]) -> Persistent:
            made = Persistent()
            made.size, made.kind, made.rate = np.ones(2), np.dtype("float32"), np.float64(0.5)        # As stylegan3 has.
            for key, value in found.items():
                first, _, rest = key.partition(".")
                if rest and first not in made._modules:
                    made.add_module(first, module({k.split(".", 1)[1]: v for k, v in found.items() if k.startswith(first + ".")}))
                elif not rest and first in BUFFERS:
                    made.register_buffer(first, value)
                elif not rest:
                    made.register_parameter(first, nn.Parameter(value))
            return made

        data: dict[str, Any] = {key: module(found) for key, found in networks.items()}
        data |= {"augment_pipe": None, "training_set_kwargs": settings(path="/data", resolution=64, xflip=True, shape=[3, 64, 64])}
        return pickle.dumps(data, protocol=protocol)
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]


def test_the_pickles_are_what_they_claim() -> None:
    """Without those modules nothing else can read them, and they name what theirs name."""
    data = network_pickle({"G_ema": tensors("uncond64_G")})
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(data)
    for name in (b"torch_utils.persistence", b"_reconstruct_persistent_obj", b"_load_from_bytes", b"EasyDict", b"_rebuild_parameter", b"module_src"):
        assert name in data


# ---------------------------------------------------------------------------------------------- what they give

def write(kind: str, name: str, folder: Path) -> Path:
    """The generator as a file of each kind."""
    G, D = tensors(f"{name}_G"), tensors(f"{name}_D")
    path = folder / f"network.{kind.split()[-1]}"
    match kind.split():
        case ["pth"]:
            torch.save(G, path)
        case ["nested", "pth"]:
            torch.save({"G_ema": OrderedDict(G), "cur_nimg": 5}, path)
        case ["npz"]:
            np.savez(path, **{key: value.numpy() for key, value in G.items()})
        case ["safetensors"]:
            save_file({f"{player}.{key}": value for player, found in (("G_ema", G), ("D", D)) for key, value in found.items()}, path)
        case ["cuda", "pkl"]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
                path.write_bytes(network_pickle({"G_ema": G}))
            assert b"cuda:0" in path.read_bytes()
        case [protocol, "pkl"]:
            halved = {key: value / 2 for key, value in G.items()}
            path.write_bytes(network_pickle({"G": halved, "D": D, "G_ema": G}, int(protocol)))
    return path


@pytest.mark.parametrize(("name", "classes"), [("uncond64", 0), ("cond64_c5", 5)])
@pytest.mark.parametrize("kind", ["npz", "4 pkl"])
def test_converted_generators_give_the_recorded_images(kind: str, name: str, classes: int, i2i: Run, tmp_path: Path) -> None:
    result = i2i("convert", write(kind, name, tmp_path), "--out", tmp_path / "g.safetensors")
    assert result.code == 0, result.err
    assert "gan, stylegan2(z_dim=64, w_dim=64, width=16, max_channels=32, mapping_layers=4), noise -> 64x64, 3 channels" in result.out
    assert (", 5 classes" in result.out) == bool(classes)
    model, recorded = load(tmp_path / "g.safetensors", device="cpu"), tensors(name)
    G, z, c = model.modules["G"], recorded["z"], recorded["c"].argmax(1) if classes else None
    assert G.num_ws == recorded["num_ws"]

    def close(ours: Tensor, expected: Tensor, atol: float = 1e-4) -> None:
        torch.testing.assert_close(ours, expected, atol=atol, rtol=0)

    with torch.inference_mode():
        close(G.mapping(z, c), recorded["ws_psi1"])
        close(G(z, c), recorded["image_psi1"])
        close(G.synthesize(recorded["ws_psi1"][:, None].expand(-1, G.num_ws, -1)), recorded["image_psi1"])
        model.set_truncation(0.7)
        close(G.styles(z, c)[:, -1], recorded["ws_psi07"])
        close(G(z, c)[:1], recorded["image_psi07_first1"])
        close(G(z, c).double().sum((2, 3)), recorded["image_psi07_sums"], atol=0.1)        # Of 4,096 pixels.
        model.set_truncation(1)
        for module in G.modules():
            if isinstance(module, NoiseInjection):
                module.strength.zero_()
        close(G(z, c)[:1, :, ::2, ::2], recorded["image_none_noise_first1"])


@pytest.mark.parametrize("kind", ["pth", "nested pth", "safetensors", "2 pkl", "3 pkl", "5 pkl", "cuda pkl"])
def test_every_kind_of_file_gives_the_same_model(kind: str, i2i: Run, tmp_path: Path) -> None:
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for each, out in zip(("npz", kind), outs, strict=True):
        result = i2i("convert", write(each, "cond64_c5", tmp_path), "--out", out)
        assert result.code == 0, result.err
    a, b = (load(out, device="cpu").modules.state_dict() for out in outs)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_file_itself_is_not_written_over(i2i: Run, tmp_path: Path) -> None:
    path = write("safetensors", "uncond64", tmp_path)
    before = path.read_bytes()
    for words in ([], ["--out", path]):
        result = i2i("convert", path, *words)
        assert result.code == 2
        assert "choose another --out" in result.line
    assert path.read_bytes() == before


def test_a_converted_model_generates(i2i: Run, tmp_path: Path) -> None:
    i2i("convert", write("npz", "cond64_c5", tmp_path))
    model = load(tmp_path / "network.safetensors", device="cpu")
    assert model.classes == ("0", "1", "2", "3", "4")
    images = model.generate(3, labels=[4, 0, 4], seed=1)
    assert images.shape == (3, 3, 64, 64)
    assert torch.equal(images[2:], model.generate(3, labels=[1, 2, 4], seed=1)[2:])
    assert model.generate(3, labels=[4], seed=1, truncation=0.0).std(0).max() < 1e-5


def theirs(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of one of our generators under their names."""
    out = {}
    for key, value in ours.items():
        first, _, rest = key.partition(".")
        rest = rest.replace("noise.strength", "noise_strength").replace("noise.constant", "noise_const")
        value = value.squeeze() if "noise" in rest else value
        if key in ("w_avg", "constant"):
            name = {"w_avg": "mapping.w_avg", "constant": "synthesis.b4.const"}[key]
        elif first == "mapping":
            name = key.replace("layers.", "fc")
        elif first == "first":
            name = f"synthesis.b4.conv1.{rest}"
        else:
            i, leaf = rest.split(".", 1)
            name = f"synthesis.b{4 << (int(i) + (first != 'rgb'))}.{ {'up': 'conv0', 'layers': 'conv1', 'rgb': 'torgb'}[first]}.{leaf}"
        out[name] = value
    return out


@pytest.mark.parametrize("options", [
    {"z_dim": 5, "w_dim": 7, "width": 2, "max_channels": 8, "mapping_layers": 2}, {"z_dim": 8, "w_dim": 4, "width": 6, "max_channels": 6, "mapping_layers": 1},
    {"z_dim": 4, "w_dim": 4, "width": 4, "max_channels": 32, "mapping_layers": 8}])
@pytest.mark.parametrize(("side", "colors", "classes"), [(8, 1, 0), (32, 3, 4), (128, 3, 1)])
def test_any_size_is_read_from_the_tensors(options: dict[str, int], side: int, colors: int, classes: int) -> None:
    torch.manual_seed(0)
    G = build("noise_generator", Spec("stylegan2", options), colors, (side, side), classes).eval()
    found = read(theirs(G.state_dict()))
    spec, state = found.recipe.generator, fit(found)
    assert found.info == DataInfo((side, side), colors, colors, classes)
    same = build("noise_generator", spec, colors, (side, side), classes).eval()
    same.load_state_dict(state)
    z, c = torch.randn(2, options["z_dim"]), torch.zeros(2, dtype=torch.int64) if classes else None
    assert torch.equal(same(z, c), G(z, c))
    assert {key: spec.options[key] for key in ("z_dim", "w_dim", "mapping_layers")} == {key: options[key] for key in ("z_dim", "w_dim", "mapping_layers")}


# ---------------------------------------------------------------------------------------------- what is refused

class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def torch_bytes(content: object, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


TOUCH = "touch owned"
ATTACKS: dict[str, tuple[Any, str]] = {
    "a command": (Calls(os.system, TOUCH), "posix.system"),
    "an expression": (Calls(eval, "open('owned', 'w')"), "builtins.eval"),
    "statements": (Calls(exec, "open('owned', 'w')"), "builtins.exec"),
    "a file": (Calls(open, "owned", "w"), f"{open.__module__}.open"),
    "an import": (Calls(__import__, "os"), "builtins.__import__"),
    "an attribute": (Calls(getattr, 1, "real"), "builtins.getattr"),
    "torch.load": (Calls(torch.load, "owned.pth"), "torch.serialization.load"),
    "a tensor's bytes": (Calls(torch.storage._load_from_bytes, torch_bytes(Calls(os.system, TOUCH), False)), "posix.system"),
    "a tensor's zipped bytes": (Calls(torch.storage._load_from_bytes, torch_bytes(Calls(os.system, TOUCH), True)), "posix.system"),
    "a torch module": (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    "a class of ours": (Calls(unpickle._Module, {"state": {}}), "i2i.convert.unpickle._Module"),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("inside", [False, True])
def test_nothing_in_a_pickle_is_run(attack: str, inside: bool, i2i: Run, tmp_path: Path) -> None:
    content, name = ATTACKS[attack]
    for protocol in (2, 4):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": {"weights": [content]}} if inside else content, protocol=protocol))
        result = i2i("convert", tmp_path / "evil.pkl", "--out", tmp_path / "out.safetensors")
        assert result.code == 2
        expected = name if protocol == 4 else name.replace("builtins", "__builtin__")
        assert f"evil.pkl names {expected}, which no such network needs; nothing in it was run" in result.line
        assert not Path("owned").exists()
        assert not (tmp_path / "out.safetensors").exists()


def test_the_attacks_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "load", lambda file, **_: pickle.loads(file.read()))
    for attack in ("a command", "an expression", "statements", "a file"):
        pickle.loads(pickle.dumps(ATTACKS[attack][0]))
        assert Path("owned").exists()
        Path("owned").unlink()


def opcodes(*lines: bytes) -> bytes:
    """A pickle by hand."""
    return b"\x80\x02" + b"".join(lines) + b"."


def test_stand_ins_cannot_be_changed(tmp_path: Path) -> None:
    """BUILD sets attributes of whatever is on the stack; the names' stand-ins must not let it."""
    before = {name: (item, getattr(item, "_call", None)) for name, item in unpickle.ALLOWED.items()}
    for name in unpickle.ALLOWED:
        module, _, leaf = name.rpartition(".")
        for change in (b"}X\x05\x00\x00\x00_callNsb", b"N}X\x05\x00\x00\x00_callNs\x86b", b"}X\x07\x00\x00\x00__new__Nsb", b"N}X\x07\x00\x00\x00__new__Ns\x86b"):
            (tmp_path / "evil.pkl").write_bytes(opcodes(b"c", module.encode(), b"\n", leaf.encode(), b"\n", change))
            with pytest.raises(RequestError, match="evil.pkl"):
                read_network(tmp_path / "evil.pkl", "G_ema")
    assert {name: (item, getattr(item, "_call", None)) for name, item in unpickle.ALLOWED.items()} == before
    (tmp_path / "good.pkl").write_bytes(network_pickle({"G_ema": tensors("uncond64_G")}))
    assert read_network(tmp_path / "good.pkl", "G_ema").keys() == tensors("uncond64_G").keys()


def test_a_tensor_cannot_reach_beyond_its_numbers(tmp_path: Path) -> None:
    storage = torch.arange(4.0).untyped_storage()
    flat = Calls(torch.storage._load_from_bytes, torch_bytes(torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True), False))
    for offset, size, stride in ((0, (5,), (1,)), (3, (2,), (1,)), (0, (2, 3), (2, 1)), (0, (10**9,), (0,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (-2,), (1,))):
        content = Calls(torch._utils._rebuild_tensor_v2, flat, offset, size, stride, False, OrderedDict())
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": content}))
        with pytest.raises(RequestError, match="cannot be read as a network pickle"):
            read_network(tmp_path / "evil.pkl", "G_ema")


def test_damage_is_refused_in_our_words(tmp_path: Path) -> None:
    """Cut anywhere, or with bytes changed: either still a network, or a RequestError; never anything else."""
    small = build("noise_generator", Spec("stylegan2", {"z_dim": 2, "w_dim": 2, "width": 1, "max_channels": 1, "mapping_layers": 1}), 1, (8, 8), 0)
    data, chance = network_pickle({"G_ema": theirs(small.state_dict())}), random.Random(0)
    refused: list[str] = []
    for i in range(300):
        damaged = bytearray(data if i % 3 else data[:chance.randrange(len(data))])
        for _ in range(chance.randrange(3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (tmp_path / "x.pkl").write_bytes(damaged)
        try:
            read_network(tmp_path / "x.pkl", "G_ema")
        except RequestError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in line for line in refused)


def misfits() -> dict[str, tuple[dict[str, Tensor], str]]:
    good = tensors("uncond64_G")
    without = {key: value for key, value in good.items() if key != "synthesis.b16.conv0.weight"}
    narrow = {key: value[:, :5] if key == "synthesis.b16.conv0.weight" else value for key, value in good.items()}
    wide = {key: value.repeat(4, *[1] * (value.ndim - 1)) if key.startswith("synthesis.b64.conv1.weight") else value for key, value in good.items()}
    filtered = good | {"synthesis.b8.resample_filter": torch.ones(4, 4) / 16}
    gap = {key: value for key, value in good.items() if ".b16." not in key}
    rgba = theirs(build("noise_generator", Spec("stylegan2", {"z_dim": 2, "w_dim": 2, "width": 1, "max_channels": 1}), 4, (8, 8), 0).state_dict())
    flat = good | {"synthesis.b64.conv1.weight": torch.zeros(3)}
    return {"missing": (without, "nothing for synthesis.b16.conv0.weight"), "narrow": (narrow, "unexpected synthesis.b16.conv0.weight (32, 5, 3, 3)"),
            "wide": (wide, "its maps have 64, 32, 32, 32, 32 channels"), "filter": (filtered, "synthesis.b8.resample_filter is another filter"),
            "gap": (gap, "its maps are of 4, 8, 32, 64 pixels"), "more": (good | {"synthesis.b8.skip.weight": torch.zeros(32, 32, 1, 1)}, "unexpected synthesis.b8.skip.weight"),
            "rgba": (rgba, "images of 4 channels"), "flat": (flat, "nothing of 4 dimensions for synthesis.b64.conv1.weight"),
            "discriminator": (tensors("uncond64_D"), "generators of stylegan2-ada-pytorch"),
            "stylegan3": ({"synthesis.input.weight": torch.zeros(3, 3), "mapping.w_avg": torch.zeros(3)}, "generators of stylegan2-ada-pytorch")}


@pytest.mark.parametrize("name", misfits())
def test_other_networks_are_refused_in_one_line(name: str, i2i: Run, tmp_path: Path) -> None:
    found, words = misfits()[name]
    torch.save(found, tmp_path / "x.pth")
    result = i2i("convert", tmp_path / "x.pth", "--out", tmp_path / "out.safetensors")
    assert result.code == 2
    assert words in result.line
    assert not (tmp_path / "out.safetensors").exists()


def test_other_files_are_refused_in_one_line(i2i: Run, tmp_path: Path) -> None:
    good = network_pickle({"D": tensors("uncond64_D")})
    looped: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}}
    record = stand_in("torch_utils.persistence", "_reconstruct_persistent_obj", lambda meta: None)
    looped["_modules"]["again"] = Calls(record, {"state": looped})
    twice = Calls(record, {"state": {"_parameters": {}, "_buffers": {}, "_modules": {}}})
    objects = io.BytesIO()
    np.savez(objects, a=np.array([Calls(os.system, TOUCH)], dtype=object))
    files = {"no average.pkl": good, "cut.pkl": good[:-50], "text.pkl": b"hello", "empty.pkl": b"", "list.pkl": pickle.dumps([1, 2]), "text.npz": b"hello",
             "objects.npz": objects.getvalue(), "text.safetensors": b"hello", "empty.safetensors": b"",
             "twice.pkl": pickle.dumps({"G_ema": Calls(record, {"state": {"_parameters": {}, "_buffers": {}, "_modules": {"a": twice, "b": twice}}})}),
             "looped.pkl": pickle.dumps({"G_ema": Calls(record, {"state": looped})}),
             "no state.pkl": pickle.dumps({"G_ema": Calls(record, {"state": 5})})}
    for module in ("torch_utils.persistence", "torch_utils"):
        del sys.modules[module]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        result = i2i("convert", tmp_path / name, "--out", tmp_path / "out.safetensors")
        assert result.code == 2, name
        assert name in result.line
        assert not (tmp_path / "out.safetensors").exists()
    assert not Path("owned").exists()
