"""The memory that training takes, measured, beside the estimate that it tells: with activations kept and
computed again.

Each run is a process of its own on a CPU, one thread: what it has resident after importing everything and a
run of tiny networks is taken off what it has had resident at most after the run, saving included.  Runs of
images from noise are not judged, as the network they are judged by is no part of the estimate.

    python bench/peaks.py
    python bench/peaks.py --load "pix2pix train.batch_size=8 train.images=16"
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from i2i import train
from i2i.training import job as jobs
from i2i.training import train as training
from i2i.training.plan import memory_estimate

LOADS = ("pix2pix data.size=256 train.batch_size=1 train.images=3",
         "cyclegan data.size=256 train.batch_size=1 train.images=2",
         "stylegan2 data.size=64 train.batch_size=8 train.images=16")
DATA = {"pix2pix": "openmoji-64", "cyclegan": "noto-twemoji-64"}      # Of other recipes: fluent3d-64.
AGAIN = {"kept": "train.gradient_checkpointing=false", "computed again": "train.gradient_checkpointing=true"}
TINY = ("generator.width=2", "discriminator.width=2", "data.size=64", "train.batch_size=2", "train.images=4")


def resident(key):
    """VmRSS or VmHWM of this process, bytes."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def measure(words):
    """One process: bytes estimated, and bytes at the peak beyond those before."""
    torch.set_num_threads(1)
    training.make_collapse_detector = lambda *more: None
    training.make_evaluator = lambda *more: None
    data = DATA.get(words[0], "fluent3d-64")
    with tempfile.TemporaryDirectory() as folder:
        train(words[0],
              *(word for word in TINY if words[0] != "cyclegan" or "width" in word or "train" in word),
              data=data, out=f"{folder}/tiny", device="cpu")
        before = resident("VmRSS")
        estimate = memory_estimate(jobs.prepare(words[0], words[1:], data=data), 1)
        train(*words, data=data, out=f"{folder}/run", device="cpu")
    return {"weights": estimate.weights, "working": estimate.working, "before": before,
            "added": resident("VmHWM") - before}


def main():
    """A row for each load and way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--load", action="append", metavar="RECIPE KEY=VALUE ...")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print("\n" + json.dumps(measure(options.one)))
        return
    print(f"torch {torch.__version__}, CPU, one thread, float32; MB")
    print(f"{'activations':16}{'weights':>9}{'working':>9}{'estimate':>10}"
          f"{'measured':>10}{'ratio':>8}   load", flush=True)
    for load in options.load or LOADS:
        for way, word in AGAIN.items():
            done = subprocess.run([sys.executable, __file__, "--one", *load.split(), word],
                                  capture_output=True, text=True, check=True)
            got = json.loads(done.stdout.splitlines()[-1])
            total = got["weights"] + got["working"]
            print(f"{way:16}{got['weights'] / 1e6:>9.0f}{got['working'] / 1e6:>9.0f}{total / 1e6:>10.0f}"
                  f"{got['added'] / 1e6:>10.0f}"
                  f"{total / got['added']:>8.2f}   {load}", flush=True)


if __name__ == "__main__":
    main()
