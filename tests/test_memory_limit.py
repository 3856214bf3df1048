"""Images that do not fit in memory: the others are translated, and each is named with what it needs."""

from __future__ import annotations

import json
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from i2i import Chain, load
from i2i.data.config import DataConfig
from i2i.data.image_set import open_image_set
from i2i.data.labeled import find_images
from i2i.data.sources import Folder, Unreadable, base, load_image, open_source
from i2i.errors import JobError, RequestError
from i2i.evaluation.feature_extraction import extract_features
from i2i.images import memory as host
from i2i.images.encode import encode
from i2i.images.format import Array, ImageFormat
from i2i.inference import memory
from i2i.inference import translate as translation
from i2i.inference.model import Model
from i2i.inference.tiled import files as parts
from i2i.inference.tiled import limits
from tests.conftest import SMALL, Run

SIDE = 1100     # More than a million pixels.


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    g = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a1", "z2", "z3"):
        Image.fromarray(g.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    Image.new("RGB", (SIDE, SIDE), (10, 90, 200)).save(tmp_path / "in" / "m_big.png")
    return tmp_path / "in"


def test_one_large_image_that_does_not_fit_is_translated_in_parts(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = load(trained, "cpu").memory(SIDE, SIDE)
    assert i2i("translate", trained, pictures, "--out", "whole", "--device", "cpu").code == 0
    monkeypatch.setattr(Model, "available_memory", lambda self: needed // 4)
    monkeypatch.setattr(Model, "__call__", fails_for(SIDE))
    assert i2i("translate", trained, pictures, "--out", "out", "--device", "cpu").code == 0
    for path in (tmp_path / "whole").iterdir():
        whole, parts = (np.asarray(Image.open(folder / path.name)).astype(int) for folder in (tmp_path / "whole", tmp_path / "out"))
        assert np.abs(whole - parts).max() <= 1


def fails_for(side: int) -> object:
    """Models that fail for whole images of a side."""
    original = Model.__call__

    def limited(self: Model, images: torch.Tensor, **options: object) -> torch.Tensor:
        assert images.shape[-1] != side
        return original(self, images, **options)     # type: ignore[arg-type]

    return limited


def test_one_large_image_that_takes_too_much_in_parts_is_named_and_the_others_are_done(pictures: Path, trained: Path, i2i: Run, tmp_path: Path) -> None:
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu", "--memory", "1MB", "--batch", 1)
    assert done.code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a1.png", "z2.png", "z3.png"]
    assert "failed: m_big.png: one row of this image needs more than half of 1 MB of memory; accepted: --memory of at least" in done.err
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu", "--skip-existing", "--memory", "100MB", "--tile", 64)
    assert done.code == 0
    assert Image.open(tmp_path / "out" / "m_big.png").size == (SIDE, SIDE)
    for wrong, line in ((("--memory", "10"), "--memory=10 cannot be used; accepted: auto, or a size such as 500MB or 2GB"),
                        (("--tile", "0"), "--tile=0 cannot be used; accepted: auto, or rows, 1 or more"),
                        (("--tile", "9", "--spread", "s", "--samples", 2), "--spread takes images whole; accepted: no --memory and no --tile")):
        done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu", *wrong)
        assert done.code == 2
        assert line in done.err


def test_memory_that_ends_all_the_same_is_of_that_image(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Model.__call__

    def limited(self: Model, images: torch.Tensor, **options: object) -> torch.Tensor:
        if images.shape[-1] == SIDE:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
        return original(self, images, **options)     # type: ignore[arg-type]

    monkeypatch.setattr(Model, "__call__", limited)
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu")
    assert done.code == 1
    needed = memory.format_bytes(load(trained, "cpu").memory(SIDE, SIDE))
    assert f"failed: m_big.png: {SIDE}x{SIDE} pixels, which need about {needed} once decoded, do not fit in memory; accepted: smaller images" in done.err
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert i2i("translate", trained, pictures, "--out", "stopped", "--device", "cpu", "--on-error", "stop").code == 1


def test_a_result_that_cannot_be_encoded_is_of_that_image(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = encode

    def limited(suffix: str, array: Array, *args: Any) -> bytes:
        if array.shape[0] == SIDE:
            raise MemoryError
        return original(suffix, array, *args)

    monkeypatch.setattr(parts, "encode", limited)
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu")
    assert done.code == 1
    assert "failed: m_big.png: its result does not fit in memory; accepted: a smaller image, or more memory" in done.err
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_the_estimate_is_what_a_translation_takes(trained: Path, tmp_path: Path) -> None:
    """Peak resident memory of a process of its own, within a quarter below and twice above.

    For 16 channels and more: convolutions round fewer up to blocks of 4 to 16, as the processor has instructions.
    """
    import subprocess

    import i2i as package
    wider = package.train("pix2pix", *SMALL, "generator.width=16", "train.images=4", data=trained.parent / "data", out=tmp_path / "wider", device="cpu")
    code = f"""
import threading, time, psutil, torch
from i2i import load
torch.set_num_threads(1)
model = load({str(wider)!r}, "cpu")
model(torch.zeros(1, 3, 256, 256))
x, base, peak, going = torch.zeros(1, 3, 1536, 1536), psutil.Process().memory_info().rss, [0], [True]
def watch():
    while going:
        peak[0] = max(peak[0], psutil.Process().memory_info().rss)
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
model(x)
going.clear()
thread.join()
print(peak[0] - base, model.memory(1536, 1536))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    measured, estimate = map(int, done.stdout.split())
    assert 0.75 * measured < estimate < 2 * measured, (measured, estimate)


def test_sizes_chains_and_devices(trained: Path) -> None:
    model = load(trained, "cpu")
    assert model.memory(2000, 1000) == pytest.approx(model.memory(1000, 2000), rel=0.02)
    assert model.memory(4000, 4000) == pytest.approx(16 * model.memory(1000, 1000), rel=0.05)
    assert Chain(model, model).memory(999, 999) == model.memory(999, 999)
    assert 0 < Chain(model).available_memory() <= psutil.virtual_memory().total
    model.check_memory(500, 500)
    with pytest.raises(RequestError, match="1000000x1000000 pixels need about"):
        model.check_memory(10**6, 10**6)


def test_evaluation_computes_in_parts_what_does_not_fit_and_names_what_cannot_be(trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("testA", "testB"):
        (tmp_path / "data" / side).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / side / "a.png")
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "data" / side / "big.png")
    command = ("evaluate", trained, "--data", "data", "--metrics", "l1", "--device", "cpu")
    whole = i2i(*command, "--json", "whole.json")
    needed = load(trained, "cpu").memory(SIDE, SIDE)
    monkeypatch.setattr(Model, "available_memory", lambda self: needed - 1)
    parts = i2i(*command, "--json", "parts.json")
    assert (whole.code, parts.code) == (0, 0), parts.err
    one, other = (json.loads(Path(name).read_text())["results"] for name in ("whole.json", "parts.json"))
    assert one.keys() == other.keys()
    assert other["l1"]["value"] == pytest.approx(one["l1"]["value"], rel=1e-4)
    monkeypatch.setattr(limits, "_only_whole", lambda model: "a model that takes images whole")
    done = i2i(*command)
    assert done.code == 1
    assert "big" in done.line
    assert f"{SIDE}x{SIDE} pixels need about" in done.line


# ---------------------------------------------------------------------------------------------- decoding

@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 MB, on which images are large from 100 kB on."""
    monkeypatch.setattr(host, "LARGE", 10**5)
    monkeypatch.setattr(host, "available_host_memory", lambda: 10**6)



@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", "16.png", "16.tif", "f.tif"])
def test_what_does_not_fit_is_refused_before_it_is_decoded(little: None, tmp_path: Path, suffix: str) -> None:
    dtype = {"16": "uint16", "f.": "float32"}.get(suffix[:2], "uint8")
    array = np.zeros((400, 500, 3), dtype)
    (tmp_path / f"x{suffix}").write_bytes(encode(suffix[suffix.index("."):], array, ImageFormat(3, dtype)))
    (tmp_path / f"y{suffix}").write_bytes(encode(suffix[suffix.index("."):], array[:50, :60], ImageFormat(3, dtype)))
    source = open_source(tmp_path)
    with pytest.raises(Unreadable, match=r"x\S+: 500 x 400 pixels need about .* GB of memory .* accepted: a smaller image, or more memory$"):
        load_image(source, f"x{suffix}")
    assert load_image(source, f"y{suffix}").array.shape == (50, 60, 3)


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_file_larger_than_the_memory_is_not_read(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    (pictures / "whole_slide.tif").write_bytes(b"II*\0" + bytes(3 * 10**6))
    where = pictures
    if packed:
        where = tmp_path / "in.zip"
        with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
            for each in pictures.iterdir():
                archive.write(each, each.name)
    monkeypatch.setattr(base, "LARGE", 10**6)
    monkeypatch.setattr(base, "available_host_memory", lambda: 2 * 10**6)
    monkeypatch.setattr(translation, "LARGE_FILE", 2 * 10**6)
    reason = "whole_slide.tif: the file has 0.0 GB, and 0.0 GB of memory are free; accepted: a smaller image, or more memory"
    done = i2i("translate", trained, where, "--out", "out", "--device", "cpu")
    assert (done.code, len(list((tmp_path / "out").iterdir()))) == (1, 4)
    assert f"{where.name}/{reason}" in done.err
    done = i2i("data", "check", where)
    assert "error    1 file too large for the memory that is free" in done.out
    assert f"{where.name}/{reason}" in i2i("evaluate", "--real", where, "--fake", where, "--metrics", "color").line


def test_large_files_are_read_when_their_turn_comes(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "m_big.png").unlink()
    assert i2i("translate", trained, pictures, "--out", "whole", "--device", "cpu", "--batch", 1).code == 0
    monkeypatch.setattr(translation, "LARGE_FILE", 1000)
    asked: list[tuple[str, int | None]] = []
    original = Folder.read

    def read(self: Folder, name: str, size: int | None = None) -> bytes:
        asked.append((name, size))
        return original(self, name, size)

    monkeypatch.setattr(Folder, "read", read)
    assert i2i("translate", trained, pictures, "--out", "parts", "--device", "cpu", "--batch", 1).code == 0
    assert sorted(asked, key=str) == sorted([(f"{name}.png", size) for name in ("a1", "z2", "z3") for size in (1000, None)], key=str)
    assert asked[-1] == ("z3.png", None)
    for name in ("a1", "z2", "z3"):
        assert (tmp_path / "parts" / f"{name}.png").read_bytes() == (tmp_path / "whole" / f"{name}.png").read_bytes()


def test_a_check_names_what_does_not_fit_and_examines_the_others(pictures: Path, little: None, i2i: Run) -> None:
    done = i2i("data", "check", pictures)
    assert done.code == 1
    assert "4 images, 1 not readable" in done.out
    assert f"error    1 file too large for the memory that is free\n         m_big.png: {SIDE} x {SIDE} pixels need about" in done.out


def out_of_memory(*args: object, **options: object) -> object:
    raise MemoryError


@pytest.mark.parametrize("where", ["i2i.images.pil.from_pil", "i2i.data.sources.folder.Folder.read", "i2i.data.check.file_facts.make_thumbnail"])
def test_a_check_goes_on_where_an_allocation_fails(pictures: Path, i2i: Run, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(where, out_of_memory)
    done = i2i("data", "check", pictures)
    assert done.code == 1
    assert "4 files too large for the memory that is free" in done.out
    assert "such as a1.png: does not fit in memory; accepted: a smaller image, or more memory" in done.out


def test_training_skips_or_names_what_does_not_fit(pictures: Path, little: None) -> None:
    images = find_images(open_source(pictures))["train"].for_evaluation((ImageFormat(), ImageFormat()), (32, 32))
    skipped: list[str] = []
    positions, batch = images.batch(range(4), lambda problem: skipped.append(str(problem)))     # As sample grids are read.
    assert positions == [0, 2, 3]
    assert batch["b"].shape == (3, 3, 32, 32)
    assert len(skipped) == 1
    assert "m_big.png: 1100 x 1100 pixels need about" in skipped[0]
    assert DataConfig().on_error == "stop"


def test_an_allocation_that_fails_after_decoding_names_the_file(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("i2i.data.transforms.Resize.resize", out_of_memory)
    images = find_images(open_source(pictures))["train"].for_evaluation((ImageFormat(), ImageFormat()), (32, 32))
    with pytest.raises(Unreadable, match=r"in/a1\.png: does not fit in memory; accepted: a smaller image, or more memory"):
        images.sample(0)


def test_evaluation_of_sets_names_what_does_not_fit(pictures: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, little: None) -> None:
    done = i2i("evaluate", "--real", pictures, "--fake", pictures, "--metrics", "l1")
    assert done.code == 1
    assert "m_big.png: 1100 x 1100 pixels need about" in done.line
    monkeypatch.undo()

    class Extractor:
        num_features, size = 4, 32
        prepare = staticmethod(out_of_memory)

    with pytest.raises(JobError, match=r"in/a1\.png: does not fit in memory; accepted"):
        extract_features(open_image_set(pictures, "--real"), Extractor())    # type: ignore[arg-type]
    monkeypatch.setattr("i2i.evaluation.feature_extraction._to_levels", out_of_memory)
    done = i2i("evaluate", "--real", pictures, "--fake", pictures, "--metrics", "l1")
    assert "a1.png or its partner does not fit in memory" in done.line


def test_large_images_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many are decoded at once as fit together, small ones always."""
    monkeypatch.setattr(host, "LARGE", 1000)
    monkeypatch.setattr(host, "available_host_memory", lambda: 5000)
    going, most = [0], [0]
    lock = threading.Lock()

    def decode() -> None:
        with host.reserve_memory(20, 10, 10):
            with lock:
                going[0] += 1
                most[0] = max(most[0], going[0])
            time.sleep(0.02)
            with host.reserve_memory(9, 11, 10):
                pass
            with lock:
                going[0] -= 1

    threads = [threading.Thread(target=decode) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == [2]
    assert going == [0]
    with pytest.raises(ValueError, match="60 x 10 pixels need about"), host.reserve_memory(60, 10, 10):
        pass
    with host.reserve_memory(50, 10, 10):
        pass


@pytest.mark.parametrize(("groups", "available"), [
    ({"": (10**9, 4 * 10**8, 0)}, 6 * 10**8), ({"": (10**9, 9 * 10**8, 5 * 10**8)}, 6 * 10**8), ({"": ("max", 9 * 10**8, 0)}, None), ({}, None),
    ({"a/b": (10**9, 9 * 10**8, 0), "a": ("max", 0, 0)}, 10**8), ({"a/b": (10**9, 10**8, 0), "a": (10**9, 8 * 10**8, 10**8)}, 3 * 10**8)],
    ids=["a limit", "file cache", "no limit", "no groups", "an inner group", "an outer group"])
def test_the_limits_of_containers_count_and_files_in_memory_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: dict[str, tuple[object, int, int]], available: int | None) -> None:
    monkeypatch.setattr(host, "CGROUPS", tmp_path)
    monkeypatch.setattr(host, "PROCESS_GROUP", tmp_path / "self")
    (tmp_path / "self").write_text("1:name=systemd:/x\n0::/a/b\n" if "a/b" in groups else "0::/\n")
    for group, (limit, used, cached) in groups.items():
        folder = tmp_path / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 7\n")
    assert min(host._control_groups(), default=None) == available
