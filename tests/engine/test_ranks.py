"""Two processes: they end identical, and resume too is exact."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from i2i.runs import checkpoint
from i2i.runs.folder import RunFolder
from tests.conftest import CYCLE, SMALL

SCRIPT = """
import sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from i2i import jobs, training
words, out, data, recipe = sys.argv[4:], sys.argv[1], sys.argv[2], sys.argv[3]
resume = recipe == "resume"
folder, job = jobs.request("" if resume else recipe, words, data=None if resume else data, out=None if resume else out, epochs=None,
                           resume=out if resume else None)
kept = {}
original = training.Trainer.run
def run(self, *args):
    kept["trainer"] = self
    return original(self, *args)
training.Trainer.run = run
class Stop:
    def started(self, images, total): pass
    def said(self, line): pass
    def progressed(self, images, logs): pass
training.execute(job, folder, resume=resume, device="cpu", observer=Stop())
mine = torch.cat([p.detach().double().flatten() for p in kept["trainer"].modules.parameters()])
all_of_them = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
dist.all_gather(all_of_them, mine)
if dist.get_rank() == 0:
    print("identical", all(torch.equal(mine, other) for other in all_of_them), dist.get_world_size(), mine.abs().sum().item())
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launch(*words: object) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}"]
    script = Path(str(words[0])).parent / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([*command, str(script), *map(str, words)], capture_output=True, text=True, timeout=240, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ranks_end_identical(strips: Path, tmp_path: Path, precision: str) -> None:
    out = launch(tmp_path / "two", strips, "pix2pix", *SMALL, "train.batch=4", "train.images=24", f"train.precision={precision}")
    assert "identical True 2" in out


def test_two_ranks_are_one_with_the_joint_batch_where_no_statistics_are_shared(strips: Path, tmp_path: Path) -> None:
    """With instance norm and no dropout an image does not feel its neighbours, so averaging gradients is exact up to rounding."""
    import i2i
    words = [*SMALL, "train.batch=4", "train.images=12", "generator.norm=instance", "discriminator.norm=instance", "generator.dropout=0"]
    launch(tmp_path / "two", strips, "pix2pix", *words)
    i2i.train("pix2pix", *words, data=strips, out=tmp_path / "one", device="cpu")
    ones, twos = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("one", "two"))
    for one, two in zip(ones, twos, strict=True):
        for key in ("images", "d", "gan", "l1"):
            assert two[key] == pytest.approx(one[key], rel=1e-4), key
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    # Not the weights: biases before an instance norm have no gradient but rounding, which Adam makes steps of.
    torch.testing.assert_close(i2i.load(tmp_path / "two").translate(x), i2i.load(tmp_path / "one").translate(x), atol=2e-3, rtol=0)


def test_resume_with_two_ranks_is_exact(strips: Path, tmp_path: Path) -> None:
    words = [*SMALL, "train.batch=4", "train.images=24", "train.tick=8"]
    launch(tmp_path / "straight", strips, "pix2pix", *words)
    launch(tmp_path / "cut", strips, "pix2pix", *words)
    for path in RunFolder(tmp_path / "cut").states()[1:]:
        path.unlink()       # As if it had been killed after its first kept state.
    launch(tmp_path / "cut", strips, "resume")
    (one, header), (other, other_header) = (checkpoint.load(RunFolder(tmp_path / name).states()[-1], "state") for name in ("straight", "cut"))
    assert header == other_header
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_command_line_under_a_launcher(strips: Path, tmp_path: Path) -> None:
    """One run folder though each process looks for a free one, one voice, and an interruption that stops both."""
    import signal
    import time
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={free_port()}",
               "-m", "i2i.cli", "train", "pix2pix", *SMALL, "--data", str(strips), "--device", "cpu", "train.batch=4"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*command, "train.images=8"], capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done: model") == 1
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["pix2pix"]

    process = subprocess.Popen([*command, "train.images=1M", "--out", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 120
    while len(RunFolder(tmp_path / "long").states()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert err.count("stopped and saved; continue with: i2i train --resume long") == 1, err[-3000:]


def test_cyclegan_ranks_end_identical_and_resume_with_pools_of_their_own(sides: Path, tmp_path: Path) -> None:
    """Each process has drawn its own images into its pools: they are saved for each, so resume is exact."""
    words = [*CYCLE, "train.batch=4", "train.images=28", "train.tick=16", "adversarial=wasserstein", "penalty=wgan-gp"]
    assert "identical True 2" in launch(tmp_path / "straight", sides, "cyclegan", *words)
    assert "identical True 2" in launch(tmp_path / "cut", sides, "cyclegan", *words)
    *_, middle, last = RunFolder(tmp_path / "cut").states()
    last.unlink()       # As if it had been killed.
    tensors, _ = checkpoint.load(middle, "state")
    assert not torch.equal(tensors["rank1.pool_b.images"], tensors["modules.pool_b.images"])
    assert "identical True 2" in launch(tmp_path / "cut", sides, "resume")
    (one, header), (other, other_header) = (checkpoint.load(RunFolder(tmp_path / name).states()[-1], "state") for name in ("straight", "cut"))
    assert header == other_header
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_what_either_rank_leaves_out_is_told_once(strips: Path, tmp_path: Path) -> None:
    for name in ("02.png", "07.png", "08.png"):
        (strips / "train" / name).write_bytes(b"broken")
    launch(tmp_path / "two", strips, "pix2pix", *SMALL, "train.images=40", "data.on_error=skip")
    entries = [json.loads(line) for line in (tmp_path / "two" / "skipped.jsonl").read_text().splitlines()]
    assert sorted(Path(entry["file"]).name for entry in entries) == ["02.png", "07.png", "08.png"]
    assert [entry["images"] for entry in entries] == sorted(entry["images"] for entry in entries)
    assert all(entry["images"] <= 40 for entry in entries)
