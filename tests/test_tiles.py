"""Images computed in parts: the result of the whole image, within a limit of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from i2i import Chain, RequestError, load
from i2i.data.sources.folder import Folder
from i2i.errors import JobError
from i2i.images.decode import decode_file
from i2i.images.tiff_stream import open_rows
from i2i.inference.model import Model
from i2i.inference.tiled import execute
from i2i.inference.tiled.execute import Execution
from i2i.inference.tiled.limits import Limits
from i2i.inference.tiled.plan import Program
from i2i.nets.label_maps import SourceEncoder
from i2i.nets.norms import BatchNorm
from i2i.nets.padding import pad_to_multiple
from i2i.nets.pix2pixhd import Pix2PixHD
from i2i.nets.resnet import ResNet
from i2i.nets.spade import SPADEGenerator
from i2i.nets.unet import UNet
from i2i.recipes.base import Family
from tests.conftest import Run

CPU = torch.device("cpu")
COLORS = [(-1.0, -1.0, -1.0), (1.0, 0.0, 0.0), (0.0, 1.0, -1.0)]


class Padded(nn.Module):
    """A network with the padding that a model adds around it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.multiple = max((getattr(each, "multiple", 1) for each in network.modules()), default=1)
        self.smallest = max((getattr(each, "smallest", 1) for each in network.modules()), default=1)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        padded, top, left = pad_to_multiple(x, self.multiple, self.smallest)
        return self.network(padded)[..., top:top + x.shape[2], left:left + x.shape[3]]


def prepared(network: nn.Module) -> Padded:
    """In eval mode, with weights and running statistics that make much of the image."""
    network = network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.running_mean.normal_(0, 0.1)     # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)   # type: ignore[union-attr]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.mul_(4)
    return Padded(network)


def per_image(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.per_image = True
    return network


def in_parts(program: Program, x: Tensor, limit: int, tile: int, *, disk: bool = False) -> tuple[Tensor, Execution]:
    execution = Execution(program, lambda a, b: x[..., a:b, :], limit, tile, CPU)
    if disk:
        execution._place(0)     # As where no memory is left for what is kept.
    return torch.cat([band for _, band in execution.run()], -2), execution


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet, batch norm": lambda: UNet(3, 2, (32, 32), width=4),
    "unet, batch norm of the image": lambda: per_image(UNet(3, 2, (16, 16), width=4, depth=3)),
    "unet, instance norm, bilinear, input skip": lambda: UNet(3, 3, (16, 16), width=4, depth=3, norm="instance", up="bilinear", input_skip=4),
    "resnet": lambda: ResNet(3, 3, (32, 32), width=4, blocks=2),
    "resnet without aliases": lambda: ResNet(1, 3, (32, 32), width=4, blocks=1, norm="batch", down="blurpool", up="resize"),
    "spade of a label map": lambda: nn.Sequential(SourceEncoder(4, COLORS, instances=True), SPADEGenerator(4, 3, (32, 32), width=4, depth=2, hidden=8)),
    "spade, instance norm": lambda: SPADEGenerator(3, 3, (32, 32), width=4, depth=2, hidden=8, norm="instance"),
    "pix2pixhd": lambda: Pix2PixHD(3, 3, (32, 32), width=4, depth=1, blocks=1, enhancer_blocks=1)}


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_make_the_whole(name: str) -> None:
    torch.manual_seed(0)
    size = (96, 160) if list(NETWORKS).index(name) % 2 else (77, 101)
    network = prepared(NETWORKS[name]())
    channels = {"resnet without aliases": 1, "spade of a label map": 4}.get(name, 3)
    x = torch.rand(1, channels, *size) * 2 - 1
    whole, program = network(x), Program(network, x.shape, CPU)
    assert whole.std() > 1e-3
    for limit, tile, disk in ((10**9, 0, False), (10**9, 7, False), (8 * 10**6, 0, False), (8 * 10**6, 1, True)):
        parts, execution = in_parts(program, x, limit, tile, disk=disk)
        assert (parts - whole).abs().max() < 1e-5, (limit, tile)
        assert not disk or execution.disk_bytes > x.nbytes / 4


class Operations(nn.Module):
    """Operations that none of i2i's networks has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, (5, 3), (3, 2), (2, 1), (2, 1), groups=2)
        self.up = nn.ConvTranspose2d(8, 4, 5, 3, 2, 1)
        self.squeeze = nn.Linear(4, 4)
        self.prelu = nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 2, 3, 4), "reflect")
        x = F.pad(F.pad(x, (0, 1, 2, 0), "replicate"), (2, 0, 1, 3), value=0.5)
        x = torch.cat([x, x.amax(1, keepdim=True)], 1)
        y = self.prelu(self.up(F.gelu(self.conv(x))))
        y = y * torch.sigmoid(self.squeeze(y.mean((2, 3))))[..., None, None]        # Squeeze and excitation.
        y = F.max_pool2d(y, 3, 2, 1) + F.avg_pool2d(y, 3, 2, 1, count_include_pad=False)
        y = torch.cat([y, y[..., 1:-1, :].flip(-1), y[..., -3:, :].flip(-2)], -2)
        a, b = F.pixel_shuffle(y, 2).repeat(1, 4, 1, 1).chunk(2, 1)
        b = F.interpolate(F.interpolate(b, scale_factor=1.5, mode="bilinear"), a.shape[2:], mode="bicubic")
        return (a.permute(0, 2, 3, 1).softmax(-1).permute(0, 3, 1, 2) + b).tanh() + (y.sum((2, 3)) / y.shape[3]).sin()[:, :1, None, None]


def test_operations_of_other_networks_are_exact_too() -> None:
    torch.manual_seed(0)
    network = Operations().eval().requires_grad_(False)
    x = torch.rand(1, 3, 61, 47)
    whole = network(x)
    program = Program(network, x.shape, CPU)
    for tile in (0, 1, 5):
        assert (in_parts(program, x, 10**8, tile)[0] - whole).abs().max() < 1e-5


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        q = x.flatten(2)
        return x + (q @ (q.mT @ q).softmax(-1)).view_as(x)


def test_what_takes_the_whole_image_is_computed_whole_where_it_fits_and_is_named_where_not() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), Attention()).eval().requires_grad_(False)
    x = torch.rand(1, 3, 24, 32)
    parts, _ = in_parts(Program(network, x.shape, CPU), x, 10**8, 5)
    assert (parts - network(x)).abs().max() < 1e-6
    with pytest.raises(RequestError, match=r"layer 1 \(Attention, aten.\S+\) takes the whole image, not parts of it; accepted: --memory of at least [\d.]+ [MG]B, or a smaller image"):
        in_parts(Program(network, (1, 3, 200, 200), CPU), torch.zeros(1, 3, 200, 200), 10**8, 0)
    with pytest.raises(RequestError, match="this model cannot be computed in parts: "):
        Program(nn.Sequential(DataDependent()), x.shape, CPU)


class DataDependent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


def test_a_limit_that_is_too_small_says_what_works() -> None:
    network = prepared(UNet(3, 3, (16, 16), width=4, depth=2))
    x = torch.rand(1, 3, 32, 2000)
    program = Program(network, x.shape, CPU)
    with pytest.raises(RequestError, match=r"one row of this image needs more than half of 0 MB of memory; accepted: --memory of at least (\d+) MB$") as error:
        in_parts(program, x, 1000, 0)
    least = int(str(error.value).split()[-2]) * 10**6
    with pytest.raises(RequestError, match=r"--tile 32 of this image needs more than half of \d+ MB of memory; accepted: --memory of at least \d+ MB, or smaller tiles"):
        in_parts(program, x, least, 32)
    in_parts(program, x, least + 10**6, 0)


def test_temporary_files_that_do_not_fit_are_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    network = prepared(UNet(3, 3, (32, 32), width=4))
    monkeypatch.setattr(execute.shutil, "disk_usage", lambda folder: type("", (), {"free": 1000}))
    x = torch.rand(1, 3, 320, 320)
    with pytest.raises(JobError, match=r"temporary files of \d+ MB are needed in .*, where 0 MB are free; accepted: a higher --memory, or TMPDIR=DIR on another disk"):
        in_parts(Program(network, x.shape, CPU), x, 4 * 10**6, 0)


def test_temporary_files_have_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the system removes them, however the process ends."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    network = prepared(UNet(3, 3, (32, 32), width=4))
    x = torch.rand(1, 3, 64, 64)
    execution = Execution(Program(network, x.shape, CPU), lambda a, b: x[..., a:b, :], 10**6, 4, CPU)
    execution._place(0)
    bands = execution.run()
    next(bands)
    assert any(isinstance(each, execute._OnDisk) for each in execution.kept.values())
    assert not list(tmp_path.iterdir())
    bands.close()       # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------- models

def test_a_model_in_parts_is_the_model(trained: Path) -> None:
    model, g = load(trained, "cpu"), np.random.default_rng(0)
    for array in (g.integers(0, 255, (53, 71, 3), np.uint8), g.integers(0, 255, (53, 71), np.uint8)):
        whole, parts = model.translate(array), model.translate(array, tile=9)
        assert np.abs(whole.astype(int) - parts).max() <= 1
        assert (whole != parts).mean() < 0.01
    x = torch.rand(2, 3, 40, 50) * 2 - 1
    assert (model.translate(x) - model.translate(x, tile=9)).abs().max() < 1e-6
    assert (model.translate(x[0], seed=3) - model.translate(x[0], seed=3, tile=9)).abs().max() < 1e-6
    assert (model.translate(x, seed=3) - model.translate(x)).abs().max() > 1e-5
    model.statistics = "image"
    assert (model.translate(x[:1]) - model.translate(x[:1], tile=9)).abs().max() < 1e-5
    chain = Chain(model, model)
    assert (chain.translate(x[0], seed=1) - chain.translate(x[0], seed=1, tile=16)).abs().max() < 1e-5
    image = Image.fromarray(g.integers(0, 255, (30, 40, 4), np.uint8), "RGBA")
    assert np.abs(np.asarray(model.translate(image)).astype(int) - model.translate(image, tile=4)).max() <= 1


def test_limits() -> None:
    assert Limits.parse() == Limits()
    assert Limits.parse("2GB", "512") == Limits(2 * 10**9, 512)
    assert Limits.parse("1.5 GiB", 7) == Limits(3 * 2**29, 7)
    assert Limits.parse(10**9) == Limits(10**9)
    for memory in ("10", "", "2G B", "-1GB", "0MB", 0, "much"):
        with pytest.raises(RequestError, match="memory=.* cannot be used; accepted: auto, or a size such as 500MB or 2GB"):
            Limits.parse(memory)
    for tile in ("0", 0, -3, "1.5", "all"):
        with pytest.raises(RequestError, match="tile=.* cannot be used; accepted: auto, or rows, 1 or more"):
            Limits.parse("auto", tile)


class Steps:
    family = Family("diffusion", steps="sampler.steps")


def test_images_that_do_not_fit_are_computed_in_parts_by_themselves(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(trained, "cpu")
    assert not Limits().in_parts(model, 1000, 1000)
    assert not Limits().in_parts(model, 1100, 1100)
    assert Limits(10**6).in_parts(model, 300, 300)
    assert not Limits(10**9).in_parts(model, 300, 300)
    monkeypatch.setattr(Model, "available_memory", lambda self: self.memory(1100, 1100) - 1)
    assert Limits().in_parts(model, 1100, 1100)
    model.recipe = Steps()
    with pytest.raises(RequestError, match="pixels need about"):
        Limits().in_parts(model, 1100, 1100)
    with pytest.raises(RequestError, match="a pix2pix model calls its network many times to make an image"):
        Limits(0, 5).in_parts(model, 10, 10)


# ------------------------------------------------------------------------------------------- TIFF

LAYOUTS: dict[str, dict[str, object]] = {
    "strips": {"rowsperstrip": 16}, "tiles": {"tile": (32, 48), "compression": "zlib"}, "planes": {"planarconfig": "separate", "tile": (16, 16)},
    "BigTIFF": {"bigtiff": True, "rowsperstrip": 10, "compression": "zlib"}}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_of_a_tiff_are_those_of_the_whole(tmp_path: Path, layout: str) -> None:
    g = np.random.default_rng(0)
    for dtype, channels, extra in (("uint8", 3, None), ("uint16", 4, ["unassalpha"]), ("float32", 1, None), ("uint8", 4, ["unassalpha"])):
        if layout == "planes" and channels == 1:
            continue
        array = (g.random((101, 77, channels)) * (1 if dtype == "float32" else 255)).astype(dtype)
        options = {"photometric": "rgb" if channels > 1 else "minisblack", "extrasamples": extra, **LAYOUTS[layout]}
        if layout == "planes":
            array = array.transpose(2, 0, 1)
        tifffile.imwrite(tmp_path / "x.tif", array[..., 0] if channels == 1 else array, resolution=(300, 300), **options)
        rows, whole = open_rows(tmp_path / "x.tif", 10**6), decode_file((tmp_path / "x.tif").read_bytes())
        assert rows is not None
        assert (rows.height, rows.width, rows.metadata.dpi) == (101, 77, whole.dpi)
        for low, high in ((0, 101), (50, 51), (15, 70), (0, 16), (90, 101)):
            part = rows.read(low, high)
            assert part.alpha == whole.alpha
            assert np.array_equal(part.array, whole.array[low:high])
        rows.close()
        with pytest.raises(ValueError, match="pixels"):
            open_rows(tmp_path / "x.tif", 1000)


def test_a_tiff_is_translated_without_being_whole_in_memory(trained: Path, tmp_path: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    g = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "x.tif", g.integers(0, 255, (300, 200, 3), np.uint8), photometric="rgb", tile=(64, 64), resolution=(300, 300))
    with tifffile.TiffWriter(tmp_path / "in" / "pyramid.tif") as writer:
        writer.write(g.integers(0, 255, (90, 70), np.uint8), rowsperstrip=8, subifds=1)
        writer.write(g.integers(0, 255, (45, 35), np.uint8), subfiletype=1)
    tifffile.imwrite(tmp_path / "in" / "cut.tif", g.integers(0, 255, (300, 200, 3), np.uint8), photometric="rgb", tile=(64, 64), compression="zlib")
    (tmp_path / "in" / "cut.tif").write_bytes((tmp_path / "in" / "cut.tif").read_bytes()[:-1000])
    assert i2i("translate", trained, "in", "--out", "whole", "--device", "cpu").code == 1
    monkeypatch.setattr("i2i.data.sources.folder.Folder.read", first_bytes(Folder.read))
    done = i2i("translate", trained, "in", "--out", "parts", "--device", "cpu", "--tile", 40)
    assert done.code == 1
    assert "failed: cut.tif: is truncated: pixels are missing" in done.err
    assert "has 1 smaller copies or masks, which the result has not, such as pyramid.tif" in done.err
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["pyramid.tif", "x.tif"]
    for name in ("x.tif", "pyramid.tif"):
        whole, parts = (decode_file((tmp_path / folder / name).read_bytes()) for folder in ("whole", "parts"))
        assert np.abs(whole.array.astype(int) - parts.array).max() <= 1
        assert whole.dpi == parts.dpi
    assert tifffile.TiffFile(tmp_path / "parts" / "x.tif").pages[0].is_tiled      # type: ignore[union-attr]


def first_bytes(read: Callable[..., bytes]) -> Callable[..., bytes]:
    """Reading a file that fails for whole files."""
    def limited(self: Folder, name: str, size: int | None = None) -> bytes:
        assert size is not None, f"{name} is read whole"
        return read(self, name, size)
    return limited
