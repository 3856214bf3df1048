"""What training takes: the estimate, what is there, and what is said when it is not enough."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from i2i.training import job as jobs
from i2i.training import memory, plan
from tests.conftest import SMALL, Run


def test_the_estimate_is_the_bytes_of_a_step_by_hand() -> None:
    """One linear layer, its loss: inputs, output, gradient and scratch, counted on paper."""
    alive = memory.LiveTensors([])
    with alive:
        x = torch.empty(8, 1000, device="meta", requires_grad=True)     # 32,000 bytes.
        y = (x * 2).sum()                                               # As much for a moment, and 4.
        assert alive.bytes == 32_004
        y.backward()
        assert alive.bytes == 64_004 + 0
        del y, x
    assert alive.bytes == 0
    assert 64_004 <= alive.peak <= 96_016


def test_more_images_take_more_and_the_largest_batch_fits(strips: Path) -> None:
    job = jobs.prepare("pix2pix", [*SMALL, "generator.width=32"], data=strips)
    more = {"ema": True}
    totals = {batch: memory.estimate_memory(job.recipe, job.info, batch_size=batch, **more)[1].total for batch in (1, 8, 9)}
    assert totals[1] < totals[8] < totals[9]
    assert memory.largest_batch_size(job.recipe, job.info, (totals[8] + totals[9]) // 2, 100, **more) in (7, 8)
    assert memory.largest_batch_size(job.recipe, job.info, 1000, 100, **more) == 0


def test_the_gradients_that_are_sent_are_those_of_all_players(strips: Path) -> None:
    job = jobs.prepare("pix2pix", [*SMALL], data=strips)
    parts, estimate = memory.estimate_memory(job.recipe, job.info, batch_size=1, ema=False)
    assert estimate.gradients == 4 * sum(part.parameters for part in parts)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
                                   torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")])
def test_out_of_memory_names_the_largest_batch(i2i: Run, strips: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Planted in the second step."""
    from i2i.recipes.pix2pix import Pix2Pix
    original = Pix2Pix.step

    def step(self: Pix2Pix, m, batch, progress, update) -> None:  # type: ignore[no-untyped-def]
        if progress.step == 1 and batch["a"].device.type != "meta":
            raise error
        original(self, m, batch, progress, update)

    monkeypatch.setattr(Pix2Pix, "step", step)
    job = jobs.prepare("pix2pix", [*SMALL, "train.batch_size=64"], data=strips)
    room = memory.estimate_memory(job.recipe, job.info, batch_size=20, ema=True, copies=2)[1].total
    monkeypatch.setattr(memory, "available_memory", lambda device: room)
    done = i2i("train", "pix2pix", *SMALL, "train.batch_size=64", "train.images=1k", "--data", strips, "--out", "run", "--device", "cpu")
    assert done.code == 1
    assert "the largest batch that would fit is about train.batch_size=" in done.line
    assert 18 <= int(done.line.split("train.batch_size=")[1].split(",")[0]) <= 20
    assert done.line.endswith(", or set train.gradient_checkpointing=true")
    assert "; warning: only" in done.out
    done = i2i("train", "pix2pix", *SMALL, "train.batch_size=64", "train.images=1k", "--data", strips, "--out", "again", "--device", "cpu", "train.gradient_checkpointing=true")
    assert "gradient_checkpointing" not in done.line
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    assert "more than 4 times the" in i2i("train", "--resume", "run", "--device", "cpu").line
    monkeypatch.setattr(plan, "MAX_OVERCOMMIT", 1e9)
    assert "no smaller batch would fit" in i2i("train", "--resume", "run", "--device", "cpu").line


def test_a_killed_loader_is_not_answered_by_advice_to_use_less_memory() -> None:
    assert not memory.is_out_of_memory(RuntimeError("some other error"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_under_a_limit_of_the_system_one_line_is_reported(tmp_path: Path) -> None:
    """The address space ends in the middle of a step, and what is said to fit does fit."""
    code = f"""
import psutil, resource, sys, torch; torch.set_num_threads(1)
from i2i.cli import app
from i2i.training import memory
taken = psutil.Process().memory_info().vms
words = ["train", "pix2pix", "generator.width=8", "discriminator.width=8", "train.images=64", "train.checkpoint_every=1k", "data.size=64", "--device", "cpu"]
app.run([*words, "train.batch_size=2", "train.images=2", "--out", "warm"])
taken = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (taken + {300 << 20}, resource.RLIM_INFINITY))
code = app.run([*words, "train.batch_size=512", "--out", "large"])
print("CODE", code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path)
    assert "CODE 1" in done.stdout, done.stderr[-2000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Traceback" not in done.stderr
    most = int(line.split("train.batch_size=")[1].split(",")[0])
    assert 1 <= most < 512, line
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 0


LOADS = {"pix2pix 64": ("pix2pix", "data.size=64", "generator.width=32", "train.batch_size=8", "train.images=24"),
         "pix2pix 128": ("pix2pix", "data.size=128", "generator.width=32", "train.batch_size=4", "train.images=12"),
         "pix2pix 256": ("pix2pix", "data.size=256", "train.images=3"),
         "resnet": ("pix2pix", "data.size=128", "generator=resnet", "generator.width=32", "train.batch_size=2", "train.images=6"),
         "cyclegan": ("cyclegan", "data.size=64", "train.images=2"),
         "fastgan": ("gan", "generator=fastgan", "discriminator=fastgan", "g_weight_norm=spectral", "train.batch_size=16", "train.images=48"),
         "projected": ("gan", "generator=fastgan", "discriminator=projected", "g_weight_norm=spectral", "adversarial=hinge", "train.batch_size=32", "train.images=96"),
         "pix2pix projected": ("pix2pix", "data.size=64", "generator.width=32", "discriminator=projected", "train.batch_size=8", "train.images=24"),
         "pix2pix perceptual": ("pix2pix", "data.size=64", "generator.width=32", "perceptual=features", "train.batch_size=8", "train.images=24"),
         "cut": ("cut", "data.size=64", "generator.width=32", "train.batch_size=2", "train.images=6"),
         "dcgan": ("dcgan", "train.batch_size=64", "train.images=192"),
         "wgan-gp": ("wgan-gp", "data.size=32", "train.batch_size=64", "train.images=192"),
         "stylegan2": ("stylegan2", "train.batch_size=8", "train.images=24")}
SEEN = """
import re, sys, torch
torch.set_num_threads(1)
import i2i
from i2i.training import memory
from i2i.training.callbacks.base import Callback

class Listener(Callback):
    def on_message(self, message):
        if message.startswith("memory: about"):
            print("estimate", message)

i2i.train(*sys.argv[1:], out="run", device="cpu", callbacks=[Listener()])
print("peak", memory.peak_memory())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak where Linux tells it")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name == "dcgan" else pytest.mark.slow) for name in LOADS])
def test_the_reported_memory_is_what_the_system_shows(name: str, tmp_path: Path) -> None:
    """Everything counted in: torch, libraries, data, saving in the background, sample grids, evaluation with features."""
    done = subprocess.run([sys.executable, "-c", SEEN, *LOADS[name]], capture_output=True, text=True, check=True, cwd=tmp_path)
    said = re.search(r"estimate memory: about .* beside torch itself, ([\d.]+) (MB|GB) in all", done.stdout)
    assert said, done.stdout
    estimated = float(said[1]) * {"MB": 1e6, "GB": 1e9}[said[2]]
    peak = int(done.stdout.split("peak ")[-1])
    assert 0.75 < estimated / peak < 1.25, (estimated, peak)
