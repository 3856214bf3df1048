"""Images that do not fit in memory: the others are translated, and each is named with what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from i2i import Chain, load
from i2i.errors import RequestError
from i2i.inference import memory
from i2i.inference.model import Model
from tests.conftest import Run

SIDE = 1100     # More than a million pixels.


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    g = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name in ("a1", "z2", "z3"):
        Image.fromarray(g.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    Image.new("RGB", (SIDE, SIDE), (10, 90, 200)).save(tmp_path / "in" / "m_big.png")
    return tmp_path / "in"


def test_one_large_image_is_named_and_the_others_are_done(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = load(trained, "cpu").memory(SIDE, SIDE)
    monkeypatch.setattr(Model, "available_memory", lambda self: needed // 4)
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu")
    assert done.code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a1.png", "z2.png", "z3.png"]
    side = SIDE // 2
    assert f"failed: m_big.png: {SIDE}x{SIDE} pixels need about {memory.format_bytes(needed)} of memory, and {memory.format_bytes(needed // 4)} are free" in done.err
    assert f"accepted: at most about {side}x{side} pixels, or more memory" in done.err
    monkeypatch.setattr(Model, "available_memory", lambda self: needed + 1)
    assert i2i("translate", trained, pictures, "--out", "out", "--device", "cpu", "--skip-existing").code == 0
    assert Image.open(tmp_path / "out" / "m_big.png").size == (SIDE, SIDE)


def test_memory_that_ends_all_the_same_is_of_that_image(pictures: Path, trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Model.__call__

    def limited(self: Model, images: torch.Tensor, **options: object) -> torch.Tensor:
        if images.shape[-1] == SIDE:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")
        return original(self, images, **options)     # type: ignore[arg-type]

    monkeypatch.setattr(Model, "__call__", limited)
    done = i2i("translate", trained, pictures, "--out", "out", "--device", "cpu")
    assert done.code == 1
    assert f"failed: m_big.png: {SIDE}x{SIDE} pixels do not fit in memory; accepted: smaller images, or more memory" in done.err
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert i2i("translate", trained, pictures, "--out", "stopped", "--device", "cpu", "--on-error", "stop").code == 1


def test_the_estimate_is_what_a_translation_takes(trained: Path) -> None:
    """Peak resident memory of a process of its own, within a quarter below and twice above."""
    import subprocess
    code = f"""
import threading, time, psutil, torch
from i2i import load
torch.set_num_threads(1)
model = load({str(trained)!r}, "cpu")
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


def test_evaluation_names_the_pair_that_does_not_fit(trained: Path, i2i: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in ("testA", "testB"):
        (tmp_path / "data" / side).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / side / "a.png")
        Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "data" / side / "big.png")
    monkeypatch.setattr(Model, "available_memory", lambda self: 10**6)
    done = i2i("evaluate", trained, "--data", "data", "--metrics", "l1", "--device", "cpu")
    assert done.code == 1
    assert "big" in done.line
    assert f"{SIDE}x{SIDE} pixels need about" in done.line
