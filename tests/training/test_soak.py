"""Two thousand steps at constant memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SMALL
from tests.two_processes import ROOT

RUNS = {"pix2pix": ("pix2pix", *SMALL), "dcgan": ("dcgan", "generator.width=4", "generator.z_dim=8", "discriminator.width=4", "train.batch_size=2")}
GROWTH = 0.02
CODE = """
import json, os, sys
import torch
from i2i import train
from i2i.training import train as training
from i2i.training.callbacks.base import Callback
from i2i.training.callbacks import fixed_inputs as look
torch.set_num_threads(1)
training.best_embedding = lambda device, tell, *rest: look.thumbnails(look.THUMBNAIL_SIZE)     # As in the other tests: features take longer than the training.
page, sizes = os.sysconf("SC_PAGE_SIZE"), []

class Measuring(Callback):
    def on_step(self, trainer, logs):
        if trainer.images % 40 == 0:
            sizes.append((trainer.images, page * int(open("/proc/self/statm").read().split()[1])))

words, data, out = json.loads(sys.argv[1])
train(*words, data=data, out=out, device="cpu", callbacks=[Measuring()])
print(json.dumps(sizes))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_thousand_steps_at_constant_memory(name: str, strips: Path, tmp_path: Path) -> None:
    """With logs, sample grids, states, evaluations, the alarm and jitter.  The first quarter is for caches to fill."""
    words = [word for word in RUNS[name] if not word.startswith(("train.log_every=", "train.checkpoint_every="))]
    words += ["train.images=4000", "train.log_every=20", "train.checkpoint_every=400", "train.collapse_every=100"]
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps([words, str(strips if name == "pix2pix" else strips / "train"), str(tmp_path / "run")])],
                          capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    sizes = json.loads(done.stdout.splitlines()[-1])
    early, late = (sorted(size for images, size in sizes if first <= images < last) for first, last in ((1000, 1800), (3200, 4001)))
    before, after = early[len(early) // 2], late[len(late) // 2]
    print(f"{name}: {before / 1e6:.1f} MB after 500 to 900 steps, {after / 1e6:.1f} MB after 1,600 to 2,000: {after / before - 1:+.2%}; most {max(late) / 1e6:.1f} MB")
    assert after < (1 + GROWTH) * before
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 11
