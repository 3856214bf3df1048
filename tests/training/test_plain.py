"""What the loops that everyone clones compute (bench/plain.py) is what ours computes: with 64-bit numbers their losses agree to the last digits,
step after step, so what they differ by in 32 is rounding."""

import random
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from i2i.seeding import seed_step


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    import train  # type: ignore[import-not-found]
    torch.set_default_dtype(torch.float64)
    yield train
    torch.set_default_dtype(torch.float32)
    for name in ("train", "plain", "plain_stylegan2"):
        del sys.modules[name]


@pytest.mark.parametrize(("load", "size", "batch"), [("pix2pix", 256, 1), ("dcgan", 64, 4), ("cyclegan", 32, 1)])
def test_losses_are_those_of_the_plain_loop(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, load: str, size: int, batch: int) -> None:
    monkeypatch.setitem(bench.WORKLOADS, load, (bench.WORKLOADS[load][0], size, *bench.WORKLOADS[load][2:]))
    options, g = Namespace(width=4, batch=batch, device="cpu"), torch.Generator().manual_seed(0)
    ours = bench.make_trainer(load, [], options)
    plain = bench.make_plain_loop(load, options, ours)
    for step in range(3):
        data = bench.random_batch(load, options, g)
        told = bench.losses(ours, data)
        seed_step(0, 0, step)
        random.seed(0)
        for key, value in plain.step(data).items():
            assert told[key] == pytest.approx(value, rel=1e-10), (step, key)
